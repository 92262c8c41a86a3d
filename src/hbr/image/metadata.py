"""Metadata as bytes: the structure of EXIF, orientations, and what is stored in a file.

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
ORIENTATION, EXIF_IFD = 0x0112, 0x8769
SHORT, LONG = 3, 4
ByteOrder = Literal["<", ">"]
XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:\s*=\s*[\"']|>)\s*)([1-8])")


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
        if tag == ORIENTATION and kind == SHORT:
            (value,) = struct.unpack_from(order + "H", exif, position)
            return value if 1 <= value <= 8 else None
    return None


def xmp_orientation(xmp: bytes) -> int | None:
    """1 to 8, or None if the XMP has none."""
    found = XMP_ORIENTATION.search(xmp)
    return int(found[2]) if found else None


@dataclass(frozen=True, kw_only=True)
class StoredMetadata:
    """The metadata of a file as stored.

    Attributes:
        exif: EXIF, also with its prefix.
        xmp: the XMP packet.
        dpi: (x, y) in dots per inch, in whatever form the file has it.
        orientation: 1 to 8 as in EXIF, where it is stored elsewhere than in EXIF or XMP.
        photoshop: Photoshop's image resources, IPTC among them.
        comments: of a JPEG.
        texts: keywords and texts of a PNG.
        icc: a profile in a text of a PNG.
        lost: kinds of metadata and further pictures that cannot be kept.
    """

    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: Any = None
    orientation: int | None = None
    photoshop: bytes | None = None
    comments: tuple[bytes, ...] = ()
    texts: tuple[tuple[str, str], ...] = ()
    icc: bytes | None = None
    lost: tuple[str, ...] = ()


def usable_dpi(dpi: Any) -> tuple[float, float] | None:
    """A pair of positive, finite numbers as floats, or None for anything else."""
    try:
        x, y = (float(v) for v in dpi)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    # NaN fails every comparison; 65535 is the largest value in JPEG.
    usable = all(math.isfinite(v) and 0.5 <= v <= 65535 for v in (x, y))
    return (x, y) if usable else None
