"""Human motion blur: drawn first, then applied to an image and the regions of its people.

A blurred copy of the image is mixed in under a soft mask of the parts that moved; the mask is
swept along the same path, because moving parts cover what they move over. Inspired by
HAODiff (2025), which combines human motion blur with generic degradation; an independent
implementation with its own ranges.

Where an image has no regions, shapes are generated from the drawn seed: one to three strokes as
wide as a limb, or an upright ellipse for a whole person, in the middle of the image.

Shapes: h w pixels, k kernel edge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from hbr.degradation import kernels
from hbr.degradation.filtering import filter_large
from hbr.degradation.recipe import MotionConfig
from hbr.degradation.regions import Regions

_ENOUGH = 0.3
"""Share of the time that a part must cover a pixel to leave nothing of the still image there."""


@dataclass(frozen=True, kw_only=True)
class Motion:
    """One drawn movement; lengths are relative to the short edge of the image.

    Attributes:
        stage: it comes before this stage.
        length, angle, bend, wobble: of the path, as in `kernels.trajectory`.
        softness: σ of the edge of the mask.
        opacity: weight of the blurred copy inside the mask.
        whole: the whole person moves, not some parts.
        part_prob: probability of each part.
        seed: of the choice of the person and the parts.
    """

    stage: int
    length: float
    angle: float
    bend: float
    wobble: float
    softness: float
    opacity: float
    whole: bool
    part_prob: float
    seed: int


def draw_motions(config: MotionConfig, n_stages: int, generator: Generator) -> tuple[Motion, ...]:
    """Draw the movements of one image.

    Args:
        config: the ranges.
        n_stages: of the recipe; with fewer than two, all movements come before the first.
        generator: the only source of randomness; it is advanced.
    """

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))

    if uniform(0, 1) >= config.prob:
        return ()
    before, between = config.places
    is_before = uniform(0, before + between) < before
    least, most = config.count
    count = int(torch.randint(least, most + 1, (), generator=generator))
    return tuple(
        Motion(
            stage=0 if is_before or n_stages < 2 else 1,
            length=uniform(*config.length),
            angle=uniform(-math.pi, math.pi),
            bend=uniform(-config.bend, config.bend),
            wobble=uniform(-config.wobble, config.wobble),
            softness=uniform(*config.softness),
            opacity=uniform(*config.opacity),
            whole=uniform(0, 1) < config.person_prob,
            part_prob=config.part_prob,
            seed=int(torch.randint(2**62, (), generator=generator)),
        )
        for _ in range(count)
    )


def move(image: Tensor, motion: Motion, regions: Regions | None) -> Tensor:
    """Apply one movement.

    Args:
        image: [3, h, w] in [0, 1].
        motion: the drawn movement.
        regions: where the people are, at the size of this image or another; None if not known.

    Returns:
        [3, h, w] in [0, 1].
    """
    mask = moved_mask(motion, regions, (image.shape[-2], image.shape[-1])).to(image)
    blurred = filter_large(image, path_kernel(motion, min(image.shape[-2:])))
    return torch.lerp(image, blurred, mask * motion.opacity).clamp(0, 1)


def moved_mask(motion: Motion, regions: Regions | None, size: tuple[int, int]) -> Tensor:
    """The moved share of each pixel: [h, w] in [0, 1], float32.

    Args:
        motion: the drawn movement.
        regions: where the people are.
        size: (h, w).
    """
    generator = torch.Generator().manual_seed(motion.seed)
    if regions is None or not len(regions.outlines):
        chosen = _synthetic(motion.whole, size, generator)
    else:
        chosen = _chosen(motion, regions, generator).float()
    if chosen.shape != size:
        chosen = F.interpolate(chosen[None, None], size, mode="area")[0, 0]
    short = min(size)
    sigma = motion.softness * short
    covered = filter_large(chosen[None], path_kernel(motion, short))
    # no sharp pixels remain where a part was for a good share of the time
    swept = (covered / _ENOUGH).clamp(max=1)
    edge = 2 * math.ceil(3 * sigma) + 1
    return filter_large(swept, kernels.gaussian(edge, sigma, sigma))[0].clamp(0, 1)


def path_kernel(motion: Motion, short: int) -> Tensor:
    """The kernel of the path in an image with this short edge: float64 [k, k]."""
    length = motion.length * short
    size = 2 * math.ceil(length / 2 + 1) + 1
    return kernels.trajectory(size, length, motion.angle, motion.bend, motion.wobble)


def _chosen(motion: Motion, regions: Regions, generator: Generator) -> Tensor:
    """The parts that move: bool [h, w]."""
    person = int(torch.randint(len(regions.outlines), (), generator=generator))
    own = [i for i, owner in enumerate(regions.owners) if owner == person]
    if motion.whole or not own:
        return regions.outlines[person]
    draws = torch.rand(len(own), generator=generator)
    hit = [i for i, u in zip(own, draws, strict=True) if u < motion.part_prob]
    # at least one: the one closest to being chosen
    return regions.parts[hit or [own[int(draws.argmin())]]].any(dim=0)


def _synthetic(whole: bool, size: tuple[int, int], generator: Generator) -> Tensor:
    """Synthetic shapes in the place of a person: [h, w] of 0 and 1."""
    h, w = size
    y = ((torch.arange(h) + 0.5) / h)[:, None]
    x = ((torch.arange(w) + 0.5) / w)[None]
    u = torch.rand(16, generator=generator).tolist()
    if whole:
        middle_y, middle_x = 0.4 + 0.2 * u[0], 0.3 + 0.4 * u[1]
        high, wide = 0.3 + 0.18 * u[2], 0.12 + 0.15 * u[3]
        return (((y - middle_y) / high) ** 2 + ((x - middle_x) / wide) ** 2 <= 1).float()
    out = torch.zeros(size)
    for i in range(1 + int(3 * u[0])):
        y0, x0, angle, long, wide = u[1 + 5 * i : 6 + 5 * i]
        y0, x0 = 0.2 + 0.6 * y0, 0.2 + 0.6 * x0
        along_y, along_x = math.sin(2 * math.pi * angle), math.cos(2 * math.pi * angle)
        # the nearest point of the stroke to each pixel
        t = ((y - y0) * along_y + (x - x0) * along_x).clamp(0, 0.15 + 0.2 * long)
        far = torch.hypot(y - y0 - t * along_y, x - x0 - t * along_x)
        out = torch.maximum(out, (far <= 0.025 + 0.035 * wide).float())
    return out
