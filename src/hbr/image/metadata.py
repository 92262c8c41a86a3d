"""EXIF and XMP as bytes, changed in place: maker notes and unknown tags keep their offsets.

EXIF here is the bare TIFF structure, without the "Exif" prefix of JPEG.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

EXIF_PREFIX = b"Exif\x00\x00"
ORIENTATION, EXIF_IFD, WIDTH, HEIGHT = 0x0112, 0x8769, 0xA002, 0xA003
_SHORT, _LONG = 3, 4
ByteOrder = Literal["<", ">"]
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:\s*=\s*[\"']|>)\s*)([1-8])")


def bare_exif(exif: bytes | None) -> bytes | None:
    """EXIF bytes without prefix, or None if they are not a TIFF structure with a directory."""
    if not exif:
        return None
    exif = exif.removeprefix(EXIF_PREFIX)
    order = byte_order(exif)
    if order is None or not 8 <= struct.unpack_from(order + "I", exif, 4)[0] <= len(exif) - 2:
        return None
    return exif


def byte_order(exif: bytes) -> ByteOrder | None:
    """`<` or `>` for a classic TIFF structure, None for anything else."""
    if len(exif) < 10:
        return None
    orders: dict[bytes, ByteOrder] = {b"II*\x00": "<", b"MM\x00*": ">"}
    return orders.get(exif[:4])


def entries(exif: bytes, order: str, offset: int) -> Iterator[tuple[int, int, int, int]]:
    """(tag, type, count, position of the value field) of the directory at `offset`."""
    if not 8 <= offset <= len(exif) - 2:
        return
    (n,) = struct.unpack_from(order + "H", exif, offset)
    for position in range(offset + 2, min(offset + 2 + 12 * n, len(exif) - 11), 12):
        yield (*struct.unpack_from(order + "HHI", exif, position), position + 8)


def exif_orientation(exif: bytes) -> int | None:
    """1 to 8, or None if the EXIF has none."""
    order = byte_order(exif) or "<"
    (first,) = struct.unpack_from(order + "I", exif, 4)
    for tag, kind, _, position in entries(exif, order, first):
        if tag == ORIENTATION and kind == _SHORT:
            (value,) = struct.unpack_from(order + "H", exif, position)
            return value if 1 <= value <= 8 else None
    return None


def upright_exif(exif: bytes) -> bytes:
    """The same EXIF with orientation 1, and its thumbnail removed."""
    order = byte_order(exif) or "<"
    data = bytearray(exif)
    (first,) = struct.unpack_from(order + "I", data, 4)
    for tag, kind, _, position in entries(exif, order, first):
        if tag == ORIENTATION and kind == _SHORT:
            struct.pack_into(order + "H", data, position, 1)
    (n,) = struct.unpack_from(order + "H", data, first)
    link = first + 2 + 12 * n
    if link + 4 <= len(data):
        struct.pack_into(order + "I", data, link, 0)
    return bytes(data)


def resized_exif(exif: bytes, height: int, width: int) -> bytes:
    """The same EXIF with the size of the image, if it states one, updated."""
    order = byte_order(exif) or "<"
    data = bytearray(exif)
    (first,) = struct.unpack_from(order + "I", data, 4)
    for tag, kind, _, position in entries(exif, order, first):
        if tag != EXIF_IFD or kind != _LONG:
            continue
        (inner,) = struct.unpack_from(order + "I", data, position)
        for sub_tag, sub_kind, _, at in entries(exif, order, inner):
            if sub_tag not in (WIDTH, HEIGHT):
                continue
            value = width if sub_tag == WIDTH else height
            if sub_kind == _LONG:
                struct.pack_into(order + "I", data, at, value)
            elif sub_kind == _SHORT:
                struct.pack_into(order + "H", data, at, min(value, 65535))
    return bytes(data)


def xmp_orientation(xmp: bytes) -> int | None:
    """1 to 8, or None if the XMP has none."""
    found = _XMP_ORIENTATION.search(xmp)
    return int(found[2]) if found else None


def upright_xmp(xmp: bytes) -> bytes:
    """The same XMP with orientation 1."""
    return _XMP_ORIENTATION.sub(rb"\g<1>1", xmp)


@dataclass(frozen=True, kw_only=True)
class StoredMetadata:
    """The metadata of a file as stored.

    Attributes:
        exif: EXIF, also with its prefix.
        xmp: the XMP packet.
        dpi: (x, y) in dots per inch, in whatever form the file has it.
        orientation: 1 to 8 as in EXIF, where it stands elsewhere than in EXIF or XMP.
    """

    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: Any = None
    orientation: int | None = None


def usable_dpi(dpi: Any) -> tuple[float, float] | None:
    """A pair of positive, finite numbers as floats, or None for anything else."""
    try:
        x, y = (float(v) for v in dpi)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    # NaN fails every comparison; 65535 is the largest value in JPEG.
    usable = all(math.isfinite(v) and 0.5 <= v <= 65535 for v in (x, y))
    return (x, y) if usable else None
