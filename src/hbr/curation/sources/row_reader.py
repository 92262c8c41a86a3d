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
from typing import Any, Literal, get_args

from hbr.curation.sources.base import Box, BoxKind
from hbr.curation.sources.labels import Vocabulary
from hbr.people.values import number, pixels, text

BoxForm = Literal["xywh", "xyxy", "cxcywh"]
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
_LABELS = ("label", "category", "category_name", "name", "category_id")


@dataclass(frozen=True)
class RowReader:
    """Reads rows of one form.

    Attributes:
        vocabulary: what labels mean.
        form: of `bbox`: corner and size, two corners, or centre and size.
        normalised: `bbox` is in parts of width and height.
        classes: names of labels that are numbers.
    """

    vocabulary: Vocabulary
    form: BoxForm = "xywh"
    normalised: bool = False
    classes: tuple[str, ...] = ()

    def read(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Width, height, boxes, licence and attribution, as `SourceImage` takes them."""
        who = (text(row.get(key)) for key in ("attribution", "author", "url"))
        return {
            "width": pixels(row.get("width")),
            "height": pixels(row.get("height")),
            "boxes": self._all_boxes(row),
            "licence": text(row.get("licence")) or text(row.get("license")),
            "attribution": next((part for part in who if part), None),
        }

    def _all_boxes(self, row: Mapping[str, Any]) -> tuple[Box, ...] | None:
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
        return tuple(b for e in entries if isinstance(e, Mapping) for b in self._box(e))

    def _box(self, entry: Mapping[str, Any]) -> Iterator[Box]:
        label = self._label(entry)
        if "bbox" in entry:
            edges, normalised = self._edges(entry["bbox"]), self.normalised
        else:
            edges = [number(entry.get(key)) for key in ("x0", "y0", "x1", "y1")]
            normalised = entry.get("normalised") is True
        kind: Any = entry.get("kind")
        score = number(entry.get("score"))
        vocabulary = _UNSAID if label is None else self.vocabulary
        box = vocabulary.box(
            "person" if label is None else label,
            edges,
            kind=kind if kind in get_args(BoxKind) else "full",
            score=score if score == score else None,
            crowd=bool(entry.get("crowd") or entry.get("iscrowd")),
            ignore=bool(entry.get("ignore")),
            normalised=normalised,
        )
        if box is not None:
            yield box

    def _label(self, entry: Mapping[str, Any]) -> str | None:
        value = next((entry[key] for key in _LABELS if entry.get(key) is not None), None)
        if isinstance(value, int) and 0 <= value < len(self.classes):
            return self.classes[value]
        return None if value is None else str(value)

    def _edges(self, values: Any) -> list[float]:
        if not isinstance(values, (list, tuple)) or len(values) != 4:
            return [float("nan")] * 4
        x, y, a, b = map(number, values)
        if self.form == "xyxy":
            return [x, y, a, b]
        if self.form == "cxcywh":
            return [x - a / 2, y - b / 2, x + a / 2, y + b / 2]
        return [x, y, x + a, y + b]
