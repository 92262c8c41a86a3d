"""Training objectives: restoration in one step or directly, a prior, an autoencoder, a decoder.

`Objective` returns the losses of a pair, and its validation results.

Shapes: b batch, s size of the crop, c latent channels, h w latent size, q d the prompt. Images are
in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from hbr.metrics import psnr, ssim
from hbr.models import lora
from hbr.models.onestep import OneStepRestorer
from hbr.models.protocol import Model
from hbr.models.schedule import alphas_cumprod
from hbr.models.vsd import Predict, guided, regularizer_loss, vsd_gradient, vsd_loss
from hbr.training.adapters import generator_adapters, is_of_discriminator, regularizer_adapters
from hbr.training.config import (
    AutoencodingConfig,
    ControlConfig,
    DecodingConfig,
    DiffusionConfig,
    LossConfig,
    ObjectiveConfig,
    PartsConfig,
    RegressionConfig,
    RestorationConfig,
    TrainConfig,
    VSDConfig,
)
from hbr.training.data import Pair
from hbr.training.denoising import (
    classify_parts,
    control,
    diffusion,
    prompted_by,
    validate_control,
    validate_diffusion,
    validate_parts,
)
from hbr.training.discriminator import artifact_loss, discriminator_loss, generator_loss
from hbr.training.losses import TEACHER_DECODER, Compared, Networks, PixelTerms, pixel_loss
from hbr.training.measuring import Validation
from hbr.training.random_state import RandomState
from hbr.training.teacher import taught

Average = Mapping[str, Tensor]
"""The averaged weights of a training, by name."""

# the trained parts of the model; None is all of them
_PARTS: dict[str, tuple[str, ...] | None] = {
    "restoration": ("autoencoder", "unet", "prompt", "refiner", "discriminator"),
    "regression": None,
    "autoencoder": ("autoencoder",),
    "decoder": ("autoencoder.decoder", "discriminator"),
    "diffusion": ("unet", "prompt"),
    "control": ("control",),
    "parts": ("parts",),
}


@dataclass(frozen=True)
class Losses:
    """The losses of a step.

    Attributes:
        terms: weighted terms; their sum is minimised.
        then: returns the terms of a second update, to be called after the first update.
    """

    terms: dict[str, Tensor]
    then: Callable[[], dict[str, Tensor]] | None = None


@dataclass(frozen=True)
class Objective:
    """A training objective.

    Attributes:
        config: which one.
        networks: of its losses (`hbr.training.losses.load_networks`).
        decode_crop: see `PixelTerms`.
        negative: negative prompt of the distillation, [q, d]; None is a prompt of zeros.
    """

    config: ObjectiveConfig
    networks: Networks
    decode_crop: int | None
    negative: Tensor | None

    @property
    def parts(self) -> tuple[str, ...] | None:
        """Names of the trained parts of the model; None is all of them."""
        return _PARTS[self.config.kind]

    def losses(
        self,
        model: Any,
        pair: Pair,
        loss: LossConfig,
        draws: RandomState,
        average: Average | None = None,
    ) -> Losses:
        """Return the losses of a pair, given the weights of the pixel losses.

        `average` are the averaged weights of the model; None is its own.
        """
        pixels = PixelTerms(loss, self.networks, self.decode_crop)
        match self.config:
            case RestorationConfig() as config:
                return restoration(model, pair, config, draws, pixels, self.negative, average)
            case RegressionConfig():
                image = model(pair.lq).float()
                return Losses(pixel_loss(image, pair.hq, loss, self.networks))
            case AutoencodingConfig() as config:
                return Losses(autoencoding(model, pair, config, draws, pixels))
            case DecodingConfig() as config:
                return decoding(model, pair, config, draws, pixels)
            case DiffusionConfig() as config:
                return Losses(diffusion(model, pair, config, draws))
            case ControlConfig() as config:
                return Losses(control(model, pair, config, draws))
            case PartsConfig():
                return Losses(classify_parts(model, pair))

    def validate(self, model: Any, pair: Pair, number: int) -> Validation:
        """Return the results of the validation pair of this number."""
        match self.config:
            case RestorationConfig() as config:
                lora.activate(model.unet, generator_adapters(model.unet))
                return compared(model(pair.lq, model.prompt(prompted_by(pair, config))), pair)
            case RegressionConfig():
                return compared(model(pair.lq), pair)
            case AutoencodingConfig():
                return validate_autoencoding(model, pair)
            case DecodingConfig():
                return validate_decoding(model, pair, self.networks[TEACHER_DECODER])
            case DiffusionConfig() as config:
                return validate_diffusion(model, pair, config, number)
            case ControlConfig():
                return validate_control(model, pair, number)
            case PartsConfig():
                return validate_parts(model, pair)


def build_objective(
    config: TrainConfig, networks: Networks | None = None, negative: Tensor | None = None
) -> Objective:
    """Return the objective of a training's configuration; see `Objective`."""
    return Objective(config.objective, networks or {}, config.memory.decode_crop, negative)


def restoration(
    model: OneStepRestorer,
    pair: Pair,
    config: RestorationConfig,
    draws: RandomState,
    pixels: PixelTerms,
    negative: Tensor | None = None,
    average: Average | None = None,
) -> Losses:
    """Return the pixel losses of the restored image, and the other losses that are configured.

    `negative` and `average` as in `Objective`.
    """
    loss = pixels.loss
    lora.activate(model.unet, generator_adapters(model.unet))
    p = model.prompt(prompted_by(pair, config))
    z_h = model.restore_latent(pair.lq, p)
    compared = pixels(model, z_h, pair.lq, _targets(pair, pixels, draws), draws)
    terms = compared.terms
    if loss.artifacts > 0:
        with torch.no_grad():
            weights = {n: t for n, t in (average or {}).items() if not is_of_discriminator(n)}
            averaged = functional_call(model, weights, (pair.lq,)).float()
        terms["artifacts"] = loss.artifacts * artifact_loss(compared.image, averaged, compared.hq)
    if config.discriminator is not None:
        real = compared.hq if loss.teacher == 0 else pair.hq
        return _adversarial(model.get_submodule("discriminator"), compared, real, loss)
    if config.vsd is None:
        return Losses(terms)
    p = p.detach()
    vsd = distillation(model, z_h, p, config.vsd, draws, negative)
    terms["vsd"] = config.vsd.weight * vsd
    return Losses(terms, lambda: regularization(model, z_h.detach(), p, draws))


def _targets(pair: Pair, pixels: PixelTerms, draws: RandomState) -> Tensor:
    """Return the images to compare with: HQ, and the teacher's for the first of the batch."""
    count = draws.first_of(pixels.loss.teacher, pair.hq)
    if count == 0:
        return pair.hq
    teacher = cast(Model, pixels.networks["teacher", pixels.loss.teacher_model])
    return torch.cat([taught(teacher, pair.lq[:count], pair.hq[:count]), pair.hq[count:]])


def _adversarial(
    discriminator: nn.Module, compared: Compared, real: Tensor, loss: LossConfig
) -> Losses:
    """Add the adversarial loss, and the discriminator's loss as the second update."""
    terms, image = dict(compared.terms), compared.image
    if loss.adversarial > 0:
        terms["adversarial"] = loss.adversarial * generator_loss(discriminator, image)
    return Losses(
        terms, lambda: {"discriminator": discriminator_loss(discriminator, image.detach(), real)}
    )


def distillation(
    model: OneStepRestorer,
    z_h: Tensor,
    p: Tensor,
    config: VSDConfig,
    draws: RandomState,
    negative: Tensor | None = None,
) -> Tensor:
    """Return the VSD loss of restored latents [b, c, h, w] with prompt [b, q, d]: a scalar.

    The negative prompt of the prior's guidance is `negative` [q', d], or zeros.
    """
    t = draws.timesteps(config.timesteps, z_h)
    noise = draws.noise(z_h)
    away = torch.zeros_like(p) if negative is None else negative.to(p).expand(len(p), -1, -1)
    frozen = guided(_network(model, (), p), _network(model, (), away), config.guidance)
    gradient = vsd_gradient(
        z_h,
        noise,
        t,
        alphas_cumprod(model.config.schedule),
        frozen=frozen,
        finetuned=_network(model, regularizer_adapters(model.unet), p),
        space=config.space,
    )
    # with checkpointing, the backward pass recomputes blocks of the generator
    lora.activate(model.unet, generator_adapters(model.unet))
    return vsd_loss(z_h, gradient)


def regularization(
    model: OneStepRestorer, z_h: Tensor, p: Tensor, draws: RandomState
) -> dict[str, Tensor]:
    """Return the regularizer's loss on latents restored by the generator."""
    t = draws.timesteps((0, model.config.schedule.steps), z_h)
    noise = draws.noise(z_h)
    network = _network(model, regularizer_adapters(model.unet), p)
    alpha_bar = alphas_cumprod(model.config.schedule)
    return {"regularizer": regularizer_loss(z_h, noise, t, alpha_bar, network)}


def _network(model: OneStepRestorer, adapters: tuple[str, ...], p: Tensor) -> Predict:
    def predict(z_t: Tensor, t: Tensor) -> Tensor:
        lora.activate(model.unet, adapters)
        return model.predict(z_t, p, t)

    return predict


def compared(image: Tensor, pair: Pair) -> Validation:
    """Return PSNR and SSIM of a restored image [b, 3, s, s], and their gain over the input."""
    image = image.float().clamp(0, 1)
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
    config: AutoencodingConfig,
    draws: RandomState,
    pixels: PixelTerms,
) -> dict[str, Tensor]:
    """Return the pixel losses of the reconstructed HQ image and the penalty on its latent."""
    z = model.encode(pair.hq).float()
    noise = draws.noise(z)
    terms = pixels(model, z + config.noise * noise, pair.hq, pair.hq, draws).terms
    return {**terms, "latent": config.latent * (z**2).mean()}


def decoding(
    model: OneStepRestorer,
    pair: Pair,
    config: DecodingConfig,
    draws: RandomState,
    pixels: PixelTerms,
) -> Losses:
    """Return the losses of the decoder's images of restored latents, then of encoded ones."""
    n = draws.first_of(config.restored, pair.hq)
    with torch.no_grad():
        parts = [model.restore_latent(pair.lq[:n])] if n else []
        parts += [model.encode(pair.hq[n:])] if n < len(pair.hq) else []
        z = torch.cat([part.float() for part in parts])
        encoded = torch.cat([pair.lq[:n], pair.hq[n:]])
        target = pixels.networks[TEACHER_DECODER](z, encoded).clamp(0, 1)
        if config.target == "photo":
            target = torch.cat([target[:n], pair.hq[n:]])
    compared = pixels(model, z + config.noise * draws.noise(z), encoded, target, draws)
    terms = compared.terms
    if config.latent > 0:
        with torch.no_grad():
            wanted = model.encode(compared.hq)
        terms["latent"] = config.latent * F.l1_loss(model.encode(compared.image), wanted)
    if config.discriminator is None:
        return Losses(terms)
    return _adversarial(model.get_submodule("discriminator"), compared, compared.hq, pixels.loss)


def validate_decoding(model: OneStepRestorer, pair: Pair, teacher: nn.Module) -> Validation:
    """Return PSNR of the restored image to the teacher's, and of both to HQ."""
    z = model.restore_latent(pair.lq)
    image, wanted = (x.float().clamp(0, 1) for x in (model.decode(z), teacher(z, pair.lq)))
    numbers = {
        "psnr_teacher": psnr(image, wanted),
        "psnr": psnr(image, pair.hq),
        "psnr_cost": psnr(wanted, pair.hq) - psnr(image, pair.hq),
    }
    return Validation(numbers, (wanted, image, pair.hq))


def validate_autoencoding(model: OneStepRestorer, pair: Pair) -> Validation:
    """Return PSNR and SSIM of the decoded image, and the standard deviation of the latent."""
    z = model.encode(pair.hq).float()
    image = model.decode(z).clamp(0, 1)
    numbers = {
        "psnr": psnr(image, pair.hq),
        "ssim": ssim(image, pair.hq),
        "latent_std": z.std(dim=(1, 2, 3)).double(),
    }
    return Validation(numbers, (image, pair.hq))
