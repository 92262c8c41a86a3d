"""The directories of a TIFF or BigTIFF as EXIF: read entry by entry, and written as classic TIFF.

Source: TIFF Revision 6.0, Adobe 1992; BigTIFF as in LibTIFF 4.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

from hbr.image.metadata import ByteOrder

SUB_DIRECTORIES = (0x8769, 0x8825, 0xA005)
# Tags of the layout of the pixels, which are not copied to another file; the last are orientation,
# ICC profile and XMP, which have ways of their own.
LAYOUT = frozenset({254, 255, *range(256, 267), 273, *range(277, 285), 288, 289, 290, 291, 296})
LAYOUT |= {301, 317, 318, 319, 320, *range(322, 326), 330, *range(338, 343), 347, *range(512, 533)}
LAYOUT |= {274, 34675, 700}
# bytes of a value, by type
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_LONG_SIZES = {16: "Q", 17: "q", 18: "Q"}
_MOST_ENTRIES, _MOST_BYTES = 4096, 32 << 20


@dataclass(frozen=True, kw_only=True)
class TagEntry:
    """An entry of a directory: a tag, and its values in the byte order of the file."""

    tag: int
    kind: int
    count: int
    data: bytes
    inner: list[TagEntry] = field(default_factory=list)


def read_directory(
    file: BinaryIO, wanted: Callable[[int], bool]
) -> tuple[list[TagEntry], ByteOrder]:
    """The entries of the first directory of a TIFF, with those of EXIF, GPS and interoperability.

    Entries that lie outside the file, or are of an unknown type, are left out.

    `wanted` decides whether the value of a tag of the first directory is read.
    """
    file.seek(0)
    head = file.read(16)
    order: ByteOrder = "<" if head[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", head, 2)[0] == 43
    (at,) = struct.unpack_from(order + ("Q" if big else "I"), head, 8 if big else 4)
    return _read(file, order, big, at, wanted, depth=0), order


def _read(
    file: BinaryIO, order: ByteOrder, big: bool, at: int, wanted: Callable[[int], bool], depth: int
) -> list[TagEntry]:
    file.seek(at)
    (n,) = struct.unpack(order + ("Q" if big else "H"), file.read(8 if big else 2))
    size = 20 if big else 12
    raw = file.read(size * min(n, _MOST_ENTRIES))
    found = []
    for place in range(0, len(raw) - size + 1, size):
        tag, kind = struct.unpack_from(order + "HH", raw, place)
        (count,) = struct.unpack_from(order + ("Q" if big else "I"), raw, place + 4)
        if not wanted(tag):
            continue
        value = raw[place + (12 if big else 8) : place + size]
        entry = _entry(file, order, (tag, kind, count), value)
        if entry is not None and tag in SUB_DIRECTORIES:
            if depth < 2:
                below = int.from_bytes(entry.data, "little" if order == "<" else "big")
                inner = _read(file, order, big, below, lambda tag: True, depth + 1)
                found.append(TagEntry(tag=tag, kind=4, count=1, data=b"", inner=inner))
        elif entry is not None:
            found.append(entry)
    return found


def _entry(
    file: BinaryIO, order: ByteOrder, head: tuple[int, int, int], value: bytes
) -> TagEntry | None:
    tag, kind, count = head
    size = (8 if kind in _LONG_SIZES else _SIZES.get(kind, 0)) * count
    if not 0 < size <= _MOST_BYTES:
        return None
    if size > len(value):
        file.seek(struct.unpack(order + ("Q" if len(value) == 8 else "I"), value)[0])
        value = file.read(size)
    data = value[:size]
    if len(data) < size:
        return None
    if kind not in _LONG_SIZES:
        return TagEntry(tag=tag, kind=kind, count=count, data=data)
    numbers = struct.unpack(f"{order}{count}{_LONG_SIZES[kind]}", data)
    try:
        return TagEntry(
            tag=tag, kind=4, count=count, data=struct.pack(f"{order}{count}I", *numbers)
        )
    except struct.error:
        return None


def exif_of(entries: list[TagEntry], order: ByteOrder) -> bytes:
    """A classic TIFF structure of the entries, without pixels."""
    return (
        (b"II*\0" if order == "<" else b"MM\0*")
        + struct.pack(order + "I", 8)
        + _written(entries, order, 8)
    )


def _written(entries: list[TagEntry], order: ByteOrder, at: int) -> bytes:
    """A directory that begins at `at`, followed by what does not fit into it."""
    entries = sorted({entry.tag: entry for entry in entries}.values(), key=lambda entry: entry.tag)
    table, behind = struct.pack(order + "H", len(entries)), b""
    start = at + 2 + 12 * len(entries) + 4
    for entry in entries:
        place = start + len(behind)
        table += struct.pack(order + "HHI", entry.tag, entry.kind, entry.count)
        if entry.inner or entry.tag in SUB_DIRECTORIES:
            table += struct.pack(order + "I", place)
            behind += _written(entry.inner, order, place)
        elif len(entry.data) <= 4:
            table += entry.data.ljust(4, b"\0")
        else:
            table += struct.pack(order + "I", place)
            behind += entry.data
        behind += b"\0" * (len(behind) % 2)
    return table + b"\0" * 4 + behind
