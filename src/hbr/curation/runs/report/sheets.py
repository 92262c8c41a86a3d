"""The pictures of the contact sheets, as `data:` addresses."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from hbr.curation.record import Record
from hbr.curation.runs.photos import photos_of
from hbr.curation.runs.report.contents import Sheet
from hbr.curation.runs.run_folder import RunFolder
from hbr.pages import data_uri

MARK = (255, 176, 0)
"""The colour of boxes."""


def draw_sheets(
    run: RunFolder, sheets: Sequence[Sheet], *, edge: int, photos: bool
) -> Mapping[str, str]:
    """id → picture of the rows shown, where one can be had.

    A row that came to a crop shows it; one that did not shows its box in the photo around it.

    `edge` is the longer edge in pixels; `photos` looks for the photos of rows without a crop.
    """
    records = [record for sheet in sheets for record in sheet.records]
    pictures = {}
    for name, file in run.crop_files(records).items():
        with Image.open(io.BytesIO(file)) as image:
            pictures[name] = data_uri(image.convert("RGB"), edge=edge)
    left = [record for record in records if record.id not in pictures]
    for record, found in photos_of(run.config, left) if photos and left else ():
        if found.pixels is not None:
            pictures[record.id] = data_uri(in_context(found.pixels, record, edge), edge=edge)
    return pictures


def in_context(pixels: np.ndarray, record: Record, edge: int) -> Image.Image:
    """A square of the photo with the box in its middle half, outlined; the photo if it has none."""
    height, width = pixels.shape[:2]
    if record.x0 is None or not all(map(math.isfinite, record.box)):
        image = Image.fromarray(pixels)
        image.thumbnail((edge, edge))
        return image
    x0, y0, x1, y1 = record.box
    side = min(max(x1 - x0, y1 - y0, 48) * 1.6, max(width, height))
    left = _inside((x0 + x1 - side) / 2, side, width)
    top = _inside((y0 + y1 - side) / 2, side, height)
    right, bottom = min(left + side, width), min(top + side, height)
    cut = pixels[round(top) : round(bottom), round(left) : round(right)]
    image = Image.fromarray(np.ascontiguousarray(cut))
    scale = edge / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)
    draw_box(image, [(x0 - left) * scale, (y0 - top) * scale, (x1 - left) * scale,
                     (y1 - top) * scale], MARK)  # fmt: skip
    return image


def draw_box(
    image: Image.Image, box: Sequence[float], colour: tuple[int, int, int], width: int = 2
) -> None:
    """Outline a box (x0, y0, x1, y1), on a dark line, so that it is visible on any background."""
    canvas = ImageDraw.Draw(image)
    x0, y0 = (min(max(0, round(v)), n - 1) for v, n in zip(box[:2], image.size, strict=True))
    x1, y1 = (min(max(0, round(v)), n - 1) for v, n in zip(box[2:], image.size, strict=True))
    x1, y1 = max(x0, x1), max(y0, y1)
    canvas.rectangle((x0, y0, x1, y1), outline=(20, 20, 20), width=width + 2)
    canvas.rectangle((x0 + 1, y0 + 1, max(x0 + 1, x1 - 1), max(y0 + 1, y1 - 1)), outline=colour,
                     width=width)  # fmt: skip


def _inside(start: float, side: float, length: int) -> float:
    """Where a side begins that lies within a length, if it can."""
    return max(0.0, min(start, length - side))
