"""The discriminator of an adversarial training, its losses, and the detection of its collapse.

Shapes: b batch, h w pixels. Images are in [0, 1].
Source: Real-ESRGAN (2021), §3.3 for the U-Net with spectral norm; LDL (Liang et al. 2022) for the
map of artifacts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

_BALANCE = 2 * math.log(2)
"""The discriminator's loss if it cannot distinguish restored from real images."""

_HEALTHY = (0.25, 2.5)
_DIVERGED = (0.1, 4.0)
_MOMENTUM = 0.98
_ARTIFACT_WINDOW = 7


class Discriminator(nn.Module):
    """A U-Net that predicts for each 2×2 pixels whether they are real, with spectral norm.

    The input is pixel-unshuffled by 2, which reduces the cost to a quarter.

    Args:
        width: number of channels of the first level; the next two have two and four times as many.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.first = _conv(12, width, 3)
        self.down1, self.down2 = _conv(width, 2 * width, 4), _conv(2 * width, 4 * width, 4)
        self.up1, self.up2 = _conv(4 * width, 2 * width, 3), _conv(2 * width, width, 3)
        self.middle, self.last = _conv(width, width, 3), nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Images [b, 3, h, w], h and w multiples of 8 → logits [b, 1, h/2, w/2]; high is real."""
        x0 = _act(self.first(F.pixel_unshuffle(image * 2 - 1, 2)))
        x1 = _act(self.down1(x0))
        x2 = _act(self.down2(x1))
        x = _act(self.up1(_twice(x2))) + x1
        x = _act(self.up2(_twice(x))) + x0
        out: Tensor = self.last(_act(self.middle(x)))
        return out


def _conv(inner: int, outer: int, kernel: int) -> nn.Module:
    stride = 2 if kernel == 4 else 1
    return spectral_norm(nn.Conv2d(inner, outer, kernel, stride, padding=1, bias=False))


def _act(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear")


def generator_loss(discriminator: nn.Module, image: Tensor) -> Tensor:
    """Return the generator's loss on images [b, 3, h, w]; only the images get a gradient."""
    with _frozen(discriminator):
        return F.softplus(-discriminator(image).float()).mean()


def discriminator_loss(discriminator: nn.Module, image: Tensor, real: Tensor) -> Tensor:
    """Return the binary cross-entropy on real and restored images, each [b, 3, h, w]: a scalar."""
    logits = discriminator(torch.cat([real, image.detach()])).float()
    return F.softplus(-logits[: len(real)]).mean() + F.softplus(logits[len(real) :]).mean()


def artifact_loss(image: Tensor, averaged: Tensor, real: Tensor) -> Tensor:
    """Return the L1 weighted by an artifact map (LDL): a scalar.

    The map is the local variance of the residual times its overall variance^(1/5), and 0 where the
    residual of the averaged model is larger.

    All are [b, 3, h, w]: `averaged` is restored with the averaged weights, `real` is HQ.
    """
    with torch.no_grad():
        residual = (real - image).abs().mean(dim=1, keepdim=True)
        reference = (real - averaged).abs().mean(dim=1, keepdim=True)
        overall = residual.var(dim=(1, 2, 3), keepdim=True) ** 0.2
        artifacts = overall * _local_variance(residual) * (residual >= reference)
    return (artifacts * (real - image).abs()).mean()


def _local_variance(x: Tensor) -> Tensor:
    """Compute the variance in a window around each pixel: [b, 1, h, w] → the same."""
    windows = F.pad(x, (_ARTIFACT_WINDOW // 2,) * 4, mode="reflect")
    mean, square = (F.avg_pool2d(t, _ARTIFACT_WINDOW, stride=1) for t in (windows, windows**2))
    return (square - mean**2).clamp(min=0)


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Disable gradients for the weights of a module within the context."""
    trained = [p for p in module.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


class Balance:
    """The exponential moving average of the discriminator's loss.

    Attributes:
        mean: starts at 2·ln 2 (chance level); approaches 0 as the discriminator wins.
    """

    def __init__(self, mean: float = _BALANCE) -> None:
        self.mean = mean

    def add(self, loss: float) -> None:
        """Update the average with the loss of one step."""
        if math.isfinite(loss):
            self.mean = _MOMENTUM * self.mean + (1 - _MOMENTUM) * loss

    @property
    def healthy(self) -> bool:
        """Whether the generator trained against it is worth saving."""
        return _HEALTHY[0] <= self.mean <= _HEALTHY[1]

    @property
    def diverged(self) -> bool:
        """Whether the discriminator has collapsed, so that its gradient is useless."""
        return not _DIVERGED[0] <= self.mean <= _DIVERGED[1]
