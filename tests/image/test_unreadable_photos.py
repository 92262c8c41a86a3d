"""Every bad file ends in one line of `PhotoError`; no other exception, no memory blown."""

import contextlib
import dataclasses
import io
import os
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from hbr.image import Photo, PhotoError, read_photo, write_photo
from hbr.image.formats import READERS


def line_of(source, **options) -> str:
    with pytest.raises(PhotoError) as caught:
        read_photo(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    name, _, rest = message.partition(": ")
    assert name
    assert ";" in rest or "," in rest, f"says what is wrong but not what to do: {message}"
    return message


def test_missing_empty_folder_text_and_others(tmp_path):
    assert "does not exist" in line_of(tmp_path / "none.jpg")
    assert "is a folder" in line_of(tmp_path)
    (tmp_path / "empty.jpg").touch()
    assert "is empty" in line_of(tmp_path / "empty.jpg")
    (tmp_path / "text.jpg").write_text("This is not a photograph. " * 9)
    assert "is not a photograph" in line_of(tmp_path / "text.jpg")
    assert "may" in line_of("bad\0name.jpg") or "cannot be opened" in line_of("bad\0name.jpg")
    assert "text.jpg" in line_of(tmp_path / "text.jpg" / "below.jpg")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.jpg")
        assert "not a regular file" in line_of(tmp_path / "pipe.jpg")


def test_names_that_terminals_cannot_show(tmp_path):
    assert "two\\nlines" in line_of(tmp_path / "two\nlines.jpg")
    line_of(os.fsdecode(b"not-utf8-\xff.jpg")).encode("utf-8")


def test_other_formats_are_named(save, scene):
    assert "GIF" in line_of(save(Image.fromarray(scene()).quantize(8), "a.gif"))
    frames = [Image.fromarray(np.full((9, 9, 3), v, np.uint8)) for v in (0, 99, 200)]
    gif = save(frames[0], "b.gif", save_all=True, append_images=frames[1:])
    assert "GIF" in line_of(gif)
    assert "JPEG 2000" in line_of(save(scene(), "a.jp2"))
    assert "Photoshop" in line_of(io.BytesIO(b"8BPS\0\1" + b"\0" * 90))


@pytest.mark.parametrize(
    ("kind", "head", "extra"),
    [
        ("HEIC", b"\0\0\0\x18ftypheic\0\0\0\0", "hbr[heic]"),
        ("JPEG XL", b"\xff\x0a\0\0", "hbr[jxl]"),
    ],
)
def test_formats_of_extras(monkeypatch, kind, head, extra):
    assert "cannot be decoded" in line_of(io.BytesIO(head + b"\0" * 90))
    monkeypatch.delitem(READERS, kind)
    message = line_of(io.BytesIO(head + b"\0" * 90))
    assert f"is a {kind} file; pip install '{extra}' to read it, or save it as" in message


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.avif", "a.tif"])
def test_animations_and_many_pages(save, name):
    frames = [Image.fromarray(np.full((32, 32, 3), v, np.uint8)) for v in (0, 99, 200)]
    path = save(frames[0], name, save_all=True, append_images=frames[1:])
    assert ("pages" if name == "a.tif" else "animation") in line_of(path)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp", "a.avif", "a.bmp"])
def test_truncated(scene, save, name):
    path = save(scene(200, 300), name)
    whole = path.read_bytes()
    for part in (0.05, 0.5, 0.9):
        path.write_bytes(whole[: int(len(whole) * part)])
        line_of(path)


def test_truncated_or_lying_deep_files(scene, raw_png, tmp_path):
    data = raw_png(scene(dtype=np.uint16), 2)
    for part in (0.1, 0.5, 0.95):
        assert "too early" in line_of(io.BytesIO(data[: int(len(data) * part)]))
    broken = bytearray(data)
    broken[len(data) // 2] ^= 1
    assert "checksum" in line_of(io.BytesIO(bytes(broken)))
    taller = raw_png(scene(dtype=np.uint16), 2, size=(96, 64))
    assert "less data than its header declares" in line_of(io.BytesIO(taller))
    for compression in (None, "zlib"):
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, scene(dtype=np.uint16), compression=compression, metadata=None)
        # tifffile puts the pixels last
        path.write_bytes(path.read_bytes()[:-200])
        assert "too early" in line_of(path)


def test_tiffs_that_are_no_photographs(scene, tmp_path):
    path = tmp_path / "a.tif"
    nan = np.full((20, 30, 3), np.nan, np.float32)
    tifffile.imwrite(path, nan, photometric="rgb", metadata=None)
    assert "NaN" in line_of(path)
    one = (scene() / 255).astype(np.float32)
    one[3, 4, 1] = np.inf
    tifffile.imwrite(path, one, photometric="rgb", metadata=None)
    assert "not numbers" in line_of(path)
    tifffile.imwrite(path, scene().astype(np.float32), photometric="rgb", metadata=None)
    assert "floating-point values from" in line_of(path)
    tifffile.imwrite(path, scene().astype(np.uint32), photometric="rgb", metadata=None)
    assert "8 or 16 bits" in line_of(path)
    dng = [(50706, 1, 4, (1, 4, 0, 0), True)]
    tifffile.imwrite(path, scene(), photometric="rgb", extratags=dng, metadata=None)
    assert "raw" in line_of(path)


@pytest.mark.parametrize("kind", ["sound", "damaged", "packed"])
def test_a_bomb_is_refused_before_it_is_unpacked(chunk, tmp_path, kind):
    edge = 8 if kind == "packed" else 20000
    header = struct.pack(">IIBBBBB", edge, edge, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(500_000_000), 1) if kind == "packed" else b"x\x9c" + b"\0" * 99
    content = bytearray(chunk(b"IDAT", pixels))
    content[-1] ^= kind != "sound"
    path = tmp_path / "bomb.png"
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    path.write_bytes(start + content + chunk(b"IEND", b""))
    message = line_of(path)
    if kind == "packed":
        assert "its checksums do not match" in message
    else:
        assert "20000x20000" in message
        assert "--max-pixels" in message
    script = """
import resource, sys
from hbr.image import PhotoError, read_photo
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_photo(sys.argv[1])
except PhotoError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    run = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
    )
    assert int(run.stdout) < 50_000, "kilobytes; the pictures would take 0.5 and 1.2 million"


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp", "a.avif", "a.bmp"])
def test_the_limit_counts_pixels(save, scene, name):
    path = save(scene(40, 50), name)
    assert read_photo(path, max_pixels=2000).size == (40, 50)
    assert "above the limit" in line_of(path, max_pixels=1999)


def _sample(kind: str) -> bytes:
    buffer = io.BytesIO()
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112], exif[0x8769] = 3, {0xA002: 12}
    if kind.startswith("deep"):
        array = rng.integers(0, 65536, (10, 12, 4)).astype(np.uint16)
        kept = {"exif": exif.tobytes()[6:], "dpi": (72, 72), "xmp": b"<x/>"}
        photo = dataclasses.replace(Photo.from_array(array), **kept)
        with tempfile.TemporaryDirectory() as folder:
            return write_photo(photo, Path(folder) / "a", format=kind[5:]).read_bytes()
    image = Image.fromarray(rng.integers(0, 256, (10, 12, 3)).astype(np.uint8))
    image.save(buffer, kind, **({} if kind == "bmp" else {"exif": exif.tobytes()}))
    return buffer.getvalue()


SAMPLES = {
    kind: _sample(kind)
    for kind in ("jpeg", "png", "tiff", "webp", "avif", "bmp", "deep png", "deep tiff")
}


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_damage_never_ends_in_anything_but_a_photo_or_a_line(data):
    broken = bytearray(SAMPLES[data.draw(st.sampled_from(sorted(SAMPLES)))])
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(broken) - 1))
        broken[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del broken[data.draw(st.integers(1, len(broken))) :]
    with contextlib.suppress(PhotoError):
        assert isinstance(read_photo(io.BytesIO(bytes(broken)), max_pixels=1_000_000), Photo)
