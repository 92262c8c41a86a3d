"""The configuration of an autoencoder, and of a decoder in place of its own, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hbr.config import check, check_least
from hbr.models.protocol import LatentSpace

STABLE_DIFFUSION = LatentSpace(channels=4, factor=8, scaling_factor=0.18215)
"""That of Stable Diffusion 1 and 2, whose autoencoders differ in the decoder only."""


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """A decoder; the defaults are VOSR's half-width decoder of Stable Diffusion's latents.

    Attributes:
        kind: "kl", the decoder of diffusers' `AutoencoderKL`; "tiny", that of `AutoencoderTiny`
            (TAESD), without norms and attention.
        latent: what it decodes.
        block_out_channels: width of each level, from the image to the latent; every level but the
            last doubles the size. All the same for "tiny".
        layers_per_block: residual blocks per level, less one. The level of the image has one block
            in a "tiny" decoder.
        norm_num_groups, mid_attention: of "kl", as in `AutoencoderConfig`.
        patch_size: factor of the pixel-shuffle after the decoder.
        scaling_factor: the decoder sees z divided by this.
    """

    kind: Literal["kl", "tiny"] = "kl"
    latent: LatentSpace = STABLE_DIFFUSION
    block_out_channels: tuple[int, ...] = (64, 128, 256, 256)
    layers_per_block: int = 2
    norm_num_groups: int = 32
    mid_attention: bool = True
    patch_size: int = 1
    scaling_factor: float = 0.18215

    def __post_init__(self) -> None:
        widths = self.block_out_channels
        check_widths(widths, self.norm_num_groups if self.kind == "kl" else 1)
        ok = self.kind == "kl" or len(set(widths)) == 1
        check(ok, "block_out_channels", widths, "one width for all levels of a tiny decoder")
        check_least(self, 1, "layers_per_block")
        check(self.patch_size in (1, 2, 4, 8), "patch_size", self.patch_size, "1, 2, 4 or 8")
        check(self.scaling_factor > 0, "scaling_factor", self.scaling_factor, "above 0")
        factor = self.patch_size * 2 ** (len(widths) - 1)
        expected = f"the {factor} that the levels and patch_size {self.patch_size} make"
        check(factor == self.latent.factor, "latent.factor", self.latent.factor, expected)


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """A diffusers `AutoencoderKL`; the defaults are Stable Diffusion 2.1-base's.

    Attributes:
        block_out_channels: width of each level; every level but the last halves the size.
        layers_per_block: residual blocks per level (the decoder has one more).
        latent_channels: channels of z.
        norm_num_groups: groups of every GroupNorm.
        mid_attention: a self-attention between the two residual blocks of the middle.
        patch_size: factor of the pixel-unshuffle before the encoder and of the pixel-shuffle after
            the decoder; 1 is Stable Diffusion.
        scaling_factor: z is the posterior's mode times this.
        decoder: a decoder in place of the one that mirrors the encoder.
    """

    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    latent_channels: int = 4
    norm_num_groups: int = 32
    mid_attention: bool = True
    patch_size: int = 1
    scaling_factor: float = 0.18215
    decoder: DecoderConfig | None = None

    def __post_init__(self) -> None:
        check_widths(self.block_out_channels, self.norm_num_groups)
        check_least(self, 1, "layers_per_block", "latent_channels")
        check(self.patch_size in (1, 2, 4, 8), "patch_size", self.patch_size, "1, 2, 4 or 8")
        check(self.scaling_factor > 0, "scaling_factor", self.scaling_factor, "above 0")
        if self.decoder is not None:
            got = self.decoder.latent
            check(got == self.latent, "decoder.latent", str(got), f"the encoder's, {self.latent}")

    @property
    def factor(self) -> int:
        """Pixels along one edge of a latent cell (8 for Stable Diffusion)."""
        return int(self.patch_size * 2 ** (len(self.block_out_channels) - 1))

    @property
    def latent(self) -> LatentSpace:
        """What it encodes images to."""
        return LatentSpace(
            channels=self.latent_channels, factor=self.factor, scaling_factor=self.scaling_factor
        )

    @property
    def decoding(self) -> DecoderConfig:
        """The decoder: the one in its place, or the own one."""
        return self.decoder or DecoderConfig(
            latent=self.latent,
            block_out_channels=self.block_out_channels,
            layers_per_block=self.layers_per_block,
            norm_num_groups=self.norm_num_groups,
            mid_attention=self.mid_attention,
            patch_size=self.patch_size,
            scaling_factor=self.scaling_factor,
        )


def check_widths(widths: tuple[int, ...], groups: int) -> None:
    """Raise `ConfigError` unless each width is a multiple of the groups of its norms."""
    check(len(widths) >= 1, "block_out_channels", widths, "one width a level")
    for width in widths:
        ok = width >= 1 and groups >= 1 and width % groups == 0
        check(ok, "block_out_channels", width, f"a multiple of norm_num_groups {groups}")
