"""Colour fixes: the detail of a restored image with the colours of its input.

A photo is worked on one strip of rows at a time, so that memory does not grow with it. All of it is
NumPy, so that there is one colour fix for models in torch and for those that run without it.

Shapes: b images, h w pixels, n rows of a strip.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from einops import rearrange
from numpy.typing import NDArray

from hbr.models.protocol import ColorFix
from hbr.restoration.settings import ColorMap

Planes = NDArray[np.float32]
"""Images [b, c, h, w]."""

LEVELS = 5
EPSILON = 1e-5
# Strips of about a megapixel, but much higher than the reach of the blur.
_STRIP_PIXELS = 2**20
_LEAST_STRIP_ROWS = 128


def fix_color(
    target: NDArray[np.uint16],
    source: NDArray[np.uint8] | NDArray[np.uint16],
    method: ColorFix,
    fixed: ColorMap | None = None,
) -> NDArray[np.float32]:
    """Apply a colour fix to a whole photo, strip by strip.

    The result is that of the whole image: strips are read with the rows that the blur reaches, and
    the statistics of AdaIN are gathered in a separate pass.

    Args:
        target: restored pixels [h, w, 3], the full range of uint16.
        source: pixels [h, w, 3] with the colours, the full range of uint8 or uint16.
        method: "wavelet" puts the high frequencies of `target` on the low ones of `source`
            (StableSR, 2023, §3). The blur is linear, so high(target) + low(source) = target +
            low(source − target), which needs one decomposition instead of two. "adain" gives
            `target` the channel means and deviations of `source` (Huang & Belongie 2017, Eq. 8, on
            pixels). "none" only converts.
        fixed: a map of colours in place of the method.

    Returns:
        [3, h, w] float32, clamped to [0, 1].
    """
    if target.shape != source.shape:
        raise ValueError(f"target is {target.shape} and source {source.shape}; they must be equal")
    height, width = target.shape[:2]
    out = np.empty((3, height, width), np.float32)
    reach = 0
    if fixed is not None:
        method = "adain"
        gain, offset = np.array([fixed.gain, fixed.offset], np.float32).reshape(2, 1, 3, 1, 1)
    elif method == "wavelet":
        reach = 2**LEVELS - 1
    elif method == "adain":
        gain, offset = _gain_and_offset(_moments_of_rows(target), _moments_of_rows(source))
    for top, bottom in _strips(height, width):
        first = max(0, top - reach)
        for c in range(3):
            t = _plane(target[first : bottom + reach, :, c])  # [n, w]
            if method == "wavelet":
                change = _plane(source[first : bottom + reach, :, c])
                change -= t
                _blur_plane(change, LEVELS)
                t += change
            elif method == "adain":
                t = t * gain[0, c] + offset[0, c]
            np.clip(t[top - first : bottom - first], 0, 1, out=out[c, top:bottom])
    return out


def to_unit(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> Planes:
    """Pixels [h, w, 3] of uint8 or uint16 → float32 [1, 3, h, w] in [0, 1]."""
    return rearrange(_plane(pixels), "h w c -> 1 c h w")


def _plane(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.float32]:
    """Whole numbers of any shape → float32 in [0, 1]."""
    scaled = pixels.astype(np.float32)
    scaled *= 1.0 / np.iinfo(pixels.dtype).max
    return scaled


def _blur_plane(plane: NDArray[np.float32], levels: int) -> None:
    """The low frequencies of [h, w], in place, by the undecimated B-spline ("à trous") wavelet.

    Level i blurs with the outer product of (1 2 1)/4 at a spacing of 2^i pixels, with replicated
    edges. One plane at a time stays in the processor's cache.

    Reference: Starck, Fadili & Murtagh, "The undecimated wavelet decomposition and its
    reconstruction", 2007, §III.
    """
    sums = np.empty_like(plane)
    for level in range(levels):
        for x, out in (plane, sums), (plane.T, sums.T):
            _add_neighbours(x, 2**level, out)
            sums *= 0.25
            plane *= 0.5
            plane += sums


def _add_neighbours(x: NDArray[np.float32], step: int, out: NDArray[np.float32]) -> None:
    """The sum of the rows `step` above and below each row of x [h, w], edges replicated."""
    n = len(x)
    if n <= 2 * step:
        i = np.arange(n)
        np.add(x[np.maximum(i - step, 0)], x[np.minimum(i + step, n - 1)], out=out)
        return
    np.add(x[: -2 * step], x[2 * step :], out=out[step:-step])
    np.add(x[0], x[step : 2 * step], out=out[:step])
    np.add(x[n - 2 * step : n - step], x[-1], out=out[n - step :])


def _moments_of_rows(*pictures: NDArray[np.uint8] | NDArray[np.uint16]) -> tuple[Planes, Planes]:
    """Mean and variance of each channel of pictures [h, w, 3], strip by strip, [1, 3, 1, 1]."""
    total, squares = np.zeros((1, 3, 1, 1)), np.zeros((1, 3, 1, 1))
    for pixels in pictures:
        for top, bottom in _strips(*pixels.shape[:2]):
            x = to_unit(pixels[top:bottom]).astype(np.float64)
            total += x.sum(axis=(-2, -1), keepdims=True)
            squares += np.square(x).sum(axis=(-2, -1), keepdims=True)
    count = sum(pixels.shape[0] * pixels.shape[1] for pixels in pictures)
    mean = total / count
    var = np.maximum(squares / count - np.square(mean), 0)
    return mean.astype(np.float32), var.astype(np.float32)


def color_map(
    targets: Sequence[NDArray[np.uint8] | NDArray[np.uint16]],
    sources: Sequence[NDArray[np.uint8] | NDArray[np.uint16]],
) -> ColorMap:
    """The map of AdaIN from all of some restored pictures to all of their inputs.

    Args:
        targets: restored pixels [h, w, 3], the full range of their type.
        sources: those of the inputs.
    """
    gain, offset = _gain_and_offset(_moments_of_rows(*targets), _moments_of_rows(*sources))
    (r, g, b), (x, y, z) = gain.flatten().tolist(), offset.flatten().tolist()
    return ColorMap((r, g, b), (x, y, z))


def _gain_and_offset(
    target: tuple[Planes, Planes], source: tuple[Planes, Planes]
) -> tuple[Planes, Planes]:
    """The affine map from the moments of `target` to those of `source`."""
    (mean, var), (wanted_mean, wanted_var) = target, source
    gain = np.sqrt((wanted_var + EPSILON) / (var + EPSILON))
    return gain, wanted_mean - mean * gain


def _strips(height: int, width: int) -> Iterator[tuple[int, int]]:
    rows = max(_LEAST_STRIP_ROWS, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        yield top, min(top + rows, height)
