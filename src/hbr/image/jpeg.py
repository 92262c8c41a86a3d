"""The marker segments of a JPEG.

Source: ITU-T T.81, annex B.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NOT_ENTROPY = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


@dataclass(frozen=True)
class Segment:
    """A marker segment of a JPEG.

    Attributes:
        marker: its second byte.
        start: of the marker.
        end: of the segment, without the coded data that may follow.
    """

    marker: int
    start: int
    end: int


def jpeg_segments(data: bytes) -> tuple[list[Segment], int | None]:
    """The marker segments, and where the end marker ends; None if there is none.

    Corrupt data may look like a marker, so one that leads out of the file counts only in the head.
    """
    segments: list[Segment] = []
    at = 2
    last = len(data) if data.endswith(b"\xff\xd9") else None
    in_scan = False
    while True:
        at = data.find(b"\xff", at)
        while 0 <= at < len(data) - 1 and data[at + 1] == 0xFF:  # fill bytes
            at += 1
        if at < 0 or at + 2 > len(data):
            return segments, last
        marker = data[at + 1]
        if marker == 0xD9:
            return segments, at + 2
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8 or at + 4 > len(data):
            at += 2
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if end > len(data) and in_scan:
            at += 2
            continue
        segments.append(Segment(marker, at, min(end, len(data))))
        if end > len(data):
            return segments, last
        at = end
        if marker == 0xDA:
            in_scan = True
            found = _NOT_ENTROPY.search(data, at)
            at = found.start() if found else len(data)


def with_segments(data: bytes, added: list[tuple[int, bytes]]) -> bytes:
    """A JPEG with further segments (marker and content) behind those of applications."""
    at = 2
    for segment in jpeg_segments(data)[0]:
        if not 0xE0 <= segment.marker <= 0xEF:
            break
        at = segment.end
    parts = [
        b"\xff" + bytes([marker]) + (len(content) + 2).to_bytes(2, "big") + content
        for marker, content in added
    ]
    return data[:at] + b"".join(parts) + data[at:]
