"""What a training gives for less memory."""

from __future__ import annotations

from dataclasses import dataclass

from hbr.config import check


@dataclass(frozen=True)
class MemoryConfig:
    """How a training fits into memory; `hbr train CONFIG.yaml --plan` says how much it needs.

    Attributes:
        checkpointing: U-Net, encoder and decoder keep only what enters their blocks, and compute
            the rest once more on the way back (Chen et al. 2016). The numbers stay, time grows.
        decode_crop: edge in pixels of a random square of each latent that alone is decoded and
            compared; None is the whole. Terms on latents still see the whole. The square is
            decoded as if the image ended at its edges, so that pixels near them are a little off
            what the whole latent would give.
    """

    checkpointing: bool = False
    decode_crop: int | None = None

    def __post_init__(self) -> None:
        """Check every field."""
        ok = self.decode_crop is None or self.decode_crop >= 1
        check(ok, "decode_crop", self.decode_crop, "1 or more, or null")
