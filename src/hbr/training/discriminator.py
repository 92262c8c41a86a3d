"""The discriminator of an adversarial training, its losses, and how its collapse is told.

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
"""The discriminator's loss where it cannot tell restored from real."""

_HEALTHY = (0.25, 2.5)
_DIVERGED = (0.1, 4.0)
_REMEMBERED = 0.98
_ARTIFACT_WINDOW = 7


class Discriminator(nn.Module):
    """A U-Net that says of every 2×2 pixels how real they look; every convolution is normalised.

    It works on unshuffled pixels, 2×2 to a place, which costs a quarter.

    Args:
        width: channels of the first level; the next two have twice and four times as many.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.first = _conv(12, width, 3)
        self.down1, self.down2 = _conv(width, 2 * width, 4), _conv(2 * width, 4 * width, 4)
        self.up1, self.up2 = _conv(4 * width, 2 * width, 3), _conv(2 * width, width, 3)
        self.middle, self.last = _conv(width, width, 3), nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Images [b, 3, h, w], h and w multiples of 8 → logits [b, 1, h/2, w/2]; real is high."""
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
    """How unreal images [b, 3, h, w] look: a scalar; only the images get a gradient."""
    with _frozen(discriminator):
        return F.softplus(-discriminator(image).float()).mean()


def discriminator_loss(discriminator: nn.Module, image: Tensor, real: Tensor) -> Tensor:
    """Binary cross-entropy of telling real from restored images, each [b, 3, h, w]: a scalar."""
    logits = discriminator(torch.cat([real, image.detach()])).float()
    return F.softplus(-logits[: len(real)]).mean() + F.softplus(logits[len(real) :]).mean()


def artifact_loss(image: Tensor, averaged: Tensor, real: Tensor) -> Tensor:
    """L1 where the image is off like an artifact and more so than the averaged model's: a scalar.

    The map is the local variance of the residual times its overall variance^(1/5), 0 where the
    averaged model's image is further off.

    Args:
        image: [b, 3, h, w].
        averaged: what the averaged weights restore.
        real: the HQ images.
    """
    with torch.no_grad():
        residual = (real - image).abs().mean(dim=1, keepdim=True)
        steadier = (real - averaged).abs().mean(dim=1, keepdim=True)
        overall = residual.var(dim=(1, 2, 3), keepdim=True) ** 0.2
        where = overall * _local_variance(residual) * (residual >= steadier)
    return (where * (real - image).abs()).mean()


def _local_variance(x: Tensor) -> Tensor:
    """Variance in a window around each pixel: [b, 1, h, w] → the same."""
    windows = F.pad(x, (_ARTIFACT_WINDOW // 2,) * 4, mode="reflect")
    mean, square = (F.avg_pool2d(t, _ARTIFACT_WINDOW, stride=1) for t in (windows, windows**2))
    return (square - mean**2).clamp(min=0)


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """No gradient for the weights of a module that is run inside."""
    trained = [p for p in module.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


class Balance:
    """The running mean of the discriminator's loss.

    Attributes:
        mean: from 2·ln 2, where it cannot tell at all; falls towards 0 as it tells everything.
    """

    def __init__(self, mean: float = _BALANCE) -> None:
        self.mean = mean

    def add(self, loss: float) -> None:
        """Count the loss of one step."""
        if math.isfinite(loss):
            self.mean = _REMEMBERED * self.mean + (1 - _REMEMBERED) * loss

    @property
    def healthy(self) -> bool:
        """Whether what is trained against it is worth saving."""
        return _HEALTHY[0] <= self.mean <= _HEALTHY[1]

    @property
    def diverged(self) -> bool:
        """Whether it tells everything, or nothing that is so: its gradient is no help any more."""
        return not _DIVERGED[0] <= self.mean <= _DIVERGED[1]
