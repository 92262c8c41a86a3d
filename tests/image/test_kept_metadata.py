"""What people wrote on their photos comes through; what cannot is named."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin

from hbr.curation.pipeline.decoding import decode
from hbr.image import Photo, PhotoError, read_photo, write_photo
from hbr.image.jpeg import jpeg_segments, with_segments
from hbr.image.kept import iptc_of, kept_resources, resource

IPTC = b"\x1c\x02\x78\x00\x0bat the lake\x1c\x02\x19\x00\x06family"
RESOURCES = resource(0x0404, IPTC) + resource(0x040A, b"\1")
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a/></x:xmpmeta>'


def raw_profile(name: str, data: bytes) -> str:
    """As ImageMagick writes it."""
    digits = data.hex()
    lines = "\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
    return f"\n{name}\n{len(data):8}\n{lines}\n"


@pytest.fixture
def jpeg(scene, camera_exif):
    def make(*segments: tuple[int, bytes], **options: object) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(scene()).save(buffer, "jpeg", quality=95, **options)
        return with_segments(buffer.getvalue(), list(segments))

    return make


@pytest.fixture
def png(scene, raw_png, chunk):
    def make(*texts: tuple[bytes, bytes], dtype: type = np.uint8, packed: bool = False) -> bytes:
        parts = []
        for keyword, text in texts:
            if packed:
                parts.append(chunk(b"zTXt", keyword + b"\0\0" + zlib.compress(text)))
            else:
                parts.append(chunk(b"tEXt", keyword + b"\0" + text))
        return raw_png(scene(dtype=dtype), 2, *parts)

    return make


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["exif", "APP1"])
def test_exif_in_a_raw_profile_with_its_orientation(png, camera_exif, dtype, packed, kind):
    data = camera_exif if kind == "exif" else b"Exif\0\0" + camera_exif
    keyword = f"Raw profile type {kind}".encode()
    text = raw_profile(kind, data).encode()
    photo = read_photo(io.BytesIO(png((keyword, text), dtype=dtype, packed=packed)))
    assert photo.size == (64, 48), "orientation 6 is applied"
    exif = Image.Exif()
    exif.load(photo.exif)
    assert (exif[0x010F], exif[0x0112]) == ("Hasselblad", 1)
    assert photo.texts == ()


def test_the_curation_knows_of_the_turn(png, camera_exif):
    text = raw_profile("exif", camera_exif).encode()
    data = png((b"Raw profile type exif", text))
    found = decode(data, "a.png", max_pixels=10**6)
    assert (found.orientation, found.stored, found.width) == (6, (64, 48), 48)


def test_other_raw_profiles(png, rgb_profile):
    texts = [
        (b"Raw profile type xmp", raw_profile("xmp", XMP).encode()),
        (b"Raw profile type iptc", raw_profile("iptc", RESOURCES).encode()),
        (b"Raw profile type icc", raw_profile("icc", rgb_profile()).encode()),
        (b"Raw profile type mystery", raw_profile("mystery", b"abc").encode()),
        (b"Raw profile type broken", b"no digits"),
    ]
    photo = read_photo(io.BytesIO(png(*texts)))
    assert (photo.xmp, photo.photoshop, photo.icc) == (XMP, RESOURCES, rgb_profile())
    assert photo.lost == ("the profile mystery", "the profile broken")
    bare = (b"Raw profile type iptc", raw_profile("iptc", IPTC).encode())
    assert iptc_of(read_photo(io.BytesIO(png(bare))).photoshop) == IPTC


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_texts_of_png_come_back(png, scene, chunk, raw_png, tmp_path, dtype, caplog):
    extra = [
        chunk(b"tEXt", b"Author\0A. Person \xe9"),
        chunk(b"zTXt", b"Description\0\0" + zlib.compress(b"at the lake" * 99)),
        chunk(b"iTXt", "Title\0\0\0de\0Titel\0Straße 日本".encode()),
        chunk(b"iTXt", b"Notes\0\1\0\0\0" + zlib.compress("größer".encode())),
    ]
    photo = read_photo(io.BytesIO(raw_png(scene(dtype=dtype), 2, *extra)))
    expected = (
        ("Author", "A. Person é"),
        ("Description", "at the lake" * 99),
        ("Title", "Straße 日本"),
        ("Notes", "größer"),
    )
    assert photo.texts == expected
    assert read_photo(write_photo(photo, tmp_path / "b.png", strict=True)).texts == expected
    assert not caplog.text
    write_photo(photo, tmp_path / "b.webp")
    assert "PNG text (Author, Description, Title, Notes)" in caplog.text


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_iptc_goes_through_each_format_that_holds_it(scene, jpeg, tmp_path, caplog, suffix, dtype):
    photo = read_photo(io.BytesIO(jpeg((0xED, b"Photoshop 3.0\0" + RESOURCES))))
    assert photo.photoshop == RESOURCES
    if dtype == np.uint16 and suffix != ".jpg":
        photo = Photo(pixels=scene(dtype=dtype), photoshop=photo.photoshop)
    again = read_photo(write_photo(photo, tmp_path / ("b" + suffix)))
    assert iptc_of(again.photoshop) == IPTC
    assert not caplog.text


def test_iptc_of_a_tiff_alone(scene, tmp_path):
    for kind, data in ((7, IPTC), (1, IPTC), (4, IPTC + b"\0" * (-len(IPTC) % 4))):
        count = len(data) // 4 if kind == 4 else len(data)
        tags = [(33723, kind, count, data, True)]
        tifffile.imwrite(
            tmp_path / "a.tif", scene(), photometric="rgb", extratags=tags, metadata=None
        )
        assert iptc_of(read_photo(tmp_path / "a.tif").photoshop) == IPTC


def test_what_is_untrue_among_the_resources_goes():
    thumbnail = resource(0x040C, b"old picture")
    assert kept_resources(thumbnail + RESOURCES + resource(0x0424, XMP)) == RESOURCES
    assert kept_resources(thumbnail) is None
    assert kept_resources(RESOURCES[:-3]) == resource(0x0404, IPTC)
    assert kept_resources(b"nonsense") is None


def test_comments_of_a_jpeg_to_the_byte(jpeg, tmp_path, caplog):
    comments = [b"Aunt, 1952", "Großmutter".encode("latin-1"), "日本".encode()]
    photo = read_photo(io.BytesIO(jpeg(*((0xFE, c) for c in comments))))
    assert photo.comments == tuple(comments)
    out = write_photo(photo, tmp_path / "b.jpg")
    assert read_photo(out).comments == tuple(comments)
    in_png = read_photo(write_photo(photo, tmp_path / "b.png"))
    assert in_png.texts == (
        ("Comment", "Aunt, 1952"),
        ("Comment", "Großmutter"),
        ("Comment", "日本"),
    )
    assert read_photo(write_photo(in_png, tmp_path / "c.jpg")).comments[2] == comments[2]
    assert not caplog.text
    write_photo(photo, tmp_path / "b.tif")
    assert "left out: comments" in caplog.text


def test_an_encoders_word_on_its_own_settings_goes(jpeg):
    words = b"CREATOR: gd-jpeg v1.0 (using IJG JPEG v62), quality = 90\n"
    assert read_photo(io.BytesIO(jpeg((0xFE, words)))).comments == ()


def test_what_cannot_be_kept_is_one_warning(jpeg, tmp_path, caplog):
    data = jpeg(
        (0xE2, b"MPF\0abc"),
        (0xEB, b"JP\0\1c2pa"),
        (0xE1, b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 40),
        (0xE5, b"strange"),
        (0xEC, b"Ducky\0"),
        (0xFE, b"hello"),
        (0xED, b"Photoshop 3.0\0" + RESOURCES),
    )
    photo = read_photo(io.BytesIO(data + b"\0\0\0\x18ftypmp42" + b"\0" * 99))
    assert not caplog.text, "nothing is lost by reading"
    write_photo(photo, tmp_path / "b.webp")
    (line,) = caplog.messages
    kinds = ["video", "APP5", "content credentials", "extended XMP", "further pictures"]
    assert all(word in line for word in [*kinds, "IPTC", "comments"])
    assert "Ducky" not in line
    with pytest.raises(PhotoError, match=r"left out.*--strict"):
        write_photo(photo, tmp_path / "c.webp", strict=True)
    assert not (tmp_path / "c.webp").exists()


def test_too_large_for_a_jpeg(scene, tmp_path, caplog):
    photo = Photo(pixels=scene(), photoshop=resource(0x0404, b"x" * 70000))
    write_photo(photo, tmp_path / "a.jpg")
    assert "IPTC is too large for JPEG" in caplog.text


TAGS = {270: "at the lake", 271: "ACME", 272: "One", 33432: "me", 0x9C9B: b"T\0i\0\0\0"}


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".tif", ".jpg", ".png"])
def test_every_tag_of_a_tiff(scene, tmp_path, big, order, dtype, suffix):
    tags = [
        (271, 2, 0, "ACME", True),
        (0x9C9B, 1, 6, b"T\0i\0\0\0", True),  # Windows' title
        (0x4746, 3, 1, 4, True),  # Windows' rating
        (33434, 5, 1, (1, 250), True),
        (65000, 12, 2, (0.5, 1.5), True),
        (65001, 7, 5, b"abcde", True),
        (297, 3, 2, (0, 1), True),
    ]
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path,
        scene(dtype=dtype),
        photometric="rgb",
        bigtiff=big,
        byteorder=order,
        extratags=tags,
        description="at the lake",
        metadata=None,
    )
    photo = read_photo(path)
    out = write_photo(photo, tmp_path / ("b" + suffix))
    with Image.open(out) as image:
        exif = image.getexif()
        assert exif[270] == "at the lake"
        assert exif[271] == "ACME"
        assert bytes(exif[0x9C9B]) == b"T\0i\0\0\0"
        assert exif[0x4746] == 4
        assert exif[33434] == pytest.approx(1 / 250)
        assert tuple(exif[65000]) == (0.5, 1.5)
        assert bytes(exif[65001]) == b"abcde"
        if suffix == ".tif":
            assert exif[256] == 64
        else:
            assert not {256, 273, 279} & set(exif), "the layout of the old file stays behind"


def test_directories_below_a_tiffs(scene, save, tmp_path, camera_exif):
    exif = Image.Exif()
    exif.load(camera_exif)
    path = save(Image.fromarray(scene()), "a.tif", exif=exif)
    out = write_photo(read_photo(path), tmp_path / "b.jpg")
    with Image.open(out) as image:
        found = image.getexif()
        assert found.get_ifd(0x8769)[0x927C] == b"maker note \x00\x01\x02"
        assert found.get_ifd(0x8769)[0x829D] == pytest.approx(2.8)
        assert found.get_ifd(0x8825)[1] == "N"


def test_the_shape_in_tifffiles_description_stays_behind(scene, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", scene(), photometric="rgb")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert "shape" in file.pages.first.description
    photo = read_photo(tmp_path / "a.tif")
    assert photo.exif is None or b"shape" not in photo.exif


def test_layers_of_a_tiff_are_named(scene, tmp_path, caplog):
    tags = [(37724, 7, 9, b"Adobe Pho", True)]
    tifffile.imwrite(tmp_path / "a.tif", scene(), photometric="rgb", extratags=tags, metadata=None)
    photo = read_photo(tmp_path / "a.tif")
    out = write_photo(photo, tmp_path / "b.tif")
    assert "left out: layers" in caplog.text
    with tifffile.TiffFile(out) as file:
        assert 37724 not in file.pages.first.tags


def test_pil_images_bring_what_was_put_on_them(scene, save, camera_exif):
    image = Image.fromarray(scene())
    image.getexif()[0x0112] = 6
    image.getexif()[0x010F] = "ACME"
    photo = Photo.from_pil(image)
    assert photo.size == (64, 48)
    assert b"ACME" in photo.exif

    jpeg = save(scene(), "a.jpg", exif=b"Exif\0\0" + camera_exif, comment=b"hi")
    with Image.open(jpeg) as opened:
        assert Photo.from_pil(opened).comments == (b"hi",)
        assert b"maker note" in Photo.from_pil(opened).exif
        opened.getexif()[0x0112] = 1
        assert Photo.from_pil(opened).size == (48, 64), "a changed orientation counts"

    with Image.open(save(scene(), "a.tif", tiffinfo={271: "ACME"})) as opened:
        kept = Image.Exif()
        kept.load(Photo.from_pil(opened).exif)
        assert kept[271] == "ACME"
        assert 256 not in kept

    text = PngImagePlugin.PngInfo()
    text.add_text("Author", "A. Person")
    text.add_text("Raw profile type exif", raw_profile("exif", camera_exif))
    with Image.open(save(scene(), "a.png", pnginfo=text)) as opened:
        photo = Photo.from_pil(opened)
        assert photo.size == (64, 48)
        assert photo.texts == (("Author", "A. Person"),)


def test_unknown_chunks_are_named(scene, raw_png, chunk, tmp_path, caplog):
    extra = [chunk(b"caBX", b"jumb"), chunk(b"vvVv", b"abc"), chunk(b"tIME", b"\7\350\1\1\0\0\0")]
    photo = read_photo(io.BytesIO(raw_png(scene(), 2, *extra)))
    write_photo(photo, tmp_path / "a.png")
    (line,) = caplog.messages
    assert "content credentials" in line
    assert "vvVv" in line
    assert "tIME" not in line


def test_segments_are_walked_over_scans(jpeg):
    data = jpeg((0xFE, b"\xff\xd9 inside"), progressive=True)
    segments, end = jpeg_segments(data + b"tail")
    assert end == len(data)
    assert sum(s.marker == 0xDA for s in segments) > 1
    assert struct.unpack_from(">H", data, segments[0].start)[0] == 0xFFE0
