"""The configuration of a training; its fields are the keys of the recipes in `hbr.recipes`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, cast

from hbr.config import ConfigError, check, check_least
from hbr.models.config import DAPEConfig, LoRAConfig, RestorerConfig, TextPromptConfig
from hbr.models.diffbody.config import DiffBodyConfig
from hbr.models.kinds import model_config
from hbr.models.protocol import ModelConfig
from hbr.models.swinir_config import SwinIRConfig
from hbr.training.config.data import (
    ConditionsConfig,
    DataConfig,
    LatentsConfig,
    PhotoSourceConfig,
    ValidationConfig,
)
from hbr.training.config.init import InitConfig
from hbr.training.config.objective import (
    AutoencodingConfig,
    ControlConfig,
    DecodingConfig,
    DiffusionConfig,
    DiscriminatorConfig,
    LossConfig,
    PartsConfig,
    RegressionConfig,
    RestorationConfig,
    VSDConfig,
)
from hbr.training.config.optim import MemoryConfig, OptimConfig, PhaseConfig

__all__ = [
    "AutoencodingConfig",
    "ConditionsConfig",
    "ControlConfig",
    "DataConfig",
    "DecodingConfig",
    "DiffusionConfig",
    "DiscriminatorConfig",
    "InitConfig",
    "LatentsConfig",
    "LossConfig",
    "MemoryConfig",
    "ObjectiveConfig",
    "OptimConfig",
    "PartsConfig",
    "PhaseConfig",
    "PhotoSourceConfig",
    "RegressionConfig",
    "RestorationConfig",
    "TrainConfig",
    "VSDConfig",
    "ValidationConfig",
]

ObjectiveConfig = (
    RestorationConfig
    | RegressionConfig
    | AutoencodingConfig
    | DecodingConfig
    | DiffusionConfig
    | ControlConfig
    | PartsConfig
)

_A_BASE = "an `init` with a text encoder, such as sd-2.1-base"


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The configuration of a training.

    Attributes:
        model: the network.
        objective: the training objective, which also determines the trained parts of the model.
        data, validation: the photos.
        phases: the phases in order; the training runs the sum of their steps.
        out: folder for checkpoints, curves and pictures.
        start: "identity" initialises the model to return its input (`hbr.models.identity`);
            "random" keeps the random initialisation.
        init: weights to start from instead: a model, as `hbr restore --model` takes it, or parts.
        freeze: names of parts of the model to freeze, such as "autoencoder".
        memory: options that reduce the memory needed.
        compile: compile the repeated blocks of the networks by `torch.compile`. The first steps
            take minutes; the results are the same up to rounding.
        precision: precision of the forward pass; weights and optimizer state are float32.
        seed: random seed; every crop and degradation depends only on it and the step.
        save_every: number of steps between checkpoints.
        weights: precision of the weights in the model file.
        card: metadata of the model file, such as its licence and training data.
    """

    model: Annotated[ModelConfig, model_config]
    data: DataConfig
    validation: ValidationConfig
    phases: tuple[PhaseConfig, ...]
    out: Path
    objective: ObjectiveConfig = field(default_factory=RestorationConfig)
    start: Literal["random", "identity"] = "random"
    init: Path | InitConfig | None = None
    freeze: tuple[str, ...] = ()
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    compile: bool = False
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    seed: int = 0
    save_every: int = 500
    weights: Literal["float32", "float16", "bfloat16"] = "float32"
    card: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check(len(self.phases) >= 1, "phases", self.phases, "one phase or more")
        self._check_kind()
        multiple = self.model.capabilities.multiple_of
        for phase in self.phases:
            check(phase.crop % multiple == 0, "crop", phase.crop, f"a multiple of {multiple}")
            parts = self.optim.accumulate
            ok = phase.batch % parts == 0
            check(ok, "batch", phase.batch, f"a multiple of optim.accumulate, {parts}")
        self._check_decoder()
        self._check_decode_crop()
        self._check_adversarial()
        if isinstance(self.model, RestorerConfig):
            self._check_prompt()
            self._check_refiner(self.model)
        if isinstance(self.model, RestorerConfig | DiffBodyConfig):
            self._check_timesteps(self.model.schedule.steps)
        self._check_conditions()
        crop = self.validation.crop
        check(crop % multiple == 0, "validation.crop", crop, f"a multiple of {multiple}")
        ok = self.optim.warmup + self.optim.decay <= self.steps
        check(ok, "optim.decay", self.optim.decay, f"with warmup at most the {self.steps} steps")
        check_least(self, 0, "seed")
        check_least(self, 1, "save_every")

    def _check_kind(self) -> None:
        """Check that objective, start and init suit models of this kind."""
        kind, objective = self.model.kind, self.objective.kind
        match self.objective:
            case RegressionConfig():
                trained: type[RestorerConfig | SwinIRConfig | DiffBodyConfig] = SwinIRConfig
            case ControlConfig() | PartsConfig():
                trained = DiffBodyConfig
            case _:
                trained = RestorerConfig
        ok = isinstance(self.model, trained)
        check(ok, "model.kind", kind, f"{trained.kind}, which the objective {objective} trains")
        factor = self.model.capabilities.upscale
        check(factor == 1, "model.upscale", factor, "the unshuffle, as LQ and HQ have one size")
        one_step = isinstance(self.model, RestorerConfig)
        ok = self.start == "random" or one_step
        check(ok, "start", self.start, f"random for models of kind {kind}")
        unused: tuple[str, ...] = () if one_step else ("difference", "image_encoder")
        unused += () if isinstance(self.model, DiffBodyConfig) else ("stage1", "control")
        for name in unused:
            got = getattr(self.init, name, None)
            check(got is None, f"init.{name}", got, f"left out for models of kind {kind}")

    def _check_timesteps(self, steps: int) -> None:
        match self.objective:
            case (
                DiffusionConfig(timesteps=got)
                | ControlConfig(timesteps=got)
                | RestorationConfig(vsd=VSDConfig(timesteps=got))
            ):
                check(got[1] <= steps, "timesteps", got, f"at most the schedule's {steps}")

    def _check_conditions(self) -> None:
        got = self.data.conditions
        match self.objective, self.model:
            case PartsConfig(), DiffBodyConfig(parts=parts):
                check(parts is not None, "model.parts", parts, "given, as it is what is trained")
                check(got is not None, "data.conditions", got, "given, for the labels of the parts")
            case ControlConfig(), DiffBodyConfig():
                pass
            case _:
                kind = self.objective.kind
                check(got is None, "data.conditions", got, f"null for the objective {kind}")

        encodes = isinstance(self.objective, DiffusionConfig | ControlConfig)
        ok = encodes or self.data.latents is None
        expected = "null unless the objective is diffusion or control, which encode HQ crops"
        check(ok, "data.latents", self.data.latents, expected)

    def _check_decoder(self) -> None:
        if isinstance(self.objective, DecodingConfig):
            got = self.one_step.autoencoder.decoder
            check(
                got is not None, "model.autoencoder.decoder", got, "given, as it is what is trained"
            )
            base = self.init.base if isinstance(self.init, InitConfig) else None
            check(base is not None, "init.base", base, "given, as its decoder is the teacher")

    def _check_decode_crop(self) -> None:
        crop = self.memory.decode_crop
        if crop is None:
            return
        name, objective = "memory.decode_crop", self.objective
        decodes = isinstance(objective, RestorationConfig | AutoencodingConfig | DecodingConfig)
        check(decodes, name, crop, f"null, since the {objective.kind} objective does not decode")
        factor = self.one_step.autoencoder.factor
        check(crop % factor == 0, name, crop, f"a multiple of {factor}")
        smallest = min(phase.crop for phase in self.phases)
        check(crop <= smallest, name, crop, f"at most the crop {smallest}")

    def _check_adversarial(self) -> None:
        losses = [phase.loss or self.loss for phase in self.phases]
        if self.discriminator is not None:
            for phase in self.phases:
                check(phase.crop % 8 == 0, "crop", phase.crop, "a multiple of 8")
        else:
            got = max(loss.adversarial for loss in losses)
            check(got == 0, "adversarial", got, "0 without `objective.discriminator`")
        whole = isinstance(self.objective, RestorationConfig) and self.memory.decode_crop is None
        for name in ("artifacts", "teacher"):
            got = max(getattr(loss, name) for loss in losses)
            check(got == 0 or whole, name, got, "0 unless whole restored images are compared")

    def _check_refiner(self, model: RestorerConfig) -> None:
        sees = model.refiner is not None and model.refiner.sees_input
        ok = isinstance(self.objective, RestorationConfig) or not sees
        expected = "false unless the objective is restoration: elsewhere the input is the target"
        check(ok, "model.refiner.sees_input", sees, expected)

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
    def keeps_all(self) -> bool:
        """Whether the state holds all weights; else the frozen ones come from `init` again."""
        match self.objective:
            case RestorationConfig(lora=LoRAConfig()) | DecodingConfig():
                return False
            case ControlConfig() | PartsConfig():
                return self.init is None
        return True

    @property
    def discriminator(self) -> DiscriminatorConfig | None:
        """The discriminator of the objective, if it has one."""
        match self.objective:
            case RestorationConfig() | DecodingConfig() as objective:
                return objective.discriminator
        return None

    @property
    def one_step(self) -> RestorerConfig:
        """The model configuration of an objective that trains models of kind one-step."""
        return cast(RestorerConfig, self.model)

    @property
    def steps(self) -> int:
        """Total number of steps."""
        return sum(phase.steps for phase in self.phases)

    def micro_batch(self, i: int, processes: int) -> int:
        """Crops per forward pass of phase `i`, in each of so many processes.

        Raises:
            ConfigError: the batch of the phase cannot be divided.
        """
        batch, parts = self.phases[i].batch, self.optim.accumulate
        at_once, rest = divmod(batch, processes * parts)
        if rest:
            raise ConfigError(
                f"phases[{i}].batch is {batch}; with {processes} processes and optim.accumulate "
                f"{parts} it must be a multiple of {processes * parts}"
            )
        return at_once

    def phase_at(self, step: int) -> PhaseConfig:
        """Return the phase of a step (from 0)."""
        for phase in self.phases:
            if step < phase.steps:
                return phase
            step -= phase.steps
        return self.phases[-1]
