"""Results of a validation: values of each photo, their means, and a picture.

Shapes: s size of the crop.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hbr.image import Photo, write_photo


@dataclass(frozen=True)
class Validation:
    """Results of one validation pair: values by name, and images [b, 3, s, s] to show."""

    numbers: dict[str, Tensor]
    images: tuple[Tensor, ...]


@dataclass(frozen=True)
class ValidatedPhoto:
    """The results of one validation photo, on the CPU.

    Attributes:
        number: index of the photo.
        numbers: name → value, [1].
        picture: [1, 3, s, n s], n crops side by side; None if it is not shown.
    """

    number: int
    numbers: dict[str, Tensor]
    picture: Tensor | None


@dataclass(frozen=True)
class ValidationResult:
    """The result of a validation.

    Attributes:
        means: name → mean over the photos; the names begin with "validation/".
        picture: [1, 3, m s, n s], m photos below each other, or None.
    """

    means: dict[str, float]
    picture: Tensor | None


def summary(seen: list[ValidatedPhoto]) -> ValidationResult:
    """Combine the results of all photos, independently of their order."""
    values: dict[str, list[Tensor]] = defaultdict(list)
    pictures = []
    for one in sorted(seen, key=lambda one: one.number):
        for name, value in one.numbers.items():
            values[name].append(value)
        if one.picture is not None:
            pictures.append(one.picture)
    means = {f"validation/{name}": float(torch.cat(v).mean()) for name, v in values.items()}
    return ValidationResult(means, torch.cat(pictures, dim=-2) if pictures else None)


def write_picture(picture: Tensor, file: Path) -> None:
    """Write a picture [1, 3, h, w] in [0, 1]; create the folder if necessary."""
    file.parent.mkdir(exist_ok=True)
    write_photo(Photo.from_tensor(picture), file)
