"""The measures of the gate against the physics, and what the gate does in a restoration."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from PIL import ImageFilter

from hbr.image import read_photo
from hbr.restoration import Restorer
from hbr.restoration.pixels.gate import THRESHOLD, Measures, judge, measure

DATA = Path(__file__).parents[2] / "data"
PHOTOS = ("blue.png", "purple.jpg", "tie.png")


def pixels_of(name: str) -> np.ndarray:
    return read_photo(DATA / name).pixels


def told(pixels: np.ndarray) -> Measures:
    measures = measure(pixels)
    assert measures is not None
    return measures


def noisy(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """The same noise in each channel, so that luma has it too."""
    noise = np.random.default_rng(0).normal(0, sigma, (*pixels.shape[:2], 1))
    return np.rint(np.clip(pixels + noise, 0, 255)).astype(np.uint8)


def blurred(pixels: np.ndarray, sigma: float) -> np.ndarray:
    return np.asarray(PIL.Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(sigma)))


def as_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(PIL.Image.open(file))


def enlarged(pixels: np.ndarray, factor: int) -> np.ndarray:
    image = PIL.Image.fromarray(pixels)
    small = image.resize(
        (image.width // factor, image.height // factor), PIL.Image.Resampling.BICUBIC
    )
    return np.asarray(small.resize(image.size, PIL.Image.Resampling.BICUBIC))


@pytest.mark.parametrize("sigma", [5, 10, 20, 40])
@pytest.mark.parametrize("name", PHOTOS)
def test_noise_of_known_deviation(name, sigma):
    pixels = pixels_of(name)
    both, own = told(noisy(pixels, sigma)).noise, told(pixels).noise
    assert np.sqrt(both**2 - own**2) == pytest.approx(sigma, rel=0.15)


@pytest.mark.parametrize("name", PHOTOS)
def test_more_blur_is_more_blur(name):
    found = [told(blurred(pixels_of(name), sigma)) for sigma in (0, 0.7, 1.5, 3, 6)]
    widths = [measures.width for measures in found]
    assert widths == sorted(widths)
    assert widths[-1] > 3 * widths[0]
    blurs = [measures.blur for measures in found[:4]]
    assert blurs == sorted(blurs)


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize(("top", "left"), [(0, 0), (3, 5), (7, 1)])
def test_worse_jpeg_has_more_blocks_wherever_the_grid_lies(name, top, left):
    pixels = pixels_of(name)
    found = [told(as_jpeg(pixels, q)[top:, left:]).blocks for q in (90, 50, 25, 10)]
    assert found == sorted(found)
    assert found[-1] > found[0] + 0.2


@pytest.mark.parametrize("name", PHOTOS)
def test_what_is_damaged_scores_higher(name):
    pixels = pixels_of(name)
    clean = judge(pixels).score
    for damaged in (enlarged(pixels, 4), blurred(pixels, 3), noisy(pixels, 25)):
        assert judge(damaged).score > clean


def test_16_bits_give_what_8_bits_give():
    pixels = pixels_of("purple.jpg")
    deep = dataclasses.asdict(told(pixels.astype(np.uint16) * 257))
    # luma is rounded to whole numbers, which are finer in 16 bits
    assert deep == pytest.approx(dataclasses.asdict(told(pixels)), rel=0.1, abs=0.1)


def test_large_photos_are_judged_by_tiles():
    pixels = np.tile(pixels_of("purple.jpg"), (3, 3, 1))
    assert pixels.shape[0] * pixels.shape[1] > 768 * 768
    for sigma in (10, 20):
        assert told(noisy(pixels, sigma)).noise == pytest.approx(sigma, rel=0.15)
    assert told(as_jpeg(pixels, 10)).blocks > told(pixels).blocks + 0.2


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((1, 1, 3), np.uint8),
        np.zeros((63, 500, 3), np.uint8),
        np.full((200, 200, 3), 128, np.uint8),
        np.full((200, 200, 3), 65535, np.uint16),
    ],
)
def test_what_is_too_small_or_too_plain_is_restored(pixels, identity):
    assert judge(pixels).verdict == "cannot tell"
    model = identity()
    restored = Restorer(model)(pixels, gate="auto")
    assert restored.provenance["gate"] == "cannot tell"
    assert restored.provenance["gate_score"] is None
    assert model.calls


@pytest.fixture(scope="module")
def clean_photo(val_photos):
    """A sharp street photo, to which the gate was not fitted."""
    return read_photo(next(path for path in val_photos if path.stem == "0309")).pixels[:512, :512]


def test_a_photo_that_needs_nothing_is_left_as_it_is(identity, clean_photo):
    model = identity()
    pixels = clean_photo
    restored = Restorer(model)(pixels, gate="auto")
    assert not model.calls
    assert np.array_equal(restored.pixels, pixels)
    provenance = restored.provenance
    assert provenance["gate"] == "nothing to restore"
    assert 0 <= provenance["gate_score"] < THRESHOLD
    assert provenance["tiles"] == 0
    assert set(restored.timings) == {"read", "model", "color", "total"}


@pytest.mark.parametrize("settings", [{}, {"gate": "off"}, {"gate": "auto", "scale": 2}])
def test_it_is_restored_without_the_gate_and_where_it_is_resized(identity, clean_photo, settings):
    model = identity()
    restored = Restorer(model)(clean_photo, **settings)
    assert model.calls
    assert restored.provenance["gate"] is None
    assert restored.provenance["gate_score"] is None


def test_a_damaged_photo_is_restored(identity, clean_photo):
    model = identity()
    restored = Restorer(model)(enlarged(clean_photo, 4), gate="auto")
    assert model.calls
    assert restored.provenance["gate"] == "restored"
    assert restored.provenance["gate_score"] >= THRESHOLD
    assert restored.provenance["gate_reasons"] == ()


def test_what_is_beyond_the_model_is_restored_and_told_of(identity, clean_photo):
    for damage, word in (
        (noisy(clean_photo, 60), "noise"),
        (blurred(clean_photo, 12), "edges"),
    ):
        restored = Restorer(identity())(damage, gate="auto")
        assert restored.provenance["gate"] == "beyond the model"
        (reason,) = restored.provenance["gate_reasons"]
        assert reason.startswith(word)
        assert "training damage" in reason
