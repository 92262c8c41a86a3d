"""The terms between restored and HQ images, and the frozen networks that some of them need.

Shapes: b batch, c channels, h w size, s edge of a crop in pixels. Images are in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hbr.metrics.dists import DISTS
from hbr.metrics.lpips import LPIPS
from hbr.models.onestep import OneStepRestorer
from hbr.training.config import LossConfig, TrainConfig
from hbr.training.memory import random_squares
from hbr.training.random_state import RandomState
from hbr.weights import find_weights

Term = Callable[[Tensor, Tensor], Tensor]
DeepLossKind = Literal["lpips", "dists"]
Networks = Mapping[tuple[DeepLossKind, Path | None], nn.Module]
"""(what it computes, file of VGG-16 as the configuration names it) → the network, frozen."""


def negative_psnr(image: Tensor, target: Tensor, floor: float = 1e-4) -> Tensor:
    """Mean over the batch of log10(MSE + floor), that is −PSNR/10 per image: scalar.

    The floor keeps images that are right already from taking all the gradient.
    """
    mse = F.mse_loss(image, target, reduction="none").mean(dim=(1, 2, 3))
    return torch.log10(mse + floor).mean()


def gradient_l1(image: Tensor, target: Tensor) -> Tensor:
    """L1 between the differences of neighbouring pixels, along both axes: scalar."""
    across = F.l1_loss(image.diff(dim=-1), target.diff(dim=-1))
    return across + F.l1_loss(image.diff(dim=-2), target.diff(dim=-2))


def sobel(image: Tensor) -> Tensor:
    """Edge map, √(Gx² + Gy²) of each channel: [b, c, h, w] → the same, in [0, √2] for [0, 1].

    Sobel's kernels are divided by 4, so that a step from 0 to 1 is an edge of 1. At the border the
    nearest pixels count twice.
    """
    x = F.pad(image, (1, 1, 1, 1), mode="replicate")
    # each kernel is a smoothing along one axis and a difference along the other
    rows = (x[..., :-2, :] + 2 * x[..., 1:-1, :] + x[..., 2:, :]) / 4
    columns = (x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]) / 4
    across = rows[..., 2:] - rows[..., :-2]
    down = columns[..., 2:, :] - columns[..., :-2, :]
    # where nothing changes, a plain root has no gradient
    return (across.square() + down.square() + 1e-12).sqrt()


def edge_l1(image: Tensor, target: Tensor) -> Tensor:
    """L1 between the edge maps of `sobel`: scalar."""
    return F.l1_loss(sobel(image), sobel(target))


def load_networks(config: TrainConfig, device: str | torch.device = "cpu") -> Networks:
    """The networks that the losses of a training need, each once, frozen, float32 on `device`.

    Raises:
        hbr.metrics.MetricError: weights are missing or wrong; the message says how to get them.
    """
    return {key: _load(*key).to(device) for key in needed_networks(config)}


def needed_networks(config: TrainConfig) -> list[tuple[DeepLossKind, Path | None]]:
    """Keys of the networks that the losses of a training need."""
    keys: dict[tuple[DeepLossKind, Path | None], None] = {}
    for loss in [phase.loss or config.loss for phase in config.phases]:
        if loss.lpips:
            keys["lpips", loss.lpips_weights] = None
        if loss.dists or loss.edge_dists:
            keys["dists", loss.dists_weights] = None
    return list(keys)


def pixel_loss(
    image: Tensor, target: Tensor, config: LossConfig, networks: Networks | None = None
) -> dict[str, Tensor]:
    """The weighted terms whose sum is minimised; terms of weight 0 are not computed.

    Args:
        image, target: float32 [b, 3, h, w].
        config: the weights.
        networks: of `load_networks`; only terms that need one look into it.
    """

    def deep(kind: DeepLossKind, file: Path | None, seen: Callable[[Tensor], Tensor]) -> Term:
        def term(image: Tensor, target: Tensor) -> Tensor:
            low = config.precision == "bfloat16"
            with torch.autocast(image.device.type, torch.bfloat16, enabled=low):
                distances: Tensor = (networks or {})[kind, file](seen(image), seen(target))
            return distances.float().mean()

        return term

    terms: dict[str, tuple[float, Term]] = {
        "mse": (config.mse, F.mse_loss),
        "l1": (config.l1, F.l1_loss),
        "psnr": (config.psnr, negative_psnr),
        "gradient": (config.gradient, gradient_l1),
        "edge": (config.edge, edge_l1),
        "lpips": (config.lpips, deep("lpips", config.lpips_weights, _as_is)),
        "dists": (config.dists, deep("dists", config.dists_weights, _as_is)),
        "edge_dists": (config.edge_dists, deep("dists", config.dists_weights, sobel)),
    }
    return {name: w * term(image, target) for name, (w, term) in terms.items() if w > 0}


@dataclass(frozen=True)
class Compared:
    """What latents decode to beside the HQ images.

    Attributes:
        terms: the weighted terms between them.
        image, hq: float32 [b, 3, s, s].
    """

    terms: dict[str, Tensor]
    image: Tensor
    hq: Tensor


@dataclass(frozen=True)
class PixelTerms:
    """The terms between what latents decode to and the HQ images.

    Attributes:
        networks: of `load_networks`.
        decode_crop: edge in pixels of the random square that alone is decoded; None is the whole.
    """

    networks: Networks = field(default_factory=dict)
    decode_crop: int | None = None

    def __call__(
        self,
        model: OneStepRestorer,
        z: Tensor,
        hq: Tensor,
        loss: LossConfig,
        draws: RandomState,
    ) -> Compared:
        """Decode z [b, c, h, w], compare with hq [b, 3, s, s]."""
        if self.decode_crop is not None:
            z, hq = random_squares(z, hq, self.decode_crop, draws)
        image = model.decode(z).float()
        return Compared(pixel_loss(image, hq, loss, self.networks), image, hq)


def _as_is(image: Tensor) -> Tensor:
    return image


def _load(kind: DeepLossKind, file: Path | None) -> nn.Module:
    features = find_weights("vgg16", f"loss.{kind}", file)
    if kind == "lpips":
        return LPIPS.from_files("vgg", features, find_weights("lpips-vgg-lin", "loss.lpips"))
    return DISTS.from_files(features, find_weights("dists-weights", "loss.dists"))
