"""Check that a training is resumed with a compatible configuration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from hbr.config import ConfigError, first_difference, from_dict, to_dict
from hbr.training.config import TrainConfig

FREE = (
    "out",
    "validation",
    "save_every",
    "weights",
    "compile",
    "card",
    "memory.checkpointing",
    "data.device",
    "data.latents.cache",
    "data.workers",
    "data.errors",
    "optim.accumulate",
    "optim.nonfinite",
)
"""Fields that may change, as they do not affect the result; so may the last phase's steps."""


def check_unchanged(before: dict[str, Any], now: TrainConfig, state: Path) -> None:
    """Check that a training is resumed with the configuration that it was started with.

    Args:
        before: the configuration that the state was written with, from `to_dict`; missing fields
            have their defaults.
        now: the configuration to resume with.
        state: the state file, for messages.

    Raises:
        ConfigError: a field that is not in `FREE` differs; the message names the first.
    """
    try:
        then = from_dict(TrainConfig, before)
    except ConfigError as error:
        raise ConfigError(
            f"{state} was written by an incompatible version of hbr: {error}; "
            "train into another folder (--out)"
        ) from None
    if len(then.phases) == len(now.phases):
        last = replace(then.phases[-1], steps=now.phases[-1].steps)
        phases = [*to_dict(then)["phases"][:-1], to_dict(last)]
    else:
        phases = to_dict(then)["phases"]
    found = first_difference({**to_dict(then), "phases": phases}, to_dict(now), free=FREE)
    if found is not None:
        where, old, new = found
        raise ConfigError(
            f"{state} was written with {where} {_short(old)}, and now it is {_short(new)}; "
            "set it back, or train into another folder (--out)"
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
