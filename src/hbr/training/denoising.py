"""Objectives that predict noise or parts: a diffusion prior, the control branch, body parts.

Shapes: b batch, s size of the crop, c latent channels, h w latent size, q d the prompt, k condition
channels. Images are in [0, 1].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hbr.models.diffbody.model import DiffBody
from hbr.models.diffbody.parts import foreground, part_classification
from hbr.models.onestep import OneStepRestorer
from hbr.models.schedule import add_noise, alphas_cumprod, predicted_x0
from hbr.models.vsd import Predict
from hbr.training.config import ControlConfig, DiffusionConfig, RestorationConfig
from hbr.training.data import Pair, seeded
from hbr.training.measuring import Validation
from hbr.training.random_state import RandomState

# timesteps at which noise prediction is validated, and those of which x̂0 is shown
_VALIDATED_AT = (50, 150, 250, 350, 450, 550, 650, 750, 850, 950)
_SHOWN_AT = (150, 450, 750)


def prompted_by(pair: Pair, config: RestorationConfig | DiffusionConfig) -> Tensor:
    """Return the images that the prompt is computed from."""
    return pair.lq if config.prompt_from == "lq" else pair.hq


@torch.no_grad()
def _hq_latents(model: OneStepRestorer | DiffBody, pair: Pair) -> Tensor:
    """Return the latents of the HQ images, which may be known already: float32 [b, c, h, w]."""
    known = [z for z in pair.latents if z is not None]
    return torch.stack(known) if known else model.encode(pair.hq).float()


def diffusion(
    model: OneStepRestorer, pair: Pair, config: DiffusionConfig, draws: RandomState
) -> dict[str, Tensor]:
    """Return the ε-MSE at a random t on the HQ latent, with the prompt from HQ or LQ (DDPM)."""
    z = _hq_latents(model, pair)
    t = draws.timesteps(config.timesteps, z)
    noise = draws.noise(z)
    alpha_bar = alphas_cumprod(model.config.schedule)
    z_t = add_noise(z, noise, alpha_bar[t.cpu()].to(z))
    p = model.prompt(prompted_by(pair, config))
    kept = draws.uniform(z) >= config.prompt_drop
    epsilon = model.predict(z_t, p * kept.view(-1, 1, 1), t)
    return {"epsilon": F.mse_loss(epsilon.float(), noise)}


def validate_diffusion(
    model: OneStepRestorer, pair: Pair, config: DiffusionConfig, number: int
) -> Validation:
    """Return the ε-MSE at ten timesteps with fixed noise, and images of x̂0 at three of them."""
    z = model.encode(pair.hq).float()
    p = model.prompt(prompted_by(pair, config))
    found = _denoised(model, z, lambda z_t, t: model.predict(z_t, p, t), number)
    return Validation(found.numbers, (*found.images, pair.hq))


def _denoised(
    model: OneStepRestorer | DiffBody, z: Tensor, predict: Predict, number: int
) -> Validation:
    """The errors of a network that predicts ε for z [b, c, h, w], and images of x̂0."""
    noise = RandomState(seeded(0, number)).noise(z)
    alpha_bar = alphas_cumprod(model.config.schedule)
    errors, images = [], []
    for t in _VALIDATED_AT:
        at = alpha_bar[t].to(z).expand(len(z))
        z_t = add_noise(z, noise, at)
        step = torch.full((len(z),), t, device=z.device)
        epsilon = predict(z_t, step).float()
        errors.append(((epsilon - noise) ** 2).mean(dim=(1, 2, 3)))
        if t in _SHOWN_AT:
            images.append(model.decode(predicted_x0(z_t, epsilon, at)).clamp(0, 1))
    numbers = {"epsilon": torch.stack(errors).mean(dim=0).double()}
    numbers |= {f"epsilon_{t}": e.double() for t, e in zip(_VALIDATED_AT, errors, strict=True)}
    return Validation(numbers, tuple(images))


def weighted_epsilon_loss(epsilon: Tensor, noise: Tensor, attention: Tensor) -> Tensor:
    """Return the mean of ‖(1 + I_attn) ⊙ (ε − ε_θ)‖² (DiffBody Eq. 4): a scalar.

    Args:
        epsilon, noise: what was predicted and what was added, [b, c, h, w].
        attention: I_attn [b, 1, H, W] in [0, 1], averaged to the latent size.
    """
    weight = 1 + F.adaptive_avg_pool2d(attention, (noise.shape[-2], noise.shape[-1]))
    return (weight * (noise - epsilon.float())).square().mean()


def control(
    model: DiffBody, pair: Pair, config: ControlConfig, draws: RandomState
) -> dict[str, Tensor]:
    """Return the loss of the control branch at a random t on the HQ latent (DiffBody Eq. 4)."""
    z = _hq_latents(model, pair)
    with torch.no_grad():
        _, seen = _controlled_by(model, pair)
        kept = draws.uniform(z) >= config.prompt_drop
        p = torch.where(kept.view(-1, 1, 1), model.embed_all(_texts(pair)), model.embed(""))
    t = draws.timesteps(config.timesteps, z)
    noise = draws.noise(z)
    z_t = add_noise(z, noise, alphas_cumprod(model.config.schedule)[t.cpu()].to(z))
    epsilon = model.predict(z_t, t, p, seen)
    attention = torch.zeros_like(z[:, :1])
    if config.weighted:
        attention = pair.conditions.maps.get("attention", attention)
    return {"epsilon": weighted_epsilon_loss(epsilon, noise, attention)}


def validate_control(model: DiffBody, pair: Pair, number: int) -> Validation:
    """Return the ε-MSE as `validate_diffusion`, and images of I_reg, x̂0 and HQ."""
    z = model.encode(pair.hq).float()
    image, seen = _controlled_by(model, pair)
    p = model.embed_all(_texts(pair))
    found = _denoised(model, z, lambda z_t, t: model.predict(z_t, t, p, seen), number)
    return Validation(found.numbers, (image, *found.images, pair.hq))


def _controlled_by(model: DiffBody, pair: Pair) -> tuple[Tensor, Tensor]:
    """I_reg [b, 3, s, s], and what the control branch sees [b, k, h, w]."""
    image = model.stage1(pair.lq).float().clamp(0, 1)
    return image, model.condition(image, pair.conditions)


def _texts(pair: Pair) -> list[str]:
    return list(pair.texts) or [""] * len(pair.hq)


def classify_parts(model: DiffBody, pair: Pair) -> dict[str, Tensor]:
    """Return the cross-entropy of the body parts in HQ and LQ images.

    The network later sees I_reg, which lies between the two.
    """
    network, target = model.parts, pair.conditions.maps["parts"]
    assert network is not None
    both = [part_classification(network.logits(x), target) for x in (pair.hq, pair.lq)]
    return {"parts": (both[0] + both[1]) / 2}


def validate_parts(model: DiffBody, pair: Pair) -> Validation:
    """Return cross-entropy and accuracy of the parts in the LQ image, and its attention map."""
    network, target = model.parts, pair.conditions.maps["parts"]
    assert network is not None
    logits = network.logits(pair.lq)
    size = (logits.shape[-2], logits.shape[-1])
    wanted = F.adaptive_avg_pool2d(target, size).argmax(dim=1)
    right = (logits.argmax(dim=1) == wanted).double().mean(dim=(1, 2))
    numbers = {"parts": part_classification(logits, target).double()[None], "accuracy": right}
    shown = foreground(logits.softmax(dim=1), (pair.lq.shape[-2], pair.lq.shape[-1]))
    return Validation(numbers, (pair.lq, shown.expand_as(pair.lq), pair.hq))
