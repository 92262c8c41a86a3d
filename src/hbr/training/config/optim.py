"""The configuration of phases and of the optimizer."""

from __future__ import annotations

from dataclasses import dataclass

from hbr.config import check
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
        for name in ("steps", "crop", "batch"):
            check(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")


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
        check(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        check(self.warmup >= 0, "warmup", self.warmup, "0 or more")
        check(self.decay >= 0, "decay", self.decay, "0 or more")
        check(self.clip > 0, "clip", self.clip, "above 0")
        check(0 <= self.ema < 1, "ema", self.ema, "in [0, 1)")
        check(self.accumulate >= 1, "accumulate", self.accumulate, "1 or more")
        check(self.nonfinite >= 0, "nonfinite", self.nonfinite, "0 or more")
