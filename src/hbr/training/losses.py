"""Losses between restored and HQ images, and the frozen networks that some of them need.

Shapes: b batch, c channels, h w size, s size of a crop in pixels. Images are in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from hbr.metrics.dists import DISTS
from hbr.metrics.lpips import LPIPS
from hbr.models.onestep import OneStepRestorer
from hbr.training.config import DecodingConfig, InitConfig, LossConfig, TrainConfig
from hbr.training.decoding import load_teacher_decoder
from hbr.training.random_state import RandomState
from hbr.training.teacher import load_teacher
from hbr.weights import find_weights

Term = Callable[[Tensor, Tensor], Tensor]
DeepLossKind = Literal["lpips", "dists", "teacher", "decoder"]
NetworkKey = tuple[DeepLossKind, Path | str | None]
Networks = Mapping[NetworkKey, nn.Module]
"""(kind of loss, its VGG-16 file or its teacher from the configuration) → the frozen network.

That of the kind "decoder" is the teacher of the objective `decoder`.
"""

TEACHER_DECODER: NetworkKey = ("decoder", None)


def negative_psnr(image: Tensor, target: Tensor, floor: float = 1e-4) -> Tensor:
    """Return the mean over the batch of log10(MSE + floor), i.e. −PSNR/10 per image: a scalar.

    The floor keeps nearly perfect images from dominating the gradient.
    """
    mse = F.mse_loss(image, target, reduction="none").mean(dim=(1, 2, 3))
    return torch.log10(mse + floor).mean()


def gradient_l1(image: Tensor, target: Tensor) -> Tensor:
    """Return the L1 between differences of neighbouring pixels, along both axes: a scalar."""
    across = F.l1_loss(image.diff(dim=-1), target.diff(dim=-1))
    return across + F.l1_loss(image.diff(dim=-2), target.diff(dim=-2))


def sobel(image: Tensor) -> Tensor:
    """Compute the edge map √(Gx² + Gy²) of each channel: [b, c, h, w] → the same, in [0, √2].

    The Sobel kernels are divided by 4, so that a step from 0 to 1 gives an edge of 1. The border
    is padded by replication.
    """
    x = F.pad(image, (1, 1, 1, 1), mode="replicate")
    # each kernel is a smoothing along one axis and a difference along the other
    rows = (x[..., :-2, :] + 2 * x[..., 1:-1, :] + x[..., 2:, :]) / 4
    columns = (x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]) / 4
    across = rows[..., 2:] - rows[..., :-2]
    down = columns[..., 2:, :] - columns[..., :-2, :]
    # the gradient of a root is infinite at 0
    return (across.square() + down.square() + 1e-12).sqrt()


def edge_l1(image: Tensor, target: Tensor) -> Tensor:
    """Return the L1 between the edge maps of `sobel`: a scalar."""
    return F.l1_loss(sobel(image), sobel(target))


def load_networks(config: TrainConfig, device: str | torch.device = "cpu") -> Networks:
    """Load the networks that a training's losses need, frozen, in float32 on `device`.

    Raises:
        hbr.metrics.MetricError: weights are missing or invalid; the message says how to get them.
    """
    return {key: _load(config, *key, device) for key in needed_networks(config)}


def needed_networks(config: TrainConfig) -> list[NetworkKey]:
    """Return the keys of the networks that a training's losses need."""
    keys: dict[NetworkKey, None] = {}
    if isinstance(config.objective, DecodingConfig):
        keys[TEACHER_DECODER] = None
    for loss in [phase.loss or config.loss for phase in config.phases]:
        if loss.lpips:
            keys["lpips", loss.lpips_weights] = None
        if loss.dists or loss.edge_dists:
            keys["dists", loss.dists_weights] = None
        if loss.teacher:
            keys["teacher", loss.teacher_model] = None
    return list(keys)


def pixel_loss(
    image: Tensor, target: Tensor, config: LossConfig, networks: Networks | None = None
) -> dict[str, Tensor]:
    """Return the weighted terms of the loss by name; terms with weight 0 are not computed.

    Args:
        image, target: float32 [b, 3, h, w].
        config: the weights.
        networks: from `load_networks`, for the terms that need one.
    """

    def deep(kind: DeepLossKind, file: Path | None, transform: Callable[[Tensor], Tensor]) -> Term:
        def term(image: Tensor, target: Tensor) -> Tensor:
            low = config.precision == "bfloat16"
            with torch.autocast(image.device.type, torch.bfloat16, enabled=low):
                network = (networks or {})[kind, file]
                distances: Tensor = network(transform(image), transform(target))
            return distances.float().mean()

        return term

    terms: dict[str, tuple[float, Term]] = {
        "mse": (config.mse, F.mse_loss),
        "l1": (config.l1, F.l1_loss),
        "psnr": (config.psnr, negative_psnr),
        "gradient": (config.gradient, gradient_l1),
        "edge": (config.edge, edge_l1),
        "lpips": (config.lpips, deep("lpips", config.lpips_weights, _identity)),
        "dists": (config.dists, deep("dists", config.dists_weights, _identity)),
        "edge_dists": (config.edge_dists, deep("dists", config.dists_weights, sobel)),
    }
    return {name: w * term(image, target) for name, (w, term) in terms.items() if w > 0}


@dataclass(frozen=True)
class Compared:
    """Decoded images and their losses.

    Attributes:
        terms: the weighted terms of the loss, by name.
        image, hq: float32 [b, 3, s, s].
    """

    terms: dict[str, Tensor]
    image: Tensor
    hq: Tensor


@dataclass(frozen=True)
class PixelTerms:
    """Computes the losses between decoded latents and HQ images.

    Attributes:
        loss: the weights.
        networks: from `load_networks`.
        decode_crop: size in pixels of the random square to decode; None decodes the whole.
    """

    loss: LossConfig
    networks: Networks = field(default_factory=dict)
    decode_crop: int | None = None

    def __call__(
        self, model: OneStepRestorer, z: Tensor, encoded: Tensor, hq: Tensor, draws: RandomState
    ) -> Compared:
        """Decode z [b, c, h, w] and compare with hq; both images are [b, 3, s, s].

        `encoded` is what z was encoded from.
        """
        if self.decode_crop is not None:
            z, encoded, hq = random_squares(z, (encoded, hq), self.decode_crop, draws)
        image = model.decode(z, encoded).float()
        image = image.clamp(0, 1) if self.loss.clamp else image
        return Compared(pixel_loss(image, hq, self.loss, self.networks), image, hq)


def random_squares(
    z: Tensor, images: Sequence[Tensor], crop: int, draws: RandomState
) -> list[Tensor]:
    """Return a random square of each latent and the same squares of its images.

    Args:
        z: latents [b, c, h, w].
        images: each [b, 3, s, s], s a multiple of h.
        crop: size of the square in pixels, a multiple of s / h and at most s.
        draws: source of the random corners, in latent pixels.

    Returns:
        [b, c, crop · h / s, crop · h / s], and [b, 3, crop, crop] of each of the images.
    """
    factor = images[0].shape[-1] // z.shape[-1]
    cells = crop // factor
    y, x = (draws.integers(n - cells + 1, z) for n in z.shape[-2:])
    cut = [_squares(image, y * factor, x * factor, crop) for image in images]
    return [_squares(z, y, x, cells), *cut]


def _squares(images: Tensor, y: Tensor, x: Tensor, edge: int) -> Tensor:
    """Crop a square of each image [b, c, h, w] at (y, x), each [b], without synchronization."""
    steps = torch.arange(edge, device=images.device)
    rows, columns = (y[:, None] + steps)[:, :, None], (x[:, None] + steps)[:, None]
    each = torch.arange(len(images), device=images.device)[:, None, None]
    return rearrange(images[each, :, rows, columns], "b h w c -> b c h w")


def _identity(image: Tensor) -> Tensor:
    return image


def _load(
    config: TrainConfig, kind: DeepLossKind, given: Path | str | None, device: str | torch.device
) -> nn.Module:
    if kind == "decoder":
        return load_teacher_decoder(cast(InitConfig, config.init), device)
    if kind == "teacher":
        return load_teacher(str(given), device)
    given = None if given is None else Path(given)
    features = find_weights("vgg16", f"loss.{kind}", given)
    if kind == "lpips":
        lin = find_weights("lpips-vgg-lin", "loss.lpips")
        return LPIPS.from_files("vgg", features, lin).to(device)
    return DISTS.from_files(features, find_weights("dists-weights", "loss.dists")).to(device)
