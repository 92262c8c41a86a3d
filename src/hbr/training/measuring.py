"""Results of a validation: values of each photo, their means, and a picture.

Shapes: s size of the crop.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Validation:
    """Results of one validation pair: values by name, and images [b, 3, s, s] to show."""

    numbers: dict[str, Tensor]
    images: tuple[Tensor, ...]


Seen = tuple[int, dict[str, Tensor], Tensor | None]
"""What a photo gave, on the CPU: its number; name → value [1]; and, if it is shown, its picture.

A picture is [1, 3, s, n s], n crops side by side.
"""


def summary(seen: list[Seen]) -> tuple[dict[str, float], Tensor | None]:
    """Combine the results of all photos, independently of their order.

    Returns:
        "validation/NAME" → mean over the photos; and [1, 3, m s, n s], the pictures of m photos
        below each other, or None.
    """
    values: dict[str, list[Tensor]] = defaultdict(list)
    pictures = []
    for _, numbers, picture in sorted(seen, key=lambda one: one[0]):
        for name, value in numbers.items():
            values[name].append(value)
        if picture is not None:
            pictures.append(picture)
    means = {f"validation/{name}": float(torch.cat(v).mean()) for name, v in values.items()}
    return means, torch.cat(pictures, dim=-2) if pictures else None
