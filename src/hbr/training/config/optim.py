"""How long a training lasts, and how it steps."""

from __future__ import annotations

from dataclasses import dataclass

from hbr.config import check
from hbr.training.config.objective import LossConfig


@dataclass(frozen=True)
class PhaseConfig:
    """A part of the training.

    Attributes:
        steps: how long it lasts.
        crop: edge of the crops, in pixels.
        batch: crops a step, over all processes and all parts that `optim.accumulate` makes.
        loss: another loss than the training's.
    """

    steps: int
    crop: int
    batch: int
    loss: LossConfig | None = None

    def __post_init__(self) -> None:
        """Check every field."""
        for name in ("steps", "crop", "batch"):
            check(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW, its schedule, and the average of the weights.

    Attributes:
        lr: the learning rate that is held between warm-up and decay.
        warmup, decay: steps of linear rise at the start, and of cosine fall to 0 at the end.
        clip: largest norm of the gradient.
        ema: decay of the average that is validated and shipped.
        accumulate: each process takes its crops in this many parts, one after the other, to need
            less memory; the update is by the mean over all of them.
        nonfinite: a step whose loss or gradient is not finite is left out; more than this many in
            a row end the training.
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
        """Check every field."""
        check(self.lr > 0, "lr", self.lr, "above 0")
        check(all(0 <= b < 1 for b in self.betas), "betas", self.betas, "two numbers in [0, 1)")
        check(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        check(self.warmup >= 0, "warmup", self.warmup, "0 or more")
        check(self.decay >= 0, "decay", self.decay, "0 or more")
        check(self.clip > 0, "clip", self.clip, "above 0")
        check(0 <= self.ema < 1, "ema", self.ema, "in [0, 1)")
        check(self.accumulate >= 1, "accumulate", self.accumulate, "1 or more")
        check(self.nonfinite >= 0, "nonfinite", self.nonfinite, "0 or more")
