"""Pairs of a photo and what damage makes of it, the same on every machine."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

DATA = Path(__file__).parents[1] / "data"

Pairs = Mapping[str, tuple[np.ndarray, np.ndarray]]


def damaged(photo: np.ndarray) -> dict[str, np.ndarray]:
    """Damage in whole numbers: uint8 [h, w, 3] → the same."""
    wide = photo.astype(np.int64)
    shifts = [np.roll(wide, (down, across), (0, 1)) for down in (-1, 0, 1) for across in (-1, 0, 1)]
    noise = np.random.default_rng(0).integers(-24, 25, photo.shape)
    found = {
        "blurred": sum(shifts) // 9,
        "noisy": wide + noise,
        "contrasty": (wide - 128) * 5 // 4 + 128,
        "reddish": wide + np.array([12, 0, -6]),
    }
    return {name: np.clip(values, 0, 255).astype(np.uint8) for name, values in found.items()}


@pytest.fixture(scope="session")
def pairs() -> Pairs:
    """Name → (damaged, reference), uint8 [192, 192, 3]."""
    found = {}
    for name in ("blue", "tie"):
        with Image.open(DATA / f"{name}.png") as image:
            photo = np.array(image.convert("RGB"))
        for kind, bad in damaged(photo).items():
            found[f"{name}-{kind}"] = (bad, photo)
    return found


@pytest.fixture(scope="session")
def tensor() -> Callable[[np.ndarray], torch.Tensor]:
    """uint8 [h, w, 3] → float32 [1, 3, h, w] in [0, 1], as `Photo.tensor` gives it."""

    def convert(pixels: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].float() / 255

    return convert
