import contextlib
import dataclasses
import errno
import hashlib
import io
import os
import signal
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hbr.image import WRITE_SUFFIXES, Photo, PhotoError, output_suffix, read_photo, write_photo
from hbr.image.metadata import byte_order


@settings(max_examples=120, deadline=None)
@given(st.data())
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_lossless_formats_lose_nothing(suffix, data):
    dtype = data.draw(st.sampled_from([np.uint8, np.uint16]))
    h, w = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    c = data.draw(st.integers(1, 4))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    array = rng.integers(0, np.iinfo(dtype).max + 1, (h, w, c)).astype(dtype)
    if data.draw(st.booleans()):
        array = np.sort(array, axis=1)  # smooth rows make other PNG filters win
    photo = Photo.from_array(array)
    with tempfile.TemporaryDirectory() as folder:
        path = write_photo(
            photo, Path(folder) / f"a{suffix}", png_compression=data.draw(st.integers(0, 9))
        )
        again = read_photo(path)
        if suffix == ".tif":  # and others can read it
            assert tifffile.imread(path).reshape(h, w, c).dtype == dtype
        else:
            with Image.open(path) as image:
                image.load()
                assert image.size == (w, h)
    assert (again.bits, again.mode) == (photo.bits, photo.mode)
    assert np.array_equal(again.pixels, photo.pixels)
    assert (again.alpha is None) == (photo.alpha is None)
    if c in (2, 4):
        assert np.array_equal(again.alpha, array[..., -1])
        shown = array[..., -1] > 0
        visible = array[shown][:, :3] if c == 4 else array[shown][:, [0, 0, 0]]
        assert np.array_equal(again.pixels[shown], visible)


def test_strips_of_large_files_fit_together(monkeypatch, scene, tmp_path):
    monkeypatch.setattr("hbr.image.pixels.STRIP_PIXELS", 64 * 5)  # 48 rows by fives
    for suffix in (".png", ".tif"):
        for dtype in (np.uint8, np.uint16):
            photo = Photo.from_array(scene(dtype=dtype))
            again = read_photo(write_photo(photo, tmp_path / f"a{suffix}"))
            assert np.array_equal(again.pixels, photo.pixels)


@pytest.mark.parametrize("suffix", sorted(WRITE_SUFFIXES))
def test_the_same_photo_gives_the_same_bytes(scene, camera_exif, tmp_path, suffix):
    photo = Photo.from_array(scene(200, 300, c=4))
    sums = {
        hashlib.sha256(write_photo(photo, tmp_path / f"{i}{suffix}").read_bytes()).hexdigest()
        for i in range(3)
    }
    assert len(sums) == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("c", [1, 2, 3, 4])
def test_png_says_the_same_at_both_depths(scene, camera_exif, chunks_of, tmp_path, dtype, c):
    xmp = "<x>Ångström</x>".encode()
    around = {"exif": camera_exif, "xmp": xmp, "dpi": (300.0, 150.0), "icc": b"a profile"}
    photo = dataclasses.replace(Photo.from_array(scene(c=c, dtype=dtype)), **around)
    found = chunks_of(write_photo(photo, tmp_path / "a.png").read_bytes())
    kinds = [kind for kind, _ in found]
    assert [*kinds[:5], kinds[-1]] == [b"IHDR", b"iCCP", b"iTXt", b"pHYs", b"eXIf", b"IEND"]
    assert set(kinds[5:-1]) == {b"IDAT"}
    said = dict(found)
    colour = (0, 4, 2, 6)[c - 1]
    assert said[b"IHDR"] == struct.pack(">IIBBBBB", 64, 48, photo.bits, colour, 0, 0, 0)
    assert zlib.decompress(said[b"iCCP"].partition(b"\0\0")[2]) == b"a profile"
    assert said[b"iTXt"] == b"XML:com.adobe.xmp\0\0\0\0\0" + xmp
    assert said[b"pHYs"] == struct.pack(">IIB", 11811, 5906, 1)
    assert said[b"eXIf"] == camera_exif


def next_directory(exif: bytes) -> int:
    order = byte_order(exif)
    (first,) = struct.unpack_from(order + "I", exif, 4)
    (n,) = struct.unpack_from(order + "H", exif, first)
    return struct.unpack_from(order + "I", exif, first + 2 + 12 * n)[0]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".avif"])
def test_what_came_with_the_photo_goes_with_it(
    scene, save, camera_exif, rgb_profile, tmp_path, suffix
):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6">Anna</a></x:xmpmeta>'
    source = save(
        scene(),
        "in.jpg",
        exif=b"Exif\0\0" + camera_exif,
        xmp=xmp,
        dpi=(240, 240),
        icc_profile=rgb_profile(),
        quality=95,
    )
    photo = read_photo(source)
    assert photo.size == (64, 48)
    assert next_directory(camera_exif) > 0
    assert next_directory(photo.exif) == 0, "the thumbnail of the old picture"
    larger = photo.with_pixels(np.full((1, 3, 128, 96), 0.5, np.float32))
    out = write_photo(larger, tmp_path / ("out" + suffix))
    with Image.open(out) as image:
        assert image.info["icc_profile"] == rgb_profile()
        exif = image.getexif()
        assert exif[0x010F] == "Hasselblad"
        assert exif.get(0x0112, 1) == 1
        inner = exif.get_ifd(0x8769)
        assert inner[0x927C] == b"maker note \x00\x01\x02"
        assert (inner[0xA002], inner[0xA003]) == (96, 128)
        assert exif.get_ifd(0x8825)[2] == (48.0, 8.0, 5.0)
        if suffix in (".jpg", ".png", ".tif"):
            assert image.info["dpi"] == pytest.approx((240, 240), abs=0.1)
    again = read_photo(out)
    assert again.xmp == xmp.replace(b'"6"', b'"1"')
    assert again.size == (128, 96)


@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_carries_exif_of_either_byte_order(scene, tmp_path, order):
    exif = Image.Exif()
    exif.endian = order
    exif[0x010F], exif[0x8769] = "Canon", {0x927C: b"m" * 50}
    bare = exif.tobytes().removeprefix(b"Exif\0\0")
    assert byte_order(bare) == order
    for dtype in (np.uint8, np.uint16):
        photo = Photo(pixels=scene(dtype=dtype), exif=bare)
        path = write_photo(photo, tmp_path / "a.tif")
        again = read_photo(path)
        assert np.array_equal(again.pixels, photo.pixels)
        assert path.read_bytes()[8 : len(bare)] == bare[8:], "offsets inside it stay right"
        with Image.open(path) as image:
            assert image.getexif()[0x010F] == "Canon"
            assert image.getexif().get_ifd(0x8769)[0x927C] == b"m" * 50


def test_the_layout_of_another_file_stays_behind(scene, tmp_path):
    exif = Image.Exif()
    exif[0x010F], exif[322], exif[323], exif[324] = "Canon", 16, 16, 8  # tiles, at byte 8
    photo = Photo(pixels=scene(), exif=exif.tobytes().removeprefix(b"Exif\0\0"))
    path = write_photo(photo, tmp_path / "a.tif")
    assert np.array_equal(read_photo(path).pixels, scene())
    with Image.open(path) as image:
        assert image.tag_v2[0x010F] == "Canon"
        assert not {322, 323, 324} & set(image.tag_v2)


def test_too_much_exif_for_jpeg_is_left_out(scene, camera_exif, tmp_path, caplog):
    photo = Photo(pixels=scene(), exif=camera_exif + b"\0" * 70000)
    with Image.open(write_photo(photo, tmp_path / "a.jpg")) as image:
        assert not image.getexif()
    assert "too large for JPEG" in caplog.text


@pytest.mark.parametrize("depth", [8, 16])
def test_png_files_of_photos_by_runs_alone_are_hardly_larger(depth, tmp_path):
    photo = read_photo(Path(__file__).parents[2] / "examples" / "lq" / "suit.jpg")
    if depth == 16:
        deep = photo.pixels.astype(np.uint16) * 257
        noise = np.random.default_rng(0).integers(-128, 128, deep.shape)
        photo = Photo.from_array(np.clip(deep + noise, 0, 65535).astype(np.uint16))
    fast, slow = (
        write_photo(photo, tmp_path / f"{level}.png", png_compression=level) for level in (4, 6)
    )
    assert fast.stat().st_size < 1.05 * slow.stat().st_size
    assert fast.read_bytes() != slow.read_bytes()
    for file in fast, slow:
        np.testing.assert_array_equal(read_photo(file).pixels, photo.pixels)
    if depth == 8:
        runs = io.BytesIO()
        Image.fromarray(photo.pixels).save(runs, "PNG", compress_level=4, compress_type=zlib.Z_RLE)
        assert fast.read_bytes().endswith(runs.getvalue().split(b"IDAT", 1)[1])


def test_quality_and_compression_are_honoured(scene, tmp_path):
    noisy = np.random.default_rng(0).normal(0, 12, (120, 160, 3)) + scene(120, 160)
    photo = Photo.from_array(np.clip(noisy, 0, 255).astype(np.uint8))
    for suffix in (".jpg", ".webp", ".avif"):
        sizes = [
            write_photo(photo, tmp_path / ("a" + suffix), quality=q).stat().st_size
            for q in (30, 70, 95)
        ]
        assert sizes[0] < sizes[1] < sizes[2]
    smooth = Photo.from_array(scene(120, 160))
    sizes = [
        write_photo(smooth, tmp_path / "a.png", png_compression=c).stat().st_size for c in (0, 1, 9)
    ]
    assert sizes[0] > sizes[1] >= sizes[2]
    for q, sampling in ((95, (1, 1)), (80, (2, 2))):
        with Image.open(write_photo(photo, tmp_path / "a.jpg", quality=q)) as image:
            assert image.layer[0][1:3] == sampling
    with pytest.raises(ValueError, match="quality"):
        write_photo(photo, tmp_path / "a.jpg", quality=0)


def test_format_by_suffix_or_by_name(scene, tmp_path):
    photo = Photo.from_array(scene())
    assert read_photo(write_photo(photo, tmp_path / "a.JPEG")).format == "jpeg"
    assert read_photo(write_photo(photo, tmp_path / "b.dat", format="png")).format == "png"
    assert read_photo(write_photo(photo, tmp_path / "b.png", format="tif")).format == "tiff"
    for path, format_ in (
        (tmp_path / "a.gif", None),
        (tmp_path / "a.png", "exe"),
        (tmp_path / "a", None),
    ):
        with pytest.raises(PhotoError, match="it may be one of"):
            write_photo(photo, path, format=format_)
    assert [output_suffix(f) for f in ("jpeg", "png", "tiff", "webp", "bmp", None, "gif")] == [
        ".jpg",
        ".png",
        ".tif",
        ".webp",
        ".bmp",
        ".png",
        ".png",
    ]
    assert read_photo(write_photo(photo, tmp_path / "new" / "folder" / "a.png")).size == (48, 64)


def test_sides_that_a_format_cannot_hold(tmp_path):
    photo = Photo.from_array(np.zeros((1, 70000, 3), np.uint8))
    for suffix in (".jpg", ".webp", ".avif"):
        with pytest.raises(PhotoError, match="too large"):
            write_photo(photo, tmp_path / ("a" + suffix))
    assert read_photo(write_photo(photo, tmp_path / "a.png")).size == (1, 70000)
    assert read_photo(write_photo(photo, tmp_path / "a.tif")).size == (1, 70000)
    for c in (1, 2, 3):
        long = Photo.from_array(np.zeros((1, 1_000_001, c), np.uint16))
        with pytest.raises(PhotoError, match="at most 1000000"):
            write_photo(long, tmp_path / "b.png")


def left_behind(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_place_that_is_none(scene, tmp_path):
    photo = Photo.from_array(scene())
    (tmp_path / "file").write_text("x")
    with pytest.raises(PhotoError, match="part of its path is a file"):
        write_photo(photo, tmp_path / "file" / "a.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(PhotoError, match="is a folder"):
        write_photo(photo, tmp_path / "folder.png")
    with pytest.raises(PhotoError, match="cannot be written"):
        write_photo(photo, tmp_path / ("n" * 300 + ".png"))
    assert left_behind(tmp_path) == ["file", "folder.png"]


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """A small file system of its own in `folder`, where this user may make one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        done = False
    if not done:
        pytest.skip("no right to mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_folder_that_may_not_be_written(scene, tmp_path):
    photo = Photo.from_array(scene())
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    if not os.access(locked, os.W_OK):
        with pytest.raises(PhotoError, match="that you may write to"):
            write_photo(photo, locked / "a.png")
        return
    # To root, permissions say nothing; a read-only disk does.
    with mounted(tmp_path / "disk", "ro,size=64k"):
        for path in ("a.png", "new/a.png"):
            with pytest.raises(PhotoError, match="that you may write to"):
                write_photo(photo, tmp_path / "disk" / path)


def test_links_are_followed_and_permissions_are_the_usual(scene, tmp_path):
    photo = Photo.from_array(scene())
    (tmp_path / "real.png").write_bytes(b"old")
    (tmp_path / "link.png").symlink_to("real.png")
    write_photo(photo, tmp_path / "link.png")
    assert (tmp_path / "link.png").is_symlink()
    assert read_photo(tmp_path / "real.png").size == (48, 64)
    (tmp_path / "plain").touch()
    fresh = write_photo(photo, tmp_path / "fresh.png")
    assert fresh.stat().st_mode == (tmp_path / "plain").stat().st_mode


FULL = """
import resource, signal, sys
import numpy as np
from hbr.image import Photo, PhotoError, write_photo
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
photo = Photo.from_array(np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8))
try:
    write_photo(photo, sys.argv[1])
except PhotoError as error:
    print(error)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="no file size limits here")
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_a_write_that_fails_half_way_leaves_the_old_file(tmp_path, suffix):
    target = tmp_path / f"a{suffix}"
    target.write_bytes(b"the old file")
    run = subprocess.run(
        [sys.executable, "-c", FULL, str(target)], capture_output=True, text=True, check=True
    )
    assert run.stdout.startswith(str(target))
    assert "cannot be written" in run.stdout
    assert run.stdout.count("\n") == 1
    assert run.stderr == ""
    assert left_behind(tmp_path) == [target.name]
    assert target.read_bytes() == b"the old file"


def test_a_full_disk(scene, tmp_path):
    disk = tmp_path / "disk"
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    with mounted(disk, "size=64k"):
        with pytest.raises(PhotoError, match="the disk is full; free some space") as caught:
            write_photo(Photo.from_array(noise), disk / "a.png")
        assert isinstance(caught.value.__cause__, OSError)
        assert caught.value.__cause__.errno == errno.ENOSPC
        assert left_behind(disk) == []
        write_photo(Photo.from_array(scene(8, 8)), disk / "small.png")


def test_an_interrupted_write_leaves_nothing(scene, tmp_path, monkeypatch):
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_photo(Photo.from_array(scene()), tmp_path / "a.png")
    assert left_behind(tmp_path) == []
