import dataclasses
import logging
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from hbr.image import Photo, read_photo, write_photo
from hbr.image.colour import ProfileError, load_profile


@pytest.fixture
def colours() -> np.ndarray:
    """All kinds of colours, in patches of one pixel: [64, 64, 3] uint8."""
    rng = np.random.default_rng(3)
    return rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)


@pytest.fixture
def profile_chunk(rgb_profile, chunk) -> bytes:
    """Adobe RGB, as PNG holds it."""
    return chunk(b"iCCP", b"Adobe RGB\0\0" + zlib.compress(rgb_profile()))


def inside_srgb(photo: Photo, step: int = 1) -> np.ndarray:
    return ((photo.pixels > 2 * step) & (photo.pixels < 253 * step)).all(-1)


@pytest.mark.parametrize("which", ["adobe", "p3"])
def test_pixels_are_what_littlecms_shows(which, rgb_profile, p3_profile, colours, save, seen):
    icc = rgb_profile() if which == "adobe" else p3_profile
    path = save(colours, "a.png", icc_profile=icc)
    photo = read_photo(path)
    with Image.open(path) as image:
        shown = seen(image)
    assert np.abs(photo.pixels.astype(int) - colours).max() > 20, "the profile does something"
    assert np.abs(photo.pixels.astype(int) - shown).max() <= 1


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp", ".avif"])
def test_a_profile_and_its_colours_come_back(scene, rgb_profile, save, seen, tmp_path, suffix):
    icc = rgb_profile()
    path = save(
        scene(), "a" + suffix, icc_profile=icc, **({"quality": 95} if suffix[1] in "jwa" else {})
    )
    out = write_photo(read_photo(path), tmp_path / ("out" + suffix))
    with Image.open(path) as before, Image.open(out) as after:
        assert after.info["icc_profile"] == icc
        difference = np.abs(seen(before).astype(int) - seen(after))
        assert difference.max() == 0 if suffix in (".png", ".tif") else difference.mean() < 2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_unchanged_pixels_lose_nothing(
    rgb_profile, profile_chunk, colours, raw_png, tmp_path, dtype
):
    array = colours.astype(dtype) * (257 if dtype == np.uint16 else 1)
    (tmp_path / "a.png").write_bytes(raw_png(array, 2, profile_chunk))
    write_photo(read_photo(tmp_path / "a.png"), tmp_path / "b.png")
    plain = dataclasses.replace(read_photo(tmp_path / "b.png"), icc=None)
    assert not np.array_equal(plain.pixels, array)
    again = read_photo(tmp_path / "b.png")
    own, icc = again.encoded()
    assert np.array_equal(own, array)
    assert icc == rgb_profile()


def test_restored_pixels_go_back_into_the_profile(rgb_profile, colours, save, tmp_path, seen):
    photo = read_photo(save(colours, "a.png", icc_profile=rgb_profile()))
    restored = photo.with_pixels(1 - photo.tensor())
    with Image.open(write_photo(restored, tmp_path / "out.png")) as image:
        shown = seen(image).astype(int)
    inside = inside_srgb(photo)
    difference = np.abs(shown - (255 - photo.pixels.astype(int)))[inside]
    # Where one channel is dark, one step of Adobe RGB is several of sRGB.
    assert np.percentile(difference, 99) <= 5
    assert difference.mean() < 0.7


def test_16_bits_go_into_the_profile_and_back_exactly(profile_chunk, colours, raw_png, tmp_path):
    deep = colours.astype(np.uint16) * 257
    (tmp_path / "a.png").write_bytes(raw_png(deep, 2, profile_chunk))
    photo = read_photo(tmp_path / "a.png")
    restored = photo.with_pixels(1 - photo.tensor())
    again = read_photo(write_photo(restored, tmp_path / "b.png"))
    inside = inside_srgb(photo, 257)
    difference = np.abs(again.pixels.astype(int) - restored.pixels)[inside]
    assert difference.max() <= 16, "of 65535"


def test_colours_outside_srgb_are_not_cut_off(p3_profile, save, tmp_path):
    red = np.broadcast_to(np.array([250, 30, 20], np.uint8), (24, 24, 3))
    photo = read_photo(save(np.ascontiguousarray(red), "a.png", icc_profile=p3_profile))
    assert photo.pixels[0, 0, 0] == 255, "P3 red is outside sRGB"
    for size in (24, 48):
        x = np.broadcast_to(photo.tensor().numpy()[..., :1, :1], (1, 3, size, size))
        with Image.open(write_photo(photo.with_pixels(x), tmp_path / "b.png")) as image:
            assert np.abs(np.asarray(image).astype(int) - red[0, 0]).max() <= 1


def test_replaced_pixels_win_over_the_old_ones(rgb_profile, colours, save, tmp_path, seen):
    photo = read_photo(save(colours, "a.png", icc_profile=rgb_profile()))
    grey = dataclasses.replace(photo, pixels=np.full_like(photo.pixels, 130))
    with Image.open(write_photo(grey, tmp_path / "out.png")) as image:
        assert np.abs(seen(image).astype(int) - 130).max() <= 1


def test_srgb_profiles_change_nothing_and_stay(colours, save, rgb_profile, tmp_path):
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo = read_photo(save(colours, "a.png", icc_profile=icc))
    assert np.array_equal(photo.pixels, colours)
    with Image.open(write_photo(photo, tmp_path / "out.jpg")) as image:
        assert image.info["icc_profile"] == icc


def test_grey_profile(grey_profile, scene, save, seen, tmp_path):
    path = save(scene(c=1)[..., 0], "g.png", icc_profile=grey_profile)
    photo = read_photo(path)
    with Image.open(path) as image:
        assert np.abs(photo.pixels.astype(int) - seen(image)).max() <= 1
    with Image.open(write_photo(photo, tmp_path / "out.png")) as image:
        assert image.mode == "L"
        assert image.info["icc_profile"] == grey_profile
        assert np.array_equal(np.asarray(image), scene(c=1)[..., 0])
    # WebP knows RGB alone, for which a grey profile would be nonsense.
    with Image.open(write_photo(photo, tmp_path / "out.webp", quality=100)) as image:
        assert "icc_profile" not in image.info
        assert np.abs(np.asarray(image).astype(int) - photo.pixels).mean() < 2
    assert photo.as_rgb().icc is None


def test_bmp_holds_no_profile_so_it_gets_srgb(rgb_profile, colours, save, tmp_path):
    photo = read_photo(save(colours, "a.png", icc_profile=rgb_profile()))
    with Image.open(write_photo(photo, tmp_path / "out.bmp")) as image:
        assert np.array_equal(np.asarray(image), photo.pixels)


@pytest.mark.parametrize("damage", ["garbage", "short", "curve", "grey"])
def test_broken_profiles_are_dropped_with_a_warning(
    damage, rgb_profile, grey_profile, colours, save, tmp_path, caplog
):
    icc = rgb_profile()
    icc = {
        "garbage": b"no profile at all" * 20,
        "short": icc[: len(icc) // 2],
        "curve": icc.replace(b"curv", b"what"),
        "grey": grey_profile,
    }[damage]
    with caplog.at_level(logging.WARNING):
        photo = read_photo(save(colours, "a.png", icc_profile=icc))
    assert "colour profile is dropped" in caplog.text
    assert photo.icc is None
    assert np.array_equal(photo.pixels, colours)
    with Image.open(write_photo(photo, tmp_path / "out.png")) as image:
        assert "icc_profile" not in image.info


def test_profiles_of_tables_pass_through(rgb_profile, colours, save):
    icc = rgb_profile().replace(b"rTRC", b"A2B0")
    photo = read_photo(save(colours, "a.png", icc_profile=icc))
    assert photo.icc == icc
    assert np.array_equal(photo.pixels, colours)


@pytest.mark.parametrize("seed", range(200))
def test_random_damage_to_a_profile(seed, rgb_profile, p3_profile):
    rng = np.random.default_rng(seed)
    icc = bytearray(rgb_profile() if seed % 2 else p3_profile)
    for at in rng.integers(0, len(icc), 8):
        icc[at] = rng.integers(0, 256)
    try:
        profile = load_profile(bytes(icc), "RGB")
    except ProfileError:
        return
    if profile is not None:
        assert np.isfinite(profile.to_srgb(np.full((1, 1, 3), 99, np.uint8))).all()
