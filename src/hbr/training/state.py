"""The complete state of a training between two steps, saved as one safetensors file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from hbr.config import ConfigError, first_difference, from_dict, to_dict
from hbr.errors import HbrError
from hbr.models.files import under, write_tensors
from hbr.training.adapters import is_of_discriminator, is_of_regularizer
from hbr.training.config import RestorationConfig, TrainConfig
from hbr.training.discriminator import Balance
from hbr.weights import instead_of_weights

# what batch norms count while they train
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
_COUNTS = ("step", "left_out", "left_out_in_a_row")

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
    "data.kept_gb",
    "data.workers",
    "data.errors",
    "optim.accumulate",
    "optim.nonfinite",
)
"""Fields that may change, as they do not affect the result; so may the last phase's steps."""


class TrainingError(HbrError, RuntimeError):
    """The training cannot continue; the message says why, and what to do."""


class TrainState:
    """The model, the average of its weights, the optimizer, and the step counters.

    There is no RNG state: all random numbers are functions of the seed and the step.

    Attributes:
        step: number of completed steps.
        left_out: number of steps skipped because of a non-finite loss or gradient.
        left_out_in_a_row: number of steps skipped since the last good one.
        skipped: unreadable photos so far, name → reason.
        balance: running loss of the discriminator, if there is one.
    """

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        self.model = model
        self.trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        optim = config.optim
        self.optimizer = torch.optim.AdamW(
            _groups(self.trained, config),
            lr=optim.lr,
            betas=optim.betas,
            weight_decay=optim.weight_decay,
        )
        self.average = {n: p.detach().clone() for n, p in self.trained.items()}
        self.config = config
        self.step = 0
        self.left_out = 0
        self.left_out_in_a_row = 0
        self.skipped: dict[str, str] = {}
        self.balance = Balance()

    def count(self, *, finite: bool) -> None:
        """Count a step, which was skipped if its loss or gradient was not finite."""
        self.step += 1
        self.left_out += not finite
        self.left_out_in_a_row = 0 if finite else self.left_out_in_a_row + 1

    def set_learning_rate(self, rate: float) -> None:
        """Set the generator's rate, and scale the regularizer's or discriminator's with it."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["proportion"]

    @torch.no_grad()
    def update_average(self) -> None:
        """Update the exponential moving average, with a lower decay in the first steps."""
        decay = min(self.config.optim.ema, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.values()), list(self.trained.values()), 1 - decay)

    def save(self, path: Path) -> None:
        """Write the state atomically: a kill leaves either the old or the new state."""
        tensors = {f"model.{n}": t for n, t in self.model.state_dict().items() if self._keeps(n)}
        tensors |= {f"average.{n}": t for n, t in self.average.items()}
        for name, parameter in self.trained.items():
            moments = self.optimizer.state.get(parameter, {})
            for key in ("exp_avg", "exp_avg_sq", "step"):
                if key in moments:
                    tensors[f"optimizer.{key}.{name}"] = moments[key]
        plain = {n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}
        metadata = {"config": json.dumps(to_dict(self.config))}
        metadata["skipped"] = json.dumps(self.skipped)
        metadata["balance"] = repr(self.balance.mean)
        metadata |= {name: str(getattr(self, name)) for name in _COUNTS}
        write_tensors(path, plain, metadata)

    def _keeps(self, name: str) -> bool:
        """Return whether to save a tensor; frozen weights may come from `init`."""
        return self.config.keeps_all or name in self.trained or name.endswith(_BUFFERS)

    def load(self, path: Path) -> None:
        """Restore the state written by `save`.

        Raises:
            ConfigError: the file is damaged, or was written with another configuration.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            other = instead_of_weights(path) or f"is not a training state: {error}"
            raise ConfigError(f"{path} {other}") from None
        if not {"config", "step"} <= metadata.keys():
            raise ConfigError(f"{path} is not a training state")
        check_unchanged(json.loads(metadata["config"]), self.config, path)
        self.model.load_state_dict(under("model.", tensors), strict=False)
        for name, tensor in under("average.", tensors).items():
            self.average[name].copy_(tensor)
        for name, parameter in self.trained.items():
            self.optimizer.state[parameter] = {
                key: _like(parameter, tensors[f"optimizer.{key}.{name}"])
                for key in ("exp_avg", "exp_avg_sq", "step")
                if f"optimizer.{key}.{name}" in tensors
            }
        for name in _COUNTS:
            setattr(self, name, int(metadata.get(name, 0)))
        if "balance" in metadata:
            self.balance = Balance(float(metadata["balance"]))
        self.skipped.update(json.loads(metadata.get("skipped", "{}")))


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


def _groups(trained: dict[str, nn.Parameter], config: TrainConfig) -> list[dict[str, Any]]:
    objective = config.objective
    vsd = objective.vsd if isinstance(objective, RestorationConfig) else None
    beside = config.discriminator or vsd  # never both
    rate = None if beside is None else beside.lr
    proportion = 1.0 if rate is None else rate / config.optim.lr
    second = {n for n in trained if is_of_regularizer(n) or is_of_discriminator(n)}
    scaled = [p for name, p in trained.items() if name in second]
    others = [p for name, p in trained.items() if name not in second]
    groups = [(others, 1.0), (scaled, proportion)]
    return [{"params": p, "proportion": share} for p, share in groups if p]


def _like(parameter: Tensor, saved: Tensor) -> Tensor:
    """Return a moment with the parameter's device and layout; AdamW's step stays on the CPU."""
    return torch.empty_like(parameter).copy_(saved) if saved.shape == parameter.shape else saved
