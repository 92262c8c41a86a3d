"""RRDBNet, the upscaler of ESRGAN (Wang et al. 2018, Fig. 4) and Real-ESRGAN (Wang et al. 2021).

The names of the weights are those of the published files.

Shapes: b tiles, c channels, h w what the network sees, all in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hbr.models.protocol import Conditions, Place
from hbr.models.rrdbnet_config import RRDBNetConfig

# "residual scaling" β, and the slope of the activations
_BETA = 0.2
_SLOPE = 0.2


def _convolution(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


def _activation(x: Tensor) -> Tensor:
    return F.leaky_relu(x, _SLOPE, inplace=not x.requires_grad)


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees the input and what those before it gave.

    Args:
        width: channels of input and output.
        growth: channels that each of the first four convolutions adds.
    """

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.conv1 = _convolution(width, growth)
        self.conv2 = _convolution(width + growth, growth)
        self.conv3 = _convolution(width + 2 * growth, growth)
        self.conv4 = _convolution(width + 3 * growth, growth)
        self.conv5 = _convolution(width + 4 * growth, width)

    def forward(self, x: Tensor) -> Tensor:
        """[b, c, h, w] → the same shape."""
        seen = x
        for convolution in (self.conv1, self.conv2, self.conv3, self.conv4):
            seen = torch.cat((seen, _activation(convolution(seen))), dim=1)
        return torch.add(x, self.conv5(seen), alpha=_BETA)


class RRDB(nn.Module):
    """Three dense blocks, and around them a residual again."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.rdb1 = DenseBlock(width, growth)
        self.rdb2 = DenseBlock(width, growth)
        self.rdb3 = DenseBlock(width, growth)

    def forward(self, x: Tensor) -> Tensor:
        """[b, c, h, w] → the same shape."""
        return torch.add(x, self.rdb3(self.rdb2(self.rdb1(x))), alpha=_BETA)


class RRDBNet(nn.Module):
    """A network of factor 4 that is a `hbr.models.Model` on the grid of its result."""

    def __init__(self, config: RRDBNetConfig) -> None:
        super().__init__()
        self.config, self.capabilities = config, config.capabilities
        width = config.width
        self.conv_first = _convolution(3, width)
        self.body = nn.Sequential(*(RRDB(width, config.growth) for _ in range(config.blocks)))
        self.conv_body = _convolution(width, width)
        self.conv_up1 = _convolution(width, width)
        self.conv_up2 = _convolution(width, width)
        self.conv_hr = _convolution(width, width)
        self.conv_last = _convolution(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """RGB in [0, 1]: [b, 3, h, w] → [b, 3, 4·h, 4·w], about [0, 1], not clamped."""
        first = self.conv_first(x)
        x = first + self.conv_body(self.body(first))
        for convolution in (self.conv_up1, self.conv_up2):
            x = _activation(convolution(F.interpolate(x, scale_factor=2, mode="nearest")))
        out: Tensor = self.conv_last(_activation(self.conv_hr(x)))
        return out

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.conv_first.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.conv_first.weight.device

    def restore(self, tiles: Tensor, places: Sequence[Place], conditions: Conditions) -> Tensor:
        """See `Model.restore`: of each square of 4×4 equal pixels the network sees one."""
        f = self.capabilities.upscale
        seen = tiles[:, :, ::f, ::f].to(self.dtype, memory_format=torch.channels_last)
        return self(seen).float()
