"""Stage a: boxes of people → candidates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hbr.curation.config import BoxesConfig
from hbr.curation.pipeline.decoding import BoxEdges
from hbr.curation.record import Record, content_id

STAGE = "boxes"


@dataclass(frozen=True, kw_only=True)
class PlacedBox:
    """A box on the upright pixels; see `hbr.curation.sources.base.Box`.

    Attributes:
        edges: x0, y0, x1, y1 in pixels, as annotated: not clipped, may be NaN.
        label, kind, score, crowd, ignore: as there.
        keypoints: as there, on the upright pixels.
    """

    edges: BoxEdges
    label: str
    kind: str = "full"
    score: float | None = None
    crowd: bool = False
    ignore: bool = False
    keypoints: tuple[float, ...] | None = None


def candidates(image: Record, boxes: Sequence[PlacedBox], config: BoxesConfig) -> list[Record]:
    """A row for each box that may be a person; the invalid ones have their reason.

    Their order and their ids depend on the boxes, not on the order these came in.

    Args:
        image: the row of the image, with its size and hash.
        boxes: all that was annotated or detected.
        config: which kinds count, and the least score.
    """
    chosen = next((k for k in config.kinds if any(b.kind == k for b in boxes)), None)
    people = sorted((b for b in boxes if b.kind == chosen), key=_order)
    if not people:
        return [image.stopped(STAGE, "no-people", "no box of a person")]
    clipped = [_clip(box.edges, *image.size) for box in people]
    persons = sum(
        edges is not None and not box.ignore for box, edges in zip(people, clipped, strict=True)
    )
    rows, seen = [], dict[str, int]()
    for box, edges in zip(people, clipped, strict=True):
        written = ",".join(float(edge).hex() for edge in box.edges)
        seen[written] = seen.get(written, 0) + 1
        row = image.passed(
            STAGE,
            id=content_id(image.source, image.key, image.image_sha256, written, seen[written]),
            persons=persons,
            label=box.label,
            box_kind=box.kind,
            box_score=box.score,
            keypoints=box.keypoints,
        )
        rows.append(_judge(row, box, edges, config.score))
    return rows


def _judge(row: Record, box: PlacedBox, edges: BoxEdges | None, least_score: float) -> Record:
    if edges is None:
        shown = ", ".join(f"{edge:g}" for edge in box.edges)
        if not all(map(math.isfinite, box.edges)):
            return row.stopped(STAGE, "not-a-number", f"edges {shown}")
        if box.edges[0] >= box.edges[2] or box.edges[1] >= box.edges[3]:
            return row.stopped(STAGE, "empty", f"edges {shown}")
        return row.stopped(STAGE, "outside", f"edges {shown} in {row.width}x{row.height}")
    x0, y0, x1, y1 = edges
    row = row.passed(STAGE, x0=x0, y0=y0, x1=x1, y1=y1, box_edge=max(x1 - x0, y1 - y0))
    if box.crowd:
        return row.stopped(STAGE, "group", "marked as a crowd")
    if box.ignore:
        return row.stopped(STAGE, "ignored", "marked to be ignored")
    if box.score is not None and not box.score >= least_score:
        return row.stopped(STAGE, "unsure", f"score {box.score:.3g} below {least_score:g}")
    return row


def _clip(edges: BoxEdges, width: int, height: int) -> BoxEdges | None:
    """The part inside the image; None where there is none, or the box is broken."""
    if not all(map(math.isfinite, edges)):
        return None
    x0, y0, x1, y1 = edges
    x0, y0, x1, y1 = max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _order(box: PlacedBox) -> tuple[object, ...]:
    """Any order that does not depend on the input's; NaN has none, its text has."""
    score = "" if box.score is None else float(box.score).hex()
    return (
        *(e if math.isfinite(e) else math.inf for e in box.edges),
        [float(e).hex() for e in box.edges],
        (box.label, box.kind, score, box.crowd, box.ignore, box.keypoints or ()),
    )
