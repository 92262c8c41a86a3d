"""The configuration of memory savings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hbr.config import check


@dataclass(frozen=True)
class MemoryConfig:
    """Options that reduce memory; `hbr train CONFIG.yaml --plan` estimates how much is needed.

    Attributes:
        checkpointing: activation checkpointing in U-Net, encoder and decoder: only the inputs of
            blocks are kept, and the rest is recomputed in the backward pass (Chen et al. 2016).
            The results do not change; steps take longer. "auto" turns it on where the training
            would not fit into the free memory of the device without it, as `--plan` estimates.
        decode_crop: size in pixels of a random square of each latent to decode and compare
            instead of the whole; None decodes the whole. Losses on latents always use the whole.
            The square is decoded without its surroundings, so pixels near its edges differ
            slightly from those of the whole image.
    """

    checkpointing: bool | Literal["auto"] = False
    decode_crop: int | None = None

    def __post_init__(self) -> None:
        ok = self.decode_crop is None or self.decode_crop >= 1
        check(ok, "decode_crop", self.decode_crop, "1 or more, or null")
