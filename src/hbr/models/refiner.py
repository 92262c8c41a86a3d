"""A small network on pixels after the decoder.

A decoder that works on patches sees no pixel twice, so that its errors repeat with the period of a
patch, and it cannot place an edge between two patches. The refiner works across them.

Shapes: b batch, H W pixels.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hbr.models.config import RefinerConfig


class Refiner(nn.Module):
    """Adds a correction to an image; it starts at zero, as the identity.

    Residual blocks of two 3×3 convolutions without normalisation (EDSR, Lim et al. 2017), on
    pixel-unshuffled images.
    """

    def __init__(self, config: RefinerConfig) -> None:
        super().__init__()
        self.patch_size, self.sees_input = config.patch_size, config.sees_input
        channels = 3 * config.patch_size**2
        seen = 2 * channels if config.sees_input else channels
        self.conv_in = nn.Conv2d(seen, config.width, 3, padding=1)
        self.blocks = nn.ModuleList(_Block(config.width) for _ in range(config.blocks))
        self.conv_out = nn.Conv2d(config.width, channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(cast(Tensor, self.conv_out.bias))

    def forward(self, image: Tensor, lq: Tensor | None = None) -> Tensor:
        """Refine images [b, 3, H, W], about [0, 1], H and W multiples of `patch_size`.

        `lq` is the input of the model, of the same shape; only a refiner that sees it needs it.
        """
        seen = image
        if self.sees_input:
            if lq is None:
                raise ValueError("this refiner needs the input of its model too")
            seen = torch.cat([image, lq.to(image)], dim=1)
        x = F.pixel_unshuffle(seen * 2 - 1, self.patch_size).to(self.conv_in.weight.dtype)
        x = self.conv_in(x)
        for block in self.blocks:
            x = block(x)
        x = self.conv_out(F.silu(x))
        return image + F.pixel_shuffle(x, self.patch_size).to(image.dtype) * 0.5


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, x + self.conv2(F.silu(self.conv1(F.silu(x)))))
