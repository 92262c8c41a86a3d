"""Whether a photo needs restoring: noise, blur and blocks, measured on its luma.

An input that needs nothing is best left as it is, and one that is damaged beyond what the models
were trained on will not come out well. `measure` takes a few measures that cost little, and `judge`
combines them by a logistic regression. `benchmarks/gate.py` fits the regression to photos and
measures its errors (`docs/nano.md`).

Shapes: h w pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hbr.image.pixels import luma

GreyPlane = NDArray[np.float32]
Verdict = Literal["nothing to restore", "restored", "beyond the model", "cannot tell"]

# Larger photos are judged by tiles, three each way.
_WHOLE = 768 * 768
_TILE = 256
_BLOCK = 16
_OCTAVES = 5
# The flattest blocks are the lower tenth; of white noise alone their deviation falls short of the
# true one by this much, at full, half and quarter size.
_FLAT = 10
_SHORT = (0.89, 0.79, 0.62)
# Blocks that are all but black or white show no noise: grey levels that count.
_EXPOSED = (4, 251)
# Steepest slope, in levels, below which there are no edges to judge.
_LEAST_SLOPE = 4.0


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What may be wrong with a photo.

    Attributes:
        noise: standard deviation of the white noise, in levels of 8 bits, from the flattest blocks
            (after J. Immerkaer, "Fast noise variance estimation", CVIU 64, 1996).
        coarse_noise: the same at half size, where noise that was smoothed or enlarged is left.
        texture: the same from the upper quarter of the blocks: fine detail.
        blur: log2 of how much steeper the steepest edges are at half size, at most 1: near 0 for
            edges of one pixel, near 1 for wide ones.
        coarse_blur: the same from half to quarter size.
        width: of the steepest edges, in pixels, 1 to 16.
        blocks: log of how much larger neighbouring pixels differ across the borders of squares of
            8×8 than elsewhere, wherever the grid lies; near 0 without a grid.
    """

    noise: float
    coarse_noise: float
    texture: float
    blur: float
    coarse_blur: float
    width: float
    blocks: float


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What the gate says of a photo.

    Attributes:
        verdict: "nothing to restore"; "restored"; "beyond the model", which is restored too; or
            "cannot tell", of photos that are too small or too plain.
        score: how likely the photo is damaged, 0 to 1; None if that cannot be told.
        reasons: in what it is beyond the model.
    """

    verdict: Verdict
    score: float | None = None
    reasons: tuple[str, ...] = ()


# Fitted by `python benchmarks/gate.py fit`; of `features`, in their order.
INTERCEPT = -1.011
WEIGHTS = (-1.55, 4.984, -1.149, -2.384, 0.622, -8.18, 4.705, 14.348, 13.072)
# At most 2 % of the visibly damaged photos of the fit score lower.
THRESHOLD = 0.079
# The 99th percentiles of photos that were degraded by the recipes that the models train on.
MOST_NOISE = 4.8
MOST_WIDTH = 8.6


def judge(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> Judgement:
    """Whether a photo, [h, w, 3] RGB, needs restoring, and can be."""
    measures = measure(pixels)
    if measures is None:
        return Judgement(verdict="cannot tell")
    damage = score(measures)
    if damage < THRESHOLD:
        return Judgement(verdict="nothing to restore", score=damage)
    reasons = []
    usual = "99 % of the training damage has up to"
    if measures.noise > MOST_NOISE:
        reasons.append(f"noise of {measures.noise:.1f} levels ({usual} {MOST_NOISE:g})")
    if measures.width > MOST_WIDTH:
        reasons.append(f"edges {measures.width:.1f} pixels wide ({usual} {MOST_WIDTH:g})")
    verdict: Verdict = "beyond the model" if reasons else "restored"
    return Judgement(verdict=verdict, score=damage, reasons=tuple(reasons))


def score(measures: Measures) -> float:
    """How likely a photo is damaged, 0 to 1, by the fitted regression."""
    logit = INTERCEPT + sum(w * x for w, x in zip(WEIGHTS, features(measures), strict=True))
    return round(1 / (1 + math.exp(-min(max(logit, -500.0), 500.0))), 4)


def features(measures: Measures) -> tuple[float, ...]:
    """What the regression sees: logarithms of noise and texture, blur and blocks, and squares.

    Squares, since edges that are too steep (nearest-neighbour, ringing) are damage as well as
    edges that are too wide, and since a faint grid of blocks is in every JPEG file.
    """
    levels = (measures.noise, measures.coarse_noise, measures.texture)
    shape = (measures.blur, measures.coarse_blur, measures.blocks)
    return (*(math.log(x + 0.3) for x in levels), *shape, *(x * x for x in shape))


def measure(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> Measures | None:
    """Measure a photo, [h, w, 3] RGB.

    Photos of more than 0.6 megapixels are judged by nine tiles of 256×256.

    Returns:
        None if the photo is smaller than 64 pixels, or without edges.
    """
    if min(pixels.shape[:2]) < 4 * _BLOCK:
        return None
    tiles = [_octaves(_levels(tile)) for tile in _tiles(pixels)]
    exposed = np.concatenate([_is_exposed(octaves[0]) for octaves in tiles])
    if exposed.sum() < 8:
        return None
    flat, busy, steep = [], [], []
    for octave in range(_OCTAVES):
        planes = [octaves[octave] for octaves in tiles]
        slopes = np.concatenate([_slopes(plane) for plane in planes])
        steep.append(float(np.percentile(slopes, 99)))
        if octave < 3:
            blocks = np.concatenate([_deviations(plane, _BLOCK >> octave) for plane in planes])
            flat.append(float(np.percentile(blocks[exposed], _FLAT)) / _SHORT[octave])
            busy.append(float(np.percentile(blocks[exposed], 75)))
    # Noise has slopes too; from a quarter size on it is the same small part of all.
    noise = [2 * flat[min(octave, 2)] ** 2 for octave in range(_OCTAVES)]
    edges = [math.sqrt(max(s * s - n, 0.25)) for s, n in zip(steep, noise, strict=True)]
    if edges[2] < _LEAST_SLOPE:
        return None
    return Measures(
        noise=flat[0],
        coarse_noise=flat[1],
        texture=busy[0],
        blur=math.log2(edges[1] / edges[0]),
        coarse_blur=math.log2(edges[2] / edges[1]),
        width=max(edges) / edges[0],
        blocks=_blocks([octaves[0] for octaves in tiles]),
    )


def _tiles(
    pixels: NDArray[np.uint8] | NDArray[np.uint16],
) -> list[NDArray[np.uint8] | NDArray[np.uint16]]:
    """The photo, or parts of it, with edges that are multiples of a block, on one grid of 8."""
    h, w = (edge // _BLOCK * _BLOCK for edge in pixels.shape[:2])
    if h * w <= _WHOLE:
        return [pixels[:h, :w]]
    t_h, t_w = min(h, _TILE), min(w, _TILE)
    tops = sorted({(h - t_h) * i // 2 // 8 * 8 for i in range(3)})
    lefts = sorted({(w - t_w) * i // 2 // 8 * 8 for i in range(3)})
    return [pixels[top : top + t_h, left : left + t_w] for top in tops for left in lefts]


def _levels(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> GreyPlane:
    grey = luma(pixels).astype(np.float32)
    return grey / np.float32(257) if pixels.dtype == np.uint16 else grey


def _octaves(plane: GreyPlane) -> list[GreyPlane]:
    """The plane, its half by averages of 2×2, its quarter, and so on."""
    octaves = [plane]
    while len(octaves) < _OCTAVES:
        octaves.append(_block_means(octaves[-1], 2))
    return octaves


def _block_means(plane: GreyPlane, edge: int) -> GreyPlane:
    h, w = plane.shape
    return plane.reshape(h // edge, edge, w // edge, edge).mean(axis=(1, 3))


def _is_exposed(plane: GreyPlane) -> NDArray[np.bool_]:
    """Of each block, whether it is neither black nor white."""
    low, high = _EXPOSED
    means = _block_means(plane, _BLOCK).ravel()
    return (means > low) & (means < high)


def _deviations(plane: GreyPlane, edge: int) -> GreyPlane:
    """Of each block, the deviation that white noise of this fine detail would have.

    The mask is the difference of two Laplacians; its squares sum to 36. It gives zero on planes and
    on straight edges along the axes.
    """
    rows = plane[:, 2:] - 2 * plane[:, 1:-1] + plane[:, :-2]
    detail = rows[2:] - 2 * rows[1:-1] + rows[:-2]
    squares = np.pad(detail * detail, 1, mode="edge")
    return np.sqrt(_block_means(squares, edge).ravel() / 36)


def _slopes(plane: GreyPlane) -> GreyPlane:
    across = plane[:-1, 1:] - plane[:-1, :-1]
    down = plane[1:, :-1] - plane[:-1, :-1]
    return np.hypot(across, down).ravel()


def _blocks(planes: Sequence[GreyPlane]) -> float:
    """`Measures.blocks`, the mean of both axes."""
    total = 0.0
    for axis in (0, 1):
        sums, counts = np.zeros(8), np.zeros(8)
        for plane in planes:
            # An edge of the picture counts no more than a visible step between blocks.
            steps = np.minimum(np.abs(np.diff(plane, axis=axis)), 16).mean(axis=1 - axis)
            for phase in range(8):
                sums[phase] += steps[phase::8].sum()
                counts[phase] += steps[phase::8].size
        means = sums / counts + 0.05
        border = int(means.argmax())
        total += math.log(means[border] / np.delete(means, border).mean())
    return total / 2
