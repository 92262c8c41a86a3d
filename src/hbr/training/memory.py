"""What a training gives for less memory: time for activations, and pixels that are not decoded.

Shapes: b batch, c latent channels, h w latent size, s edge of the crop. Images are in [0, 1].
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from hbr.training.random_state import RandomState


def checkpoint_blocks(model: nn.Module) -> None:
    """Recompute the blocks of every part that supports it in the backward pass.

    Only what enters a block is kept (Chen et al. 2016). What is computed again must be what was
    computed first: the adapters that acted on the way there must act on the way back.
    """
    for part in model.children():
        if enable := getattr(part, "enable_gradient_checkpointing", None):
            enable()


def random_squares(z: Tensor, hq: Tensor, crop: int, draws: RandomState) -> tuple[Tensor, Tensor]:
    """A random square of each latent, and the same square of its image.

    Args:
        z: latents [b, c, h, w].
        hq: images [b, 3, s, s], s a multiple of h.
        crop: edge of the square in pixels, a multiple of s / h and at most s.
        draws: the corners, on latent cells.

    Returns:
        [b, c, crop · h / s, crop · h / s] and [b, 3, crop, crop].
    """
    factor = hq.shape[-1] // z.shape[-1]
    cells = crop // factor
    y, x = (draws.integers(n - cells + 1, z) for n in z.shape[-2:])
    return _squares(z, y, x, cells), _squares(hq, y * factor, x * factor, crop)


def _squares(images: Tensor, y: Tensor, x: Tensor, edge: int) -> Tensor:
    """The square of each image [b, c, h, w] that begins at (y, x), two [b]; no device waits."""
    steps = torch.arange(edge, device=images.device)
    rows, columns = (y[:, None] + steps)[:, :, None], (x[:, None] + steps)[:, None]
    each = torch.arange(len(images), device=images.device)[:, None, None]
    return rearrange(images[each, :, rows, columns], "b h w c -> b c h w")
