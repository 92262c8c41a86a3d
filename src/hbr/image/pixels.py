"""Arrays of pixels: depth, orientation, alpha. Layout [h, w, c], RGB; processed in strips of rows.

Strips keep the float copies of a 100-megapixel photo at a few megabytes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

STRIP_PIXELS = 1 << 20
FLOAT_ROUNDING = 1e-4
"""Floats that another program resized or converted may exceed [0, 1] by this much."""
FILL_SIDE = 1024  # hidden colours are computed at most at this size, because they need not be exact


def strips(height: int, width: int) -> Iterator[slice]:
    """Slices of rows that cover `height`, each of about a megapixel."""
    rows = max(1, STRIP_PIXELS // max(1, width))
    for top in range(0, height, rows):
        yield slice(top, min(height, top + rows))


def peak(dtype: np.dtype) -> int:
    """The value of white: 255 or 65535."""
    return int(np.iinfo(dtype).max)


def quantize(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Floats in [0, 1] (others are clipped) to the nearest whole number of `dtype`."""
    return np.rint(np.clip(values, 0, 1) * np.float32(peak(dtype))).astype(dtype)


def full_range(values: np.ndarray, bits: int) -> np.ndarray:
    """Whole numbers of 9 to 15 bits to the nearest of 16."""
    white = (1 << bits) - 1
    full = np.minimum(values, white).astype(np.uint32) * 65535
    return ((full + white // 2) // white).astype(np.uint16)


def to_8_bits(array: np.ndarray) -> np.ndarray:
    """uint16 to the nearest uint8; uint8 is returned unchanged."""
    if array.dtype == np.uint8:
        return array
    out = np.empty(array.shape, np.uint8)
    for rows in strips(*array.shape[:2]):
        out[rows] = (array[rows].astype(np.uint32) + 128) // 257
    return out


def luma(rgb: np.ndarray) -> np.ndarray:
    """[h, w, 3] of whole numbers → [h, w], BT.601 weights; exact where r = g = b."""
    out = np.empty(rgb.shape[:2], rgb.dtype)
    weights = np.array([299, 587, 114], np.uint32)
    for rows in strips(*rgb.shape[:2]):
        out[rows] = (rgb[rows].astype(np.uint32) @ weights + 500) // 1000
    return out


def on_white(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Composite [h, w, 3] on white by its alpha [h, w], on the encoded values as viewers do."""
    white = peak(rgb.dtype)
    out = np.empty_like(rgb)
    for rows in strips(*rgb.shape[:2]):
        a = alpha[rows].astype(np.uint64)[..., None]
        mixed = rgb[rows].astype(np.uint64) * a + np.uint64(white) * (np.uint64(white) - a)
        out[rows] = (mixed + np.uint64(white // 2)) // np.uint64(white)
    return out


def turn_upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation (1 to 8; others are taken as 1) to [h, w, ...]."""
    if orientation in (5, 6, 7, 8):
        array = np.swapaxes(array, 0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)


def resize(array: np.ndarray, height: int, width: int) -> np.ndarray:
    """[h, w] or [h, w, c] to another size, without overshoot: area means down, linear up."""
    if array.shape[:2] == (height, width):
        return array
    import cv2

    smaller = height * width < array.shape[0] * array.shape[1]
    return cv2.resize(
        array, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    )


def fill_hidden(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Replace the colours under alpha 0 by a smooth continuation of the visible ones.

    Args:
        rgb: [h, w, 3] uint8 or uint16.
        alpha: [h, w], same type; where it is 0 the colour is hidden.

    Returns:
        [h, w, 3]; visible pixels untouched, hidden ones depending on visible ones alone, mid grey
        where nothing is visible.
    """
    visible = alpha > 0
    if visible.all():
        return rgb
    if not visible.any():
        return np.full_like(rgb, (peak(rgb.dtype) + 1) // 2)
    height, width = visible.shape
    shrink = min(1.0, FILL_SIDE / max(height, width))
    small = (max(1, round(height * shrink)), max(1, round(width * shrink)))
    shown = resize(np.where(visible[..., None], rgb, 0).astype(rgb.dtype), *small)
    weight = resize(visible.astype(rgb.dtype) * rgb.dtype.type(peak(rgb.dtype)), *small)
    total = shown.astype(np.float32) / peak(rgb.dtype)
    share = weight.astype(np.float32) / peak(rgb.dtype)
    # Rounded means of a few pixels are unreliable; at full size they are exact.
    share[share < 0.03] = 0
    if not share.any():
        mean = rgb[visible].reshape(-1, 3).mean(axis=0)
        return np.where(visible[..., None], rgb, np.rint(mean).astype(rgb.dtype))
    total[share == 0] = 0
    fill = quantize(_push_pull(total, share), rgb.dtype)
    return np.where(visible[..., None], rgb, resize(fill, height, width))


def _push_pull(total: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Weighted colour sums [h, w, 3] and weights [h, w] → colour everywhere, holes from coarser."""
    colour = total / np.maximum(share, 1e-12)[..., None]
    if share.all():
        return colour
    height, width = share.shape
    half = (-(-height // 2), -(-width // 2))
    pad = ((0, half[0] * 2 - height), (0, half[1] * 2 - width))

    def halve(array: np.ndarray) -> np.ndarray:
        array = np.pad(array, (*pad, (0, 0)))
        return array.reshape(half[0], 2, half[1], 2, -1).mean(axis=(1, 3))

    coarse = _push_pull(halve(total), halve(share[..., None])[..., 0])
    return np.where((share > 0)[..., None], colour, resize(coarse, height, width))
