"""The configuration of SwinIR as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hbr.config import check, check_least
from hbr.models.protocol import Capabilities


@dataclass(frozen=True, kw_only=True)
class SwinIRConfig:
    """A SwinIR with upsampling by nearest neighbours and convolutions (Liang et al. 2021).

    The defaults are the first stage of DiffBIR (Lin et al. 2023, §4.1), which DiffBody uses too:
    the image is unshuffled by 8, so that a window of 8×8 cells covers 64×64 pixels.

    Attributes:
        embed_dim: channels between the blocks.
        depths, num_heads: blocks, and attention heads of a block, in each group.
        window_size: edge of an attention window, in cells.
        mlp_ratio: width of the MLP relative to `embed_dim`.
        unshuffle: factor of the pixel-unshuffle before the first convolution.
        upscale: factor of the upsampling after the last block.
        width: channels of the convolutions of the upsampling; 64 in the published files.
        native_size: edge in pixels of the images that the model was trained on.
        name: for display.
    """

    kind: Literal["swinir"] = "swinir"
    embed_dim: int = 180
    depths: tuple[int, ...] = (6, 6, 6, 6, 6, 6, 6, 6)
    num_heads: tuple[int, ...] = (6, 6, 6, 6, 6, 6, 6, 6)
    window_size: int = 8
    mlp_ratio: float = 2.0
    unshuffle: int = 8
    upscale: int = 8
    width: int = 64
    native_size: int = 512
    name: str = "swinir"

    def __post_init__(self) -> None:
        check_least(self, 1, "embed_dim", "window_size", "width")
        ok = len(self.depths) >= 1 and min(self.depths) >= 1
        check(ok, "depths", self.depths, "one number for each group, 1 or more")
        ok = len(self.num_heads) == len(self.depths)
        check(ok, "num_heads", self.num_heads, f"{len(self.depths)} values, one for each group")
        for heads in self.num_heads:
            ok = heads >= 1 and self.embed_dim % heads == 0
            check(ok, "num_heads", heads, f"a divisor of embed_dim {self.embed_dim}")
        check(self.mlp_ratio > 0, "mlp_ratio", self.mlp_ratio, "above 0")
        check(self.upscale in (2, 4, 8), "upscale", self.upscale, "2, 4 or 8")
        ok = self.unshuffle >= 1 and self.upscale % self.unshuffle == 0
        check(ok, "unshuffle", self.unshuffle, f"a divisor of upscale {self.upscale}")
        ok = self.native_size % self.multiple_of == 0 and self.native_size >= 1
        check(ok, "native_size", self.native_size, f"a multiple of {self.multiple_of}")

    @property
    def factor(self) -> int:
        """Size of the result relative to the input."""
        return self.upscale // self.unshuffle

    @property
    def multiple_of(self) -> int:
        """Edges of the result are multiples of this many pixels: whole attention windows."""
        return self.window_size * self.upscale

    @property
    def capabilities(self) -> Capabilities:
        """What a model of this configuration supports."""
        return Capabilities(
            multiple_of=self.multiple_of,
            min_size=self.multiple_of,
            native_size=self.native_size,
            dtypes=("bfloat16", "float32"),
            color="none",
            upscale=self.factor,
        )
