"""The networks of latent diffusion: the autoencoder, through which images go, and the U-Net.

Shapes: b batch, H W pixels, c latent channels, h w latent size.
"""

from __future__ import annotations

from types import MethodType
from typing import Any, cast

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d_blocks import AutoencoderTinyBlock
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hbr.models.autoencoder_config import AutoencoderConfig
from hbr.models.config import UNetConfig
from hbr.models.decoders import build_decoder


def encode(autoencoder: AutoencoderKL, config: AutoencoderConfig, image: Tensor) -> Tensor:
    """Encode an image: [b, 3, H, W] in [0, 1] → z [b, c, h, w], the scaled posterior mode."""
    x = F.pixel_unshuffle(image * 2 - 1, config.patch_size)
    posterior = autoencoder.encode(x.to(_dtype(autoencoder))).latent_dist
    return cast(Tensor, posterior.mode()) * config.scaling_factor


def decode(autoencoder: AutoencoderKL, config: AutoencoderConfig, z: Tensor) -> Tensor:
    """Decode z: [b, c, h, w] → [b, 3, H, W], about [0, 1], not clamped."""
    decoder = config.decoding
    x = autoencoder.decode((z / decoder.scaling_factor).to(_dtype(autoencoder))).sample
    return F.pixel_shuffle(x, decoder.patch_size).float() * 0.5 + 0.5


def _dtype(autoencoder: AutoencoderKL) -> torch.dtype:
    return next(autoencoder.decoder.parameters()).dtype


def checkpoint_decoder(autoencoder: AutoencoderKL) -> None:
    """Keep only the inputs of the decoder's levels for a backward pass, and within the level that
    is recomputed, those of its residual blocks and upsamplers.

    The last level, at the size of the image, would take most of the memory otherwise.
    """
    autoencoder.enable_gradient_checkpointing()
    for part in autoencoder.decoder.modules():
        if isinstance(part, ResnetBlock2D | Upsample2D | AutoencoderTinyBlock):
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
    made = AutoencoderKL(
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
        use_post_quant_conv=config.decoder is None,
    )
    if config.decoder is not None:
        made.decoder = build_decoder(config.decoder)
    return made


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
