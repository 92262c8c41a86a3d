"""Losses on pixels, none of which needs a pretrained network.

Shapes: b batch, h w pixels. Images are in [0, 1].
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from hbr.training.config import LossConfig


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


def pixel_loss(image: Tensor, target: Tensor, config: LossConfig) -> dict[str, Tensor]:
    """The weighted terms whose sum is minimised; terms of weight 0 are not computed."""
    terms: dict[str, tuple[float, Callable[[Tensor, Tensor], Tensor]]] = {
        "mse": (config.mse, F.mse_loss),
        "l1": (config.l1, F.l1_loss),
        "psnr": (config.psnr, negative_psnr),
        "gradient": (config.gradient, gradient_l1),
    }
    return {name: w * term(image, target) for name, (w, term) in terms.items() if w > 0}
