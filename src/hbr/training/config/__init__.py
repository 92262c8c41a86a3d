"""The configuration of a training, one to one with the recipes of `hbr.recipes`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, cast

from hbr.config import check
from hbr.models.config import DAPEConfig, RestorerConfig, TextPromptConfig
from hbr.models.kinds import model_config
from hbr.models.protocol import ModelConfig
from hbr.training.config.data import DataConfig, PhotoSourceConfig, ValidationConfig
from hbr.training.config.init import InitConfig
from hbr.training.config.memory import MemoryConfig
from hbr.training.config.objective import (
    AutoencodingConfig,
    DiffusionConfig,
    DiscriminatorConfig,
    LossConfig,
    RestorationConfig,
    VSDConfig,
)
from hbr.training.config.optim import OptimConfig, PhaseConfig

__all__ = [
    "AutoencodingConfig",
    "DataConfig",
    "DiffusionConfig",
    "DiscriminatorConfig",
    "InitConfig",
    "LossConfig",
    "MemoryConfig",
    "OptimConfig",
    "PhaseConfig",
    "PhotoSourceConfig",
    "RestorationConfig",
    "TrainConfig",
    "VSDConfig",
    "ValidationConfig",
]

_A_BASE = "an `init` with a text encoder, as sd-2.1-base has"


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A whole training.

    Attributes:
        model: the network.
        objective: what is minimised, and so which parts of the model are trained.
        data, validation: the photos.
        phases: in order; the steps of a training are the sum of theirs.
        out: folder of checkpoints, curves and pictures.
        start: "identity" sets random weights so that the model gives its input back
            (`hbr.models.identity`); "random" leaves them.
        init: weights to start from instead: a model, as `hbr restore --model` takes it, or parts.
        freeze: names of parts of the model that stay as they are, such as "autoencoder".
        memory: what is given for less of it.
        precision: of the forward pass; weights and optimizer stay float32.
        seed: with the step, it alone decides every crop and degradation.
        save_every: steps between checkpoints.
        weights: precision of the weights in the model file.
        card: what the model file says of itself, such as its licence and what it was trained on.
    """

    model: Annotated[ModelConfig, model_config]
    data: DataConfig
    validation: ValidationConfig
    phases: tuple[PhaseConfig, ...]
    out: Path
    objective: RestorationConfig | AutoencodingConfig | DiffusionConfig = field(
        default_factory=RestorationConfig
    )
    start: Literal["random", "identity"] = "random"
    init: Path | InitConfig | None = None
    freeze: tuple[str, ...] = ()
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    seed: int = 0
    save_every: int = 500
    weights: Literal["float32", "float16", "bfloat16"] = "float32"
    card: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check what must fit together."""
        check(len(self.phases) >= 1, "phases", self.phases, "one phase or more")
        kind, objective = self.model.kind, self.objective.kind
        ok = isinstance(self.model, RestorerConfig)
        check(ok, "model.kind", kind, f"one-step, which the objective {objective} trains")
        multiple = self.model.capabilities.multiple_of
        for phase in self.phases:
            check(phase.crop % multiple == 0, "crop", phase.crop, f"a multiple of {multiple}")
            parts = self.optim.accumulate
            ok = phase.batch % parts == 0
            check(ok, "batch", phase.batch, f"a multiple of optim.accumulate, {parts}")
        self._check_decode_crop()
        self._check_prompt()
        self._check_adversarial()
        steps = self.one_step.schedule.steps
        match self.objective:
            case DiffusionConfig(timesteps=got) | RestorationConfig(vsd=VSDConfig(timesteps=got)):
                check(got[1] <= steps, "timesteps", got, f"at most the schedule's {steps}")
        crop = self.validation.crop
        check(crop % multiple == 0, "validation.crop", crop, f"a multiple of {multiple}")
        ok = self.optim.warmup + self.optim.decay <= self.steps
        check(ok, "optim.decay", self.optim.decay, f"with warmup at most the {self.steps} steps")
        check(self.seed >= 0, "seed", self.seed, "0 or more")
        check(self.save_every >= 1, "save_every", self.save_every, "1 or more")

    def _check_decode_crop(self) -> None:
        crop = self.memory.decode_crop
        if crop is None:
            return
        name, factor = "memory.decode_crop", self.one_step.autoencoder.factor
        decodes = not isinstance(self.objective, DiffusionConfig)
        check(decodes, name, crop, "null, since a diffusion prior decodes nothing")
        check(crop % factor == 0, name, crop, f"a multiple of {factor}")
        smallest = min(phase.crop for phase in self.phases)
        check(crop <= smallest, name, crop, f"at most the crop {smallest}")

    def _check_adversarial(self) -> None:
        losses = [phase.loss or self.loss for phase in self.phases]
        match self.objective:
            case RestorationConfig(discriminator=DiscriminatorConfig()):
                for phase in self.phases:
                    check(phase.crop % 8 == 0, "crop", phase.crop, "a multiple of 8")
            case _:
                got = max(loss.adversarial for loss in losses)
                check(got == 0, "adversarial", got, "0 without `objective.discriminator`")
        got = max(loss.artifacts for loss in losses)
        ok = got == 0 or (
            isinstance(self.objective, RestorationConfig) and self.memory.decode_crop is None
        )
        check(ok, "artifacts", got, "0 where not the whole of a restored image is compared")

    def _check_prompt(self) -> None:
        if self.init is not None:
            return
        match self.one_step.prompt:
            case TextPromptConfig(text=text):
                check(not text.strip(), "model.prompt.text", text, f"blank without {_A_BASE}")
            case DAPEConfig():
                check(False, "init", None, f"given: the prompt `dape` needs {_A_BASE}")
        match self.objective:
            case RestorationConfig(vsd=VSDConfig(negative_prompt=str(text))):
                name = "objective.vsd.negative_prompt"
                check(False, name, text, f"null without {_A_BASE}")

    @property
    def one_step(self) -> RestorerConfig:
        """The model: the objectives of today train models of kind one-step."""
        return cast(RestorerConfig, self.model)

    @property
    def steps(self) -> int:
        """Steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def phase_at(self, step: int) -> PhaseConfig:
        """The phase that step (from 0) belongs to."""
        for phase in self.phases:
            if step < phase.steps:
                return phase
            step -= phase.steps
        return self.phases[-1]
