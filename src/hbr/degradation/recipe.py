"""Recipes: the ranges that a degradation is drawn from, as plain data."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from hbr.config import check, check_least
from hbr.degradation.resizing import MODES

Range = tuple[float, float]
C = TypeVar("C", "BlurConfig", "StageConfig", "MotionConfig", "FadingConfig")

LARGEST_KERNEL = 127


@dataclass(frozen=True, kw_only=True)
class BlurConfig:
    """One blur; the defaults are the first of Real-ESRGAN's.

    Attributes:
        prob: probability of a blur at all.
        sizes: smallest and largest kernel edge; odd ones between are drawn uniformly.
        shapes: weights of iso, aniso, generalized iso, generalized aniso, plateau iso, aniso.
        sinc_prob: probability of a sinc filter in place of these shapes.
        sinc_depth: how much of the way down from π the cutoff may go: 1 as published, 0 not at all.
        sigma: standard deviations in pixels, along both axes.
        beta_generalized, beta_plateau: exponents of those shapes; half of the draws are at most 1.
        defocus_prob, defocus_radius: probability of a disc in place of these shapes, and its
            radius in pixels.
        shake_prob, shake_length: otherwise, probability of the trace of a shaken camera, and its
            length in pixels.
    """

    prob: float = 1.0
    sizes: tuple[int, int] = (7, 21)
    shapes: tuple[float, float, float, float, float, float] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    sinc_prob: float = 0.1
    sinc_depth: float = 1.0
    sigma: Range = (0.2, 3.0)
    beta_generalized: Range = (0.5, 4.0)
    beta_plateau: Range = (1.0, 2.0)
    defocus_prob: float = 0.0
    defocus_radius: Range = (0.5, 3.0)
    shake_prob: float = 0.0
    shake_length: Range = (2.0, 8.0)

    def __post_init__(self) -> None:
        _check_prob(self, "prob", "sinc_prob", "sinc_depth", "defocus_prob", "shake_prob")
        _check_range(self, "sigma", "beta_generalized", "beta_plateau")
        _check_range(self, "defocus_radius", "shake_length")
        check(self.defocus_radius[1] <= 9, "defocus_radius", self.defocus_radius, "at most 9")
        check(self.shake_length[1] <= 18, "shake_length", self.shake_length, "at most 18")
        low, high = self.sizes
        ok = 3 <= low <= high <= LARGEST_KERNEL and low % 2 == high % 2 == 1
        expected = f"two odd numbers from 3 to {LARGEST_KERNEL}, the smaller first"
        check(ok, "sizes", self.sizes, expected)
        _check_weights(self, "shapes")


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """Blur, resize, noise, sharpening, JPEG; the defaults are Real-ESRGAN's first stage.

    Attributes:
        blur: the kernels.
        resize_probs: weights of up, down, keep.
        resize_range: factors, down from the first to 1, up from 1 to the second: of the size of
            the image in the first stage, of that size divided by the recipe's `scale` in others.
        down_uniform_in: what is drawn uniformly on the way down, the factor or its inverse.
        resize_modes: weights of area, bilinear, bicubic, nearest, Lanczos, and of bilinear and
            bicubic with antialiasing; the last ones may be left out.
        gaussian_prob: probability of Gaussian noise; otherwise it is Poisson.
        noise_prob: probability of any noise.
        noise_sigma: σ of Gaussian noise, in 8-bit levels.
        poisson_scale: factor of Poisson noise.
        grey_prob: probability that the noise is the same in R, G and B.
        jpeg_prob, jpeg_quality: probability of a JPEG, and its quality.
        jpeg_shift_prob: probability that its blocks start anywhere, not at the corner.
        camera_prob: probability that noise is a camera's (`hbr.degradation.noise`), before it is
            Gaussian or Poisson.
        camera_sigma: its σ on the sensor at mid-grey, in 8-bit levels.
        camera_read: share of its variance at mid-grey that does not grow with the light.
        camera_mixing: how far colour correction subtracts each channel from the others.
        sharpen_prob, sharpen_sigma, sharpen_amount: probability of an unsharp mask, the σ of its
            blur in pixels, and how much of the difference is added.
    """

    blur: BlurConfig = field(default_factory=BlurConfig)
    resize_probs: tuple[float, float, float] = (0.2, 0.7, 0.1)
    resize_range: Range = (0.15, 1.5)
    down_uniform_in: Literal["factor", "divisor"] = "factor"
    resize_modes: tuple[float, ...] = (1.0, 1.0, 1.0)
    gaussian_prob: float = 0.5
    noise_prob: float = 1.0
    noise_sigma: Range = (1.0, 30.0)
    poisson_scale: Range = (0.05, 3.0)
    grey_prob: float = 0.4
    jpeg_prob: float = 1.0
    jpeg_quality: Range = (30.0, 95.0)
    jpeg_shift_prob: float = 0.0
    camera_prob: float = 0.0
    camera_sigma: Range = (0.5, 20.0)
    camera_read: Range = (0.05, 0.5)
    camera_mixing: Range = (0.05, 0.4)
    sharpen_prob: float = 0.0
    sharpen_sigma: Range = (0.5, 2.0)
    sharpen_amount: Range = (0.2, 1.5)

    def __post_init__(self) -> None:
        _check_prob(self, "gaussian_prob", "noise_prob", "grey_prob", "jpeg_prob")
        _check_prob(self, "jpeg_shift_prob", "camera_prob", "sharpen_prob")
        _check_range(self, "poisson_scale", "jpeg_quality", "camera_sigma", "camera_read")
        _check_range(self, "camera_mixing", "sharpen_sigma", "sharpen_amount")
        check(self.camera_read[1] <= 1, "camera_read", self.camera_read, "at most 1")
        check(self.sharpen_sigma[1] <= 3, "sharpen_sigma", self.sharpen_sigma, "at most 3")
        low, high = self.noise_sigma
        ok = 0 <= low <= high < math.inf
        check(ok, "noise_sigma", self.noise_sigma, "two numbers from 0, in order")
        low, high = self.resize_range
        ok = 0 < low <= 1 <= high < math.inf
        check(ok, "resize_range", self.resize_range, "two factors around 1")
        _check_weights(self, "resize_probs")
        _check_modes(self, "resize_modes")
        low, high = self.jpeg_quality
        check(1 <= low <= high <= 100, "jpeg_quality", self.jpeg_quality, "within 1 and 100")


@dataclass(frozen=True, kw_only=True)
class MotionConfig:
    """Human motion blur: parts of a body moved while the shutter was open.

    A copy of the image, blurred along a drawn path, is mixed in under a soft mask of body parts.
    Lengths are relative to the short edge of the image, so that they mean the same at any size.

    Attributes:
        prob: probability of any movement.
        places: weights of its coming before the first stage, and between the first and the second
            (only where there are two).
        count: least and most movements in an image; each has its own path and parts.
        person_prob: probability that a movement takes the whole person, not some of its parts.
        part_prob: probability of each part otherwise; at least one is taken.
        length: of the path.
        bend: the path turns by at most this much, in radians, to either side.
        wobble: its direction swings by at most this much, in radians, to either side.
        softness: σ of the edge of the mask.
        opacity: weight of the blurred copy inside the mask.
    """

    prob: float = 1.0
    places: tuple[float, float] = (0.5, 0.5)
    count: tuple[int, int] = (1, 3)
    person_prob: float = 0.25
    part_prob: float = 0.35
    length: Range = (0.015, 0.12)
    bend: float = 1.5
    wobble: float = 0.5
    softness: Range = (0.004, 0.02)
    opacity: Range = (0.8, 1.0)

    def __post_init__(self) -> None:
        _check_prob(self, "prob", "person_prob", "part_prob")
        _check_range(self, "length", "softness", "opacity")
        _check_weights(self, "places")
        low, high = self.count
        check(1 <= low <= high <= 16, "count", self.count, "two numbers from 1 to 16, in order")
        check(self.length[1] <= 0.5, "length", self.length, "at most 0.5, half of the short edge")
        check(self.softness[1] <= 0.2, "softness", self.softness, "at most 0.2")
        check(self.opacity[1] <= 1, "opacity", self.opacity, "within 0 and 1")
        check(0 <= self.bend <= math.tau, "bend", self.bend, "from 0 to 2π, one turn")
        check(0 <= self.wobble <= math.tau, "wobble", self.wobble, "from 0 to 2π, one turn")


@dataclass(frozen=True, kw_only=True)
class FadingConfig:
    """A print that has faded before it was scanned.

    Attributes:
        prob: probability of it.
        black: what becomes of black, from 0.
        white: how far white falls below 1.
        cast: black and white of each channel are off by at most this much.
    """

    prob: float = 1.0
    black: Range = (0.02, 0.12)
    white: Range = (0.02, 0.15)
    cast: float = 0.03

    def __post_init__(self) -> None:
        _check_prob(self, "prob", "cast")
        _check_range(self, "black", "white")
        most = self.black[1] + self.white[1] + 2 * self.cast
        check(most < 1, "black", self.black, "below white, whatever is drawn")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is drawn for each image; `real-esrgan` is the default of this line of research.

    Attributes:
        stages: in order; with none, no motion, and scale 1, the image stays as it is.
        final_sinc_prob: probability of a sinc filter at the end.
        final_sinc_depth: as `BlurConfig.sinc_depth`.
        scale: the degraded image is this many times smaller before it is resized back.
        scales: if given, one of them is drawn in place of `scale`.
        final_modes: weights of the methods for the resize to that size, as
            `StageConfig.resize_modes`.
        back_modes: the same for the resize back; area enlarges by repeating pixels.
        jpeg_last_prob: probability that this resize comes before the last stage's JPEG, not after.
        jpeg: the differentiable JPEG, or libjpeg's own.
        shared_sizes: one draw of all resizings for a whole batch, which lets a GPU take the batch
            at once, as the public training code does; otherwise every image has its own.
        motion: human motion blur, if any.
        fading: of a print, if it is one.
        version: raised when a change makes the recipe give other images.
    """

    stages: tuple[StageConfig, ...] = ()
    final_sinc_prob: float = 0.0
    final_sinc_depth: float = 1.0
    scale: int = 1
    scales: tuple[int, ...] = ()
    final_modes: tuple[float, ...] = (1.0, 1.0, 1.0)
    back_modes: tuple[float, ...] = (1.0, 1.0, 1.0)
    jpeg_last_prob: float = 0.5
    jpeg: Literal["differentiable", "libjpeg"] = "differentiable"
    shared_sizes: bool = False
    motion: MotionConfig | None = None
    fading: FadingConfig | None = None
    version: int = 2

    def __post_init__(self) -> None:
        _check_prob(self, "final_sinc_prob", "final_sinc_depth", "jpeg_last_prob")
        _check_modes(self, "final_modes", "back_modes")
        check_least(self, 1, "scale")
        check(min(self.scales, default=1) >= 1, "scales", self.scales, "1 or more each")
        check_least(self, 1, "version")


def _check_prob(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        check(0 <= value <= 1, name, value, "in [0, 1]")


def _check_weights(config: object, *names: str) -> None:
    for name in names:
        weights = getattr(config, name)
        ok = min(weights, default=0) >= 0 and 0 < sum(weights) < math.inf
        check(ok, name, weights, f"{len(weights) or 'some'} weights, not all 0")


def _check_modes(config: object, *names: str) -> None:
    _check_weights(config, *names)
    for name in names:
        weights = getattr(config, name)
        check(len(weights) <= len(MODES), name, weights, f"at most {len(MODES)} weights")


def _check_range(config: object, *names: str) -> None:
    for name in names:
        low, high = getattr(config, name)
        ok = 0 < low <= high < math.inf
        check(ok, name, (low, high), "two numbers above 0, the smaller first")


def weakened(recipe: Recipe, strength: float) -> Recipe:
    """The recipe with every range of severities cut to its milder part.

    Of each range from mild to severe, `strength` is the part that stays, counted from the mild
    end: 1 leaves the recipe as it is, 0.5 draws σ from 0.2–3.0 out of 0.2–1.6, and 0 always takes
    the mild end. `scale`, the shapes of kernels and the odds of each step stay. A generator makes
    the same choices at every strength, so that the same image in several strengths differs in
    severity alone.

    `strength` is in [0, 1].

    Raises:
        ConfigError: another strength.
    """
    check(0 <= strength <= 1, "strength", strength, "in [0, 1]")
    if strength == 1:
        return recipe
    motion, fading = recipe.motion, recipe.fading
    if motion is not None:
        turns = {"bend": motion.bend * strength, "wobble": motion.wobble * strength}
        motion = _milder(motion, strength, "length", "opacity", **turns)
    if fading is not None:
        fading = _milder(fading, strength, "black", "white", cast=fading.cast * strength)
    return replace(
        recipe,
        stages=tuple(_weakened_stage(stage, strength) for stage in recipe.stages),
        final_sinc_depth=recipe.final_sinc_depth * strength,
        motion=motion,
        fading=fading,
    )


def _weakened_stage(stage: StageConfig, strength: float) -> StageConfig:
    least, most = stage.resize_range
    if stage.down_uniform_in == "divisor":
        least = 1 / (1 + strength * (1 / least - 1))
    else:
        least = 1 - strength * (1 - least)
    worst, best = stage.jpeg_quality
    depth = stage.blur.sinc_depth * strength
    lengths = ("sigma", "defocus_radius", "shake_length")
    return _milder(
        stage,
        strength,
        *("noise_sigma", "poisson_scale", "camera_sigma", "sharpen_amount"),
        blur=_milder(stage.blur, strength, *lengths, sinc_depth=depth),
        resize_range=(least, most),
        jpeg_quality=(best - strength * (best - worst), best),
    )


def _milder(config: C, strength: float, *ranges: str, **others: object) -> C:
    """The lower part of some ranges of a configuration, and other values of other fields."""
    parts: dict[str, Any] = {**others}
    for name in ranges:
        low, high = getattr(config, name)
        parts[name] = (low, low + strength * (high - low))
    return replace(config, **parts)
