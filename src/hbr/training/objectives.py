"""What a training minimises: restoration, a diffusion prior, or an autoencoder.

Each is two plain functions: the terms of the loss on a pair, and what its validation measures.

Shapes: b batch, s edge of the crop, c latent channels, h w latent size, q d the prompt. Images are
in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from hbr.metrics import psnr, ssim
from hbr.models.onestep import OneStepRestorer
from hbr.models.schedule import add_noise, alphas_cumprod, predicted_x0
from hbr.training.config import (
    AutoencodingConfig,
    DiffusionConfig,
    LossConfig,
    RestorationConfig,
    TrainConfig,
)
from hbr.training.data import Pair, seeded
from hbr.training.losses import pixel_loss

# timesteps at which a diffusion prior is validated
_VALIDATED_AT = (50, 150, 250, 350, 450, 550, 650, 750, 850, 950)


@dataclass(frozen=True)
class Validation:
    """What one validation pair gives: numbers by name, and images [b, 3, s, s] side by side."""

    numbers: dict[str, Tensor]
    images: tuple[Tensor, ...]


@dataclass(frozen=True)
class Objective:
    """How a training makes its loss.

    Attributes:
        parts: the parts of the model that it trains.
        terms: (model, pair, pixel loss, generator) → weighted terms, whose sum is minimised.
        validate: (model, pair, number of the pair) → what is measured.
    """

    parts: tuple[str, ...]
    terms: Callable[[OneStepRestorer, Pair, LossConfig, Generator], dict[str, Tensor]]
    validate: Callable[[OneStepRestorer, Pair, int], Validation]


def build_objective(config: TrainConfig) -> Objective:
    """The objective that the training's configuration names."""
    objective = config.objective
    match objective:
        case RestorationConfig():
            return Objective(("autoencoder", "unet", "prompt"), restoration, validate_restoration)
        case AutoencodingConfig():
            return Objective(
                ("autoencoder",),
                lambda model, pair, loss, g: autoencoding(model, pair, loss, objective, g),
                validate_autoencoding,
            )
        case DiffusionConfig():
            return Objective(
                ("unet", "prompt"),
                lambda model, pair, _, g: diffusion(model, pair, objective, g),
                lambda model, pair, i: validate_diffusion(model, pair, objective, i),
            )


def restoration(
    model: OneStepRestorer, pair: Pair, loss: LossConfig, _: Generator
) -> dict[str, Tensor]:
    """The pixel losses between the restored LQ and the HQ image."""
    return pixel_loss(model(pair.lq).float(), pair.hq, loss)


def validate_restoration(model: OneStepRestorer, pair: Pair, _: int) -> Validation:
    """PSNR and SSIM, and their gain over the input."""
    image = model(pair.lq).float().clamp(0, 1)
    p, s = psnr(image, pair.hq), ssim(image, pair.hq)
    numbers = {
        "psnr": p,
        "psnr_gain": p - psnr(pair.lq, pair.hq),
        "ssim": s,
        "ssim_gain": s - ssim(pair.lq, pair.hq),
    }
    return Validation(numbers, (pair.lq, image, pair.hq))


def autoencoding(
    model: OneStepRestorer,
    pair: Pair,
    loss: LossConfig,
    config: AutoencodingConfig,
    generator: Generator,
) -> dict[str, Tensor]:
    """The pixel losses of encoding and decoding the HQ image, and the size of its latent."""
    z = model.encode(pair.hq).float()
    noise = _noise(z, generator)
    image = model.decode(z + config.noise * noise)
    return {**pixel_loss(image, pair.hq, loss), "latent": config.latent * (z**2).mean()}


def validate_autoencoding(model: OneStepRestorer, pair: Pair, _: int) -> Validation:
    """PSNR and SSIM of the decoded image, and the standard deviation of the latent."""
    z = model.encode(pair.hq).float()
    image = model.decode(z).clamp(0, 1)
    numbers = {
        "psnr": psnr(image, pair.hq),
        "ssim": ssim(image, pair.hq),
        "latent_std": z.std(dim=(1, 2, 3)).double(),
    }
    return Validation(numbers, (image, pair.hq))


def diffusion(
    model: OneStepRestorer, pair: Pair, config: DiffusionConfig, generator: Generator
) -> dict[str, Tensor]:
    """ε-MSE at a random t on the HQ latent, the prompt from HQ or LQ (DDPM, Ho et al. 2020)."""
    with torch.no_grad():
        z = model.encode(pair.hq).float()
    b = len(z)
    t = torch.randint(*config.timesteps, (b,), generator=generator).to(z.device)
    noise = _noise(z, generator)
    alpha_bar = alphas_cumprod(model.config.schedule)
    z_t = add_noise(z, noise, alpha_bar[t.cpu()].to(z))
    p = model.prompt(pair.hq if config.prompt_from == "hq" else pair.lq)
    kept = torch.rand(b, generator=generator).to(z.device) >= config.prompt_drop
    epsilon = model.predict(z_t, p * kept.view(b, 1, 1), t)
    return {"epsilon": F.mse_loss(epsilon.float(), noise)}


def validate_diffusion(
    model: OneStepRestorer, pair: Pair, config: DiffusionConfig, number: int
) -> Validation:
    """ε-MSE at ten timesteps with the same noise every time; pictures of x̂0 at some of them."""
    z = model.encode(pair.hq).float()
    p = model.prompt(pair.hq if config.prompt_from == "hq" else pair.lq)
    noise = _noise(z, seeded(0, number))
    alpha_bar = alphas_cumprod(model.config.schedule)
    errors, images = [], []
    for t in _VALIDATED_AT:
        at = alpha_bar[t].to(z).expand(len(z))
        z_t = add_noise(z, noise, at)
        step = torch.full((len(z),), t, device=z.device)
        epsilon = model.predict(z_t, p, step).float()
        errors.append(((epsilon - noise) ** 2).mean(dim=(1, 2, 3)))
        if t in (150, 450, 750):
            images.append(model.decode(predicted_x0(z_t, epsilon, at)).clamp(0, 1))
    numbers = {"epsilon": torch.stack(errors).mean(dim=0).double()}
    numbers |= {f"epsilon_{t}": e.double() for t, e in zip(_VALIDATED_AT, errors, strict=True)}
    return Validation(numbers, (*images, pair.hq))


def _noise(like: Tensor, generator: Generator) -> Tensor:
    """Gaussian noise that is the same on every device."""
    return torch.randn(like.shape, generator=generator).to(like.device)
