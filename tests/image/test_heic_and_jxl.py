"""HEIC and JPEG XL: orientation, depth, colours, metadata, and what cannot be read."""

import io

import numpy as np
import pytest
from PIL import Image

from hbr.image import PhotoError, is_photo_name, read_photo, write_photo
from hbr.image.jxl import jxl_header

pillow_heif = pytest.importorskip("pillow_heif")
pillow_jxl = pytest.importorskip("pillow_jxl")


def heic(array: np.ndarray, mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    h, w = array.shape[:2]
    pillow_heif.from_bytes(mode, (w, h), array.tobytes()).save(buffer, quality=-1, **options)
    return buffer.getvalue()


def jxl(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JXL", lossless=True, **options)
    return buffer.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "ACME"
    return exif.tobytes()


def test_a_heic_of_8_bits(scene, tmp_path):
    photo = read_photo(io.BytesIO(heic(scene(64, 96))))
    assert (photo.format, photo.bits, photo.size) == ("heic", 8, (64, 96))
    assert np.abs(photo.pixels.astype(int) - scene(64, 96)).mean() < 4
    (tmp_path / "IMG.HEIC").write_bytes(heic(scene()))
    assert read_photo(tmp_path / "IMG.HEIC").size == (48, 64)
    assert is_photo_name("IMG.HEIC")


def test_the_depth_of_a_heic_is_kept(scene):
    meant = scene(64, 96, dtype=np.uint16)
    photo = read_photo(io.BytesIO(heic(meant, "RGB;16")))
    assert photo.bits == 16
    assert photo.pixels.max() > 52000
    assert np.abs(photo.pixels.astype(int) - meant).mean() < 65535 / 255 * 3
    assert (photo.pixels % 257 != 0).mean() > 0.5


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_heic_is_turned_once(scene, orientation, tmp_path):
    """Phones state the turn twice: for the decoder, and in EXIF."""
    image = pillow_heif.from_pillow(Image.fromarray(scene(64, 96)))
    buffer = io.BytesIO()
    image.save(buffer, quality=-1, exif=turned(orientation))
    photo = read_photo(io.BytesIO(buffer.getvalue()))
    turns = {1: 0, 3: 2, 6: 3, 8: 1}[orientation]
    expected = np.rot90(scene(64, 96), turns)
    assert photo.size == expected.shape[:2]
    assert np.abs(photo.pixels.astype(int) - expected).mean() < 4
    exif = Image.Exif()
    exif.load(photo.exif)
    assert (exif[0x0112], exif[0x010F]) == (1, "ACME")


def test_colours_and_metadata_of_a_heic(scene, p3_profile, tmp_path):
    image = Image.fromarray(scene(64, 96))
    image.info["icc_profile"] = p3_profile
    buffer = io.BytesIO()
    pillow_heif.from_pillow(image).save(buffer, quality=-1, xmp=b"<x/>")
    photo = read_photo(io.BytesIO(buffer.getvalue()))
    assert (photo.icc, photo.xmp) == (p3_profile, b"<x/>")
    assert read_photo(write_photo(photo, tmp_path / "a.jpg")).icc == p3_profile


def test_a_heic_in_hdr_is_refused(scene):
    data = bytearray(heic(scene(64, 96, dtype=np.uint16), "RGB;16"))
    at = data.index(b"colrnclx") + 8
    data[at : at + 4] = b"\0\x09\0\x10"
    with pytest.raises(PhotoError, match=r"HDR picture \(PQ\)"):
        read_photo(io.BytesIO(bytes(data)))


def test_a_jxl_without_loss(scene):
    data = jxl(Image.fromarray(scene()), exif=turned(6), xmp=b"<x/>")
    photo = read_photo(io.BytesIO(data))
    assert (photo.format, photo.size, photo.xmp) == ("jxl", (48, 64), b"<x/>")
    assert (photo.pixels == scene()).all(), "its own header counts, and not EXIF"
    exif = Image.Exif()
    exif.load(photo.exif)
    assert (exif[0x0112], exif[0x010F]) == (1, "ACME")
    assert is_photo_name("a.jxl")


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA"])
def test_modes_of_jxl(scene, mode):
    image = Image.fromarray(scene(c=4), "RGBA").convert(mode)
    photo = read_photo(io.BytesIO(jxl(image)))
    assert (photo.mode == "grey") == (mode in ("L", "LA"))
    assert (photo.alpha is not None) == (mode in ("RGBA", "LA"))
    assert (photo.pixels[..., 0] == np.asarray(image.convert("RGBA"))[..., 0]).all()


def test_a_jpeg_inside_a_jxl_comes_back(scene, save):
    path = save(scene(), "a.jpg", quality=95, exif=turned(6), comment=b"Aunt, 1952")
    with Image.open(path) as image:
        buffer = io.BytesIO()
        image.save(buffer, "JXL", lossless_jpeg=True)
    photo, plain = read_photo(io.BytesIO(buffer.getvalue())), read_photo(path)
    assert (photo.pixels == plain.pixels).all()
    assert photo.comments == (b"Aunt, 1952",)


@pytest.mark.parametrize("size", [(8, 8), (48, 64), (300, 200), (1, 1), (100, 200), (9, 1000)])
def test_the_header_of_a_jxl_says_its_size(scene, size):
    header = jxl_header(jxl(Image.fromarray(scene(*size))))
    assert (header.height, header.width, header.bits) == (*size, 8)


def test_the_limit_holds_before_anything_is_decoded(scene):
    for data in (heic(scene(64, 96)), jxl(Image.fromarray(scene(64, 96)))):
        with pytest.raises(PhotoError, match="above the limit"):
            read_photo(io.BytesIO(data), max_pixels=6000)


def test_damaged_ones_are_one_line(scene):
    for data in (heic(scene(64, 96)), jxl(Image.fromarray(scene(64, 96)))):
        for part in (0.1, 0.5, 0.9):
            with pytest.raises(PhotoError):
                read_photo(io.BytesIO(data[: int(len(data) * part)]))
