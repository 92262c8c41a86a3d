"""Reducing the memory of a training: activation checkpointing, and decoding only random squares.

Shapes: b batch, c latent channels, h w latent size, s size of the crop. Images are in [0, 1].
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from hbr.training.random_state import RandomState


def checkpoint_blocks(model: nn.Module) -> None:
    """Enable activation checkpointing in every part of the model that supports it.

    Only the inputs of blocks are kept (Chen et al. 2016). The backward pass must recompute the same
    values: the adapters active in the forward pass must be active in the backward pass.
    """
    for part in (model, *model.children()):
        if enable := getattr(part, "enable_gradient_checkpointing", None):
            enable()


def random_squares(z: Tensor, hq: Tensor, crop: int, draws: RandomState) -> tuple[Tensor, Tensor]:
    """Return a random square of each latent and the same square of its image.

    Args:
        z: latents [b, c, h, w].
        hq: images [b, 3, s, s], s a multiple of h.
        crop: size of the square in pixels, a multiple of s / h and at most s.
        draws: source of the random corners, in latent pixels.

    Returns:
        [b, c, crop · h / s, crop · h / s] and [b, 3, crop, crop].
    """
    factor = hq.shape[-1] // z.shape[-1]
    cells = crop // factor
    y, x = (draws.integers(n - cells + 1, z) for n in z.shape[-2:])
    return _squares(z, y, x, cells), _squares(hq, y * factor, x * factor, crop)


def _squares(images: Tensor, y: Tensor, x: Tensor, edge: int) -> Tensor:
    """Crop a square of each image [b, c, h, w] at (y, x), each [b], without synchronization."""
    steps = torch.arange(edge, device=images.device)
    rows, columns = (y[:, None] + steps)[:, :, None], (x[:, None] + steps)[:, None]
    each = torch.arange(len(images), device=images.device)[:, None, None]
    return rearrange(images[each, :, rows, columns], "b h w c -> b c h w")
