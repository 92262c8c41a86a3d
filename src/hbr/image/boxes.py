"""The boxes of AVIF and HEIF: what they say of the main picture's colours and depth.

Source: ISO/IEC 14496-12 (8.11, 12.1.5) and 23008-12 (6.5, 9.3).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from hbr.image.colorimetry import Signals

Properties = list[tuple[bytes, bytes]]
"""Kind and content of the properties of an item."""


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, content) of the boxes that follow one another; ends where they make no sense."""
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if size == 1 and at + 16 <= len(data):
            (size,) = struct.unpack_from(">Q", data, start)
            start += 8
        end = len(data) if size == 0 else at + size
        if end < start or end > len(data):
            return
        yield kind, data[start:end]
        at = end


def meta_boxes(data: bytes) -> dict[bytes, bytes]:
    """The boxes in the meta box of a file, by kind."""
    meta = next((content for kind, content in boxes(data) if kind == b"meta"), b"")
    return dict(boxes(meta[4:]))


def main_properties(data: bytes) -> Properties:
    """The properties of the main picture of a file; none if the file makes no sense."""
    parts = meta_boxes(data)
    inside = dict(boxes(parts.get(b"iprp", b"")))
    known = list(boxes(inside.get(b"ipco", b"")))
    try:
        pitm = parts[b"pitm"]
        (main,) = struct.unpack_from(">H" if pitm[:1] == b"\0" else ">I", pitm, 4)
        numbers = next(n for item, n in _associations(inside[b"ipma"]) if item == main)
    except (KeyError, StopIteration, struct.error):
        return []
    return [known[n - 1] for n in numbers if 0 < n <= len(known)]


def _associations(ipma: bytes) -> Iterator[tuple[int, list[int]]]:
    """(item, numbers of its properties, counted from 1)."""
    wide_items, wide_numbers = ipma[0] > 0, ipma[3] & 1
    (count,) = struct.unpack_from(">I", ipma, 4)
    at = 8
    for _ in range(count):
        (item,) = struct.unpack_from(">I" if wide_items else ">H", ipma, at)
        at += 4 if wide_items else 2
        (n,) = struct.unpack_from("B", ipma, at)
        at += 1
        form = f">{n}H" if wide_numbers else f"{n}B"
        # the highest bit says whether the property is essential
        yield (
            item,
            [v & (0x7FFF if wide_numbers else 0x7F) for v in struct.unpack_from(form, ipma, at)],
        )
        at += struct.calcsize(form)


def box_signals(properties: Properties) -> Signals:
    """What the colour boxes of a picture say; a profile counts before code points."""
    icc, cicp = None, None
    for kind, content in properties:
        if kind == b"colr" and content[:4] in (b"prof", b"rICC"):
            icc = content[4:]
        elif kind == b"colr" and content[:4] == b"nclx" and len(content) >= 11:
            primaries, transfer = struct.unpack_from(">HH", content, 4)
            # the decoder has undone a narrow range together with YCbCr
            cicp = (primaries, transfer, True)
    return Signals(icc=icc, cicp=cicp)


def bit_depth(properties: Properties) -> int:
    """Bits of a sample; 8 if the file does not say."""
    found = dict(properties)
    if len(found.get(b"pixi", b"")) > 5:
        return found[b"pixi"][5]
    configuration = found.get(b"av1C", b"")
    if len(configuration) > 2 and configuration[2] & 0x40:
        return 12 if configuration[2] & 0x20 else 10
    return 8
