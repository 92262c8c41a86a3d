"""What counts as damaged, what as a formality, and what becomes of each."""

import io
import subprocess
import sys
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from hbr.image import PhotoError, read_photo
from hbr.image.tiff import CODECS


@pytest.fixture
def jpeg(scene):
    """A JPEG of `scene`, which `options` of Pillow may make progressive or grey."""

    def make(h: int = 240, w: int = 320, **options: object) -> bytes:
        rng = np.random.default_rng(0)
        noisy = np.clip(scene(h, w) + rng.normal(0, 9, (h, w, 3)), 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noisy).save(buffer, "jpeg", quality=90, **options)
        return buffer.getvalue()

    return make


def pixels_of(data: bytes, **options) -> np.ndarray:
    return read_photo(io.BytesIO(data), **options).pixels


KINDS = [{}, {"progressive": True}, {"restart_marker_blocks": 7}]


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("tail", [b"", b"\xff", b"\xff\xff\xd9"])
def test_a_missing_end_marker_is_a_formality(jpeg, caplog, options, tail):
    data = jpeg(**options)
    assert data.endswith(b"\xff\xd9")
    photo = read_photo(io.BytesIO(data[:-2] + tail), strict=True)
    assert (photo.pixels == pixels_of(data)).all()
    assert not caplog.text


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
def test_a_jpeg_cut_short_is_refused_or_accepted(jpeg, options, part):
    data = jpeg(**options)
    cut = data[: int(len(data) * part)]
    for strict in (False, True):
        with pytest.raises(PhotoError, match=r"cut short; .*--truncated accept"):
            pixels_of(cut, strict=strict)
    photo = read_photo(io.BytesIO(cut), strict=True, truncated="accept")
    assert "cut short" in photo.warnings[0]
    if not options.get("progressive"):
        rows = int(240 * part * 0.7)
        assert (photo.pixels[:rows] == pixels_of(data)[:rows]).all(), "what is there is read"


def hole(data: bytes) -> bytes:
    return data[: len(data) // 2] + b"\0" * (len(data) // 2 - 2) + b"\xff\xd9"


def flipped(data: bytes) -> bytes:
    broken = bytearray(data)
    for at in range(len(data) // 3, len(data) - 2, 97):
        broken[at] ^= 0x55
    return bytes(broken)


def carriage_returns(data: bytes) -> bytes:
    return data.replace(b"\n", b"\r\n")


def other_half(data: bytes) -> bytes:
    """The head of the file, and then that of another in the place of the rest."""
    return data[: len(data) // 2] + data[: len(data) // 2 - 2] + b"\xff\xd9"


@pytest.mark.parametrize("options", [{}, {"restart_marker_blocks": 7}])
@pytest.mark.parametrize("damage", [hole, carriage_returns])
def test_corrupt_data_are_a_warning_and_strictly_an_error(jpeg, caplog, damage, options):
    data = damage(jpeg(**options))
    photo = read_photo(io.BytesIO(data))
    assert "corrupt" in photo.warnings[0]
    assert "corrupt" in caplog.text
    with pytest.raises(PhotoError, match=r"corrupt.*--strict"):
        pixels_of(data, strict=True)
    accepted = read_photo(io.BytesIO(data), strict=True, truncated="accept")
    assert (accepted.pixels == photo.pixels).all()


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("damage", [flipped, other_half])
def test_worse_is_never_read_in_silence(jpeg, damage, options):
    data = damage(jpeg(**options))
    with pytest.raises(PhotoError):
        pixels_of(data, strict=True)
    photo = read_photo(io.BytesIO(data), truncated="accept", strict=True)
    assert "corrupt" in photo.warnings[0]
    if not options.get("progressive"):
        assert (photo.pixels[:40] == pixels_of(jpeg(**options))[:40]).all(), "what is there is read"


@pytest.mark.parametrize("options", [*KINDS, {"comment": b"x\n" * 99}, {"exif": b"Exif\0\0broken"}])
def test_whole_jpegs_are_not_suspected(jpeg, caplog, options):
    data = jpeg(**options)
    for tail in (b"", b"\0\0\0\x18ftypmp42" + b"\0" * 99, data):
        photo = read_photo(io.BytesIO(data + tail))
        assert not [w for w in photo.warnings if "corrupt" in w or "cut" in w]
    assert "corrupt" not in caplog.text


def test_kinds_of_jpeg_are_refused_for_what_they_are(jpeg):
    data = jpeg()
    at = data.index(b"\xff\xc0")
    for marker, bits, word in (
        (0xC1, 12, "12-bit"),
        (0xC3, 8, "lossless"),
        (0xC5, 8, "hierarchical"),
    ):
        other = data[: at + 1] + bytes([marker]) + data[at + 2 : at + 4] + bytes([bits])
        with pytest.raises(PhotoError, match=f"is a {word} JPEG, which is not read"):
            pixels_of(other + data[at + 5 :])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_png_that_is_whole_but_for_a_formality(scene, raw_png, chunk, dtype):
    data = raw_png(scene(dtype=dtype), 2)
    no_end = data[:-12]
    assert (pixels_of(no_end, strict=True) == scene(dtype=dtype)).all()
    wrong_sum = bytearray(data)
    wrong_sum[-13] ^= 1  # of the pixels, which zlib's own checksum proves
    assert (pixels_of(bytes(wrong_sum), strict=True) == scene(dtype=dtype)).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    "kind", [b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"iCCP", b"pHYs", b"tIME", b"xxXx"]
)
def test_damaged_words_cost_the_words(scene, raw_png, chunk, dtype, kind):
    bad = bytearray(chunk(kind, b"a\0bcd\0\0\0\0\0"))
    bad[9] ^= 1
    data = raw_png(scene(dtype=dtype), 2, bytes(bad))
    photo = read_photo(io.BytesIO(data))
    assert (photo.pixels == scene(dtype=dtype)).all()
    assert kind.decode() in photo.warnings[0]
    with pytest.raises(PhotoError, match="left out"):
        pixels_of(data, strict=True)


@pytest.mark.parametrize("kind", [b"gAMA", b"cHRM", b"sRGB", b"cICP"])
def test_a_colour_chunk_of_a_wrong_length_says_nothing(scene, raw_png, chunk, kind):
    assert (pixels_of(raw_png(scene(), 2, chunk(kind, b"abc"))) == scene()).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_png_cut_short_or_with_wrong_pixels(scene, raw_png, dtype):
    data = raw_png(scene(200, 300, dtype=dtype), 2)
    for part in (0.3, 0.7, 0.95):
        cut = data[: int(len(data) * part)]
        with pytest.raises(PhotoError, match=r"too early.*--truncated accept"):
            pixels_of(cut)
        photo = read_photo(io.BytesIO(cut), truncated="accept", strict=True)
        rows = int(200 * part * 0.5)
        assert (photo.pixels[:rows] == scene(200, 300, dtype=dtype)[:rows]).all()
        assert "too early" in photo.warnings[0]
    broken = bytearray(data)
    broken[len(data) // 2] ^= 1
    with pytest.raises(PhotoError, match="checksums do not match"):
        pixels_of(bytes(broken))
    photo = read_photo(io.BytesIO(bytes(broken)), truncated="accept")
    assert (photo.pixels[:40] == scene(200, 300, dtype=dtype)[:40]).all()


def test_a_compression_that_nothing_here_has_is_named(scene, tmp_path):
    """The tag alone is changed: what matters is that nobody calls the file damaged."""
    for number, name in CODECS.items():
        for dtype in (np.uint8, np.uint16):
            if (name, dtype) == ("ZSTD", np.uint8):
                continue  # Pillow has it
            path = tmp_path / "a.tif"
            tifffile.imwrite(path, scene(dtype=dtype), photometric="rgb", metadata=None)
            with tifffile.TiffFile(path, mode="r+b") as file:
                file.pages.first.tags[259].overwrite(number)
            with pytest.raises(PhotoError, match=f"compressed with {name}.*imagecodecs"):
                read_photo(path)


def test_what_c_libraries_say_stays_off_stderr(scene, raw_png, chunk, tmp_path):
    odd = [chunk(b"tIME", b"\0" * 7), chunk(b"sBIT", b"\x11\x11\x11")]
    (tmp_path / "a.png").write_bytes(raw_png(scene(dtype=np.uint16), 2, *odd))
    Image.fromarray(scene()).save(tmp_path / "b.tif", compression="tiff_lzw")
    whole = (tmp_path / "b.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        at = file.pages.first.dataoffsets[0]
    (tmp_path / "b.tif").write_bytes(whole[: at + 40] + b"\xff" * 90 + whole[at + 130 :])
    script = (
        "import sys; from hbr.image import read_photo, PhotoError\n"
        "for name in sys.argv[1:]:\n"
        "    try: read_photo(name)\n"
        "    except PhotoError: pass\n"
        "print('own words', file=sys.stderr)"
    )
    names = [str(tmp_path / name) for name in ("a.png", "b.tif")]
    run = subprocess.run([sys.executable, "-c", script, *names], capture_output=True, text=True)
    lines = [line for line in run.stderr.splitlines() if "its data are corrupt" not in line]
    assert lines == ["own words"]


def test_the_deflate_checksum_is_what_proves_pixels(scene, raw_png):
    """A wrong checksum of the chunk over pixels that are wrong too is no formality."""
    data = raw_png(scene(), 2)
    at = data.index(b"IDAT") + 4
    packed = bytearray(data[at:-16])
    packed[-1] ^= 1  # zlib's checksum
    assert zlib.crc32(bytes(packed))
    with pytest.raises(PhotoError, match="checksums do not match"):
        pixels_of(data[:at] + bytes(packed) + data[-16:])
