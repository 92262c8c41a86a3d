"""Stages d and e: the square around each candidate, and its pixels at the finished size."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from PIL import Image

from hbr.curation.config import CropConfig
from hbr.curation.record import Record
from hbr.people.squares import square, square_pixels

STAGE = "crop"


def people_inside(
    rows: Sequence[Record], square: tuple[int, int, int], down: int | None = None
) -> int:
    """How many people are in a square (x, y, side), by the boxes of all rows of an image.

    `down` is its height where it is no square.

    A person is in it if the common part is at least half of the box or half of the square: someone
    who fills the crop counts, and someone of whom only an arm is in it does not.
    """
    x, y, side = square
    down = side if down is None else down
    count = 0
    for row in rows:
        if row.x0 is None or row.reason == "ignored":
            continue
        x0, y0, x1, y1 = row.box
        wide, tall = min(x1, x + side) - max(x0, x), min(y1, y + down) - max(y0, y)
        area = (x1 - x0) * (y1 - y0)
        count += max(wide, 0.0) * max(tall, 0.0) >= 0.5 * min(area, side * down)
    return count


def cut_squares(rows: list[Record], config: CropConfig) -> list[Record]:
    """Give each candidate of an image its square, and the number of people in it."""
    if rows[0].source in config.partial:
        config = dataclasses.replace(config, mode="partial")

    def cut(row: Record) -> Record:
        found = square(
            row.box,
            *row.size,
            mode=config.mode,
            margin=config.margin,
            narrow=config.narrow,
            aspect=config.aspect,
        )
        if found is None:
            detail = f"longer edge {row.box_edge:.0f} in {row.width}x{row.height}"
            return row.stopped(STAGE, "no-square", detail)
        x, y, side = found
        # the candidate is in it, whatever is cut off
        people = max(1, people_inside(rows, found, config.down(side)))
        columns = {"square_x": x, "square_y": y, "square_side": side}
        return row.passed(STAGE, crop_persons=people, **columns)

    return [cut(row) if row.alive else row for row in rows]


def crop_pixels(pixels: np.ndarray, x: int, y: int, side: int, config: CropConfig) -> np.ndarray:
    """The square at the finished size, resized once from the original pixels [h, w, 3] uint8.

    Its upper left corner is at `x` and `y`, its edge is `side`, all in pixels.

    Returns:
        [edge, edge, 3] uint8, or [height, edge, 3]: Lanczos of radius 3, widened where it shrinks
        (antialiased).
    """
    down = config.down(side)
    part = square_pixels(pixels, x, y, side, mirrored=config.narrow == "reflect", down=down)
    if (side, down) == config.size:
        return np.ascontiguousarray(part)
    image = Image.fromarray(np.ascontiguousarray(part))
    return np.asarray(image.resize(config.size, Image.Resampling.LANCZOS))
