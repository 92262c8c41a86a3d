"""Where a restored picture shows detail that its photo does not.

Around each pixel, the detail of the restored picture is fitted by that of the photo, with a factor
of its own: detail that was kept, sharpened or dimmed is explained, and noise that was removed
leaves nothing. What is left over comes from the model, or from the grain that was added.

Shapes: H W the restored picture, in pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hbr.image.pixels import resize

if TYPE_CHECKING:
    from hbr.image import Photo

GREYS_A_LEVEL = 8
"""Grey of a map for one level (of 255) of deviation; 255 is 32 levels or more."""

_SIGMA = 4.0  # of the neighbourhood, and of what counts as detail, in pixels
_REACH = 32  # of both filters together
_ROWS = 512
# Detail of the photo below half a level says nothing.
_NOTHING = (0.5 / 255) ** 2


def invented_detail(photo: Photo, result: Photo) -> NDArray[np.uint8]:
    """The deviation of the detail that the photo does not explain, as greys, [H, W].

    The photo is resized to the size of the result, which adds no detail.
    """
    height, width = result.size
    before = photo.pixels if photo.size == result.size else resize(photo.pixels, height, width)
    out = np.empty((height, width), np.uint8)
    for top in range(0, height, _ROWS):
        bottom = min(height, top + _ROWS)
        first = max(0, top - _REACH)
        rows = slice(first, bottom + _REACH)
        left = _unexplained(_unit(before[rows]), _unit(result.pixels[rows]))
        greys = left[top - first : bottom - first] * (255 * GREYS_A_LEVEL)
        out[top:bottom] = np.minimum(np.round(greys), 255)
    return out


def save_map(folder: Path, place: Path, photo: Photo, result: Photo) -> Path:
    """Write the map of a restored photo as a grey PNG, atomically.

    `place` is that of the restored photo below the folder of all; `.png` is appended.

    Raises:
        PhotoError: it cannot be written.
    """
    from hbr.image import Photo, write_photo

    target = folder / place.with_name(place.name + ".png")
    return write_photo(Photo.from_array(invented_detail(photo, result)), target)


def _unit(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.float32]:
    """The luma in [0, 1]."""
    weights = np.array([0.299, 0.587, 0.114], np.float32) / np.iinfo(pixels.dtype).max
    return np.asarray(pixels @ weights, np.float32)


def _unexplained(before: NDArray[np.float32], after: NDArray[np.float32]) -> NDArray[np.float32]:
    """The local deviation of the detail of `after` that no multiple of that of `before` is."""
    from scipy.ndimage import gaussian_filter

    def local(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(gaussian_filter(values, _SIGMA, mode="nearest"), np.float32)

    x, y = before - local(before), after - local(after)
    power, common = local(x * x), local(x * y)
    factor = common / (power + np.float32(_NOTHING))
    factor = np.maximum(factor, 0)  # detail turned to its negative is not that of the photo
    left = local(y * y) - 2 * factor * common + factor * factor * power
    return np.sqrt(np.maximum(left, 0))
