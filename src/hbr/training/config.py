"""The configuration of a training, one to one with the YAML files under `configs/`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hbr.config import check
from hbr.degradation import RECIPES
from hbr.models.config import LoRAConfig, RestorerConfig


@dataclass(frozen=True)
class SourceConfig:
    """A folder of photos.

    Attributes:
        photos: the folder; relative paths start where the command is run.
        weight: how often it is drawn from, beside the other sources.
        boxes: a COCO file with person boxes; crops then fall on a person.
        exclude: names of files that are left out.
    """

    photos: Path
    weight: float = 1.0
    boxes: Path | None = None
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check every field."""
        check(self.weight > 0, "weight", self.weight, "above 0")


@dataclass(frozen=True)
class DataConfig:
    """Where pairs come from.

    Attributes:
        sources: the photos.
        degradations: name of a recipe → how often it is drawn.
        shrink_prob, shrink: probability of making the HQ photo smaller first, and by what factors;
            this hides the compression that the photo came with.
        workers: processes that prepare pairs.
    """

    sources: tuple[SourceConfig, ...]
    degradations: dict[str, float] = field(default_factory=lambda: {"real-esrgan": 1.0})
    shrink_prob: float = 0.3
    shrink: tuple[float, float] = (0.6, 1.0)
    workers: int = 1

    def __post_init__(self) -> None:
        """Check every field."""
        check(len(self.sources) >= 1, "sources", self.sources, "one source or more")
        for name, weight in self.degradations.items():
            check(name in RECIPES, "degradations", name, f"one of {', '.join(RECIPES)}")
            check(weight >= 0, f"degradations.{name}", weight, "0 or more")
        ok = sum(self.degradations.values()) > 0
        check(ok, "degradations", self.degradations, "weights that are not all 0")
        check(0 <= self.shrink_prob <= 1, "shrink_prob", self.shrink_prob, "in [0, 1]")
        low, high = self.shrink
        check(0 < low <= high <= 1, "shrink", self.shrink, "two factors in (0, 1]")
        check(self.workers >= 0, "workers", self.workers, "0 or more")


@dataclass(frozen=True)
class LossConfig:
    """Weights of the terms on pixels in [0, 1].

    Attributes:
        mse, l1: means over all pixels.
        psnr: mean over the images of log10(MSE + 1e-4), which is −PSNR/10 for damaged images; it
            weighs every image alike.
        gradient: L1 between the differences of neighbouring pixels, for edges.
    """

    mse: float = 0.0
    l1: float = 1.0
    psnr: float = 0.0
    gradient: float = 0.0

    def __post_init__(self) -> None:
        """Check every field."""
        weights = (self.mse, self.l1, self.psnr, self.gradient)
        check(min(weights) >= 0 and sum(weights) > 0, "loss", weights, "weights, not all 0")


@dataclass(frozen=True)
class VSDConfig:
    """Variational score distillation against the weights that the training starts from.

    Attributes:
        weight: of the loss, beside those on pixels.
        space: "x0", as the published code runs it, or "epsilon", Eq. 6 to the letter
            (`hbr.models.vsd.vsd_gradient`).
        guidance: how far the prior is guided towards the prompt, away from a prompt of zeros.
        timesteps: t is drawn from [low, high); the regularizer's own from the whole schedule.
        lora: the regularizer's adapters, which sit on the U-Net beside the generator's.
        lr: of the regularizer; None is the generator's.
    """

    weight: float = 1.0
    space: Literal["x0", "epsilon"] = "x0"
    guidance: float = 7.5
    timesteps: tuple[int, int] = (20, 980)
    lora: LoRAConfig = field(default_factory=LoRAConfig)
    lr: float | None = None

    def __post_init__(self) -> None:
        """Check every field."""
        check(self.weight > 0, "weight", self.weight, "above 0")
        check(self.guidance >= 0, "guidance", self.guidance, "0 or more")
        low, high = self.timesteps
        check(0 <= low < high, "timesteps", self.timesteps, "two numbers from 0, rising")
        check(self.lr is None or self.lr > 0, "lr", self.lr, "above 0")


@dataclass(frozen=True)
class RestorationConfig:
    """LQ in, HQ out, in one step (OSDHuman §3.1).

    Attributes:
        prompt_from: the image that the prompt is made of; "hq" is for comparisons only, as in
            OSDHuman's table 4, since there is no HQ image to restore from. "none" is zeros.
        lora: adapters on the encoder and the U-Net, whose own weights and the decoder's are frozen
            then; None trains every weight.
        vsd: the distillation, which needs `lora`: the frozen U-Net is its prior.
    """

    kind: Literal["restoration"] = "restoration"
    prompt_from: Literal["lq", "hq", "none"] = "lq"
    lora: LoRAConfig | None = None
    vsd: VSDConfig | None = None

    def __post_init__(self) -> None:
        """Check what must fit together."""
        ok = self.vsd is None or self.lora is not None
        check(ok, "lora", self.lora, "given, since `vsd` needs the frozen U-Net under it")


@dataclass(frozen=True)
class AutoencodingConfig:
    """HQ in, HQ out, through the autoencoder alone, which is trained; LQ is not used.

    Attributes:
        noise: standard deviation of the noise on z, so that decoding bears what a U-Net misses.
        latent: weight of the mean of z², without which z would grow out of the noise.
    """

    kind: Literal["autoencoder"] = "autoencoder"
    noise: float = 0.05
    latent: float = 1e-3

    def __post_init__(self) -> None:
        """Check every field."""
        check(self.noise >= 0, "noise", self.noise, "0 or more")
        check(self.latent >= 0, "latent", self.latent, "0 or more")


@dataclass(frozen=True)
class DiffusionConfig:
    """A diffusion prior of HQ latents: U-Net and prompt extractor are trained on ε-MSE.

    Attributes:
        prompt_from: the image that the prompt is made of.
        prompt_drop: how often the prompt is all zeros, which teaches the unguided half of guidance.
        timesteps: t is drawn from [low, high).
    """

    kind: Literal["diffusion"] = "diffusion"
    prompt_from: Literal["hq", "lq"] = "hq"
    prompt_drop: float = 0.1
    timesteps: tuple[int, int] = (0, 1000)

    def __post_init__(self) -> None:
        """Check every field."""
        check(0 <= self.prompt_drop <= 1, "prompt_drop", self.prompt_drop, "in [0, 1]")
        low, high = self.timesteps
        check(0 <= low < high, "timesteps", self.timesteps, "two numbers from 0, rising")


@dataclass(frozen=True)
class PhaseConfig:
    """A part of the training.

    Attributes:
        steps: how long it lasts.
        crop: edge of the crops, in pixels.
        batch: crops a step.
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


@dataclass(frozen=True)
class OptimConfig:
    """AdamW, its schedule, and the average of the weights.

    Attributes:
        lr: the learning rate that is held between warm-up and decay.
        warmup, decay: steps of linear rise at the start, and of cosine fall to 0 at the end.
        clip: largest norm of the gradient.
        ema: decay of the average that is validated and shipped.
    """

    lr: float = 5e-5
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    warmup: int = 100
    decay: int = 0
    clip: float = 1.0
    ema: float = 0.999

    def __post_init__(self) -> None:
        """Check every field."""
        check(self.lr > 0, "lr", self.lr, "above 0")
        check(all(0 <= b < 1 for b in self.betas), "betas", self.betas, "two numbers in [0, 1)")
        check(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        check(self.warmup >= 0, "warmup", self.warmup, "0 or more")
        check(self.decay >= 0, "decay", self.decay, "0 or more")
        check(self.clip > 0, "clip", self.clip, "above 0")
        check(0 <= self.ema < 1, "ema", self.ema, "in [0, 1)")


@dataclass(frozen=True)
class ValidationConfig:
    """Photos that are never trained on, degraded the same way every time.

    Attributes:
        photos: the folder; its first `count` files by name.
        crop: edge of the centre crop, in pixels.
        every: steps between validations.
        pictures: how many go into the picture (LQ, restored, HQ side by side).
    """

    photos: Path
    count: int = 100
    crop: int = 512
    recipe: str = "real-esrgan"
    seed: int = 0
    every: int = 500
    pictures: int = 4

    def __post_init__(self) -> None:
        """Check every field."""
        check(self.recipe in RECIPES, "recipe", self.recipe, f"one of {', '.join(RECIPES)}")
        for name in ("count", "crop", "every"):
            check(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        check(self.pictures >= 0, "pictures", self.pictures, "0 or more")
        check(self.seed >= 0, "seed", self.seed, "0 or more")


@dataclass(frozen=True)
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
        init: weights to start from instead, as `hbr restore --model` takes them.
        freeze: names of parts of the model that stay as they are, such as "autoencoder".
        precision: of the forward pass; weights and optimizer stay float32.
        seed: with the step, it alone decides every crop and degradation.
        save_every: steps between checkpoints.
        weights: precision of the weights in the model file.
        card: what the model file says of itself, such as its licence and what it was trained on.
    """

    model: RestorerConfig
    data: DataConfig
    validation: ValidationConfig
    phases: tuple[PhaseConfig, ...]
    out: Path
    objective: RestorationConfig | AutoencodingConfig | DiffusionConfig = field(
        default_factory=RestorationConfig
    )
    start: Literal["random", "identity"] = "random"
    init: Path | None = None
    freeze: tuple[str, ...] = ()
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    seed: int = 0
    save_every: int = 500
    weights: Literal["float32", "float16", "bfloat16"] = "float32"
    card: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check what must fit together."""
        check(len(self.phases) >= 1, "phases", self.phases, "one phase or more")
        multiple = self.model.multiple_of
        for phase in self.phases:
            check(phase.crop % multiple == 0, "crop", phase.crop, f"a multiple of {multiple}")
        steps = self.model.schedule.steps
        match self.objective:
            case DiffusionConfig(timesteps=got) | RestorationConfig(vsd=VSDConfig(timesteps=got)):
                check(got[1] <= steps, "timesteps", got, f"at most the schedule's {steps}")
        crop = self.validation.crop
        check(crop % multiple == 0, "validation.crop", crop, f"a multiple of {multiple}")
        ok = self.optim.warmup + self.optim.decay <= self.steps
        check(ok, "optim.decay", self.optim.decay, f"with warmup at most the {self.steps} steps")
        check(self.seed >= 0, "seed", self.seed, "0 or more")
        check(self.save_every >= 1, "save_every", self.save_every, "1 or more")

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
