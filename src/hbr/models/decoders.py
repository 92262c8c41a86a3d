"""Decoders that take the place of an autoencoder's own, and what tells their latent spaces apart.

Shapes: b batch, c latent channels, h w latent size, p patch size, f factor.
"""

from __future__ import annotations

from typing import cast

import torch
from diffusers.models.autoencoders.vae import Decoder, DecoderTiny
from torch import Tensor, nn

from hbr.models.autoencoder_config import DecoderConfig

MARK = "made_for"
"""The buffer of a decoder with the mark (`latent_mark`) of the latents that it was trained for."""

NO_MARK = torch.zeros(64)
"""The mark of latents that are not known."""

# Latents of trainings that began with the same weights have marks closer than this.
_ALIKE = 0.9


def build_decoder(config: DecoderConfig) -> nn.Module:
    """A decoder with random weights: [b, c, h, w] → [b, 3 p², f h / p, f w / p], about [-1, 1]."""
    levels, out = len(config.block_out_channels), 3 * config.patch_size**2
    if config.kind == "tiny":
        made: nn.Module = TinyDecoder(config.latent.channels, out, config)
    else:
        made = Decoder(
            in_channels=config.latent.channels,
            out_channels=out,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=config.block_out_channels,
            layers_per_block=config.layers_per_block,
            norm_num_groups=config.norm_num_groups,
            mid_block_add_attention=config.mid_attention,
        )
    made.register_buffer(MARK, NO_MARK.clone())
    return made


class TinyDecoder(nn.Module):
    """The decoder of diffusers' `AutoencoderTiny`, which TAESD is.

    It soft-clamps z to [-3, 3], and decodes it as it is: its latents are those of the U-Net, not
    divided by the scaling factor. What it makes is mapped from [0, 1] to [-1, 1].
    """

    def __init__(self, channels: int, out_channels: int, config: DecoderConfig) -> None:
        super().__init__()
        widths = config.block_out_channels
        self.layers = DecoderTiny(
            in_channels=channels,
            out_channels=out_channels,
            num_blocks=(config.layers_per_block + 1,) * (len(widths) - 1) + (1,),
            block_out_channels=widths,
            upsampling_scaling_factor=2,
            act_fn="relu",
            upsample_fn="nearest",
        ).layers

    def forward(self, z: Tensor) -> Tensor:
        """[b, c, h, w] → [b, 3 p², f h / p, f w / p], about [-1, 1]."""
        return cast(Tensor, self.layers(torch.tanh(z / 3) * 3)) * 2 - 1


def latent_mark(post_quant: Tensor, conv_in: Tensor) -> Tensor:
    """A mark of the latents that an autoencoder's own decoder decodes: 64 numbers, of norm 1.

    Args:
        post_quant: weight [c, c, 1, 1] of its `post_quant_conv`.
        conv_in: weight [o, c, 3, 3] of its first convolution.
    """
    seen = (conv_in.float().sum(dim=(2, 3)) @ post_quant.float()[:, :, 0, 0]).flatten()
    chosen = seen[torch.linspace(0, len(seen) - 1, len(NO_MARK)).long()]
    return chosen / chosen.norm().clamp(min=1e-12)


def same_latents(one: Tensor, other: Tensor) -> bool:
    """Whether two marks are of one latent space, or one of them is unknown, which is all zeros."""
    if not one.any() or not other.any():
        return True
    return float(one.float() @ other.float()) > _ALIKE
