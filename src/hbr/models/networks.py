"""The networks of latent diffusion: the autoencoder, through which images go, and the U-Net.

Shapes: b batch, H W pixels, c latent channels, h w latent size.
"""

from __future__ import annotations

from types import MethodType
from typing import Any, cast

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hbr.models.config import AutoencoderConfig, UNetConfig


def encode(autoencoder: AutoencoderKL, config: AutoencoderConfig, image: Tensor) -> Tensor:
    """Encode an image: [b, 3, H, W] in [0, 1] → z [b, c, h, w], the scaled posterior mode."""
    x = F.pixel_unshuffle(image * 2 - 1, config.patch_size)
    posterior = autoencoder.encode(x.to(autoencoder.decoder.conv_in.weight.dtype)).latent_dist
    return cast(Tensor, posterior.mode()) * config.scaling_factor


def decode(autoencoder: AutoencoderKL, config: AutoencoderConfig, z: Tensor) -> Tensor:
    """Decode z: [b, c, h, w] → [b, 3, H, W], about [0, 1], not clamped."""
    x = autoencoder.decode(
        (z / config.scaling_factor).to(autoencoder.decoder.conv_in.weight.dtype)
    ).sample
    return F.pixel_shuffle(x, config.patch_size).float() * 0.5 + 0.5


def checkpoint_decoder(autoencoder: AutoencoderKL) -> None:
    """Keep only the inputs of the decoder's levels for a backward pass, and within the level that
    is recomputed, those of its residual blocks and upsamplers.

    The last level, at the size of the image, would take most of the memory otherwise.
    """
    autoencoder.enable_gradient_checkpointing()
    decoder = autoencoder.decoder
    for block in (decoder.mid_block, *decoder.up_blocks):
        for part in (*block.resnets, *(getattr(block, "upsamplers", None) or ())):
            # a method, so that a copy of the module calls itself and not the original
            part.forward = MethodType(_recomputed_forward, part)


def _recomputed_forward(self: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
    forward = type(self).forward
    if not torch.is_grad_enabled():
        return cast(Tensor, forward(self, *args, **kwargs))
    return cast(Tensor, checkpoint(forward, self, *args, use_reentrant=False, **kwargs))


def build_autoencoder(config: AutoencoderConfig) -> AutoencoderKL:
    """A diffusers `AutoencoderKL` with random weights."""
    levels = len(config.block_out_channels)
    channels = 3 * config.patch_size**2
    return AutoencoderKL(
        in_channels=channels,
        out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.block_out_channels,
        layers_per_block=config.layers_per_block,
        latent_channels=config.latent_channels,
        norm_num_groups=config.norm_num_groups,
        mid_block_add_attention=config.mid_attention,
        scaling_factor=config.scaling_factor,
    )


def build_unet(config: UNetConfig, latent_channels: int) -> UNet2DConditionModel:
    """A diffusers `UNet2DConditionModel` with random weights."""
    down = tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in config.attention)
    up = tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(config.attention))
    return UNet2DConditionModel(
        in_channels=latent_channels,
        out_channels=latent_channels,
        down_block_types=down,
        up_block_types=up,
        block_out_channels=config.block_out_channels,
        layers_per_block=config.layers_per_block,
        attention_head_dim=config.attention_head_dim,
        cross_attention_dim=config.cross_attention_dim,
        norm_num_groups=config.norm_num_groups,
        use_linear_projection=config.use_linear_projection,
    )
