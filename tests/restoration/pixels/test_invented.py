"""Maps of invented detail: what is explained by the photo is black, what is not is bright."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from hbr.image import Photo, read_photo
from hbr.restoration.pixels import invented
from hbr.restoration.pixels.invented import GREYS_A_LEVEL, invented_detail, save_map

Floats = NDArray[np.float64]


@pytest.fixture(scope="module")
def picture() -> Floats:
    """A real photograph, [h, w, 3] in [0, 255]."""
    return read_photo(Path(__file__).parents[2] / "data" / "purple.jpg").pixels.astype(np.float64)


def photo(values: Floats) -> Photo:
    return Photo(pixels=values.round().clip(0, 255).astype(np.uint8))


def blurred(values: Floats, sigma: float) -> Floats:
    return np.asarray(gaussian_filter(values, (sigma, sigma, 0)))


def test_the_photo_itself_and_more_or_less_contrast_are_explained(picture: Floats) -> None:
    assert invented_detail(photo(picture), photo(picture)).max() <= GREYS_A_LEVEL / 2
    soft = 0.5 * picture + 60
    assert invented_detail(photo(picture), photo(soft)).max() <= GREYS_A_LEVEL
    assert invented_detail(photo(soft), photo(picture)).mean() <= GREYS_A_LEVEL


def test_noise_that_was_removed_is_no_invention(picture: Floats) -> None:
    rng = np.random.default_rng(0)
    base = blurred(picture, 12)
    noisy = base + rng.normal(0, 12, picture.shape)
    removed = invented_detail(photo(noisy), photo(base))
    added = invented_detail(photo(base), photo(noisy))
    assert np.median(removed) < np.median(added) / 10


def test_detail_that_was_added_shows_where_it_is_and_how_strong(picture: Floats) -> None:
    rng = np.random.default_rng(0)
    smooth = np.full((200, 200, 3), 120.0)
    made = smooth.copy()
    made[50:100, 50:150] += rng.normal(0, 10, (50, 100, 1))
    found = invented_detail(photo(smooth), photo(made)).astype(float)
    assert found[65:85, 65:135].mean() == pytest.approx(10 * GREYS_A_LEVEL, rel=0.1)
    assert found[120:].max() == found[:, :20].max() == 0
    strong = smooth + rng.normal(0, 60, (200, 200, 1))
    assert invented_detail(photo(smooth), photo(strong)).max() == 255


def test_sharp_edges_of_a_blurred_photo_are_invented(picture: Floats) -> None:
    found = invented_detail(photo(blurred(picture, 4)), photo(picture))
    detail = np.abs(picture - blurred(picture, 4)).mean(axis=2)
    busy = gaussian_filter(detail, 4) > np.percentile(gaussian_filter(detail, 4), 90)
    assert found[busy].mean() > 2 * found[~busy].mean()


def test_sizes_depths_and_strips(picture: Floats, monkeypatch: pytest.MonkeyPatch) -> None:
    small = photo(picture[:120, :90])
    deep = Photo(pixels=picture[:120, :90].astype(np.uint16) * 257)
    assert invented_detail(small, deep).max() <= GREYS_A_LEVEL / 2
    large = Photo(pixels=np.repeat(np.repeat(small.pixels, 2, 0), 2, 1))
    assert invented_detail(small, large).shape == (240, 180)
    before, after = photo(blurred(picture, 2)), photo(picture)
    whole = invented_detail(before, after)
    monkeypatch.setattr(invented, "_ROWS", 50)
    strips = invented_detail(before, after)
    assert np.abs(whole.astype(int) - strips).max() <= 1
    tiny = photo(picture[:1, :1])
    np.testing.assert_array_equal(invented_detail(tiny, tiny), [[0]])


def test_the_file(picture: Floats, tmp_path: Path) -> None:
    before, after = photo(blurred(picture, 2)), photo(picture)
    file = save_map(tmp_path / "maps", Path("sub/a.jpg"), before, after)
    assert file == tmp_path / "maps" / "sub" / "a.jpg.png"
    read = read_photo(file)
    assert read.mode == "grey"
    np.testing.assert_array_equal(read.pixels[..., 0], invented_detail(before, after))
