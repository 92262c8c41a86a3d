import numpy as np
import pytest
from PIL import Image

from hbr.image import Photo, read_photo, write_photo


def cut_out(scene, dtype, secret):
    """A disc of the scene; outside it, a hidden colour under alpha 0."""
    array = scene(c=4, dtype=dtype)
    y, x = np.mgrid[0:48, 0:64]
    inside = (y - 20) ** 2 + (x - 30) ** 2 < 200
    array[..., 3] = np.where(inside, np.iinfo(dtype).max, 0)
    array[~inside, :3] = secret
    return array, inside


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_hidden_colour_never_reaches_the_pixels(scene, dtype):
    white = np.iinfo(dtype).max
    (one, inside), (two, _) = (cut_out(scene, dtype, secret) for secret in (0, [white, 0, white]))
    a, b = Photo.from_array(one), Photo.from_array(two)
    assert np.array_equal(a.pixels, b.pixels), "what is hidden makes no difference"
    assert np.array_equal(a.pixels[inside], one[inside][:, :3])
    near = ~inside & (np.roll(inside, 1, 0) | np.roll(inside, -1, 0))
    spread = one[inside][:, :3].min(0), one[inside][:, :3].max(0)
    assert (a.pixels[near] >= spread[0]).all()
    assert (a.pixels[near] <= spread[1]).all()


def test_filled_colours_follow_their_surroundings():
    array = np.zeros((40, 80, 4), np.uint8)
    array[:, :20] = (200, 10, 10, 255)
    array[:, 60:] = (10, 10, 200, 255)
    array[:, 20:60] = (0, 255, 0, 0)
    pixels = Photo.from_array(array).pixels.astype(int)
    assert (pixels[..., 1] <= 11).all(), "no hidden green"
    assert pixels[20, 21, 0] > 150
    assert pixels[20, 58, 2] > 150


def test_a_large_and_a_nearly_hidden_and_a_fully_hidden_photo():
    array = np.zeros((1500, 2100, 4), np.uint8)
    array[..., 1] = 255
    array[700, 900] = (120, 60, 30, 255)
    pixels = Photo.from_array(array).pixels
    assert (np.abs(pixels.astype(int) - (120, 60, 30)) <= 8).all()
    array[700, 900, 3] = 0
    assert (Photo.from_array(array).pixels == 128).all()


def test_palette_secret(save, scene):
    palette = Image.fromarray(scene()).quantize(4)
    clear = int(np.asarray(palette)[0, 0])
    table = palette.getpalette()
    table[3 * clear : 3 * clear + 3] = 1, 255, 1
    palette.putpalette(table)
    photo = read_photo(save(palette, "p.png", transparency=clear))
    assert not (photo.pixels == (1, 255, 1)).all(-1).any()


def test_alpha_is_resized_and_kept(scene, tmp_path):
    array, _ = cut_out(scene, np.uint8, 0)
    photo = Photo.from_array(array)
    larger = photo.with_pixels(np.full((3, 96, 128), 0.5, np.float32))
    assert larger.alpha.shape == (96, 128)
    back = np.asarray(Image.fromarray(larger.alpha).reduce(2)).astype(int)
    assert np.abs(back - photo.alpha).mean() < 4
    smaller = photo.with_pixels(np.full((3, 24, 32), 0.5, np.float32))
    assert abs(int(smaller.alpha.mean()) - int(photo.alpha.mean())) <= 1
    for suffix in (".png", ".tif", ".webp"):
        again = read_photo(write_photo(larger, tmp_path / ("a" + suffix)))
        assert np.array_equal(again.alpha, larger.alpha)


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
@pytest.mark.parametrize("grey", [False, True])
def test_formats_without_alpha_show_white(scene, tmp_path, suffix, grey):
    array = scene(c=4)[:, :, [0, 3]] if grey else scene(c=4)
    array[..., -1] = 255
    array[:24, :32, -1] = 0
    array[24:, :32, -1] = 128
    photo = Photo.from_array(array)
    with Image.open(write_photo(photo, tmp_path / ("a" + suffix))) as image:
        assert image.mode == ("L" if grey else "RGB")
        out = np.asarray(image).astype(int)
    assert np.abs(out[2:22, 2:30] - 255).max() <= 3
    half = array[30:40, 4:20, 0].astype(int) * 128 / 255 + 255 * 127 / 255
    got = out[30:40, 4:20] if grey else out[30:40, 4:20, 0]
    assert np.abs(got - half).max() <= 6
