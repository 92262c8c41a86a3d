"""The configuration of objectives and losses."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hbr.config import check, check_least
from hbr.models.config import LoRAConfig


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the losses between restored and HQ images in [0, 1].

    The loss MSE + 2 LPIPS of OSEDiff and OSDHuman is `{l1: 0, mse: 4, lpips: 2}` here: they compute
    the MSE of images in [-1, 1], which is 4 times that of images in [0, 1]. LPIPS and DISTS equal
    those of their packages.

    Attributes:
        mse, l1: means over all pixels.
        psnr: mean over the images of log10(MSE + 1e-4), which is −PSNR/10 for degraded images; all
            images have the same influence.
        gradient: L1 between the differences of neighbouring pixels, for edges.
        edge: L1 between Sobel edge maps.
        lpips: LPIPS 0.1 on VGG-16 (Zhang et al. 2018).
        dists: DISTS (Ding et al. 2020).
        edge_dists: DISTS of Sobel edge maps. With the same weight as `dists`, the sum is the
            edge-aware DISTS of D³SR and OSDFace (arXiv 2410.04224): DISTS(x̂, x) + DISTS(Sx̂, Sx).
        adversarial: adversarial loss against the objective's `discriminator`.
        artifacts: L1 weighted by an artifact map (LDL; Liang et al. 2022).
        teacher: share of the images of a batch that are compared with what `teacher_model` makes of
            them instead of HQ, where that is believed (`hbr.training.teacher`).
        teacher_model: a model that enlarges, as `hbr restore --model` takes it.
        precision: precision of the LPIPS and DISTS networks. bfloat16 halves their time on a CPU;
            distances that are typical of training (0.2 and more) change by less than 0.5 %.
        clamp: clamp restored images to [0, 1] before all losses, as OSEDiff's code does; values
            outside then get no gradient.
        lpips_weights, dists_weights: file of VGG-16, or a folder to search first; None is where
            `hbr fetch vgg16` puts it.
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
    teacher: float = 0.0
    teacher_model: str = "realesrgan-x4plus"
    precision: Literal["float32", "bfloat16"] = "float32"
    clamp: bool = False
    lpips_weights: Path | None = None
    dists_weights: Path | None = None

    def __post_init__(self) -> None:
        plain = (self.mse, self.l1, self.psnr, self.gradient, self.edge)
        deep = (self.lpips, self.dists, self.edge_dists, self.adversarial, self.artifacts)
        weights = (*plain, *deep)
        check(min(weights) >= 0 and sum(weights) > 0, "loss", weights, "weights, not all 0")
        check(0 <= self.teacher <= 1, "teacher", self.teacher, "in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class VSDConfig:
    """Variational score distillation; the prior is the U-Net that the training starts from.

    Attributes:
        weight: weight of the loss relative to the pixel losses.
        space: "x0", as in the published code; "eq6", as the paper prints it; or "epsilon", that
            without its denominator (`hbr.models.vsd.vsd_gradient`).
        guidance: scale of the prior's classifier-free guidance.
        negative_prompt: a text, embedded by the text encoder of `init`; None is a prompt of zeros.
        timesteps: t is drawn from [low, high); the regularizer's from the whole schedule.
        lora: the regularizer's adapters on the U-Net, in addition to the generator's.
        regularizer: the layers that the regularizer trains. "whole": all that the generator's
            adapters have, as the papers describe it. This is the default, because a regularizer
            that is to follow the generator needs its capacity. "published": 16 layers of the middle
            block, as OSEDiff's training code runs it: it adds three adapters and leaves the one
            active that it added last (`default_others`). The published numbers come from this.
        lr: learning rate of the regularizer; None is the generator's.
    """

    weight: float = 1.0
    space: Literal["x0", "epsilon", "eq6"] = "x0"
    guidance: float = 7.5
    negative_prompt: str | None = None
    timesteps: tuple[int, int] = (20, 980)
    lora: LoRAConfig = field(default_factory=LoRAConfig)
    regularizer: Literal["whole", "published"] = "whole"
    lr: float | None = None

    def __post_init__(self) -> None:
        check(self.weight > 0, "weight", self.weight, "above 0")
        check_least(self, 0, "guidance")
        low, high = self.timesteps
        check(0 <= low < high, "timesteps", self.timesteps, "two numbers from 0, rising")
        check(self.lr is None or self.lr > 0, "lr", self.lr, "above 0")


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """A small U-Net with spectral norm that learns to distinguish restored from HQ images.

    Attributes:
        width: number of channels of the first level.
        lr: learning rate; None is the generator's.
    """

    width: int = 32
    lr: float | None = None

    def __post_init__(self) -> None:
        check_least(self, 1, "width")
        check(self.lr is None or self.lr > 0, "lr", self.lr, "above 0")


@dataclass(frozen=True, kw_only=True)
class RestorationConfig:
    """Restore HQ from LQ in one step (OSDHuman §3.1).

    Attributes:
        prompt_from: the image to compute the prompt from, in training and validation. "hq" is for
            comparisons, as in table 4 of OSDHuman: it shows the effect of an ideal prompt.
            `hbr restore` has no HQ image and always uses the LQ image.
        lora: adapters on the encoder and the U-Net, which are then frozen like the decoder; None
            trains all weights.
        train_conv_in: train the U-Net's first convolution itself, weight and bias, in addition to
            the adapters, as OSEDiff's code does. The prior and the regularizer keep the base's.
        vsd: the distillation; it requires `lora`, since the frozen U-Net is its prior.
        discriminator: trained along with the model in every phase; the weight of its loss,
            `loss.adversarial`, may be 0 in a first phase to pre-train the discriminator.
    """

    kind: Literal["restoration"] = "restoration"
    prompt_from: Literal["lq", "hq"] = "lq"
    lora: LoRAConfig | None = None
    train_conv_in: bool = False
    vsd: VSDConfig | None = None
    discriminator: DiscriminatorConfig | None = None

    def __post_init__(self) -> None:
        ok = self.vsd is None or self.lora is not None
        check(ok, "lora", self.lora, "given, since `vsd` needs the frozen U-Net under it")
        ok = not self.train_conv_in or self.lora is not None
        check(ok, "train_conv_in", self.train_conv_in, "false without `lora`: all is trained then")
        ok = self.vsd is None or self.discriminator is None
        check(ok, "discriminator", self.discriminator, "null if `vsd` is given")


@dataclass(frozen=True)
class RegressionConfig:
    """Train a network that maps LQ to HQ images directly, such as SwinIR, with pixel losses.

    With `loss: {l1: 0, mse: 1}` this is the L2 objective of the first stage of DiffBIR and of
    DiffBody.
    """

    kind: Literal["regression"] = "regression"


@dataclass(frozen=True)
class AutoencodingConfig:
    """Train the autoencoder to reconstruct HQ images; LQ images are not used.

    Attributes:
        noise: standard deviation of noise added to z, so that the decoder tolerates errors of the
            U-Net.
        latent: weight of the mean of z², which keeps z from outgrowing the noise.
    """

    kind: Literal["autoencoder"] = "autoencoder"
    noise: float = 0.05
    latent: float = 1e-3

    def __post_init__(self) -> None:
        check_least(self, 0, "noise", "latent")


@dataclass(frozen=True, kw_only=True)
class DecodingConfig:
    """Distil a decoder: train `model.autoencoder.decoder` to make the images of its teacher.

    The teacher is the decoder of `init`, with its refiner. All else of `init` is frozen.

    Attributes:
        restored: share of the images of a batch whose latents are restored from LQ, which is what
            the decoder sees in `hbr restore`; the others are encoded from HQ.
        target: what the images are compared with: the teacher's, or "photo", HQ where the latent is
            encoded from it.
        noise: standard deviation of noise added to z, of which the teacher sees nothing.
        latent: weight of the L1 between the latents of both images, by the frozen encoder.
        pruned: begin with the weightiest channels of the teacher (`hbr.models.pruning`), of whose
            structure the decoder is, only narrower.
        discriminator: as in the objective `restoration`.
    """

    kind: Literal["decoder"] = "decoder"
    restored: float = 0.5
    target: Literal["teacher", "photo"] = "teacher"
    noise: float = 0.0
    latent: float = 0.0
    pruned: bool = False
    discriminator: DiscriminatorConfig | None = None

    def __post_init__(self) -> None:
        check(0 <= self.restored <= 1, "restored", self.restored, "in [0, 1]")
        check_least(self, 0, "noise", "latent")


@dataclass(frozen=True)
class ControlConfig:
    """Train the control branch of a DiffBody model with the weighted ε-MSE of its Eq. 4.

    Attributes:
        prompt_drop: probability of an empty text, for classifier-free guidance.
        weighted: weight the error by 1 + attention; false is the plain ε-MSE.
        timesteps: t is drawn from [low, high).
    """

    kind: Literal["control"] = "control"
    prompt_drop: float = 0.1
    weighted: bool = True
    timesteps: tuple[int, int] = (0, 1000)

    def __post_init__(self) -> None:
        check(0 <= self.prompt_drop <= 1, "prompt_drop", self.prompt_drop, "in [0, 1]")
        low, high = self.timesteps
        check(0 <= low < high, "timesteps", self.timesteps, "two numbers from 0, rising")


@dataclass(frozen=True)
class PartsConfig:
    """Train the network of body parts of a DiffBody model, with labels from key points."""

    kind: Literal["parts"] = "parts"


@dataclass(frozen=True)
class DiffusionConfig:
    """Train the U-Net and the prompt extractor as a diffusion prior of HQ latents, with ε-MSE.

    Attributes:
        prompt_from: the image to compute the prompt from.
        prompt_drop: probability of a prompt of zeros, for classifier-free guidance.
        timesteps: t is drawn from [low, high).
    """

    kind: Literal["diffusion"] = "diffusion"
    prompt_from: Literal["hq", "lq"] = "hq"
    prompt_drop: float = 0.1
    timesteps: tuple[int, int] = (0, 1000)

    def __post_init__(self) -> None:
        check(0 <= self.prompt_drop <= 1, "prompt_drop", self.prompt_drop, "in [0, 1]")
        low, high = self.timesteps
        check(0 <= low < high, "timesteps", self.timesteps, "two numbers from 0, rising")
