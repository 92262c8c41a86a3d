"""Reads sizes, boxes and licences from a row of a table, or from the JSON beside an image.

Boxes may be written in three ways:

    boxes: [{x0, y0, x1, y1, label, kind, score, crowd, ignore, normalised}, …]     as `Box`
    annotations: [{bbox, category, iscrowd, score}, …]                              as COCO
    objects: {bbox: [[…], …], category: […]}                                        as on the hub

`category` may be called `category_name`, `label`, `name`, or `category_id` where it is a number; a
box without any is a person's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from hbr.curation.sources.base import Box, BoxKind, ImageRef, SourceImage
from hbr.curation.sources.configs import RowsConfig
from hbr.curation.sources.labels import Vocabulary
from hbr.curation.sources.paths import unused
from hbr.people.values import flag, identifier, number, pixels, text

COLUMNS = (
    "width",
    "height",
    "boxes",
    "annotations",
    "objects",
    "licence",
    "license",
    "attribution",
    "author",
    "url",
)
_UNSAID = Vocabulary({"person": "person"})
_FLAGS = ("crowd", "iscrowd", "ignore", "normalised")
_LABELS = ("label", "category", "category_name", "name", "category_id")


@dataclass(frozen=True)
class RowReader:
    """Reads the rows of a source.

    Attributes:
        source: its name.
        config: how boxes are written.
        vocabulary: what labels mean.
    """

    source: str
    config: RowsConfig
    vocabulary: Vocabulary

    def images(
        self, key: str, ref: ImageRef, row: Mapping[str, Any], error: str | None = None
    ) -> Iterator[SourceImage]:
        """The image of a row, and a record of the boxes that cannot be used."""
        problems: list[str] = []
        who = (text(row.get(key)) for key in ("attribution", "author", "url"))
        yield SourceImage(
            source=self.source,
            key=key,
            ref=ref,
            width=pixels(row.get("width")),
            height=pixels(row.get("height")),
            boxes=self._all_boxes(row, problems),
            licence=text(row.get("licence")) or text(row.get("license")),
            attribution=next((part for part in who if part), None),
            error=error,
        )
        if problems:
            said = f"{key}: {len(problems)} boxes are left out: {problems[0]}"
            yield unused(self.source, f"{key}, boxes", said)

    def _all_boxes(self, row: Mapping[str, Any], problems: list[str]) -> tuple[Box, ...] | None:
        entries = next(
            (row[key] for key in ("boxes", "annotations", "objects") if row.get(key) is not None),
            None,
        )
        if isinstance(entries, Mapping):
            columns = {k: v for k, v in entries.items() if isinstance(v, list)}
            count = max(map(len, columns.values()), default=0)
            entries = [{k: v[i] for k, v in columns.items() if i < len(v)} for i in range(count)]
        if not isinstance(entries, list):
            return None
        boxes = []
        for entry in entries:
            try:
                box = self._box(entry) if isinstance(entry, Mapping) else None
            except ValueError as error:
                problems.append(str(error))
                continue
            if box is not None:
                boxes.append(box)
        return tuple(boxes)

    def _box(self, entry: Mapping[str, Any]) -> Box | None:
        """The box of an entry; None if it is not a person's.

        Raises:
            ValueError: a value cannot be understood.
        """
        label = self._label(entry)
        vocabulary = _UNSAID if label is None else self.vocabulary
        if label is not None and vocabulary.role(label) is None:
            return None
        flags = {key: flag(entry.get(key)) for key in _FLAGS}
        if unclear := [key for key, value in flags.items() if value is None]:
            raise ValueError(f"{unclear[0]} is {entry[unclear[0]]!r}, not 0 or 1")
        kinds = get_args(BoxKind)
        kind: Any = entry.get("kind") or "full"
        if kind not in kinds:
            raise ValueError(f"kind is {kind!r}, not one of {', '.join(kinds)}")
        if "bbox" in entry:
            edges, normalised = self._edges(entry["bbox"]), self.config.normalised
        else:
            edges = [number(entry.get(key)) for key in ("x0", "y0", "x1", "y1")]
            normalised = bool(flags["normalised"])
        score = number(entry.get("score"))
        return vocabulary.box(
            "person" if label is None else label,
            edges,
            kind=kind,
            score=score if score == score else None,
            crowd=bool(flags["crowd"] or flags["iscrowd"]),
            ignore=bool(flags["ignore"]),
            normalised=normalised,
        )

    def _label(self, entry: Mapping[str, Any]) -> str | None:
        key = next((key for key in _LABELS if entry.get(key) is not None), None)
        if key is None:
            return None
        label = identifier(entry[key])
        if label is None:
            raise ValueError(f"{key} is {entry[key]!r}, no label")
        classes = self.config.classes
        if not classes or not (label.isascii() and label.isdigit()):
            return label
        if int(label) >= len(classes):
            raise ValueError(f"{key} is {label}, there are {len(classes)} classes")
        return classes[int(label)]

    def _edges(self, values: Any) -> list[float]:
        if not isinstance(values, (list, tuple)) or len(values) != 4:
            return [float("nan")] * 4
        x, y, a, b = map(number, values)
        if self.config.boxes == "xyxy":
            return [x, y, a, b]
        if self.config.boxes == "cxcywh":
            return [x - a / 2, y - b / 2, x + a / 2, y + b / 2]
        return [x, y, x + a, y + b]
