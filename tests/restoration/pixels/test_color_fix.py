import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from hbr.restoration.pixels import color
from hbr.restoration.pixels.color import EPSILON, fix_color


@pytest.fixture(scope="module")
def golden(shared):
    return load_file(shared / "goldens" / "degradation" / "jpeg_color.safetensors")


def blurred(x, levels=color.LEVELS):
    """The low frequencies of [b, c, h, w]."""
    low = np.array(x, np.float32)
    for plane in low.reshape(-1, *x.shape[2:]):
        color._blur_plane(plane, levels)
    return low


def wavelet_of(target, source):
    """The wavelet colour fix of [b, 3, h, w] by its definition."""
    return target - blurred(target) + blurred(source)


def adain_of(target, source):
    """AdaIN of [b, 3, h, w] by its definition."""
    t, s = (x.astype(np.float64) for x in (target, source))
    axes = {"axis": (2, 3), "keepdims": True}
    gain = np.sqrt((s.var(**axes) + EPSILON) / (t.var(**axes) + EPSILON))
    return (t - t.mean(**axes)) * gain + s.mean(**axes)


def as_uint16(x):
    return np.ascontiguousarray(np.moveaxis(np.rint(x[0] * 65535), 0, -1)).astype(np.uint16)


def close(got, expected):
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)


def fixed_as_the_reference(golden, method):
    image, source = (as_uint16(golden[name]) for name in ("image", "color_source"))
    got = fix_color(image, source, method)
    np.testing.assert_allclose(got, golden[method].clip(0, 1)[0], atol=5e-5, rtol=0)


def test_wavelet_decomposition_matches_the_reference(golden):
    low = blurred(golden["image"], levels=5)
    close(golden["image"] - low, golden["wavelet_high"])
    close(low, golden["wavelet_low"])


def test_wavelet_fix_matches_the_reference(golden):
    close(wavelet_of(golden["image"], golden["color_source"]), golden["wavelet"])
    fixed_as_the_reference(golden, "wavelet")


def test_adain_fix_matches_the_reference(golden):
    close(adain_of(golden["image"], golden["color_source"]), golden["adain"])
    fixed_as_the_reference(golden, "adain")


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 5))
@settings(deadline=None, max_examples=30)
def test_the_blur_is_exactly_that_of_its_definition(height, width, levels):
    x = np.random.default_rng(0).random((2, 3, height, width), np.float32)
    expected = x
    for level in range(levels):
        for axis in (2, 3):
            step = 2**level
            i = np.arange(x.shape[axis])
            before = expected.take(np.maximum(i - step, 0), axis)
            after = expected.take(np.minimum(i + step, len(i) - 1), axis)
            expected = np.float32(0.5) * expected + np.float32(0.25) * (before + after)
    low = blurred(x, levels)
    np.testing.assert_array_equal(low, expected)


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 5))
@settings(deadline=None, max_examples=30)
def test_the_low_part_stays_within_the_image_at_any_size(height, width, levels):
    x = np.random.default_rng(0).random((1, 3, height, width), np.float32)
    low = blurred(x, levels)
    assert low.min() >= x.min() - 1e-6
    assert low.max() <= x.max() + 1e-6


@pytest.mark.parametrize("method", ["wavelet", "adain"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [(1, 1), (5, 300), (97, 41), (150, 3)])
def test_strips_give_what_the_whole_image_gives(monkeypatch, method, dtype, size):
    monkeypatch.setattr(color, "_STRIP_PIXELS", 1)
    monkeypatch.setattr(color, "_LEAST_STRIP_ROWS", 16)
    rng = np.random.default_rng(0)
    target = rng.integers(0, 65536, (*size, 3), dtype=np.uint16)
    source = rng.integers(0, np.iinfo(dtype).max, (*size, 3), dtype=dtype, endpoint=True)
    pure = {"wavelet": wavelet_of, "adain": adain_of}[method]
    expected = pure(color.to_unit(target), color.to_unit(source)).clip(0, 1)[0]
    got = fix_color(target, source, method)
    np.testing.assert_allclose(got, expected, atol=2e-5, rtol=0)


def test_none_only_converts():
    target = np.arange(2 * 3 * 3, dtype=np.uint16).reshape(2, 3, 3) * 3000
    got = fix_color(target, np.zeros((2, 3, 3), np.uint8), "none")
    np.testing.assert_allclose(got, np.moveaxis(target, -1, 0) / 65535, atol=1e-7)


def test_a_colour_cast_is_taken_away_and_detail_is_kept(photo_pixels):
    source = color.to_unit(photo_pixels[:256, :256])
    tint = np.float32([0.2, 0.0, 0.1]).reshape(1, 3, 1, 1)
    cast = (source * np.float32(0.8) + tint).clip(0, 1)
    fixed = fix_color(as_uint16(cast), as_uint16(source), "wavelet")[None]
    assert np.abs((fixed - source).mean(axis=(0, 2, 3))).max() < 0.002
    high = cast - blurred(cast)
    assert abs((fixed - blurred(fixed)).std() / high.std() - 1) <= 0.05


@pytest.mark.parametrize("method", ["wavelet", "adain", "none"])
def test_unequal_shapes_are_an_error(method):
    with pytest.raises(ValueError, match=r"\(4, 4, 3\).*\(4, 5, 3\); they must be equal"):
        fix_color(np.zeros((4, 4, 3), np.uint16), np.zeros((4, 5, 3), np.uint8), method)
