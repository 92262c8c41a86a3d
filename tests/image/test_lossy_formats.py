"""What a format takes away from a photo is said."""

import io

import numpy as np
import pytest
from PIL import Image

from hbr.image import Photo, PhotoError, read_photo, write_photo


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".avif", ".bmp"])
def test_sixteen_bits_become_eight_with_a_warning(scene, tmp_path, caplog, suffix):
    photo = Photo(pixels=scene(dtype=np.uint16))
    write_photo(photo, tmp_path / ("a" + suffix))
    (line,) = caplog.messages
    assert "16 bits become 8" in line
    with pytest.raises(PhotoError, match=r"16 bits become 8.*--strict"):
        write_photo(photo, tmp_path / ("b" + suffix), strict=True)
    assert not (tmp_path / ("b" + suffix)).exists()


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_transparency_becomes_white_with_a_warning(scene, tmp_path, caplog, suffix):
    write_photo(Photo.from_array(scene(c=4)), tmp_path / ("a" + suffix))
    assert "transparency becomes white" in caplog.text


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_formats_that_hold_it_all_say_nothing(scene, tmp_path, caplog, suffix):
    photo = Photo.from_array(scene(c=4, dtype=np.uint16))
    write_photo(photo, tmp_path / ("a" + suffix), strict=True)
    assert not caplog.text


@pytest.mark.parametrize("c", [3, 4])
def test_a_lossless_webp_stays_so(scene, save, tmp_path, c):
    photo = read_photo(save(scene(c=c), "a.webp", lossless=True, exact=True))
    assert photo.lossless
    again = read_photo(write_photo(photo, tmp_path / "b.webp"))
    assert again.lossless
    assert (again.pixels == photo.pixels).all()
    new = photo.with_pixels(np.moveaxis(scene()[::-1], -1, 0) / np.float32(255))
    assert read_photo(write_photo(new, tmp_path / "c.webp")).lossless
    lossy = read_photo(save(scene(c=c), "d.webp", quality=90))
    assert not lossy.lossless
    assert not read_photo(write_photo(lossy, tmp_path / "e.webp")).lossless


def test_lossless_on_request(scene, tmp_path):
    photo = Photo(pixels=scene())
    for suffix in (".webp", ".png", ".tif", ".bmp"):
        out = write_photo(photo, tmp_path / ("a" + suffix), lossless=True)
        assert (read_photo(out).pixels == scene()).all()
    for suffix in (".jpg", ".avif"):
        with pytest.raises(PhotoError, match="is written with loss; choose PNG, TIFF or WebP"):
            write_photo(photo, tmp_path / ("b" + suffix), lossless=True)


def test_lossless_in_the_extended_kind_of_webp(scene):
    buffer = io.BytesIO()
    Image.fromarray(scene()).save(buffer, "webp", lossless=True, xmp=b"<x/>")
    assert buffer.getvalue()[12:16] == b"VP8X"
    assert read_photo(io.BytesIO(buffer.getvalue())).lossless
