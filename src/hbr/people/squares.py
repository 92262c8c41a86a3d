"""The square around a person: where it lies in a photo, and its pixels.

HQ-ACF cuts its crops this way, and restoring cuts out people this way, so that a model sees people
as it was trained on them.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

Mode = Literal["person", "partial"]
Narrow = Literal["shrink", "reject", "reflect", "edge"]


def square(
    box: tuple[float, float, float, float],
    width: int,
    height: int,
    *,
    mode: Mode = "person",
    margin: float = 1.0,
    narrow: Narrow = "shrink",
    aspect: float = 1.0,
) -> tuple[int, int, int] | None:
    """The square to cut out for a box.

    Its side is the longer edge of the box (mode `partial`: the shorter one) times the margin,
    rounded up. It is centred on the box, then shifted into the image.

    Args:
        box: x0, y0, x1, y1 in pixels, inside the image.
        width, height: of the image.
        mode: whether the whole person is in it, or the upper part.
        margin: the side is multiplied by it.
        narrow: what happens where the side does not fit into the image. `shrink`: it becomes the
            image's shorter edge, and the upper end of a standing person stays. `reject`: there is
            no square. `reflect`, `edge`: it is centred and padded (`square_pixels`).
        aspect: height over width of what is cut out; above 1 it is a standing rectangle, whose
            width takes the place of the side, and whose height is `round(aspect * width)`.

    Returns:
        x, y (left and top; below 0 where it is padded) and side, in pixels; None where the side
        does not fit and `narrow` is `reject`.
    """
    x0, y0, x1, y1 = box
    wide, tall = x1 - x0, y1 - y0
    partial = mode == "partial"
    edge = min(wide, tall) if partial else max(wide, tall / aspect)
    side = max(1, math.ceil(edge * margin - 1e-9))
    down = round(aspect * side)
    x, y = (x0 + x1 - side) / 2, (y0 + y1 - down) / 2
    if partial and tall > wide:
        y = y0 - (side - wide) / 2
    if side > width or down > height:
        if narrow == "reject":
            return None
        if narrow == "shrink":
            side = max(1, min(width, math.floor(height / aspect)))
            down = min(round(aspect * side), height)
            x = (x0 + x1 - side) / 2
            # heads are worth more than feet
            y = y0 if tall > down else (y0 + y1 - down) / 2
    return _place(x, side, width), _place(y, down, height), side


def square_pixels(
    pixels: np.ndarray,
    x: int,
    y: int,
    side: int,
    *,
    mirrored: bool = False,
    down: int | None = None,
) -> np.ndarray:
    """The pixels of a square or rectangle, padded where it leaves the image [h, w, 3].

    `x`, `y` is its upper left corner; `mirrored` pads with mirrored pixels; without `down`, its
    height, it is a square.

    Returns:
        [down, side, 3] of the same type; a view where nothing is padded.
    """
    down = side if down is None else down
    part = pixels[max(y, 0) : y + down, max(x, 0) : x + side]
    if part.shape[:2] == (down, side):
        return part
    left, top = max(-x, 0), max(-y, 0)
    around = ((top, down - part.shape[0] - top), (left, side - part.shape[1] - left), (0, 0))
    return np.pad(part, around, mode="symmetric" if mirrored else "edge")


def _place(start: float, side: int, size: int) -> int:
    """Shift a side into the image; where it is longer, centre it on the image."""
    if side > size:
        return -((side - size) // 2)
    return min(max(round(start), 0), size - side)
