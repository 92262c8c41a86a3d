"""Blur kernels of the recipes, float64, summing to one.

Every kernel is [k, k] with odd k. σ and the distances are in pixels, θ in radians.
Source: Real-ESRGAN (2021), §3.2 and §3.3; BSRGAN for the generalized and plateau shapes.
"""

import math

import torch
from torch import Tensor


def _quadratic_form(size: int, sigma_x: float, sigma_y: float, theta: float) -> Tensor:
    """xᵀ Σ⁻¹ x on the grid, for Σ with axes σ_x, σ_y turned by θ: [size, size]."""
    axis = torch.arange(size, dtype=torch.float64) - size // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    along = (math.cos(theta) * x + math.sin(theta) * y) / sigma_x
    across = (-math.sin(theta) * x + math.cos(theta) * y) / sigma_y
    return along**2 + across**2


def gaussian(size: int, sigma_x: float, sigma_y: float, theta: float = 0.0) -> Tensor:
    """An anisotropic Gaussian, exp(−q/2)."""
    kernel = torch.exp(-0.5 * _quadratic_form(size, sigma_x, sigma_y, theta))
    return kernel / kernel.sum()


def generalized(size: int, sigma_x: float, sigma_y: float, theta: float, beta: float) -> Tensor:
    """A generalized Gaussian, exp(−q^β/2): peaked below β = 1, flat above."""
    kernel = torch.exp(-0.5 * _quadratic_form(size, sigma_x, sigma_y, theta) ** beta)
    return kernel / kernel.sum()


def plateau(size: int, sigma_x: float, sigma_y: float, theta: float, beta: float) -> Tensor:
    """A plateau, 1/(1 + q^β)."""
    kernel = 1.0 / (1.0 + _quadratic_form(size, sigma_x, sigma_y, theta) ** beta)
    return kernel / kernel.sum()


def disc(size: int, radius: float) -> Tensor:
    """A lens out of focus: a disc, its edge one pixel wide."""
    axis = torch.arange(size, dtype=torch.float64) - size // 2
    distance = torch.hypot(axis[:, None], axis[None, :])
    kernel = (radius + 0.5 - distance).clamp(0, 1)
    return kernel / kernel.sum()


def sinc(size: int, cutoff: float) -> Tensor:
    """The ideal circular low-pass filter: rings as sharpening and strong JPEG do.

    Args:
        size: odd edge.
        cutoff: in radians a pixel, in (0, π].
    """
    axis = torch.arange(size, dtype=torch.float64) - size // 2
    radius = torch.hypot(axis[:, None], axis[None, :])
    safe = radius.clamp(min=1e-12)
    kernel = cutoff * torch.special.bessel_j1(cutoff * safe) / (2 * math.pi * safe)
    kernel[size // 2, size // 2] = cutoff**2 / (4 * math.pi)
    return kernel / kernel.sum()


def trajectory(size: int, length: float, angle: float, bend: float, wobble: float) -> Tensor:
    """The trace of a point that moves at constant speed; its centre of mass is in the middle.

    Args:
        size: odd edge, at least length + 3.
        length: of the path.
        angle: direction in the middle of the path, 0 to the right, growing downwards.
        bend: how much the path turns from end to end.
        wobble: how far the direction swings to either side, once along the path.
    """
    n = max(2, math.ceil(4 * length) + 1)
    s = (torch.arange(n, dtype=torch.float64) + 0.5) / n - 0.5
    heading = angle + bend * s + wobble * torch.sin(2 * math.pi * s)
    path = torch.stack([torch.sin(heading), torch.cos(heading)]).cumsum(1) * (length / n)
    y, x = path - path.mean(dim=1, keepdim=True) + size // 2  # [2, n]
    kernel = torch.zeros(size, size, dtype=torch.float64)
    top, left = y.floor(), x.floor()
    for down in (0, 1):
        for right in (0, 1):
            share = (1 - (y - top - down).abs()) * (1 - (x - left - right).abs())
            kernel.index_put_(((top + down).long(), (left + right).long()), share, accumulate=True)
    return kernel / kernel.sum()


def pad_kernel(kernel: Tensor, size: int) -> Tensor:
    """The same filter on a larger odd grid: [k, k] → [size, size] with zeros around."""
    margin = (size - kernel.shape[-1]) // 2
    return torch.nn.functional.pad(kernel, (margin,) * 4)
