"""What the tests of photographs share: pictures, and profiles and files made by hand."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

# Primaries adapted to D50 (columns of RGB to XYZ), from the published profiles.
ADOBE_RGB = [[0.60974, 0.31111, 0.01947], [0.20528, 0.62567, 0.06087], [0.14919, 0.06322, 0.74457]]
DISPLAY_P3 = [
    [0.51512, 0.24120, -0.00105],
    [0.29198, 0.69225, 0.04189],
    [0.15710, 0.06657, 0.78407],
]


@pytest.fixture
def scene() -> Callable[..., np.ndarray]:
    """A smooth coloured picture with an edge in it: [h, w, c] of a dtype; survives JPEG well."""

    def make(h: int = 48, w: int = 64, c: int = 3, dtype: type = np.uint8) -> np.ndarray:
        y, x = np.mgrid[0:h, 0:w] / max(h, w)
        planes = [0.2 + 0.6 * x, 0.8 - 0.5 * y, 0.5 + 0.3 * np.sin(5 * (x + y)), 0.3 + 0.5 * y]
        planes[0][h // 2 :, : w // 3] *= 0.5
        return np.rint(np.stack(planes[:c], -1) * np.iinfo(dtype).max).astype(dtype)

    return make


def _s15(values: list[float]) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(v * 65536) for v in values))


def _tag_table(tags: dict[bytes, bytes], space: bytes, to: bytes = b"XYZ ") -> bytes:
    table, body, at = [], b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        content += b"\0" * (-len(content) % 4)
        table.append(struct.pack(">4sII", name, at + len(body), len(content)))
        body += content
    kind = b"mntr" if to == b"XYZ " else b"prtr"
    size = at + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"\0" * 4, 0x02400000, kind, space, to)
    header += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28
    header += _s15([0.9642, 1.0, 0.8249])
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + b"".join(table) + body


def gamma_curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def parametric_srgb_curve() -> bytes:
    return (
        b"para\0\0\0\0"
        + struct.pack(">HH", 3, 0)
        + _s15([2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045])
    )


@pytest.fixture
def rgb_profile() -> Callable[..., bytes]:
    """An ICC profile of three primaries and one tone curve; Adobe RGB unless told otherwise."""

    def make(primaries: list[list[float]] = ADOBE_RGB, curve: bytes | None = None) -> bytes:
        curve = gamma_curve(2.19921875) if curve is None else curve
        tags = {b"wtpt": b"XYZ \0\0\0\0" + _s15([0.9642, 1.0, 0.8249])}
        tags |= {
            c + b"XYZ": b"XYZ \0\0\0\0" + _s15(p)
            for c, p in zip((b"r", b"g", b"b"), primaries, strict=True)
        }
        tags |= {c + b"TRC": curve for c in (b"r", b"g", b"b")}
        return _tag_table(tags, b"RGB ")

    return make


@pytest.fixture
def p3_profile(rgb_profile: Callable[..., bytes]) -> bytes:
    return rgb_profile(DISPLAY_P3, parametric_srgb_curve())


@pytest.fixture
def grey_profile() -> bytes:
    """Linear light to the power of 1.4: far from sRGB's curve."""
    tags = {
        b"wtpt": b"XYZ \0\0\0\0" + _s15([0.9642, 1.0, 0.8249]),
        b"kTRC": gamma_curve(1.4),
    }
    return _tag_table(tags, b"GRAY")


@pytest.fixture
def ink_profile() -> bytes:
    """CMYK of odd inks: paper is white, the "cyan" ink is red, all others are black."""
    corners = np.full((2, 2, 2, 2, 3), (0, 128, 128), np.uint8)  # L, a + 128, b + 128
    corners[0, 0, 0, 0] = 255, 128, 128
    corners[1, 0, 0, 0] = 136, 128 + 80, 128 + 67  # sRGB (255, 0, 0)
    straight = bytes(range(256))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + _s15([1, 0, 0, 0, 1, 0, 0, 0, 1])
    lut += straight * 4 + corners.tobytes() + straight * 3
    white = b"XYZ \0\0\0\0" + _s15([0.9642, 1.0, 0.8249])
    return _tag_table({b"wtpt": white, b"A2B0": lut, b"A2B1": lut}, b"CMYK", b"Lab ")


@pytest.fixture
def seen() -> Callable[[Image.Image], np.ndarray]:
    """The colours of a file as LittleCMS shows them through its profile: [h, w, 3] uint8 sRGB."""

    def look(image: Image.Image) -> np.ndarray:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        shown = ImageCms.profileToProfile(
            image,
            profile,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
        )
        return np.asarray(shown)

    return look


def png_chunk(kind: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


@pytest.fixture
def raw_png() -> Callable[..., bytes]:
    """A PNG put together by hand, so that the reader is not judged by our own writer."""

    def make(
        array: np.ndarray, colour: int, *extra: bytes, size: tuple[int, int] | None = None
    ) -> bytes:
        h, w = size or array.shape[:2]
        big = array.astype(array.dtype.newbyteorder(">"))
        rows = b"".join(b"\0" + row.tobytes() for row in big)
        header = struct.pack(">IIBBBBB", w, h, array.itemsize * 8, colour, 0, 0, 0)
        return b"".join(
            [
                b"\x89PNG\r\n\x1a\n",
                png_chunk(b"IHDR", header),
                *extra,
                png_chunk(b"IDAT", zlib.compress(rows)),
                png_chunk(b"IEND", b""),
            ]
        )

    return make


@pytest.fixture
def chunk() -> Callable[[bytes, bytes], bytes]:
    return png_chunk


@pytest.fixture
def chunks_of() -> Callable[[bytes], list[tuple[bytes, bytes]]]:
    """(type, content) of every chunk of a PNG, each checksum checked."""

    def split(data: bytes) -> list[tuple[bytes, bytes]]:
        found, at = [], 8
        while at < len(data):
            (length,) = struct.unpack_from(">I", data, at)
            found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
            assert png_chunk(*found[-1]) == data[at : at + 12 + length]
            at += 12 + length
        return found

    return split


@pytest.fixture
def camera_exif() -> bytes:
    """EXIF of a camera with orientation 6, a size, a maker note, and a linked thumbnail."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0112], exif[0x9003] = "Hasselblad", 6, "2024:05:06 07:08:09"
    exif[0x8769] = {0xA002: 64, 0xA003: 48, 0x927C: b"maker note \x00\x01\x02", 0x829D: 2.8}
    exif[0x8825] = {1: "N", 2: (48.0, 8.0, 5.0)}
    data = bytearray(exif.tobytes().removeprefix(b"Exif\0\0"))
    order = "<" if data[:2] == b"II" else ">"
    (first,) = struct.unpack_from(order + "I", data, 4)
    (n,) = struct.unpack_from(order + "H", data, first)
    struct.pack_into(order + "I", data, first + 2 + 12 * n, len(data))
    thumbnail = struct.pack(order + "HHHIHHI", 1, 0x0103, 3, 1, 6, 0, 0)
    return bytes(data) + thumbnail


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Save an array or PIL image with Pillow, under a name, and give the path."""

    def write(image: np.ndarray | Image.Image, name: str, **options: object) -> Path:
        if isinstance(image, np.ndarray):
            image = Image.fromarray(image)
        image.save(tmp_path / name, **options)
        return tmp_path / name

    return write
