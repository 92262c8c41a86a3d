"""Colour fixes: the detail of a restored image with the colours of its input.

The pure functions take tensors [b, 3, h, w] in [0, 1]; `fix_color` applies them to whole photos,
one strip of rows at a time, so that its memory does not grow with the photo.

Shapes: b images, h w pixels, n rows of a strip.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from hbr.models.protocol import ColorFix

LEVELS = 5
EPSILON = 1e-5
# Strips of about a megapixel, but much higher than the reach of the blur.
_STRIP_PIXELS = 2**20
_LEAST_STRIP_ROWS = 128


def wavelet_decompose(x: Tensor, levels: int = LEVELS) -> tuple[Tensor, Tensor]:
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


def wavelet_color_fix(target: Tensor, source: Tensor) -> Tensor:
    """The detail of `target` on the low frequencies of `source`, both [b, 3, h, w] in [0, 1].

    The blur is linear, so high(target) + low(source) = target + low(source − target), which needs
    one decomposition instead of two. Not clamped.
    """
    _check_same(target, source)
    return target + _blur(source - target, LEVELS)


def adain_color_fix(target: Tensor, source: Tensor) -> Tensor:
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
) -> NDArray[np.float32]:
    """Apply a colour fix to a whole photo, strip by strip.

    The result equals that of the pure function on the whole image: strips are read with the rows
    that the blur reaches, and the statistics of AdaIN are gathered in a separate pass.

    Args:
        target: restored pixels [h, w, 3], the full range of uint16.
        source: pixels [h, w, 3] with the colours, the full range of uint8 or uint16.
        method: "wavelet", "adain" or "none" (conversion only).

    Returns:
        [3, h, w] float32, clamped to [0, 1].
    """
    if target.shape != source.shape:
        raise ValueError(f"target is {target.shape} and source {source.shape}; they must be equal")
    height, width = target.shape[:2]
    out = np.empty((3, height, width), np.float32)
    reach = 0
    if method == "wavelet":
        reach = 2**LEVELS - 1
    elif method == "adain":
        gain, offset = _gain_and_offset(_moments_of_rows(target), _moments_of_rows(source))
    for top, bottom in _strips(height, width):
        first = max(0, top - reach)
        t = to_unit(target[first : bottom + reach])  # [1, 3, n, w]
        if method == "wavelet":
            t = wavelet_color_fix(t, to_unit(source[first : bottom + reach]))
        elif method == "adain":
            t = t * gain + offset
        out[:, top:bottom] = t[0, :, top - first : bottom - first].clamp(0, 1)
    return out


def to_unit(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> Tensor:
    """Pixels [h, w, 3] of uint8 or uint16 → float32 [1, 3, h, w] in [0, 1]."""
    scaled = pixels.astype(np.float32)
    scaled *= 1.0 / np.iinfo(pixels.dtype).max
    return rearrange(torch.from_numpy(scaled), "h w c -> 1 c h w")


def _blur(x: Tensor, levels: int) -> Tensor:
    for level in range(levels):
        for axis in (-2, -1):
            x = _blur_axis(x, axis, 2**level)
    return x


def _blur_axis(x: Tensor, axis: int, step: int) -> Tensor:
    """(1 2 1)/4 along one axis, taps `step` apart, with replicated edges."""
    padding = (step, step, 0, 0) if axis == -1 else (0, 0, step, step)
    padded = F.pad(x, padding, mode="replicate")
    size = x.shape[axis]
    sides = padded.narrow(axis, 0, size) + padded.narrow(axis, 2 * step, size)
    return sides.mul_(0.25).add_(x, alpha=0.5)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel, [b, c, 1, 1]."""
    var, mean = torch.var_mean(x, dim=(-2, -1), correction=0, keepdim=True)
    return mean, var


def _moments_of_rows(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> tuple[Tensor, Tensor]:
    """`_moments` of pixels [h, w, 3], strip by strip, [1, 3, 1, 1]."""
    total = torch.zeros(3, dtype=torch.float64)
    squares = torch.zeros(3, dtype=torch.float64)
    for top, bottom in _strips(*pixels.shape[:2]):
        x = to_unit(pixels[top:bottom]).double()
        total += x.sum(dim=(0, 2, 3))
        squares += x.square().sum(dim=(0, 2, 3))
    count = pixels.shape[0] * pixels.shape[1]
    mean = total / count
    var = (squares / count - mean.square()).clamp_min(0)
    return (
        rearrange(mean.float(), "c -> 1 c 1 1"),
        rearrange(var.float(), "c -> 1 c 1 1"),
    )


def _gain_and_offset(
    target: tuple[Tensor, Tensor], source: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """The affine map from the moments of `target` to those of `source`."""
    (mean, var), (wanted_mean, wanted_var) = target, source
    gain = ((wanted_var + EPSILON) / (var + EPSILON)).sqrt()
    return gain, wanted_mean - mean * gain


def _strips(height: int, width: int) -> Iterator[tuple[int, int]]:
    rows = max(_LEAST_STRIP_ROWS, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        yield top, min(top + rows, height)


def _check_same(target: Tensor, source: Tensor) -> None:
    if target.shape != source.shape:
        raise ValueError(
            f"target is {list(target.shape)} and source {list(source.shape)}; they must be equal"
        )
