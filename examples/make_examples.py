"""Make the damaged photos of examples/lq again, from COCO val2017 and the Real-ESRGAN recipe.

Usage: python examples/make_examples.py FOLDER_OF_COCO_IMAGES
"""

import sys
from pathlib import Path

import torch

from hbr.degradation import RECIPES, degrade, draw
from hbr.image import Photo, read_photo, write_photo

# file of COCO val2017 → (name here, crop as left, top, width, height in pixels, seed of the draw)
EXAMPLES = {
    "000000206025.jpg": ("suit", (0, 64, 424, 512), 0),
    "000000257896.jpg": ("hat", (16, 16, 448, 560), 3),
    "000000229553.jpg": ("skateboard", (32, 0, 544, 480), 6),
    "000000203639.jpg": ("skirt", (0, 32, 432, 592), 1),
}


def main() -> None:
    """Write the four photos."""
    source = Path(sys.argv[1])
    target = Path(__file__).parent / "lq"
    for file, (name, (left, top, width, height), seed) in EXAMPLES.items():
        hq = read_photo(source / file).tensor()[..., top : top + height, left : left + width]
        drawn = draw(RECIPES["real-esrgan"], 1, torch.Generator().manual_seed(seed))
        photo = Photo.from_tensor(degrade(hq, drawn))
        write_photo(photo, target / f"{name}.jpg", quality=92)


if __name__ == "__main__":
    main()
