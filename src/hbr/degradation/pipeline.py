"""The degradation of an image, by what was drawn for it.

Shapes: b batch, h w pixels.
Source: Real-ESRGAN (2021), §3.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hbr.degradation import kernels
from hbr.degradation.drawing import Degradation, Fading, Kernel, Stage
from hbr.degradation.filtering import SPATIAL_KERNEL, filter_each, filter_large
from hbr.degradation.jpeg import jpeg, libjpeg
from hbr.degradation.motion import move
from hbr.degradation.noise import Noise, add_noise
from hbr.degradation.regions import Regions
from hbr.degradation.resizing import interpolation, resize

_SHARPENING_KERNEL = 13


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
        resize_back: resize to the size of the input; otherwise h, w divided by `scale`, which
            all must share.

    Returns:
        [b, 3, h, w] in [0, 1], rounded to 8 bits.
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
    untouched = not any(d.final_sinc or d.motions or d.fading for d in group)
    if not first.stages and first.scale == 1 and untouched:
        return images
    x = _move(_fade(images, [d.fading for d in group]), group, regions, 0)
    n_stages = len(first.stages)
    for s in range(n_stages):
        if s:
            x = _move(x, group, regions, s)
        x = _filter(x, [d.stages[s].kernel for d in group])
        x = _resize_stage(x, (h, w), first, s)
        x = _add_noise(x, [d.stages[s].noise for d in group])
        x = sharpen(x, [d.stages[s].sharpening for d in group])
        if s < n_stages - 1:
            x = _jpeg(x, [d.stages[s] for d in group], first.jpeg)
    last = [d.stages[-1] for d in group if d.stages]
    small = (max(h // first.scale, 1), max(w // first.scale, 1))
    if not first.sinc_first:
        x = _jpeg(x, last, first.jpeg)
    x = _filter(resize(x, small, first.final_mode), [d.final_sinc for d in group])
    if first.sinc_first:
        x = _jpeg(x, last, first.jpeg)
    if resize_back:
        x = resize(x, (h, w), first.back_mode)
    return (x.clamp(0, 1) * 255).round() / 255


def _resize_stage(x: Tensor, size: tuple[int, int], drawn: Degradation, stage: int) -> Tensor:
    """A stage's resize: the first by a factor, the later ones to a part of HQ's size over `scale`.

    Sizes are rounded down, and the first resize samples at exact multiples of its factor, as
    `scale_factor` of `torch.nn.functional.interpolate` does in the public training code.
    """
    factor, mode = drawn.stages[stage].resize, drawn.stages[stage].mode
    if stage == 0 and mode != "lanczos" and factor * min(x.shape[-2:]) >= 1:
        name, filtered = interpolation(mode)
        if factor == 1:
            return x
        return F.interpolate(x, scale_factor=factor, mode=name, antialias=filtered)
    h, w = (max(int(edge / (drawn.scale if stage else 1) * factor), 1) for edge in size)
    return resize(x, (h, w), mode)


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


def _add_noise(x: Tensor, drawn: list[Noise | None]) -> Tensor:
    out = [image if n is None else add_noise(image, n) for image, n in zip(x, drawn, strict=True)]
    return torch.stack(out).clamp(0, 1)


def _fade(x: Tensor, drawn: list[Fading | None]) -> Tensor:
    if not any(drawn):
        return x
    images = list(x)
    for i, fading in enumerate(drawn):
        if fading is not None:
            black, white = (x.new_tensor(v)[:, None, None] for v in (fading.black, fading.white))
            images[i] = black + images[i] * (white - black)
    return torch.stack(images)


def sharpen(x: Tensor, drawn: Sequence[tuple[float, float] | None]) -> Tensor:
    """Apply unsharp masks: what a blur would take away is added, and overshoots at edges.

    Args:
        x: [b, 3, h, w] in [0, 1].
        drawn: b of (σ of the Gaussian in pixels, amount), or None.

    Returns:
        [b, 3, h, w] in [0, 1].
    """
    chosen = [i for i, sharpening in enumerate(drawn) if sharpening is not None]
    if not chosen:
        return x
    sigmas, amounts = zip(*(s for s in drawn if s is not None), strict=True)
    soft = filter_each(x[chosen], [kernels.gaussian(_SHARPENING_KERNEL, s, s) for s in sigmas])
    more = x.new_tensor(amounts).view(-1, 1, 1, 1) * (x[chosen] - soft)
    return _put(x, chosen, (x[chosen] + more).clamp(0, 1))


def _jpeg(x: Tensor, stages: list[Stage], kind: str) -> Tensor:
    """Each image through its stage's JPEG; those whose blocks start alike together."""
    codec = jpeg if kind == "differentiable" else libjpeg
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, stage in enumerate(stages):
        if stage.jpeg_quality is not None:
            groups[stage.jpeg_corner].append(i)
    for (top, left), chosen in groups.items():
        quality = torch.tensor([stages[i].jpeg_quality for i in chosen])
        picked = x if len(chosen) == len(x) else x[chosen]
        # what lies before the first block is cut off again
        picked = F.pad(picked.clamp(0, 1), (left, 0, top, 0), mode="replicate")
        x = _put(x, chosen, codec(picked, quality)[..., top:, left:])
    return x
