"""Stage d, continued: one of several candidates in the same place passes; crowds do not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hbr.curation.config import CropConfig
from hbr.curation.record import Record

STAGE = "crop"

_AT_ONCE = 64  # boxes that are compared with all: an image may have tens of thousands

Square = tuple[int, float, int]


def square_iou(a: Square, b: Square) -> float:
    """Intersection over union of two squares (x, y, side)."""
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    down = min(a[1] + a[2], b[1] + b[2]) - max(a[1], b[1])
    if across <= 0 or down <= 0:
        return 0.0
    shared = across * down
    return shared / (a[2] * a[2] + b[2] * b[2] - shared)


def suppress(squares: Sequence[Square], order: Sequence[int], limit: float) -> list[int | None]:
    """Non-maximum suppression: the first in order stays, what overlaps it too much does not.

    Args:
        squares: (x, y, side).
        order: indices of the squares, the best first.
        limit: a square goes if its intersection over union with one that stays is above this.

    Returns:
        for each square None if it stays, else the index of the first that it overlaps.
    """
    kept: list[int] = []
    lost_to: list[int | None] = [None] * len(squares)
    for i in order:
        lost_to[i] = next((k for k in kept if square_iou(squares[i], squares[k]) > limit), None)
        if lost_to[i] is None:
            kept.append(i)
    return lost_to


def central_first(rows: Sequence[Record]) -> list[int]:
    """Indices of candidates by the distance of their box's centre to the image's, then by size."""

    def rank(i: int) -> tuple[float, float, str]:
        row = rows[i]
        (x0, y0, x1, y1), (width, height) = row.box, row.size
        # twice the distance, squared: no rounding beyond that of the boxes
        distance = (x0 + x1 - width) ** 2 + (y0 + y1 - height) ** 2
        return distance, -max(x1 - x0, y1 - y0), row.id

    return sorted(range(len(rows)), key=rank)


def crowding(boxes: np.ndarray, cover: float) -> np.ndarray:
    """How many other boxes each cover at least the part `cover` of a box.

    Args:
        boxes: [n, 4] x0 y0 x1 y1.
        cover: above 0, up to 1.

    Returns:
        [n] int64.
    """
    counts = np.zeros(len(boxes), np.int64)
    for start in range(0, len(boxes), _AT_ONCE):
        some = boxes[start : start + _AT_ONCE]
        low = np.maximum(some[:, None, :2], boxes[None, :, :2])
        high = np.minimum(some[:, None, 2:], boxes[None, :, 2:])
        shared = np.clip(high - low, 0, None).prod(axis=2)  # [some, n]
        covers = shared >= cover * (some[:, 2:] - some[:, :2]).prod(axis=1)[:, None]
        np.fill_diagonal(covers[:, start:], False)
        counts[start : start + _AT_ONCE] = covers.sum(axis=1)
    return counts


def resolve_overlaps(rows: list[Record], config: CropConfig) -> list[Record]:
    """Stop the crowded candidates of an image, then those that a more central one covers.

    All boxes inside the image count as a crowd, also those that an earlier stage stopped.
    """
    alive = [i for i, row in enumerate(rows) if row.alive]
    if not alive:
        return rows
    out = list(rows)
    placed = [i for i, row in enumerate(rows) if row.x0 is not None and row.reason != "ignored"]
    if len(placed) > config.crowd_people + 1:
        counts = crowding(np.array([rows[i].box for i in placed]), config.crowd_cover)
        for i, n in zip(placed, counts.tolist(), strict=True):
            if rows[i].alive and n > config.crowd_people:
                detail = f"{n} others each cover {config.crowd_cover:.0%} of the box"
                out[i] = rows[i].stopped(STAGE, "crowded", detail)
        alive = [i for i in alive if out[i].alive]
    left = [out[i] for i in alive]
    # rectangles of one shape overlap as squares do, once all heights are divided by the aspect
    squares = [(x, y / config.aspect, side) for x, y, side in (row.square for row in left)]
    lost_to = suppress(squares, central_first(left), config.overlap)
    for i, winner in zip(alive, lost_to, strict=True):
        if winner is not None:
            detail = f"overlaps {left[winner].id}, which is nearer to the centre"
            out[i] = out[i].stopped(STAGE, "overlapping", detail)
    return out
