"""What a training minimises."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hbr.config import check
from hbr.models.config import LoRAConfig


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the terms between restored and HQ images in [0, 1].

    OSEDiff's and OSDHuman's MSE + 2 LPIPS is `{l1: 0, mse: 4, lpips: 2}` here: their MSE is of
    images in [-1, 1], which is 4 times that of the same images in [0, 1]. LPIPS and DISTS give the
    numbers of their packages on the same images.

    Attributes:
        mse, l1: means over all pixels.
        psnr: mean over the images of log10(MSE + 1e-4), which is −PSNR/10 for damaged images; it
            weighs every image alike.
        gradient: L1 between the differences of neighbouring pixels, for edges.
        edge: L1 between Sobel's edge maps.
        lpips: LPIPS 0.1 on VGG-16 (Zhang et al. 2018).
        dists: DISTS (Ding et al. 2020).
        edge_dists: DISTS of Sobel's edge maps. With the same weight as `dists` the two are the
            edge-aware DISTS of D³SR and OSDFace (arXiv 2410.04224): DISTS(x̂, x) + DISTS(Sx̂, Sx).
        adversarial: how real the images look to the objective's `discriminator`.
        artifacts: L1 where the image is off like an artifact (LDL; Liang et al. 2022).
        precision: of the networks of LPIPS and DISTS. bfloat16 halves their time on a CPU; it moves
            distances like those of training, 0.2 and more, by less than 0.5 %.
        lpips_weights, dists_weights: file of VGG-16, or a folder that is looked into first; None is
            where `hbr fetch vgg16` puts it.
    """

    mse: float = 0.0
    l1: float = 1.0
    psnr: float = 0.0
    gradient: float = 0.0
    edge: float = 0.0
    lpips: float = 0.0
    dists: float = 0.0
    edge_dists: float = 0.0
    adversarial: float = 0.0
    artifacts: float = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    lpips_weights: Path | None = None
    dists_weights: Path | None = None

    def __post_init__(self) -> None:
        """Check every field."""
        plain = (self.mse, self.l1, self.psnr, self.gradient, self.edge)
        deep = (self.lpips, self.dists, self.edge_dists, self.adversarial, self.artifacts)
        weights = (*plain, *deep)
        check(min(weights) >= 0 and sum(weights) > 0, "loss", weights, "weights, not all 0")


@dataclass(frozen=True, kw_only=True)
class VSDConfig:
    """Variational score distillation against the weights that the training starts from.

    Attributes:
        weight: of the loss, beside those on pixels.
        space: "x0", as the published code runs it, or "epsilon", Eq. 6 to the letter
            (`hbr.models.vsd.vsd_gradient`).
        guidance: how far the prior is guided towards the prompt, away from the negative one.
        negative_prompt: a text, embedded by the text encoder that `init` has; None is zeros.
        timesteps: t is drawn from [low, high); the regularizer's own from the whole schedule.
        lora: the regularizer's adapters, which sit on the U-Net beside the generator's.
        lr: of the regularizer; None is the generator's.
    """

    weight: float = 1.0
    space: Literal["x0", "epsilon"] = "x0"
    guidance: float = 7.5
    negative_prompt: str | None = None
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


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """A small U-Net with spectral norm that learns to tell restored from HQ images.

    Attributes:
        width: channels of its first level.
        lr: its learning rate; None is the generator's.
    """

    width: int = 32
    lr: float | None = None

    def __post_init__(self) -> None:
        """Check every field."""
        check(self.width >= 1, "width", self.width, "1 or more")
        check(self.lr is None or self.lr > 0, "lr", self.lr, "above 0")


@dataclass(frozen=True)
class RestorationConfig:
    """LQ in, HQ out, in one step (OSDHuman §3.1).

    Attributes:
        prompt_from: the image that the prompt is made of, in training and in validation. "hq" is
            for comparisons, as in OSDHuman's table 4: it shows what a perfect prompt would be
            worth. `hbr restore` has no HQ image, so it makes the prompt of the LQ one whatever
            this says.
        lora: adapters on the encoder and the U-Net, whose own weights and the decoder's are frozen
            then; None trains every weight.
        vsd: the distillation, which needs `lora`: the frozen U-Net is its prior.
        discriminator: trained beside the model in every phase; `loss.adversarial` is the weight of
            what it says, which may be 0 in a first phase, until it knows something.
    """

    kind: Literal["restoration"] = "restoration"
    prompt_from: Literal["lq", "hq"] = "lq"
    lora: LoRAConfig | None = None
    vsd: VSDConfig | None = None
    discriminator: DiscriminatorConfig | None = None

    def __post_init__(self) -> None:
        """Check what must fit together."""
        ok = self.vsd is None or self.lora is not None
        check(ok, "lora", self.lora, "given, since `vsd` needs the frozen U-Net under it")
        ok = self.vsd is None or self.discriminator is None
        check(ok, "discriminator", self.discriminator, "null beside `vsd`")


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
