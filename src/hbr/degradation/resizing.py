"""Resizing by the methods that photos meet on their way: nearest neighbour to Lanczos.

Shapes: b batch, c channels, h w pixels, n m edges before and after.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MODES = ("area", "bilinear", "bicubic", "nearest", "lanczos")
"""In the order of the weights of a recipe. All but Lanczos are PyTorch's, without antialiasing."""

_LOBES = 3


def resize(x: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """Resize [b, c, h, w] to `size`; Lanczos is antialiased on the way down, as in Pillow."""
    if size == tuple(x.shape[-2:]):
        return x
    if mode != "lanczos":
        return F.interpolate(x, size, mode=mode)
    rows, columns = (_lanczos(n, m).to(x) for n, m in zip(x.shape[-2:], size, strict=True))
    return rows @ x @ columns.T


def _lanczos(n: int, m: int) -> Tensor:
    """The weights that make m pixels of n: [m, n], rows sum to 1."""
    scale = n / m
    width = max(scale, 1.0)
    middle = (torch.arange(m, dtype=torch.float64) + 0.5) * scale
    distance = (torch.arange(n, dtype=torch.float64) + 0.5 - middle[:, None]) / width
    weights = torch.sinc(distance) * torch.sinc(distance / _LOBES)
    weights = weights.masked_fill(distance.abs() >= _LOBES, 0.0)
    return weights / weights.sum(dim=1, keepdim=True)
