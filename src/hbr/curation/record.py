"""`Record`: one row of the manifest, and the schema and the funnel that follow from it.

A row is a candidate crop, or an image without any. Every stage adds columns and, where it stops
a row, the reason; no row is ever dropped, so that the counts add up at each stage.
"""

from __future__ import annotations

import dataclasses
import hashlib
import types
import typing
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hbr.errors import HbrError

if TYPE_CHECKING:
    import pyarrow as pa


class CurationError(HbrError, ValueError):
    """A run that cannot continue; one line says why, and what to do."""


STAGES = (
    "read",
    "boxes",
    "sharpness",
    "size",
    "crop",
    "resize",
    "quality",
    "eq1",
    "duplicates",
    "splits",
)
"""In the order that a row goes through them; `read` is the image itself."""

REASONS: Mapping[str, Mapping[str, str]] = {
    "read": {
        "missing": "the image is not there",
        "unreadable": "the image is damaged or of a kind that is not read",
        "other-size": "the image has another size than the annotations say",
        "repeated": "the source names the image a second time",
        "source": "the source says that something is wrong with it",
        "failed": "a stage could not work on the image",
        "entry": "a line or an entry of the annotations cannot be used",
    },
    "boxes": {
        "no-people": "nobody is in the image",
        "unlabelled": "the source has no boxes for it, and no detector is set",
        "not-a-number": "the box has an edge that is no number",
        "empty": "the box has no area",
        "outside": "the box lies outside the image",
        "group": "the box holds a group of people",
        "ignored": "the source says that the box is no good example",
        "unsure": "the box's score is below the threshold",
    },
    "sharpness": {
        "blurred": "the variance of the Laplacian is below the threshold",
        "sharp": "the variance of the Laplacian is above the ceiling",
    },
    "size": {"small": "the person has too few pixels"},
    "crop": {
        "crowded": "too many other people overlap the person",
        "overlapping": "a candidate nearer to the image's centre covers the same place",
        "no-square": "the image is too narrow for a square around the person",
    },
    "resize": {},
    "quality": {
        "below-threshold": "a metric is on the wrong side of its threshold",
        "above-ceiling": "a metric is better than its ceiling",
    },
    "eq1": {"not-in-top": "the mean of the z-scores (Eq. 1) is not among the best"},
    "duplicates": {"near-duplicate": "a better crop looks nearly the same"},
    "splits": {
        "not-sampled": "the source gave more crops than its count, and others were drawn",
        "held-out": "a crop of a test set is of the same photo, or looks nearly the same",
        "reviewed": "a person left it out in the review",
    },
}
"""Why a row can stop at each stage."""

ERRORS = frozenset(REASONS["read"]) - {"entry"}
"""What counts against the allowed share of errors."""

PASSING = ERRORS - {"repeated", "source"}
"""Errors that may be gone next time: the image is there again, or there is more memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One row of the manifest; a column is None where no stage has filled it.

    Attributes:
        id: 16 hexadecimal digits from source, key, the image's bytes and the box.
        source: name of the source, unique in a run.
        key: names the image within the source.
        image_id: 16 hexadecimal digits from source and key.
        image_sha256: of the image file's bytes.
        width, height: of the upright image, in pixels.
        licence, attribution: as the source states them.
        persons: people in the photo, by its boxes.
        label, box_kind, box_score: of the box, as the source or the detector gave it.
        x0, y0, x1, y1: the box in pixels of the upright image, clipped to it.
        keypoints: 51 numbers, x, y and visibility of COCO's 17 key points, in pixels of the upright
            image (0, 0 where the visibility is 0); the column is there only if a source of the run
            has key points.
        sharpness: variance of the Laplacian, on the grey levels 0 to 255.
        box_edge: the longer edge of the box in pixels.
        square_x, square_y, square_side: the square that is cut out, in pixels; outside the image
            where it was padded. With `crop.height`, `square_side` is the width of the rectangle
            (`hbr.curation.config.CropConfig.down` is its height).
        crop_persons: people in the crop, by the boxes of the photo
            (`hbr.curation.pipeline.stages.square.people_inside`).
        scores: metric → score of the crop.
        z_mean: Eq. 1, the mean of the z-scores, where better is higher.
        phash: perceptual hash of the crop, 16 hexadecimal digits.
        duplicate_of: id of the better crop that looks nearly the same.
        group: what stays in one split: crops that share an image or nearly look the same.
        split: `train`, `val`, `test` or as configured; only of what is kept.
        tags: what a tagger saw in the crop.
        stage: where the row is: the stage that stopped it, or the last one.
        reason: why it stopped there, one of `REASONS`; None if it did not.
        detail: one line of numbers to the reason.
        crop_sha256: of the crop's file.
        crop_size: bytes of the crop's file.
    """

    id: str
    source: str
    key: str
    image_id: str
    image_sha256: str | None = None
    width: int | None = None
    height: int | None = None
    licence: str | None = None
    attribution: str | None = None
    persons: int | None = None
    label: str | None = None
    box_kind: str | None = None
    box_score: float | None = None
    x0: float | None = None
    y0: float | None = None
    x1: float | None = None
    y1: float | None = None
    keypoints: tuple[float, ...] | None = None
    sharpness: float | None = None
    box_edge: float | None = None
    square_x: int | None = None
    square_y: int | None = None
    square_side: int | None = None
    crop_persons: int | None = None
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)
    z_mean: float | None = None
    phash: str | None = None
    duplicate_of: str | None = None
    group: str | None = None
    split: str | None = None
    tags: tuple[str, ...] | None = None
    stage: str = "read"
    reason: str | None = None
    detail: str | None = None
    crop_sha256: str | None = None
    crop_size: int | None = None

    @property
    def alive(self) -> bool:
        """No stage has stopped it."""
        return self.reason is None

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1) of a candidate."""
        edges = (self.x0, self.y0, self.x1, self.y1)
        return typing.cast("tuple[float, float, float, float]", edges)

    @property
    def square(self) -> tuple[int, int, int]:
        """(x, y, side) of a candidate that has a square."""
        square = (self.square_x, self.square_y, self.square_side)
        return typing.cast("tuple[int, int, int]", square)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of an image that could be read."""
        return typing.cast("tuple[int, int]", (self.width, self.height))

    def passed(self, stage: str, **columns: Any) -> Record:
        """The row after a stage that lets it through."""
        return dataclasses.replace(self, stage=stage, **columns)

    def stopped(self, stage: str, reason: str, detail: str, **columns: Any) -> Record:
        """The row after the stage that stops it."""
        assert reason in REASONS[stage], (stage, reason)
        return dataclasses.replace(self, stage=stage, reason=reason, detail=detail, **columns)


def content_id(*parts: object) -> str:
    """16 hexadecimal digits of the parts' SHA-256."""
    return hashlib.sha256("\0".join(map(str, parts)).encode("utf-8", "surrogatepass")).hexdigest()[
        :16
    ]


SCORE = "score_"
"""What the columns of metrics start with: `score_niqe`."""

_HINTS = typing.get_type_hints(Record)


def schema(metrics: Sequence[str], *, keypoints: bool = True, **more: pa.DataType) -> pa.Schema:
    """The columns of a table of records, derived from `Record`; a column for each metric."""
    import pyarrow as pa

    of: dict[Any, pa.DataType] = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    of |= {tuple[str, ...]: pa.list_(pa.string()), tuple[float, ...]: pa.list_(pa.float64())}
    fields = []
    for field in dataclasses.fields(Record):
        if field.name == "scores":
            fields += [pa.field(SCORE + name, pa.float64()) for name in metrics]
            continue
        if field.name == "keypoints" and not keypoints:
            continue
        hint = _HINTS[field.name]
        options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        kinds = [o for o in options if o is not type(None)]
        fields.append(pa.field(field.name, of[kinds[0]], nullable=len(kinds) < len(options)))
    return pa.schema(fields + [pa.field(name, kind) for name, kind in more.items()])


_PLAIN = [f.name for f in dataclasses.fields(Record) if f.name != "scores"]


def to_row(record: Record) -> dict[str, Any]:
    """The record as the values of a table's row."""
    row = {name: getattr(record, name) for name in _PLAIN}
    row.update({SCORE + name: value for name, value in record.scores.items()})
    return row


def from_row(row: Mapping[str, Any]) -> Record:
    """The record of a table's row; columns that `Record` does not know are left out."""
    values = {name: row[name] for name in _PLAIN if name in row}
    for name in ("tags", "keypoints"):
        if values.get(name) is not None:
            values[name] = tuple(values[name])
    scores = {
        name.removeprefix(SCORE): value
        for name, value in row.items()
        if name.startswith(SCORE) and value is not None
    }
    return Record(**values, scores=scores)


@dataclass(frozen=True)
class FunnelStep:
    """What one stage did.

    Attributes:
        stage: one of `STAGES`.
        entered: rows that came to it.
        passed: rows that went on, or are kept.
        stopped: reason → rows that it stopped.
    """

    stage: str
    entered: int
    passed: int
    stopped: Mapping[str, int]


Counts = Counter[tuple[str, str | None]]
"""(stage, reason) → rows that are there."""


def count(records: Iterable[Record]) -> Counts:
    """Count rows by stage and reason."""
    return Counter((record.stage, record.reason) for record in records)


def funnel(counts: Mapping[tuple[str, str | None], int]) -> tuple[FunnelStep, ...]:
    """The steps of a run; each one gets what passed the one before."""
    entered = sum(counts.values())
    steps = []
    for stage in STAGES:
        there = {reason: counts.get((stage, reason), 0) for reason in REASONS[stage]}
        stopped = {reason: n for reason, n in there.items() if n}
        passed = entered - sum(stopped.values())
        steps.append(FunnelStep(stage, entered, passed, stopped))
        entered = passed
    return tuple(steps)
