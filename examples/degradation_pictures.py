"""Make the pictures of docs/degradations: each recipe at five strengths, from a photo of COCO.

Usage: python examples/degradation_pictures.py FOLDER_OF_COCO [OUT]

FOLDER_OF_COCO holds images/ and instances.json, as ../shared/photos/coco-cc does.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from hbr.degradation import (
    RECIPES,
    MotionConfig,
    Recipe,
    Regions,
    degrade,
    draw,
    weakened,
)
from hbr.degradation.motion import moved_mask
from hbr.image import Photo, read_photo, write_photo
from hbr.people.coco import read_people

FILE = "000000229553.jpg"
LEFT, TOP, EDGE = 54, 0, 488  # of the crop
CELL = 256
STRENGTHS = (0.2, 0.4, 0.6, 0.8, 1.0)
# recipe → seed of a draw that shows what it can do
SEEDS = {"real-esrgan": 2, "codeformer": 1, "diffbir": 1, "motion-blur": 2, "light": 1}
# what is too light to be seen in a small picture is shown in full size: its top and left edge
CLOSE_UP = {"light": (10, 190)}


def strip(recipe: str, hq: torch.Tensor, regions: Regions) -> np.ndarray:
    """HQ and the five strengths, side by side: uint8 [h, w, 3]."""
    pictures = {"HQ": hq}
    for strength in STRENGTHS:
        generator = torch.Generator().manual_seed(SEEDS[recipe])
        drawn = draw(weakened(RECIPES[recipe], strength), 1, generator)
        pictures[f"{recipe}, {strength}"] = degrade(hq, drawn, regions=[regions])
    if recipe in CLOSE_UP:
        top, left = CLOSE_UP[recipe]
        pictures = {k: v[..., top : top + CELL, left : left + CELL] for k, v in pictures.items()}
    return np.concatenate([_cell(image, label) for label, image in pictures.items()], axis=1)


def movement(hq: torch.Tensor, regions: Regions) -> np.ndarray:
    """HQ, its parts, the mask of a movement, and the movement alone: uint8 [h, w, 3]."""
    config = MotionConfig(count=(1, 1), person_prob=0.0, length=(0.07, 0.07))
    (drawn,) = draw(Recipe(motion=config), 1, torch.Generator().manual_seed(3))
    colours = torch.rand(len(regions.parts), 3, generator=torch.Generator().manual_seed(1))
    parts = hq[0] * 0.35
    for part, colour in zip(regions.parts, colours, strict=True):
        parts = torch.where(part, parts * 0.4 + colour[:, None, None] * 0.6, parts)
    mask = moved_mask(drawn.motions[0], regions, (EDGE, EDGE)).expand(3, -1, -1)
    moved = degrade(hq, [drawn], regions=[regions])
    cells = {"HQ": hq, "parts": parts, "what moves": mask, "moved": moved}
    return np.concatenate([_cell(image, label) for label, image in cells.items()], axis=1)


def _cell(image: torch.Tensor, label: str) -> np.ndarray:
    picture = Photo.from_tensor(image).pil().resize((CELL, CELL), Image.Resampling.LANCZOS)
    sheet = Image.new("RGB", (CELL + 4, CELL + 24), "white")
    sheet.paste(picture, (2, 0))
    font = ImageFont.load_default(size=15)
    ImageDraw.Draw(sheet).text((CELL // 2, CELL + 12), label, "black", font, anchor="mm")
    return np.asarray(sheet)


def main() -> None:
    """Write a picture for each recipe."""
    source = Path(sys.argv[1])
    target = Path(sys.argv[2] if len(sys.argv) > 2 else "docs/degradations")
    photo = read_photo(source / "images" / FILE)
    whole = Regions.of(read_people(source / "instances.json")[FILE], photo.size)
    rows, columns = slice(TOP, TOP + EDGE), slice(LEFT, LEFT + EDGE)
    regions = Regions(whole.outlines[:, rows, columns], whole.parts[:, rows, columns], whole.owners)
    hq = photo.tensor()[..., rows, columns]
    pictures = {recipe: strip(recipe, hq, regions) for recipe in SEEDS}
    for name, picture in {**pictures, "movement": movement(hq, regions)}.items():
        write_photo(Photo.from_array(picture), target / f"{name}.jpg", quality=85)


if __name__ == "__main__":
    main()
