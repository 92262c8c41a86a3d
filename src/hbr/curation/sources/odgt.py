"""CrowdHuman: a line of JSON for each image, with full, visible and head boxes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hbr.curation.sources.base import Box, BoxKind, SourceError, SourceImage
from hbr.curation.sources.disk_tables import SeenKeys
from hbr.curation.sources.labels import Vocabulary
from hbr.curation.sources.paths import at, broken
from hbr.people.values import number, pixels, text

# A line of 300 people has 60 kB; longer lines are not of this format.
MAX_LINE = 16 << 20
_KINDS: tuple[tuple[str, BoxKind], ...] = (("fbox", "full"), ("vbox", "visible"), ("hbox", "head"))


@dataclass(frozen=True)
class OdgtSource:
    """Images and boxes of an `.odgt` file.

    Attributes:
        name: of the source.
        annotations: the file.
        images: the folder of images, `{ID}.jpg`.
        vocabulary: what its tags mean.
    """

    name: str
    annotations: Path
    images: Path
    vocabulary: Vocabulary

    def __iter__(self) -> Iterator[SourceImage]:
        """The images in the order of the lines; a bad line is a record of its own."""
        try:
            with self.annotations.open("rb") as file, SeenKeys() as seen:
                line = 0
                while data := file.readline(MAX_LINE):
                    line += 1
                    if data.strip():
                        yield self._image(line, data, seen)
        except OSError as error:
            raise SourceError(f"{self.annotations}: {error.strerror or error}") from None

    def _image(self, line: int, data: bytes, seen: SeenKeys) -> SourceImage:
        place = f"{self.annotations.name}:line {line}"
        try:
            record = json.loads(data)
            id, people = text(record["ID"]), record["gtboxes"]
            if id is None or not isinstance(people, list):
                raise TypeError
        except (ValueError, RecursionError):
            said = "" if data.endswith(b"\n") else "; the file ends here, it may be cut"
            return broken(self.name, place, f"{place} is no JSON{said}")
        except (TypeError, KeyError):
            return broken(self.name, place, f"{place} lacks an ID or gtboxes")
        file = id if id.lower().endswith((".jpg", ".jpeg", ".png")) else f"{id}.jpg"
        if seen.again(file):
            return broken(self.name, place, f"{place}: {id} comes a second time")
        ref, error = at(self.images, file)
        boxes = tuple(box for person in people for box in self._boxes(person))
        return SourceImage(
            source=self.name,
            key=file,
            ref=ref,
            width=pixels(record.get("width")),
            height=pixels(record.get("height")),
            boxes=boxes,
            error=error,
        )

    def _boxes(self, person: Any) -> Iterator[Box]:
        """Full, visible and head box of one person, or the full box of a region to be ignored."""
        label = text(person.get("tag")) if isinstance(person, dict) else None
        if label is None:
            return
        ignore = _says(person.get("extra"), "ignore")
        for key, kind in _KINDS:
            edges = person.get(key)
            if not isinstance(edges, list) or len(edges) != 4:
                continue
            x, y, w, h = map(number, edges)
            bad_head = kind == "head" and _says(person.get("head_attr"), "ignore")
            edges = (x, y, x + w, y + h)
            box = self.vocabulary.box(label, edges, kind=kind, ignore=ignore or bad_head)
            if box is not None:
                yield box
            if self.vocabulary.role(label) == "ignore":
                return


def _says(attributes: Any, key: str) -> bool:
    return isinstance(attributes, dict) and number(attributes.get(key)) == 1
