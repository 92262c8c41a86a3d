"""Recipes: the ranges that a degradation is drawn from, as plain data, and the named ones."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from hbr.config import check

Range = tuple[float, float]

LARGEST_KERNEL = 21


@dataclass(frozen=True)
class BlurConfig:
    """One blur; the defaults are the first of Real-ESRGAN's.

    Attributes:
        prob: probability of a blur at all.
        sizes: smallest and largest kernel edge; odd ones between are drawn uniformly.
        shapes: weights of iso, aniso, generalized iso, generalized aniso, plateau iso, aniso.
        sinc_prob: probability of a sinc filter in place of these shapes.
        sigma: standard deviations in pixels, along both axes.
        beta_generalized, beta_plateau: exponents of those shapes; half of the draws are at most 1.
    """

    prob: float = 1.0
    sizes: tuple[int, int] = (7, 21)
    shapes: tuple[float, float, float, float, float, float] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    sinc_prob: float = 0.1
    sigma: Range = (0.2, 3.0)
    beta_generalized: Range = (0.5, 4.0)
    beta_plateau: Range = (1.0, 2.0)

    def __post_init__(self) -> None:
        """Check every field."""
        _check_prob(self, "prob", "sinc_prob")
        _check_range(self, "sigma", "beta_generalized", "beta_plateau")
        low, high = self.sizes
        ok = 3 <= low <= high <= LARGEST_KERNEL and low % 2 == high % 2 == 1
        expected = f"two odd numbers from 3 to {LARGEST_KERNEL}, the smaller first"
        check(ok, "sizes", self.sizes, expected)
        ok = min(self.shapes) >= 0 and sum(self.shapes) > 0
        check(ok, "shapes", self.shapes, "six weights, not all 0")


@dataclass(frozen=True)
class StageConfig:
    """Blur, resize, noise, JPEG; the defaults are Real-ESRGAN's first stage.

    Attributes:
        blur: the kernels.
        resize_probs: weights of up, down, keep.
        resize_range: factors, down from the first to 1, up from 1 to the second: of the size of
            the image in the first stage, of that size divided by the recipe's `scale` in others.
        gaussian_prob: probability of Gaussian noise; otherwise it is Poisson.
        noise_prob: probability of any noise.
        noise_sigma: σ of Gaussian noise, in 8-bit levels.
        poisson_scale: factor of Poisson noise.
        grey_prob: probability that the noise is the same in R, G and B.
        jpeg_prob, jpeg_quality: probability of a JPEG, and its quality.
    """

    blur: BlurConfig = field(default_factory=BlurConfig)
    resize_probs: tuple[float, float, float] = (0.2, 0.7, 0.1)
    resize_range: Range = (0.15, 1.5)
    gaussian_prob: float = 0.5
    noise_prob: float = 1.0
    noise_sigma: Range = (1.0, 30.0)
    poisson_scale: Range = (0.05, 3.0)
    grey_prob: float = 0.4
    jpeg_prob: float = 1.0
    jpeg_quality: Range = (30.0, 95.0)

    def __post_init__(self) -> None:
        """Check every field."""
        _check_prob(self, "gaussian_prob", "noise_prob", "grey_prob", "jpeg_prob")
        _check_range(self, "noise_sigma", "poisson_scale", "jpeg_quality")
        low, high = self.resize_range
        check(0 < low <= 1 <= high, "resize_range", self.resize_range, "two factors around 1")
        ok = min(self.resize_probs) >= 0 and sum(self.resize_probs) > 0
        check(ok, "resize_probs", self.resize_probs, "three weights, not all 0")
        low, high = self.jpeg_quality
        check(1 <= low <= high <= 100, "jpeg_quality", self.jpeg_quality, "within 1 and 100")


@dataclass(frozen=True)
class Recipe:
    """What is drawn for each image; `real-esrgan` is the default of this line of research.

    Attributes:
        stages: in order; with none, and scale 1, the image stays as it is.
        final_sinc_prob: probability of a sinc filter at the end.
        scale: the degraded image is this many times smaller before it is resized back.
        jpeg: the differentiable JPEG, or libjpeg's own.
        shared_sizes: one draw of all resizings for a whole batch, which lets a GPU take the batch
            at once, as the public training code does; otherwise every image has its own.
    """

    stages: tuple[StageConfig, ...] = ()
    final_sinc_prob: float = 0.0
    scale: int = 1
    jpeg: Literal["differentiable", "libjpeg"] = "differentiable"
    shared_sizes: bool = False

    def __post_init__(self) -> None:
        """Check every field."""
        _check_prob(self, "final_sinc_prob")
        check(self.scale >= 1, "scale", self.scale, "1 or more")


def _check_prob(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        check(0 <= value <= 1, name, value, "in [0, 1]")


def _check_range(config: object, *names: str) -> None:
    for name in names:
        low, high = getattr(config, name)
        check(0 < low <= high, name, (low, high), "two numbers above 0, the smaller first")


REAL_ESRGAN = Recipe(
    stages=(
        StageConfig(),
        StageConfig(
            blur=BlurConfig(prob=0.8, sigma=(0.2, 1.5)),
            resize_probs=(0.3, 0.4, 0.3),
            resize_range=(0.3, 1.2),
            noise_sigma=(1.0, 25.0),
            poisson_scale=(0.05, 2.5),
        ),
    ),
    final_sinc_prob=0.8,
    scale=4,
)

LIGHT = Recipe(
    stages=(
        StageConfig(
            blur=BlurConfig(prob=0.5, sizes=(3, 9), sinc_prob=0.0, sigma=(0.2, 1.2)),
            resize_probs=(0.0, 0.3, 0.7),
            resize_range=(0.6, 1.0),
            noise_prob=0.5,
            noise_sigma=(0.5, 6.0),
            poisson_scale=(0.05, 0.5),
            jpeg_prob=0.7,
            jpeg_quality=(60.0, 98.0),
        ),
    ),
)

RECIPES = {
    "real-esrgan": REAL_ESRGAN,
    "real-esrgan-libjpeg": replace(REAL_ESRGAN, jpeg="libjpeg"),
    "light": LIGHT,
    "none": Recipe(),
}
