"""Distillation from a network that enlarges, such as Real-ESRGAN's: sharpness without averaging.

What the teacher gives is a function of the input, so that a model that is compared with it does
not average over all photos that the input may come from. It is not followed in everything: low
frequencies come from the photo, and so does all of it where the teacher is clearly further from
the photo than the input is, as where it deforms what was hardly damaged.

Shapes: b batch, h w pixels. Images are in [0, 1].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hbr.models.loading import load_model
from hbr.models.protocol import Conditions, Model
from hbr.weights import WeightsError

_WINDOW = 17
"""Edge of the squares that tell how far an image is from the photo."""

_TOLERANCE = 1.3
"""A sharp image has a larger L1 than a smooth one that is as true."""


def load_teacher(name_or_path: str, device: str | torch.device) -> nn.Module:
    """Load a teacher for training, frozen, in bfloat16.

    Raises:
        WeightsError: it is missing, damaged, or enlarges nothing.
    """
    model = load_model(name_or_path, device, torch.bfloat16)
    factor = model.capabilities.upscale
    if factor == 1 or not isinstance(model, nn.Module):
        raise WeightsError(f"loss.teacher_model is {name_or_path}, which does not enlarge")
    return model.requires_grad_(False)


@torch.no_grad()
def taught(teacher: Model, lq: Tensor, hq: Tensor) -> Tensor:
    """Return the targets of the model: the teacher's images as far as they are believed.

    Args:
        teacher: a model that enlarges f times. It sees the images f times smaller.
        lq, hq: [b, 3, h, w], h and w multiples of f.

    Returns:
        [b, 3, h, w] in [0, 1].
    """
    factor = teacher.capabilities.upscale
    small = F.interpolate(lq, scale_factor=1 / factor, mode="bicubic", antialias=True)
    # a model that enlarges takes an image of equal squares (`Model.restore`)
    tiles = F.interpolate(small.clamp(0, 1), scale_factor=factor, mode="nearest")
    details = teacher.restore(tiles, [], Conditions()).to(hq)
    image = (details + smoothed(hq - details, 4 * factor + 1)).clamp(0, 1)
    error, damage = (_error(x, hq) for x in (image, lq))
    return torch.where(error <= _TOLERANCE * damage, image, hq)


def _error(image: Tensor, hq: Tensor) -> Tensor:
    """Return the mean L1 around each pixel: [b, 3, h, w] → [b, 1, h, w]."""
    return smoothed((image - hq).abs().mean(dim=1, keepdim=True), _WINDOW)


def smoothed(x: Tensor, window: int) -> Tensor:
    """Return x [b, c, h, w] smoothed by two box filters of odd edge `window`, mirrored outside.

    Edges that are too small for it get the largest window that fits.
    """
    for _ in range(2):
        window = min(window, 2 * (min(x.shape[-2:]) - 1) + 1)
        x = F.avg_pool2d(F.pad(x, (window // 2,) * 4, mode="reflect"), window, stride=1)
    return x
