"""Variational score distillation: makes restored latents look like latents of photographs.

A frozen diffusion network and one finetuned on restored latents denoise the same noisy latent;
where they differ, the restored latents are not yet distributed like those of photographs
(ProlificDreamer, Wang et al. 2023; OSEDiff, Wu et al. 2024; OSDHuman Eq. 6).

Shapes: b batch, c latent channels, h w latent size. z are latents, t timesteps [b].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from hbr.models.schedule import add_noise, predicted_x0

Predict = Callable[[Tensor, Tensor], Tensor]
"""ε of a network: (z_t [b, c, h, w], t [b]) → [b, c, h, w]."""

Space = Literal["x0", "epsilon", "eq6"]


def guided(conditional: Predict, unconditional: Predict, scale: float) -> Predict:
    """Classifier-free guidance: ε = ε_u + scale · (ε_c − ε_u) (Ho and Salimans 2022)."""

    def predict(z_t: Tensor, t: Tensor) -> Tensor:
        epsilon_u = unconditional(z_t, t).float()
        return epsilon_u + scale * (conditional(z_t, t).float() - epsilon_u)

    return predict


@torch.no_grad()
def vsd_gradient(
    z: Tensor,
    noise: Tensor,
    t: Tensor,
    alphas_cumprod: Tensor,
    *,
    frozen: Predict,
    finetuned: Predict,
    space: Space = "x0",
) -> Tensor:
    """The direction in which z differs from the latent of a photograph.

    "x0" is what the published code of OSEDiff computes: the difference of the two estimates of x0,
    divided for each sample by the mean of |z − x̂0| of the frozen network, which keeps its size
    similar over all t. "eq6" is Eq. 6 of OSDHuman to the letter, with ω(t) = 1: the difference of
    the two ε, divided for each sample by the mean of |ε_φ − ẑ_H|, ε_φ of the frozen network.
    "epsilon" is that difference without the denominator. All have the same direction at a given
    t, as x̂0 is linear in ε; they weight t differently.

    Args:
        z: restored latents [b, c, h, w].
        noise: Gaussian, [b, c, h, w].
        t: [b], integers.
        alphas_cumprod: ᾱ of the schedule, [steps].
        frozen: the prior, guided.
        finetuned: the regularizer, not guided.
        space: which of the three definitions.

    Returns:
        float32 [b, c, h, w], detached.
    """
    alpha_bar = alphas_cumprod.to(z.device)[t].float()
    z = z.float()
    z_t = add_noise(z, noise.float(), alpha_bar)
    epsilon, epsilon_of_prior = finetuned(z_t, t).float(), frozen(z_t, t).float()
    if space == "epsilon":
        return epsilon_of_prior - epsilon
    if space == "eq6":
        size = (epsilon_of_prior - z).abs().mean(dim=(1, 2, 3), keepdim=True)
        return (epsilon_of_prior - epsilon) / size
    x0_of_prior = predicted_x0(z_t, epsilon_of_prior, alpha_bar)
    size = (z - x0_of_prior).abs().mean(dim=(1, 2, 3), keepdim=True)
    return (predicted_x0(z_t, epsilon, alpha_bar) - x0_of_prior) / size


def vsd_loss(z: Tensor, gradient: Tensor) -> Tensor:
    """A scalar whose gradient with respect to z is 2/n times `gradient`, n the elements of z.

    Where `gradient` is not finite, as when a latent equals the prior's estimate exactly, it counts
    as 0.
    """
    target = z.float() - torch.nan_to_num(gradient, posinf=0.0, neginf=0.0)
    return F.mse_loss(z.float(), target.detach())


def regularizer_loss(
    z: Tensor, noise: Tensor, t: Tensor, alphas_cumprod: Tensor, finetuned: Predict
) -> Tensor:
    """ε-MSE of the regularizer on restored latents: a scalar.

    Args:
        z: restored latents [b, c, h, w]; they get no gradient.
        noise: Gaussian, [b, c, h, w].
        t: [b], integers.
        alphas_cumprod: ᾱ of the schedule, [steps].
        finetuned: the regularizer.
    """
    alpha_bar = alphas_cumprod.to(z.device)[t].float()
    z_t = add_noise(z.detach().float(), noise.float(), alpha_bar)
    return F.mse_loss(finetuned(z_t, t).float(), noise.float())
