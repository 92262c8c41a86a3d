"""The noise schedule and the one step.

Shapes: b batch, c latent channels, h w latent size.
"""

import torch
from torch import Tensor

from hbr.models.config import ScheduleConfig


def alphas_cumprod(schedule: ScheduleConfig) -> Tensor:
    """ᾱ_t of the `scaled_linear` schedule, float64 of shape [steps], in (0, 1)."""
    start, end = schedule.beta_start**0.5, schedule.beta_end**0.5
    betas = torch.linspace(start, end, schedule.steps, dtype=torch.float64) ** 2
    return torch.cumprod(1.0 - betas, dim=0)


def add_noise(z: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """z_t = √ᾱ_t z + √(1−ᾱ_t) noise: two [b, c, h, w] and ᾱ_t [b] → [b, c, h, w]."""
    a = alpha_bar.view(-1, 1, 1, 1)
    return a.sqrt() * z + (1.0 - a).sqrt() * noise


def predicted_x0(z_t: Tensor, epsilon: Tensor, alpha_bar: Tensor) -> Tensor:
    """x̂0 = (z_t − √(1−ᾱ_t) ε) / √ᾱ_t, in float32: two [b, c, h, w] and ᾱ_t [b] → [b, c, h, w]."""
    a = alpha_bar.view(-1, 1, 1, 1).float()
    return (z_t.float() - (1.0 - a).sqrt() * epsilon.float()) / a.sqrt()


def one_step(z_l: Tensor, epsilon: Tensor, alpha_bar: float) -> Tensor:
    """ẑ_H = (z_L − √(1−ᾱ) ε) / √ᾱ, OSDHuman Eq. 2 and DiffBody Eq. 5, in float32 or better.

    At T_L = 999 this amplifies an error in ε 14.6 times, so it is computed in float32 at least.

    Args:
        z_l: [b, c, h, w], the latent of the low-quality image.
        epsilon: [b, c, h, w], the noise that the U-Net predicts.
        alpha_bar: ᾱ at T_L.

    Returns:
        ẑ_H, float32 (float64 if z_l is) [b, c, h, w].
    """
    dtype = torch.promote_types(z_l.dtype, torch.float32)
    return (z_l.to(dtype) - (1.0 - alpha_bar) ** 0.5 * epsilon.to(dtype)) / alpha_bar**0.5
