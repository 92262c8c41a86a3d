"""Small networks whose receptive field is known, and photos to put through them."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import toy_models
from hbr.image import read_photo
from hbr.models import Capabilities

SMALL = toy_models.SIZES


class Network(nn.Module):
    """`depth` convolutions of 3×3: a pixel sees `depth` pixels in each direction.

    Zeros pad every one of them, so that the border of a tile shows as strongly as it can.
    """

    capabilities = SMALL
    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, depth: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(depth)
        widths = [3] + [8] * (depth - 1) + [3]
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))
        for layer in self.layers:
            # Positive weights that add up to one: the border darkens all that sees it.
            weight = torch.rand(layer.weight.shape, generator=generator)
            layer.weight.data = weight / weight.sum(dim=(1, 2, 3), keepdim=True)
            layer.bias.data.zero_()
        self.calls: list[tuple[int, ...]] = []

    def restore(self, lq: Tensor, places: object, conditions: object) -> Tensor:
        self.calls.append(tuple(lq.shape))
        x = lq.to(self.layers[0].weight.dtype)
        for layer in self.layers:
            x = layer(x)
        return 0.5 * lq + 0.5 * x


class Identity(nn.Module):
    """Gives back what it gets, and remembers the shapes."""

    capabilities = SMALL
    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[int, ...]] = []

    def restore(self, lq: Tensor, places: object, conditions: object) -> Tensor:
        self.calls.append(tuple(lq.shape))
        return lq


@pytest.fixture(scope="session")
def small() -> Capabilities:
    return SMALL


@pytest.fixture(scope="session")
def network() -> Callable[..., Network]:
    return Network


@pytest.fixture(scope="session")
def identity() -> Callable[..., Identity]:
    return Identity


@pytest.fixture(scope="session")
def val_photos(shared: Path) -> list[Path]:
    found = sorted((shared / "photos" / "clothing-co-parsing" / "val").glob("*.jpg"))
    if not found:
        pytest.skip("shared/photos/clothing-co-parsing/val holds no photos")
    return found


@pytest.fixture(scope="session")
def photo_pixels(val_photos: list[Path]) -> np.ndarray:
    """[h, w, 3] uint8 of a real photograph, of odd size and larger than several tiles."""
    pixels = read_photo(val_photos[0]).pixels[:701, :523]
    assert pixels.shape == (701, 523, 3)
    return pixels
