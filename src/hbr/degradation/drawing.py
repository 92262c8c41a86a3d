"""What is drawn for an image before anything is applied to it.

Shapes: k kernel edge.
Source: Real-ESRGAN (2021), §3; the ranges are those of `hbr.degradation.recipe`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Generator, Tensor

from hbr.degradation import kernels
from hbr.degradation.filtering import SPATIAL_KERNEL
from hbr.degradation.motion import Motion, draw_motions
from hbr.degradation.noise import Noise
from hbr.degradation.recipe import BlurConfig, FadingConfig, Range, Recipe, StageConfig
from hbr.degradation.resizing import MODES

_SHAPES = ("gaussian", "gaussian", "generalized", "generalized", "plateau", "plateau")


@dataclass(frozen=True)
class Kernel:
    """A drawn filter: the name of a function of `kernels`, and its arguments."""

    shape: Literal["gaussian", "generalized", "plateau", "sinc", "disc", "trajectory"]
    size: int
    arguments: tuple[float, ...]

    def tensor(self) -> Tensor:
        """The kernel, float64 [size, size]."""
        out: Tensor = getattr(kernels, self.shape)(self.size, *self.arguments)
        return out


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One drawn stage; what is None is left out.

    Attributes:
        kernel: of the blur.
        resize, mode: factor and method.
        noise: what is added.
        jpeg_quality: of its JPEG.
        sharpening: σ in pixels and amount of an unsharp mask before the JPEG.
        jpeg_corner: how many rows and columns of the JPEG's first blocks lie outside of the image.
    """

    kernel: Kernel | None
    resize: float
    mode: str
    noise: Noise | None
    jpeg_quality: float | None
    sharpening: tuple[float, float] | None = None
    jpeg_corner: tuple[int, int] = (0, 0)


@dataclass(frozen=True, kw_only=True)
class Fading:
    """How a print has faded: each channel from its black to its white.

    Attributes:
        black, white: what becomes of 0 and 1, in R, G, B.
    """

    black: tuple[float, float, float]
    white: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Degradation:
    """All that was drawn for one image; with the image it gives the degraded one again.

    Attributes:
        stages: in order.
        final_mode: interpolation of the resize to 1/scale of the image.
        back_mode: interpolation of the resize back to the size of the image.
        final_sinc: the last filter.
        sinc_first: resize and sinc come before the last stage's JPEG, not after it.
        scale: the final resize.
        jpeg: which JPEG.
        motions: movements of people, in order.
        fading: of the print that was scanned, before all else.
    """

    stages: tuple[Stage, ...] = ()
    final_mode: str
    final_sinc: Kernel | None = None
    sinc_first: bool
    scale: int
    jpeg: str
    motions: tuple[Motion, ...] = ()
    back_mode: str = "bicubic"
    fading: Fading | None = None

    @property
    def sizing(self) -> tuple[object, ...]:
        """What must agree for images to go through in one batch."""
        resizes = tuple((s.resize, s.mode) for s in self.stages)
        last = (self.final_mode, self.sinc_first, self.scale, self.jpeg, self.back_mode)
        return (resizes, *last)


def draw(recipe: Recipe, n: int, generator: Generator) -> list[Degradation]:
    """Draw the parameters of n degradations; `generator`, on the CPU, is advanced."""
    out: list[Degradation] = []
    for i in range(n):
        if i == 0 or not recipe.shared_sizes:
            resizes, sized = _draw_sizes(recipe, generator)
        stages = tuple(
            _draw_stage(stage, resize, mode, generator)
            for stage, (resize, mode) in zip(recipe.stages, resizes, strict=True)
        )
        sinc = None
        if _uniform(generator) < recipe.final_sinc_prob:
            sizes_of_sinc = recipe.stages[-1].blur.sizes if recipe.stages else (7, 21)
            size = _draw_kernel_size(sizes_of_sinc, generator)
            sinc = _draw_sinc(size, math.pi / 3, recipe.final_sinc_depth, generator)
        motions: tuple[Motion, ...] = ()
        if recipe.motion is not None:
            motions = draw_motions(recipe.motion, len(recipe.stages), generator)
        fading = _draw_fading(recipe.fading, generator) if recipe.fading is not None else None
        out.append(replace(sized, stages=stages, final_sinc=sinc, motions=motions, fading=fading))
    return out


def _uniform(generator: Generator, bounds: Range = (0.0, 1.0)) -> float:
    low, high = bounds
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


def _choice(weights: Sequence[float], generator: Generator) -> int:
    mark = _uniform(generator) * sum(weights)
    for i, weight in enumerate(weights):
        mark -= weight
        if mark < 0:
            return i
    return len(weights) - 1


def _draw_sizes(
    recipe: Recipe, generator: Generator
) -> tuple[list[tuple[float, str]], Degradation]:
    """Factor and mode of each stage's resize, and a degradation of the other sizes alone."""
    resizes = []
    for stage in recipe.stages:
        low, high = stage.resize_range
        direction = _choice(stage.resize_probs, generator)
        if direction == 1 and stage.down_uniform_in == "divisor":
            factor = 1 / _uniform(generator, (1.0, 1 / low))
        else:
            factor = _uniform(generator, ((1.0, high), (low, 1.0), (1.0, 1.0))[direction])
        resizes.append((factor, MODES[_choice(stage.resize_modes, generator)]))
    final_mode = MODES[_choice(recipe.final_modes, generator)]
    sinc_first = _uniform(generator) < recipe.jpeg_last_prob
    scale = recipe.scale
    if recipe.scales:
        scale = recipe.scales[_choice([1.0] * len(recipe.scales), generator)]
    back_mode = "bicubic"
    if scale > 1:
        back_mode = MODES[_choice(recipe.back_modes, generator)]
    return resizes, Degradation(
        final_mode=final_mode,
        sinc_first=sinc_first,
        scale=scale,
        jpeg=recipe.jpeg,
        back_mode=back_mode,
    )


def _draw_stage(stage: StageConfig, resize: float, mode: str, generator: Generator) -> Stage:
    kernel = _draw_kernel(stage.blur, generator) if _hit(stage.blur.prob, generator) else None
    noise = _draw_noise(stage, generator) if _hit(stage.noise_prob, generator) else None
    quality = None
    if _hit(stage.jpeg_prob, generator):
        quality = _uniform(generator, stage.jpeg_quality)
    sharpening = None
    if stage.sharpen_prob and _hit(stage.sharpen_prob, generator):
        sigma = _uniform(generator, stage.sharpen_sigma)
        sharpening = (sigma, _uniform(generator, stage.sharpen_amount))
    corner = (0, 0)
    if stage.jpeg_shift_prob and _hit(stage.jpeg_shift_prob, generator):
        # of 16 pixels, which chroma shares
        top, left = torch.randint(16, (2,), generator=generator).tolist()
        corner = (top, left)
    return Stage(
        kernel=kernel,
        resize=resize,
        mode=mode,
        noise=noise,
        jpeg_quality=quality,
        sharpening=sharpening,
        jpeg_corner=corner,
    )


def _draw_noise(stage: StageConfig, generator: Generator) -> Noise:
    if stage.camera_prob and _hit(stage.camera_prob, generator):
        amount, read, mixing = (
            _uniform(generator, b)
            for b in (stage.camera_sigma, stage.camera_read, stage.camera_mixing)
        )
        seed = int(torch.randint(2**62, (), generator=generator))
        return Noise(
            kind="camera",
            amount=amount,
            grey=_hit(stage.grey_prob, generator),
            seed=seed,
            read=read,
            mixing=mixing,
        )
    gaussian = _hit(stage.gaussian_prob, generator)
    amount = _uniform(generator, stage.noise_sigma if gaussian else stage.poisson_scale)
    seed = int(torch.randint(2**62, (), generator=generator))
    grey = _hit(stage.grey_prob, generator)
    return Noise(kind="gaussian" if gaussian else "poisson", amount=amount, grey=grey, seed=seed)


def _draw_fading(config: FadingConfig, generator: Generator) -> Fading | None:
    if not _hit(config.prob, generator):
        return None
    lift, loss = _uniform(generator, config.black), _uniform(generator, config.white)

    def channels(level: float) -> tuple[float, float, float]:
        r, g, b = (level + _uniform(generator, (-config.cast, config.cast)) for _ in range(3))
        return (min(max(r, 0.0), 1.0), min(max(g, 0.0), 1.0), min(max(b, 0.0), 1.0))

    return Fading(black=channels(lift), white=channels(1 - loss))


def _hit(prob: float, generator: Generator) -> bool:
    return _uniform(generator) < prob


def _draw_kernel_size(sizes: tuple[int, int], generator: Generator) -> int:
    low, high = sizes
    return low + 2 * int(torch.randint((high - low) // 2 + 1, (), generator=generator))


def _draw_sinc(size: int, lowest: float, depth: float, generator: Generator) -> Kernel:
    lowest += (1 - depth) * (math.pi - lowest)
    return Kernel("sinc", size, (_uniform(generator, (lowest, math.pi)),))


def _draw_kernel(blur: BlurConfig, generator: Generator) -> Kernel:
    size = _draw_kernel_size(blur.sizes, generator)
    if _hit(blur.sinc_prob, generator):
        # small kernels cannot hold the ringing of a low cutoff
        lowest = math.pi / 3 if size < 13 else math.pi / 5
        return _draw_sinc(size, lowest, blur.sinc_depth, generator)
    if blur.defocus_prob and _hit(blur.defocus_prob, generator):
        return Kernel("disc", SPATIAL_KERNEL, (_uniform(generator, blur.defocus_radius),))
    if blur.shake_prob and _hit(blur.shake_prob, generator):
        length = _uniform(generator, blur.shake_length)
        turns = (math.pi, 1.0, 0.5)  # its direction, how it bends and wobbles
        path = (_uniform(generator, (-turn, turn)) for turn in turns)
        return Kernel("trajectory", SPATIAL_KERNEL, (length, *path))
    index = _choice(blur.shapes, generator)
    sigma_x = _uniform(generator, blur.sigma)
    isotropic = index % 2 == 0
    sigma_y = sigma_x if isotropic else _uniform(generator, blur.sigma)
    theta = 0.0 if isotropic else _uniform(generator, (-math.pi, math.pi))
    shape = _SHAPES[index]
    if shape == "gaussian":
        return Kernel("gaussian", size, (sigma_x, sigma_y, theta))
    low, high = blur.beta_generalized if shape == "generalized" else blur.beta_plateau
    # half of the exponents lie on either side of 1, where that is inside the range
    middle = min(max(low, 1.0), high)
    beta = _uniform(generator, (low, middle) if _hit(0.5, generator) else (middle, high))
    arguments = (sigma_x, sigma_y, theta, beta)
    return Kernel("generalized" if shape == "generalized" else "plateau", size, arguments)
