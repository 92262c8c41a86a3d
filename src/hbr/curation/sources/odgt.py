"""CrowdHuman: a line of JSON for each image, with full, visible and head boxes."""

from __future__ import annotations

import codecs
import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hbr.curation.sources.base import Box, BoxKind, SourceImage
from hbr.curation.sources.configs import CrowdHumanConfig
from hbr.curation.sources.disk_tables import SeenKeys, on_disk
from hbr.curation.sources.labels import Vocabulary
from hbr.curation.sources.paths import Places, broken, unused
from hbr.people.values import flag, identifier, number, pixels, text

# A line of 300 people has 60 kB; longer lines are not of this format.
MAX_LINE = 16 << 20
_KINDS: tuple[tuple[str, BoxKind], ...] = (("fbox", "full"), ("vbox", "visible"), ("hbox", "head"))


@dataclass(frozen=True)
class OdgtReader:
    """Images, `{ID}.jpg` in the folder `images`, and boxes of an `.odgt` file."""

    name: str
    config: CrowdHumanConfig
    images: Path
    vocabulary: Vocabulary

    def read(self) -> Iterator[SourceImage]:
        """The images in the order of the lines; a bad line or flag is a record of its own."""
        looked_up = partial(Places, self.images, self._names())
        with on_disk(looked_up) as places, on_disk(SeenKeys) as seen:
            for line, data in self._lines():
                yield from self._image(line, data, places, seen)

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        with self.config.annotations.open("rb") as file:
            line = 0
            while data := file.readline(MAX_LINE):
                line += 1
                if data.strip():
                    yield line, data.removeprefix(codecs.BOM_UTF8)

    def _names(self) -> Iterator[tuple[str, str]]:
        for _, data in self._lines():
            with contextlib.suppress(ValueError, RecursionError, TypeError, KeyError):
                file, _ = self._parse(data)
                yield file, file

    def _parse(self, data: bytes) -> tuple[str, dict[str, Any]]:
        """The name of the image, and the record."""
        record = json.loads(data)
        id = identifier(record["ID"])
        if id is None or not isinstance(record["gtboxes"], list):
            raise TypeError
        return id if id.lower().endswith((".jpg", ".jpeg", ".png")) else f"{id}.jpg", record

    def _image(
        self, line: int, data: bytes, places: Places, seen: SeenKeys
    ) -> Iterator[SourceImage]:
        place = f"{self.config.annotations.name}:line {line}"
        try:
            file, record = self._parse(data)
        except (ValueError, RecursionError):
            said = "" if data.endswith(b"\n") else "; the file ends here, it may be cut"
            yield broken(self.name, place, f"{place} is no JSON{said}")
            return
        except (TypeError, KeyError):
            yield broken(self.name, place, f"{place} lacks an ID or gtboxes")
            return
        if seen.again(file):
            yield broken(self.name, place, f"{place}: {record['ID']} comes a second time")
            return
        ref, error = places.at(file)
        unclear: list[str] = []
        people = record["gtboxes"]
        boxes = tuple(box for person in people for box in self._boxes(person, unclear))
        yield SourceImage(
            source=self.name,
            key=file,
            ref=ref,
            width=pixels(record.get("width")),
            height=pixels(record.get("height")),
            boxes=boxes,
            error=error,
        )
        if unclear:
            said = f"{place}: {len(unclear)} people are left out: {unclear[0]}"
            yield unused(self.name, f"{place}, flags", said)

    def _boxes(self, person: Any, unclear: list[str]) -> Iterator[Box]:
        """Full, visible and head box of one person, or the full box of a region to be ignored.

        A person whose flags cannot be read gives none, and a line in `unclear`.
        """
        label = text(person.get("tag")) if isinstance(person, dict) else None
        if label is None:
            return
        flags = {key: _ignore(person.get(key)) for key in ("extra", "head_attr")}
        if None in flags.values():
            key = "extra" if flags["extra"] is None else "head_attr"
            unclear.append(f"the ignore of {key} is {person[key]['ignore']!r}, not 0 or 1")
            return
        ignore = bool(flags["extra"])
        for key, kind in _KINDS:
            edges = person.get(key)
            if not isinstance(edges, list) or len(edges) != 4:
                continue
            x, y, w, h = map(number, edges)
            bad_head = kind == "head" and bool(flags["head_attr"])
            edges = (x, y, x + w, y + h)
            box = self.vocabulary.box(label, edges, kind=kind, ignore=ignore or bad_head)
            if box is not None:
                yield box
            if self.vocabulary.role(label) == "ignore":
                return


def _ignore(attributes: Any) -> bool | None:
    return flag(attributes.get("ignore")) if isinstance(attributes, dict) else False
