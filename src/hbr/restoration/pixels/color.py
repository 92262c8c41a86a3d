"""Colour fixes: the detail of a restored image with the colours of its input.

The pure functions take arrays [b, 3, h, w] in [0, 1]; `fix_color` applies them to whole photos,
one strip of rows at a time, so that its memory does not grow with the photo. All of it is NumPy, so
that there is one colour fix for models in torch and for those that run without it.

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


def wavelet_decompose(x: Planes, levels: int = LEVELS) -> tuple[Planes, Planes]:
    """Split x into high and low frequencies with the undecimated B-spline ("à trous") wavelet.

    Level i blurs with the outer product of (1 2 1)/4 at a spacing of 2^i pixels, with replicated
    edges; the high frequencies are the sum of what each blur removes.

    Args:
        x: [b, c, h, w], any range.
        levels: number of blurs, 1 or more.

    Returns:
        high and low, both [b, c, h, w], with high + low = x.

    Reference: Starck, Fadili & Murtagh, "The undecimated wavelet decomposition and its
    reconstruction", 2007, §III; as a colour fix: StableSR, 2023, §3.
    """
    low = _blur(x, levels)
    return x - low, low


def wavelet_color_fix(target: Planes, source: Planes) -> Planes:
    """The detail of `target` on the low frequencies of `source`, both [b, 3, h, w] in [0, 1].

    The blur is linear, so high(target) + low(source) = target + low(source − target), which needs
    one decomposition instead of two. Not clamped.
    """
    _check_same(target, source)
    return target + _blur(source - target, LEVELS)


def adain_color_fix(target: Planes, source: Planes) -> Planes:
    """`target` with the channel means and deviations of `source`, [b, 3, h, w] in [0, 1].

    Adaptive instance normalisation (Huang & Belongie 2017, Eq. 8), on pixels. Not clamped.
    """
    _check_same(target, source)
    gain, offset = _gain_and_offset(_moments(target), _moments(source))
    return target * gain + offset


def fix_color(
    target: NDArray[np.uint16],
    source: NDArray[np.uint8] | NDArray[np.uint16],
    method: ColorFix,
    fixed: ColorMap | None = None,
) -> NDArray[np.float32]:
    """Apply a colour fix to a whole photo, strip by strip.

    The result equals that of the pure function on the whole image: strips are read with the rows
    that the blur reaches, and the statistics of AdaIN are gathered in a separate pass.

    Args:
        target: restored pixels [h, w, 3], the full range of uint16.
        source: pixels [h, w, 3] with the colours, the full range of uint8 or uint16.
        method: "wavelet", "adain" or "none" (conversion only).
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


def _blur(x: Planes, levels: int) -> Planes:
    """Blur x [b, c, h, w] with each level of the wavelet."""
    out = np.array(x, np.float32)
    for plane in rearrange(out, "b c h w -> (b c) h w"):
        _blur_plane(plane, levels)
    return out


def _blur_plane(plane: NDArray[np.float32], levels: int) -> None:
    """Blur [h, w] in place; one plane at a time stays in the processor's cache."""
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


def _moments(x: Planes) -> tuple[Planes, Planes]:
    """Mean and variance of each channel, [b, c, 1, 1]."""
    mean = x.mean(axis=(-2, -1), keepdims=True, dtype=np.float64)
    var = np.square(x - mean).mean(axis=(-2, -1), keepdims=True)
    return mean.astype(np.float32), var.astype(np.float32)


def _moments_of_rows(*pictures: NDArray[np.uint8] | NDArray[np.uint16]) -> tuple[Planes, Planes]:
    """`_moments` of all pixels of pictures [h, w, 3], strip by strip, [1, 3, 1, 1]."""
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


def _check_same(target: Planes, source: Planes) -> None:
    if target.shape != source.shape:
        raise ValueError(
            f"target is {list(target.shape)} and source {list(source.shape)}; they must be equal"
        )
