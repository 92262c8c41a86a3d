"""Stages d and e: the square around a person, and its pixels at the finished size."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from hbr.curation.config import CropConfig
from hbr.curation.record import Record

STAGE = "crop"


def square(
    box: tuple[float, float, float, float], width: int, height: int, config: CropConfig
) -> tuple[int, int, int] | None:
    """The square to cut out for a box.

    Its side is the longer edge of the box (mode `partial`: the shorter one) times the margin,
    rounded up. It is centred on the box, then shifted into the image.

    Args:
        box: x0, y0, x1, y1 in pixels, inside the image.
        width: of the image.
        height: of the image.
        config: mode, margin, and what to do where the side does not fit.

    Returns:
        x, y (left and top; below 0 where it is padded) and side, in pixels; None where the side
        does not fit and `config.narrow` is `reject`.
    """
    x0, y0, x1, y1 = box
    wide, tall = x1 - x0, y1 - y0
    partial = config.mode == "partial"
    edge = min(wide, tall) if partial else max(wide, tall)
    side = max(1, math.ceil(edge * config.margin - 1e-9))
    x, y = (x0 + x1 - side) / 2, (y0 + y1 - side) / 2
    if partial and tall > wide:
        y = y0 - (side - wide) / 2
    if side > min(width, height):
        if config.narrow == "reject":
            return None
        if config.narrow == "shrink":
            side = min(width, height)
            x = (x0 + x1 - side) / 2
            # heads are worth more than feet
            y = y0 if tall > side else (y0 + y1 - side) / 2
    return _place(x, side, width), _place(y, side, height), side


def _place(start: float, side: int, size: int) -> int:
    """Shift a side into the image; where it is longer, centre it on the image."""
    if side > size:
        return -((side - size) // 2)
    return min(max(round(start), 0), size - side)


def people_inside(rows: Sequence[Record], square: tuple[int, int, int]) -> int:
    """How many people are in a square (x, y, side), by the boxes of all rows of an image.

    A person is in it if the common part is at least half of the box or half of the square: someone
    who fills the crop counts, and someone of whom an arm reaches into it does not.
    """
    x, y, side = square
    count = 0
    for row in rows:
        if row.x0 is None or row.reason == "ignored":
            continue
        x0, y0, x1, y1 = row.box
        wide, tall = min(x1, x + side) - max(x0, x), min(y1, y + side) - max(y0, y)
        area = (x1 - x0) * (y1 - y0)
        count += max(wide, 0.0) * max(tall, 0.0) >= 0.5 * min(area, side * side)
    return count


def cut_squares(rows: list[Record], config: CropConfig) -> list[Record]:
    """Give each candidate of an image its square, and the number of people in it."""
    if rows[0].source in config.partial:
        config = dataclasses.replace(config, mode="partial")
    cut = []
    for row in rows:
        if not row.alive:
            cut.append(row)
            continue
        found = square(row.box, *row.size, config)
        if found is None:
            detail = f"longer edge {row.box_edge:.0f} in {row.width}x{row.height}"
            cut.append(row.stopped(STAGE, "no-square", detail))
        else:
            x, y, side = found
            people = max(1, people_inside(rows, found))  # the candidate, whatever is cut off
            columns = {"square_x": x, "square_y": y, "square_side": side}
            cut.append(row.passed(STAGE, crop_persons=people, **columns))
    return cut


def crop_pixels(pixels: np.ndarray, x: int, y: int, side: int, config: CropConfig) -> np.ndarray:
    """The square at the finished size, resized once from the original pixels.

    Args:
        pixels: [h, w, 3] uint8, the image.
        x: left edge of the square.
        y: its upper edge.
        side: its side.
        config: the finished size, and how to pad.

    Returns:
        [edge, edge, 3] uint8: Lanczos of radius 3, widened where it shrinks (antialiased).
    """
    part = pixels[max(y, 0) : y + side, max(x, 0) : x + side]
    if part.shape[:2] != (side, side):
        left, top = max(-x, 0), max(-y, 0)
        around = ((top, side - part.shape[0] - top), (left, side - part.shape[1] - left), (0, 0))
        part = np.pad(part, around, mode="symmetric" if config.narrow == "reflect" else "edge")
    edge = config.edge
    if side == edge:
        return np.ascontiguousarray(part)
    image = Image.fromarray(np.ascontiguousarray(part))
    return np.asarray(image.resize((edge, edge), Image.Resampling.LANCZOS))
