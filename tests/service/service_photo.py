"""The photos that the tests of the service upload."""

from pathlib import Path

import numpy as np
from PIL import Image

PHOTO = Path(__file__).parents[1] / "data" / "tie.png"


def write_large(folder: Path) -> Path:
    """A photo of many tiles, which takes a while."""
    path = folder / "large.png"
    row = np.arange(4000, dtype=np.uint16) * 255 // 4000
    pixels = np.broadcast_to(row.astype(np.uint8)[None, :, None], (4000, 4000, 3))
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, compress_level=1)
    return path
