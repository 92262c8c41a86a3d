"""Resizing by the methods that photos meet on their way: nearest neighbour to Lanczos.

Shapes: b batch, c channels, h w pixels, n m edges before and after.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MODES = (
    "area",
    "bilinear",
    "bicubic",
    "nearest",
    "lanczos",
    "bilinear-antialias",
    "bicubic-antialias",
)
"""In the order of the weights of a recipe.

The first four are PyTorch's without antialiasing, as published pipelines have them; cameras,
browsers and image editors filter on the way down, as the last three do.
"""

_LOBES = 3


def resize(x: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """Resize [b, c, h, w] to `size`; Lanczos and the last two filter on the way down, as Pillow."""
    if size == tuple(x.shape[-2:]):
        return x
    if mode != "lanczos":
        name, filtered = interpolation(mode)
        return F.interpolate(x, size, mode=name, antialias=filtered)
    rows, columns = (_lanczos(n, m).to(x) for n, m in zip(x.shape[-2:], size, strict=True))
    return rows @ x @ columns.T


def interpolation(mode: str) -> tuple[str, bool]:
    """What `torch.nn.functional.interpolate` takes for a mode but Lanczos: `mode`, `antialias`."""
    name, _, filtered = mode.partition("-")
    return name, bool(filtered)


def _lanczos(n: int, m: int) -> Tensor:
    """The weights that make m pixels of n: [m, n], rows sum to 1."""
    scale = n / m
    width = max(scale, 1.0)
    middle = (torch.arange(m, dtype=torch.float64) + 0.5) * scale
    distance = (torch.arange(n, dtype=torch.float64) + 0.5 - middle[:, None]) / width
    weights = torch.sinc(distance) * torch.sinc(distance / _LOBES)
    weights = weights.masked_fill(distance.abs() >= _LOBES, 0.0)
    return weights / weights.sum(dim=1, keepdim=True)
