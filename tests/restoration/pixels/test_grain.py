"""The grain of a photo: measured, told from texture, and put back as it was."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from hbr.config import ConfigError
from hbr.image import Photo
from hbr.restoration import Restorer, RestoreSettings
from hbr.restoration.pixels.grain import add_grain, grained, missing_grain

LUMA = np.array([0.299, 0.587, 0.114])
Floats = NDArray[np.float32]


def luma(planes: Floats) -> Floats:
    return np.tensordot(LUMA, planes, 1)


def planes_of(pixels: NDArray[np.uint8]) -> Floats:
    """[h, w, 3] → [3, h, w] in [0, 1]."""
    return np.ascontiguousarray(np.moveaxis(pixels.astype(np.float32) / 255, -1, 0))


@pytest.fixture(scope="module")
def clean(shared: Path) -> Floats:
    """A real photograph without grain, [3, h, w]."""
    from hbr.image import read_photo

    found = sorted((shared / "photos" / "clothing-co-parsing" / "val").glob("*.jpg"))
    pixels = read_photo(found[2]).pixels[:800, :600]
    return planes_of(gaussian_filter(pixels, (1, 1, 0)))


def with_film(clean: Floats, sigma: float, *, blur: float = 0, slope: float = 0) -> Floats:
    """The picture with grain of a deviation in levels, which the channels share in part."""
    rng = np.random.default_rng(3)
    noise = 0.8 * rng.standard_normal((1, *clean.shape[1:]))
    noise = noise + 0.6 * rng.standard_normal(clean.shape)
    noise = gaussian_filter(noise, (0, blur, blur)) if blur else noise
    noise /= luma(noise).std()
    strength = sigma / 255 * np.sqrt(1 - slope / 2 + slope * luma(clean))
    return np.clip(clean + strength * noise, 0, 1).astype(np.float32)


def as_pixels(planes: Floats) -> NDArray[np.uint8]:
    return (np.moveaxis(planes, 0, -1) * 255).round().astype(np.uint8)


def lag(field: Floats) -> float:
    """The correlation of neighbours."""
    return float((field[:, 1:] * field[:, :-1]).mean() / field.var())


@pytest.mark.parametrize(("sigma", "blur"), [(4, 0), (12, 0), (8, 0.8)])
def test_strength_spectrum_and_colour_come_back(clean: Floats, sigma: float, blur: float) -> None:
    film = with_film(clean, sigma, blur=blur)
    pixels = as_pixels(film)
    grain = missing_grain(pixels, clean)
    assert grain is not None
    made = clean.copy()
    add_grain(made, pixels, grain, 1.0, 0)
    new, old = made - clean, film - clean
    assert luma(new).std() / luma(old).std() == pytest.approx(1, abs=0.06)
    assert lag(luma(new)) == pytest.approx(lag(luma(old)), abs=0.06)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        expected = np.corrcoef(old[a].ravel(), old[b].ravel())[0, 1]
        assert np.corrcoef(new[a].ravel(), new[b].ravel())[0, 1] == pytest.approx(
            expected, abs=0.05
        )
    # it is not the old noise
    assert abs(np.corrcoef(luma(new).ravel(), luma(old).ravel())[0, 1]) < 0.05


def test_grain_that_grows_with_the_light(clean: Floats) -> None:
    ramp = np.broadcast_to(np.linspace(0.1, 0.85, 600, dtype=np.float32), (3, 400, 600)).copy()
    film = with_film(ramp, 8, slope=1.2)
    grain = missing_grain(as_pixels(film), ramp)
    assert grain is not None
    for brightness in (0.2, 0.5, 0.8):
        expected = 8 * np.sqrt(0.4 + 1.2 * brightness)
        found = 255 * grain.deviation(np.float32(brightness))
        assert found == pytest.approx(expected, rel=0.1)


def test_what_restoring_left_is_not_added_again(clean: Floats) -> None:
    film = with_film(clean, 10)
    half = (clean + 0.6 * (film - clean)).astype(np.float32)
    grain = missing_grain(as_pixels(film), half)
    assert grain is not None
    made = half.copy()
    add_grain(made, as_pixels(film), grain, 1.0, 0)
    assert luma(made - clean).std() / luma(film - clean).std() == pytest.approx(1, abs=0.06)


def test_texture_is_no_grain(clean: Floats) -> None:
    """Half of the photo is gravel, the other half is smooth: grain would be in both."""
    gravel = with_film(np.full((3, 512, 512), 0.5, np.float32), 14)
    gravel[:, :, 256:] = np.linspace(0.3, 0.7, 256, dtype=np.float32)
    gravel += np.random.default_rng(0).normal(0, 0.4 / 255, gravel.shape).astype(np.float32)
    smooth = gaussian_filter(gravel, (0, 2, 2))
    grain = missing_grain(as_pixels(gravel), smooth)
    assert grain is None or 255 * grain.deviation(np.float32(0.5)) < 1.5


@pytest.mark.parametrize("size", [(20, 20), (40, 300), (300, 300)])
def test_photos_that_show_no_grain_are_left_alone(
    size: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    white = Photo(pixels=np.full((*size, 3), 255, np.uint8))
    before = np.full((3, *size), 0.7, np.float32)
    made = grained(before.copy(), white, RestoreSettings(grain=1))
    np.testing.assert_array_equal(made, before)
    assert "no flat area shows grain that can be measured" in caplog.text


def test_share_seed_and_pixels_that_were_left_alone(clean: Floats) -> None:
    film = with_film(clean, 10)
    pixels = as_pixels(film)
    photo = Photo(pixels=pixels)
    part = clean.copy()
    part[:, 300:] = planes_of(pixels)[:, 300:]  # as where only people are restored
    once, again, other, half, none = (
        grained(part.copy(), photo, RestoreSettings(grain=grain, seed=seed))
        for grain, seed in ((1, 0), (1, 0), (1, 1), (0.5, 0), (0, 0))
    )
    np.testing.assert_array_equal(once, again)
    np.testing.assert_array_equal(none, part)
    assert np.abs(once - other)[:, :250].max() > 0.05
    inner = (slice(None), slice(0, 250))
    ratio = luma(half - part)[:250].std() / luma(once - part)[:250].std()
    assert ratio == pytest.approx(0.5, abs=0.02)
    assert np.abs(once - part)[inner].max() > 0.05
    np.testing.assert_array_equal(once[:, 316:], part[:, 316:])


def test_strips_do_not_show(clean: Floats, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one strip of rows ends and the next begins, there is as much grain as elsewhere."""
    from hbr.restoration.pixels import grain as module

    pixels = as_pixels(with_film(clean, 10))
    found = missing_grain(pixels, clean)
    assert found is not None
    made = clean.copy()
    add_grain(made, pixels, found, 1.0, 0)
    rows = luma(made - clean).std(axis=1)
    at = np.arange(module._ROWS, len(rows), module._ROWS)
    assert rows[at].mean() == pytest.approx(rows.mean(), rel=0.15)
    differences = np.abs(np.diff(luma(made - clean), axis=0)).mean(axis=1)
    assert differences[at - 1].mean() == pytest.approx(differences.mean(), rel=0.15)


@pytest.mark.parametrize("mode", ["rgb", "grey"])
def test_the_restorer_puts_it_back(identity: Callable[[], object], mode: str) -> None:
    ramp = np.broadcast_to(np.linspace(0.2, 0.8, 320, dtype=np.float32), (3, 320, 320)).copy()
    pixels = as_pixels(with_film(ramp, 8))
    if mode == "grey":
        pixels = np.repeat(pixels[..., :1], 3, axis=2)

    class Smoothing:
        capabilities, device, dtype = identity().capabilities, identity().device, identity().dtype  # type: ignore[attr-defined]

        def restore(self, lq, places, conditions):  # type: ignore[no-untyped-def]
            import torch

            return torch.from_numpy(gaussian_filter(lq.numpy(), (0, 0, 3, 3)))

    restorer = Restorer(Smoothing())  # type: ignore[arg-type]
    photo = Photo(pixels=pixels, mode=mode)
    plain, film = (restorer(photo, grain=grain, seed=2, color="none") for grain in (0, 1))
    added = film.pixels.astype(np.float32) - plain.pixels
    noise = pixels.astype(np.float32) - plain.pixels
    assert (added @ LUMA).std() / (noise @ LUMA).std() == pytest.approx(1, abs=0.1)
    assert film.settings.grain == film.provenance["grain"] == 1
    if mode == "grey":
        assert (film.pixels == film.pixels[..., :1]).all()


@pytest.mark.parametrize("grain", [-0.1, 1.5])
def test_a_share_out_of_range(grain: float) -> None:
    with pytest.raises(ConfigError, match="grain is"):
        RestoreSettings(grain=grain)
