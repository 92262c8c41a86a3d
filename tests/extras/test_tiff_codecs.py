"""TIFF in compressions that the package imagecodecs brings, written by tifffile."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from hbr.image import read_photo


@pytest.mark.parametrize(
    ("compression", "dtype", "farthest"),
    [
        ("zstd", np.uint8, 0),
        ("zstd", np.uint16, 0),
        ("lerc", np.uint16, 0),
        ("jpeg2000", np.uint16, 0),
        ("jpegxr", np.uint8, 12),  # its default loses a little
        ("webp", np.uint8, 12),
    ],
)
def test_pixels_come_back(tmp_path: Path, compression: str, dtype: type, farthest: int) -> None:
    y, x = np.mgrid[:96, :128]
    scene = np.stack([x / 127, y / 95, (x + y) / 222], -1)
    pixels = (scene * np.iinfo(dtype).max).astype(dtype)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", compression=compression)
    photo = read_photo(path)
    assert photo.pixels.dtype == dtype
    assert np.abs(photo.pixels.astype(int) - pixels.astype(int)).max() <= farthest
