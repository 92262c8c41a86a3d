"""Estimate the cost of a training from its configuration: parameters, memory, FLOPs, hours.

Memory and FLOPs come from a step with fake tensors (`hbr.training.simulation`); the memory held
between steps is computed from the parameters. Neither photos nor weights are needed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from hbr.devices import free_memory
from hbr.models.checkpoint import empty
from hbr.models.importing.base import find_base
from hbr.training.adapters import is_of_regularizer
from hbr.training.config import DecodingConfig, InitConfig, TrainConfig
from hbr.training.objectives import build_objective
from hbr.training.simulation import Device, simulate
from hbr.training.start import prepare
from hbr.weights import WeightsError

# AdamW's two moments and the average of the weights, in float32 like the weights
_KEPT = 3
_FLOAT32 = 4

USABLE = 0.9
"""Share of a device's free memory that a training may need; the libraries take the rest."""

UTILISATION = 0.085
"""Fraction of a device's dense bf16 rate that a training reaches: the full size's on an H100
(docs/speed/h100-training.json)."""


@dataclass(frozen=True)
class Hardware:
    """A device, by its vendor's specification.

    Attributes:
        tflops: dense bf16 rate in 10^12 FLOP/s.
        memory: in 10^9 bytes.
    """

    tflops: float
    memory: float


HARDWARE = {
    "RTX 4090": Hardware(165, 24),
    "A100 80 GB": Hardware(312, 80),
    "H100 SXM": Hardware(989, 80),
}


@dataclass(frozen=True)
class Parameters:
    """Parameter counts of a part of the model."""

    trained: int = 0
    frozen: int = 0


@dataclass(frozen=True, kw_only=True)
class PhaseCost:
    """The cost of a step of one phase; sizes are in bytes per process.

    Attributes:
        steps, crop, batch: those of the phase.
        at_once: micro-batch size: crops per forward pass in a process.
        weights: weights of the model and of the losses' networks.
        kept: AdamW's moments and the average of the weights.
        passing: peak of gradients and activations together.
        peak: the sum of these, without the libraries' own workspaces.
        flops: FLOPs of a step, over all processes.
    """

    steps: int
    crop: int
    batch: int
    at_once: int
    weights: int
    kept: int
    passing: int
    peak: int
    flops: int


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """The estimated cost of a training.

    Attributes:
        parameters: counts by part of the model; the generator's and regularizer's adapters apart.
        phases: costs of the phases, in order.
        processes: number of processes that share each batch.
        unet_bytes: size of the U-Net's own weights. Variational score distillation with separate
            U-Nets for generator, prior and regularizer would need two more copies.
        flops: FLOPs of the whole training, without validation.
        hours: by hardware, at `UTILISATION`; empty unless the precision is bfloat16.
        peak_checkpointed: peak memory with checkpointing, where `memory.checkpointing` is "auto";
            all else is without it then. None otherwise.
        assumed: what could not be looked up, in one line; None if nothing.
    """

    parameters: dict[str, Parameters]
    phases: tuple[PhaseCost, ...]
    processes: int
    unet_bytes: int
    flops: int
    hours: dict[str, float]
    peak_checkpointed: int | None = None
    assumed: str | None = None

    @property
    def peak(self) -> int:
        """Peak memory of a process, in bytes."""
        return max(phase.peak for phase in self.phases)


def plan(config: TrainConfig, processes: int = 1, device: Device = "cuda") -> TrainingPlan:
    """Estimate the cost of a training.

    Args:
        config: the training.
        processes: number of processes that share each batch, one per device.
        device: type of the devices; norms need more memory on CUDA under autocast.

    Raises:
        ConfigError: a batch cannot be divided among the processes, or `freeze` names an unknown
            part.
    """
    parameters = count_parameters(config)
    kept = _KEPT * _FLOAT32 * sum(part.trained for part in parameters.values())
    phases = tuple(_phase(config, i, processes, device, kept) for i in range(len(config.phases)))
    flops = sum(phase.flops * phase.steps for phase in phases)
    hours = {
        name: flops / (processes * each.tflops * 1e12 * UTILISATION) / 3600
        for name, each in HARDWARE.items()
        if config.precision == "bfloat16"
    }
    unet = parameters.get("unet", Parameters())
    unet_bytes = _FLOAT32 * (unet.trained + unet.frozen)
    checkpointed = None
    if config.memory.checkpointing == "auto":
        checkpointed = plan(_checkpointing(config, on=True), processes, device).peak
    return TrainingPlan(
        parameters=parameters,
        phases=phases,
        processes=processes,
        unet_bytes=unet_bytes,
        flops=flops,
        hours=hours,
        peak_checkpointed=checkpointed,
        assumed=_assumed(config),
    )


def _assumed(config: TrainConfig) -> str | None:
    """What the plan takes for granted of a base that cannot be had here; None if nothing."""
    if not isinstance(config.objective, DecodingConfig):
        return None
    assert isinstance(config.init, InitConfig)
    base = config.init.base
    assert base is not None
    try:
        find_base(base)
    except WeightsError:
        return f"{base} is not on this machine; it is taken to have no refiner after its decoder"
    return None


def with_checkpointing(
    config: TrainConfig, processes: int, device: torch.device, report: Callable[[str], None]
) -> TrainConfig:
    """Return the configuration with checkpointing on or off, where it is "auto".

    It is on if the training needs more than `USABLE` of what is free on the device without it.

    `processes` share each batch; `report` is called with a line about what was decided, if
    anything.
    """
    if config.memory.checkpointing != "auto":
        return config
    found = plan(config, processes, "cpu" if device.type == "cpu" else "cuda")
    free = free_memory(device)
    on = found.peak > USABLE * free
    without, with_it = found.peak / 1e9, (found.peak_checkpointed or 0) / 1e9
    report(
        f"memory.checkpointing is {'on' if on else 'off'}: the training needs {without:.2f} GB "
        f"without it and {with_it:.2f} GB with it, and {device} has {free / 1e9:.2f} GB free"
    )
    return _checkpointing(config, on=on)


def _checkpointing(config: TrainConfig, *, on: bool) -> TrainConfig:
    return replace(config, memory=replace(config.memory, checkpointing=on))


def count_parameters(config: TrainConfig) -> dict[str, Parameters]:
    """Count trained and frozen parameters by part of the model, adapters separately."""
    model = empty(config.model)
    prepare(model, config, build_objective(config).parts)
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for name, parameter in model.named_parameters():
        part = name.partition(".")[0]
        if ".lora_" in name:
            part = "regularizer's adapters" if is_of_regularizer(name) else "generator's adapters"
        counts[part][not parameter.requires_grad] += parameter.numel()
    return {part: Parameters(*both) for part, both in counts.items()}


def _phase(config: TrainConfig, i: int, processes: int, device: Device, kept: int) -> PhaseCost:
    phase, parts = config.phases[i], config.optim.accumulate
    at_once = config.micro_batch(i, processes)
    found = simulate(config, phase, at_once, device)
    gradients = kept // _KEPT
    passing = found.passing + (gradients if parts > 1 else 0)  # accumulated gradients
    # during the update AdamW allocates one more tensor of each weight's size
    passing = max(passing, 2 * gradients)
    return PhaseCost(
        steps=phase.steps,
        crop=phase.crop,
        batch=phase.batch,
        at_once=at_once,
        weights=found.weights,
        kept=kept,
        passing=passing,
        peak=found.weights + kept + passing,
        flops=found.flops * processes * parts,
    )
