"""The configuration of phases, of the optimizer and of memory savings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hbr.config import check, check_least
from hbr.training.config.objective import LossConfig


@dataclass(frozen=True)
class PhaseConfig:
    """A phase of the training.

    Attributes:
        steps: number of steps.
        crop: size of the crops, in pixels.
        batch: crops per step, in total over all processes and accumulated parts.
        loss: a loss that replaces the training's in this phase.
    """

    steps: int
    crop: int
    batch: int
    loss: LossConfig | None = None

    def __post_init__(self) -> None:
        check_least(self, 1, "steps", "crop", "batch")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW, the learning rate schedule, and the moving average of the weights.

    Attributes:
        lr: learning rate between warm-up and decay.
        warmup, decay: number of steps of linear warm-up, and of cosine decay to 0 at the end.
        clip: maximum norm of the gradient.
        ema: decay of the exponential moving average of the weights, which is validated and saved.
        accumulate: number of parts that each process splits its crops into to save memory;
            gradients are accumulated over the parts.
        nonfinite: number of consecutive steps with a non-finite loss or gradient to skip; one
            more stops the training.
    """

    lr: float = 5e-5
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    warmup: int = 100
    decay: int = 0
    clip: float = 1.0
    ema: float = 0.999
    accumulate: int = 1
    nonfinite: int = 10

    def __post_init__(self) -> None:
        check(self.lr > 0, "lr", self.lr, "above 0")
        check(all(0 <= b < 1 for b in self.betas), "betas", self.betas, "two numbers in [0, 1)")
        check_least(self, 0, "weight_decay", "warmup", "decay")
        check(self.clip > 0, "clip", self.clip, "above 0")
        check(0 <= self.ema < 1, "ema", self.ema, "in [0, 1)")
        check_least(self, 1, "accumulate")
        check_least(self, 0, "nonfinite")


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
