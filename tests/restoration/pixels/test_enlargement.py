"""By how much photos were enlarged, and networks that see them smaller."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from hbr import Restorer
from hbr.config import ConfigError
from hbr.models.protocol import Capabilities
from hbr.restoration.pixels.enlargement import estimate_enlargement
from hbr.restoration.settings import RestoreSettings

PHOTO = Path(__file__).parents[2] / "data" / "purple.jpg"
METHODS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def enlarge(image: Image.Image, factor: float, method: str) -> NDArray[np.uint8]:
    size = (round(image.width * factor), round(image.height * factor))
    return np.asarray(image.resize(size, METHODS[method]))


@pytest.fixture(scope="module")
def photos(shared: Path) -> list[Image.Image]:
    """Six photos of two sources."""
    folders = (shared / "photos/clothing-co-parsing/val", shared / "photos/coco-cc/images")
    files = [file for folder in folders for file in sorted(folder.glob("*.jpg"))[:3]]
    return [Image.open(file).convert("RGB") for file in files]


def test_photos_at_their_own_size(photos: list[Image.Image]) -> None:
    found = [estimate_enlargement(np.asarray(photo)) for photo in photos]
    assert np.median(found) == 1
    assert sorted(found)[-2] < 1.25  # one of them is soft


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "factor",
    [1.5, 2, pytest.param(3, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)],
)
def test_known_factors(photos: list[Image.Image], method: str, factor: float) -> None:
    found = [estimate_enlargement(enlarge(photo, factor, method)) for photo in photos]
    assert np.median(found) == pytest.approx(factor, rel=0.08)
    if method == "nearest":
        assert found == pytest.approx([factor] * len(found), rel=0.02)


def test_16_bits_and_a_turned_photo_are_the_same(photos: list[Image.Image]) -> None:
    pixels = enlarge(photos[3], 3, "bicubic")
    found = estimate_enlargement(pixels)
    assert found == pytest.approx(3, rel=0.02)
    assert estimate_enlargement(pixels.astype(np.uint16) * 257) == pytest.approx(found, rel=0.01)
    turned = np.ascontiguousarray(pixels.swapaxes(0, 1))
    assert estimate_enlargement(turned) == pytest.approx(found, rel=0.01)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (95, 400), (200, 200), (3000, 200)])
def test_pictures_that_tell_nothing_are_not_enlarged(size: tuple[int, int]) -> None:
    flat = np.full((*size, 3), 120, np.uint8)
    assert estimate_enlargement(flat) == 1
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    assert estimate_enlargement(noise) == 1


class Seeing:
    """A network of factor 4 that repeats pixels, and remembers how many it saw."""

    capabilities = Capabilities(
        multiple_of=4, min_size=4, native_size=4096, dtypes=("float32",), color="none", upscale=4
    )
    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self) -> None:
        self.saw: list[tuple[int, ...]] = []

    def restore(self, tiles: torch.Tensor, *_: object) -> torch.Tensor:
        seen = tiles[:, :, ::4, ::4]
        self.saw.append(tuple(seen.shape[2:]))
        return seen.repeat_interleave(4, 2).repeat_interleave(4, 3)


@pytest.fixture
def seeing() -> tuple[Seeing, Callable[..., object]]:
    model = Seeing()
    return model, Restorer(model)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "saw"),
    [
        ({}, (15, 20)),
        ({"scale": 2}, (30, 40)),
        ({"reduce": 1}, (60, 80)),
        ({"reduce": 2}, (30, 40)),
        ({"reduce": 3}, (20, 27)),
        ({"reduce": 8}, (8, 10)),
        ({"reduce": 2.5, "scale": 2}, (24, 32)),
    ],
)
def test_what_the_network_sees(seeing, settings: dict[str, float], saw: tuple[int, int]) -> None:
    model, restorer = seeing
    photo = np.asarray(Image.open(PHOTO).convert("RGB").crop((100, 200, 180, 260)))
    restored = restorer(photo, **settings)
    assert model.saw == [saw]
    scale = settings.get("scale", 1)
    assert restored.pixels.shape == (60 * scale, 80 * scale, 3)
    assert restored.provenance["reduce"] == settings.get("reduce")
    if settings.get("reduce") == 1:  # every pixel four times, and as small as before
        assert abs(restored.pixels.astype(int) - photo).mean() < 1.5


def test_a_flat_photo_stays_as_it_is(seeing) -> None:
    _, restorer = seeing
    flat = np.full((60, 81, 3), (10, 120, 250), np.uint8)
    for reduce in (1, 2.3, 8, "auto"):
        assert np.array_equal(restorer(flat, reduce=reduce).pixels, flat)


def test_the_estimate_is_used_and_told(seeing, photos: list[Image.Image]) -> None:
    model, restorer = seeing
    small = photos[3].crop((0, 0, 320, 240))
    for factor, method in ((2, "nearest"), (3, "nearest")):
        restored = restorer(enlarge(small, factor, method), reduce="auto")
        assert restored.provenance["reduce"] == pytest.approx(factor, rel=0.02)
        h, w = model.saw[-1]
        assert (abs(h - 240), abs(w - 320)) <= (4, 6)
    # the result of the network is not enlarged once more
    restored = restorer(enlarge(small, 3, "nearest"), reduce="auto", scale=2)
    assert restored.provenance["reduce"] == 2
    again = restorer(enlarge(small, 3, "nearest"), reduce=2, scale=2)
    assert np.array_equal(restored.pixels, again.pixels)


def test_what_cannot_be_is_said(seeing) -> None:
    _, restorer = seeing
    photo = np.zeros((60, 80, 3), np.uint8)
    with pytest.raises(ValueError, match="320×240 pixels, more than 50000; reduce it more"):
        restorer(photo, reduce=1, max_pixels=50_000)
    for wrong in (0.5, 9, float("nan"), True, "much"):
        with pytest.raises(ConfigError, match="reduce is"):
            RestoreSettings(reduce=wrong)  # type: ignore[arg-type]
