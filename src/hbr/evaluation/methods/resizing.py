"""The pixels that every method sees, and the sizes that go in and come out.

Shapes: h w the input, H W the result, in pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from hbr.evaluation.methods.config import Feed
from hbr.image import Photo, read_photo, write_photo
from hbr.image.pixels import to_8_bits

Pixels = NDArray[np.uint8]

# A program's rounding to multiples of 8 or 64, not another picture.
_SAME_PROPORTIONS = 0.02


def read_pixels(path: Path) -> Pixels:
    """[h, w, 3] uint8, RGB in sRGB, upright, without alpha.

    Raises:
        hbr.image.PhotoError: it cannot be read.
    """
    return to_8_bits(read_photo(path).pixels)


def write_pixels(pixels: Pixels, path: Path) -> None:
    """Write [h, w, 3] uint8 as a PNG file, whole or not at all; it holds nothing but pixels.

    Raises:
        hbr.image.PhotoError: it cannot be written.
    """
    write_photo(Photo.from_array(pixels), path)


def resized(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """The picture at (height, width), by antialiased bicubic resampling (Pillow's)."""
    height, width = size
    if pixels.shape[:2] == size:
        return pixels
    image = PIL.Image.fromarray(pixels)
    return np.array(image.resize((width, height), PIL.Image.Resampling.BICUBIC))


def wanted_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(height, width) of the result of an input of this (height, width)."""
    height, width = size
    return max(1, round(height * scale)), max(1, round(width * scale))


def fed_size(size: tuple[int, int], scale: float, factor: float, feed: Feed) -> tuple[int, int]:
    """(height, width) of what a network of this factor sees, see `hbr.evaluation.methods.config`.

    Args:
        size: (height, width) of the input.
        scale: size of the result over the input's.
        factor: how much the network enlarges.
        feed: "full" or "small".
    """
    return size if feed == "full" else wanted_size(size, scale / factor)


def fitted(
    pixels: Pixels, native: tuple[int, int], wanted: tuple[int, int], *, resize: bool
) -> Pixels:
    """A result at the wanted size.

    Args:
        pixels: [H, W, 3] as it came out.
        native: (height, width) that should have come out.
        wanted: (height, width) of the result; resized to this if it is not `native`.
        resize: take other sizes than `native` too, if the proportions are right.

    Raises:
        ValueError: another size; the message says which.
    """
    height, width = pixels.shape[:2]
    if (height, width) != native:
        off = abs(width * native[0] / (height * native[1]) - 1)
        if not resize or off > _SAME_PROPORTIONS:
            raise ValueError(
                f"the result is {width}×{height} pixels; expected were {native[1]}×{native[0]}"
            )
    return resized(pixels, wanted)
