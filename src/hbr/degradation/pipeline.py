"""The degradation of an image: every random parameter is drawn first, then applied.

Shapes: b batch, h w pixels, k kernel edge.
Source: Real-ESRGAN (2021), §3; the parameters are those of `hbr.degradation.recipe`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import reduce
from torch import Generator, Tensor

from hbr.degradation import kernels
from hbr.degradation.filtering import SPATIAL_KERNEL, filter_each, filter_large
from hbr.degradation.jpeg import jpeg, libjpeg
from hbr.degradation.motion import Motion, draw_motions, move
from hbr.degradation.recipe import BlurConfig, Range, Recipe, StageConfig
from hbr.degradation.regions import Regions

_SHAPES = ("gaussian", "gaussian", "generalized", "generalized", "plateau", "plateau")
_MODES = ("area", "bilinear", "bicubic")


@dataclass(frozen=True)
class Kernel:
    """A drawn filter: the name of a function of `kernels`, and its arguments."""

    shape: Literal["gaussian", "generalized", "plateau", "sinc"]
    size: int
    arguments: tuple[float, ...]

    def tensor(self) -> Tensor:
        """The kernel, float64 [size, size]."""
        out: Tensor = getattr(kernels, self.shape)(self.size, *self.arguments)
        return out


@dataclass(frozen=True)
class Noise:
    """Drawn noise: σ in 8-bit levels for "gaussian", a factor for "poisson", and its own seed."""

    kind: Literal["gaussian", "poisson"]
    amount: float
    grey: bool
    seed: int


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One drawn stage; what is None is left out."""

    kernel: Kernel | None
    resize: float
    mode: str
    noise: Noise | None
    jpeg_quality: float | None


@dataclass(frozen=True)
class Degradation:
    """All that was drawn for one image; with the image it gives the degraded one again.

    Attributes:
        stages: in order.
        final_mode: interpolation of the resize to 1/scale of the image.
        final_sinc: the last filter.
        sinc_first: resize and sinc come before the last stage's JPEG, not after it.
        scale: the final resize.
        jpeg: which JPEG.
        motions: movements of people, in order.
    """

    stages: tuple[Stage, ...]
    final_mode: str
    final_sinc: Kernel | None
    sinc_first: bool
    scale: int
    jpeg: str
    motions: tuple[Motion, ...] = ()

    @property
    def sizing(self) -> tuple[object, ...]:
        """What must agree for images to go through in one batch."""
        resizes = tuple((s.resize, s.mode) for s in self.stages)
        return (resizes, self.final_mode, self.sinc_first, self.scale, self.jpeg)


def draw(recipe: Recipe, n: int, generator: Generator) -> list[Degradation]:
    """Draw the parameters of n degradations.

    Args:
        recipe: the ranges.
        n: how many images.
        generator: a CPU generator, which alone decides; it is advanced.
    """
    out: list[Degradation] = []
    for i in range(n):
        if i == 0 or not recipe.shared_sizes:
            sizes = _draw_sizes(recipe, generator)
        stages = tuple(
            _draw_stage(stage, resize, mode, generator)
            for stage, (resize, mode) in zip(recipe.stages, sizes.resizes, strict=True)
        )
        sinc = None
        if _uniform(generator) < recipe.final_sinc_prob:
            sizes_of_sinc = recipe.stages[-1].blur.sizes if recipe.stages else (7, 21)
            size = _draw_kernel_size(sizes_of_sinc, generator)
            sinc = _draw_sinc(size, math.pi / 3, recipe.final_sinc_depth, generator)
        motions: tuple[Motion, ...] = ()
        if recipe.motion is not None:
            motions = draw_motions(recipe.motion, len(recipe.stages), generator)
        place = (sizes.final_mode, sinc, sizes.sinc_first)
        out.append(Degradation(stages, *place, recipe.scale, recipe.jpeg, motions))
    return out


def degrade(
    images: Tensor,
    degradations: Sequence[Degradation],
    *,
    regions: Sequence[Regions | None] | None = None,
    resize_back: bool = True,
) -> Tensor:
    """Apply drawn degradations; the same input gives the same output.

    Images whose drawn sizes agree go through together; the result does not depend on which.

    Args:
        images: [b, 3, h, w] in [0, 1].
        degradations: b of them.
        regions: b of them: where the people of each image are, for its motion blur. Where it is
            None, or holds nothing, shapes like limbs are made up (`hbr.degradation.motion`).
        resize_back: bicubic to the size of the input; otherwise h, w divided by `scale`, which
            all must share.

    Returns:
        [b, 3, h, w] in [0, 1]; every image has passed through 8 bits before the last resize.
    """
    if len(degradations) != images.shape[0]:
        raise ValueError(f"{len(degradations)} degradations for {images.shape[0]} images")
    if regions is None:
        regions = [None] * len(degradations)
    elif len(regions) != len(degradations):
        raise ValueError(f"{len(regions)} regions for {images.shape[0]} images")
    groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for i, degradation in enumerate(degradations):
        groups[degradation.sizing].append(i)
    results: dict[int, Tensor] = {}
    for members in groups.values():
        drawn, where = [degradations[i] for i in members], [regions[i] for i in members]
        batch = _degrade_group(images[members], drawn, where, resize_back)
        results.update(zip(members, batch, strict=True))
    return torch.stack([results[i] for i in range(len(results))])


def _degrade_group(
    images: Tensor, group: list[Degradation], regions: list[Regions | None], resize_back: bool
) -> Tensor:
    h, w = images.shape[-2:]
    first = group[0]
    untouched = not any(d.final_sinc or d.motions for d in group)
    if not first.stages and first.scale == 1 and untouched:
        return images
    x = _move(images, group, regions, 0)
    n_stages = len(first.stages)
    for s in range(n_stages):
        if s:
            x = _move(x, group, regions, s)
        x = _filter(x, [d.stages[s].kernel for d in group])
        x = _resize(x, _stage_size((h, w), first, s), first.stages[s].mode)
        x = _add_noise(x, [d.stages[s].noise for d in group])
        if s < n_stages - 1:
            x = _jpeg(x, [d.stages[s].jpeg_quality for d in group], first.jpeg)
    qualities = [d.stages[-1].jpeg_quality if d.stages else None for d in group]
    small = (max(h // first.scale, 1), max(w // first.scale, 1))
    if not first.sinc_first:
        x = _jpeg(x, qualities, first.jpeg)
    x = _filter(_resize(x, small, first.final_mode), [d.final_sinc for d in group])
    if first.sinc_first:
        x = _jpeg(x, qualities, first.jpeg)
    x = (x.clamp(0, 1) * 255).round() / 255
    return _resize(x, (h, w), "bicubic").clamp(0, 1) if resize_back else x


def _stage_size(size: tuple[int, int], drawn: Degradation, stage: int) -> tuple[int, int]:
    """Size after a stage's resize: the first is relative to HQ, the later ones to LQ."""
    factor = drawn.stages[stage].resize / (drawn.scale if stage else 1)
    h, w = (max(round(edge * factor), 1) for edge in size)
    return h, w


def _move(x: Tensor, group: list[Degradation], regions: list[Regions | None], stage: int) -> Tensor:
    """Each image with those of its movements that come before this stage."""
    if not any(motion.stage == stage for d in group for motion in d.motions):
        return x
    images = list(x)
    for i, degradation in enumerate(group):
        for motion in degradation.motions:
            if motion.stage == stage:
                images[i] = move(images[i], motion, regions[i])
    return torch.stack(images)


def _filter(x: Tensor, drawn: list[Kernel | None]) -> Tensor:
    """Each image with its own kernel."""
    small = [i for i, k in enumerate(drawn) if k is not None and k.size <= SPATIAL_KERNEL]
    large = [i for i, k in enumerate(drawn) if k is not None and k.size > SPATIAL_KERNEL]
    tensors = {i: k.tensor() for i, k in enumerate(drawn) if k is not None}
    if small:
        out = filter_each(x if len(small) == len(drawn) else x[small], [tensors[i] for i in small])
        x = _put(x, small, out)
    if large:
        x = _put(x, large, torch.stack([filter_large(x[i], tensors[i]) for i in large]))
    return x


def _put(x: Tensor, chosen: list[int], changed: Tensor) -> Tensor:
    """The batch with `changed` in the chosen places."""
    if len(chosen) == x.shape[0]:
        return changed
    return x.index_copy(0, torch.tensor(chosen, device=x.device), changed)


def _resize(x: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    if size == tuple(x.shape[-2:]):
        return x
    return F.interpolate(x, size, mode=mode)


def _add_noise(x: Tensor, drawn: list[Noise | None]) -> Tensor:
    out = [image if n is None else _noisy(image, n) for image, n in zip(x, drawn, strict=True)]
    return torch.stack(out).clamp(0, 1)


def _noisy(image: Tensor, noise: Noise) -> Tensor:
    """One image [3, h, w] and its noise."""
    # drawn on the CPU, so that every device sees the same noise
    generator = torch.Generator().manual_seed(noise.seed)
    h, w = image.shape[-2:]
    if noise.kind == "gaussian":
        grain = torch.randn(1 if noise.grey else 3, h, w, generator=generator)
        return image + grain.to(image) * (noise.amount / 255)
    source = image.detach().clamp(0, 1)
    if noise.grey:
        weights = torch.tensor((0.2989, 0.587, 0.114), dtype=source.dtype, device=source.device)
        source = reduce(source * weights[:, None, None], "c h w -> 1 h w", "sum")
    source = ((source * 255).round() / 255).cpu()
    # the photon count of white is the number of levels in use, as a power of two
    count = 2.0 ** math.ceil(math.log2(max(len(torch.unique(source)), 2)))
    grain = torch.poisson(source * count, generator=generator) / count - source
    return image + grain.to(image) * noise.amount


def _jpeg(x: Tensor, qualities: list[float | None], kind: str) -> Tensor:
    chosen = [i for i, quality in enumerate(qualities) if quality is not None]
    if not chosen:
        return x
    quality = torch.tensor([q for q in qualities if q is not None])
    codec = jpeg if kind == "differentiable" else libjpeg
    picked = x if len(chosen) == len(qualities) else x[chosen]
    return _put(x, chosen, codec(picked.clamp(0, 1), quality))


@dataclass(frozen=True)
class _Sizes:
    resizes: tuple[tuple[float, str], ...]
    final_mode: str
    sinc_first: bool


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


def _draw_sizes(recipe: Recipe, generator: Generator) -> _Sizes:
    resizes = []
    for stage in recipe.stages:
        low, high = stage.resize_range
        direction = _choice(stage.resize_probs, generator)
        if direction == 1 and stage.down_uniform_in == "divisor":
            factor = 1 / _uniform(generator, (1.0, 1 / low))
        else:
            factor = _uniform(generator, ((1.0, high), (low, 1.0), (1.0, 1.0))[direction])
        resizes.append((factor, _MODES[_choice(stage.resize_modes, generator)]))
    final_mode = _MODES[_choice(recipe.final_modes, generator)]
    return _Sizes(tuple(resizes), final_mode, _uniform(generator) < recipe.jpeg_last_prob)


def _draw_stage(stage: StageConfig, resize: float, mode: str, generator: Generator) -> Stage:
    kernel = _draw_kernel(stage.blur, generator) if _hit(stage.blur.prob, generator) else None
    noise = None
    if _hit(stage.noise_prob, generator):
        gaussian = _hit(stage.gaussian_prob, generator)
        amount = _uniform(generator, stage.noise_sigma if gaussian else stage.poisson_scale)
        seed = int(torch.randint(2**62, (), generator=generator))
        grey = _hit(stage.grey_prob, generator)
        noise = Noise("gaussian" if gaussian else "poisson", amount, grey, seed)
    quality = None
    if _hit(stage.jpeg_prob, generator):
        quality = _uniform(generator, stage.jpeg_quality)
    return Stage(kernel=kernel, resize=resize, mode=mode, noise=noise, jpeg_quality=quality)


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
