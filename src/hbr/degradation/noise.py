"""Noise of the recipes: Gaussian, Poisson, and that of a camera; each draw has a seed of its own.

Shapes: h w pixels. Images are in [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Generator, Tensor

_LUMA = (0.2989, 0.587, 0.114)
_GAMMA = 2.2
_MID_GREY = 0.5**_GAMMA
# of the curve from linear light to pixels, at mid-grey
_SLOPE = _MID_GREY ** (1 / _GAMMA - 1) / _GAMMA
# bilinear demosaicing of a plane that has every second pixel, and of one that has every fourth
_OF_GREEN = ((0.0, 0.25, 0.0), (0.25, 1.0, 0.25), (0.0, 0.25, 0.0))
_OF_RED = ((0.25, 0.5, 0.25), (0.5, 1.0, 0.5), (0.25, 0.5, 0.25))


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Drawn noise.

    Attributes:
        kind: "gaussian", "poisson" or "camera".
        amount: σ in 8-bit levels of Gaussian noise, and of a camera's on its sensor at mid-grey;
            a factor for Poisson noise.
        grey: the same in R, G and B.
        seed: of its own generator.
        read: a camera's: share of its variance at mid-grey that does not grow with the light.
        mixing: a camera's: how far its colour correction subtracts each channel from the others.
    """

    kind: Literal["gaussian", "poisson", "camera"]
    amount: float
    grey: bool
    seed: int
    read: float = 0.0
    mixing: float = 0.0


def add_noise(image: Tensor, noise: Noise) -> Tensor:
    """An image [3, h, w] with its noise; not clamped."""
    # drawn on the CPU, so that every device sees the same noise
    generator = torch.Generator().manual_seed(noise.seed)
    match noise.kind:
        case "gaussian":
            shape = (1 if noise.grey else 3, *image.shape[-2:])
            return image + torch.randn(shape, generator=generator).to(image) * (noise.amount / 255)
        case "poisson":
            return image + _poisson(image, noise, generator)
        case "camera":
            return _camera(image, noise, generator)


def _poisson(image: Tensor, noise: Noise, generator: Generator) -> Tensor:
    source = image.detach().clamp(0, 1)
    if noise.grey:
        weights = torch.tensor(_LUMA, dtype=source.dtype, device=source.device)
        source = reduce(source * weights[:, None, None], "c h w -> 1 h w", "sum")
    source = ((source * 255).round() / 255).cpu()
    # the photon count of white is the number of levels in use, as a power of two
    count = 2.0 ** math.ceil(math.log2(max(len(torch.unique(source)), 2)))
    grain = torch.poisson(source * count, generator=generator) / count - source
    return grain.to(image) * noise.amount


def _camera(image: Tensor, noise: Noise, generator: Generator) -> Tensor:
    """Shot and read noise of a Bayer sensor, as demosaicing and colour correction leave it.

    In linear light x the variance on the sensor is σ²(read + (1 − read)·x/x_mid). The noise alone
    is demosaiced: the image stays as sharp as it was.
    """
    linear = image.clamp(0, 1) ** _GAMMA
    level = noise.amount / 255 / _SLOPE
    variance = noise.read + (1 - noise.read) * linear / _MID_GREY
    h, w = image.shape[-2:]
    grain = torch.randn(1, h, w, generator=generator).to(image) * level * variance.sqrt()
    if not noise.grey:
        grain = _demosaiced(grain)
        correction = (1 + 3 * noise.mixing) * torch.eye(3) - noise.mixing  # rows sum to 1
        grain = torch.einsum("dc,chw->dhw", correction.to(image), grain)
    return (linear + grain).clamp(min=0) ** (1 / _GAMMA)


def _demosaiced(grain: Tensor) -> Tensor:
    """Of [3, h, w], what an RGGB sensor sees of each channel, interpolated between its pixels."""
    h, w = grain.shape[-2:]
    row, column = torch.arange(h) % 2, torch.arange(w) % 2
    number = row[:, None] + column[None, :]  # 0 red, 1 green, 2 blue
    sites = (torch.arange(3)[:, None, None] == number).to(grain)
    kernels = torch.tensor((_OF_RED, _OF_GREEN, _OF_RED), dtype=grain.dtype, device=grain.device)
    mode = "reflect" if min(h, w) > 1 else "replicate"
    seen = F.pad((grain * sites)[None], (1, 1, 1, 1), mode=mode)
    return F.conv2d(seen, rearrange(kernels, "c i j -> c 1 i j"), groups=3)[0]
