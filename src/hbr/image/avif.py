"""AVIF of 10 and 12 bits, which Pillow can neither read nor write, through OpenCV.

OpenCV writes no metadata. So Pillow writes a file of the same size with them, and the coded picture
in it is replaced. Source: ISO/IEC 14496-12, 8.11.3 (iloc), and 23008-12.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from hbr.image.boxes import boxes, meta_boxes
from hbr.image.pixels import full_range


def decode_deep(data: bytes, bits: int, size: tuple[int, int]) -> np.ndarray:
    """[h, w, c] uint16 of an AVIF of 10 or 12 bits.

    Raises:
        ValueError: OpenCV does not decode it.
    """
    import cv2

    found = cv2.imdecode(
        np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    )
    if found is None or found.dtype != np.uint16 or found.shape[:2] != size:
        raise ValueError("its 10 or 12 bits are not decoded")
    found = found.reshape(*size, -1)
    found = found[..., [0] if found.shape[2] == 1 else [2, 1, 0, 3][: found.shape[2]]]
    return full_range(found, bits)


def encode_deep(array: np.ndarray, around: bytes, bits: int, quality: int) -> bytes:
    """[h, w, 3 or 4] uint16 RGB or RGBA → AVIF of 10 or 12 bits.

    Args:
        around: an AVIF of the same size and kind, whose metadata are taken over.
        bits: 10 or 12.
        quality: 1 to 100.

    Raises:
        ValueError: OpenCV fails, or its file is laid out in another way.
    """
    import cv2

    white = (1 << bits) - 1
    small = ((array.astype(np.uint32) * white + 32767) // 65535).astype(np.uint16)
    order = cv2.COLOR_RGB2BGR if array.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
    settings = [cv2.IMWRITE_AVIF_DEPTH, bits, cv2.IMWRITE_AVIF_QUALITY, quality]
    done, coded = cv2.imencode(".avif", cv2.cvtColor(small, order), settings)
    if not done:
        raise ValueError("OpenCV cannot encode it")
    return _with_pictures(around, coded.tobytes())


def _with_pictures(around: bytes, coded: bytes) -> bytes:
    """A file with the coded pictures of another in place of its own."""
    old, new = dict(_pictures(around)), dict(_pictures(coded))
    places = list(_places(around))
    if sorted(old) != sorted(new) or not old:
        raise ValueError("its boxes are laid out in another way")
    out = bytearray(around[: around.index(b"mdat") - 4])
    body = b""
    for item, at, offset, length in places:
        content = new.get(item, around[offset : offset + length])
        struct.pack_into(">II", out, at, len(out) + 8 + len(body), len(content))
        body += content
    _take_over(out, coded)
    return bytes(out) + struct.pack(">I4s", len(body) + 8, b"mdat") + body


def _places(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """(item, where its offset stands in the file, offset, length); one extent for each item."""
    iloc = meta_boxes(data)[b"iloc"]
    start = data.index(b"iloc") + 4
    if iloc[0] != 0 or iloc[4:6] != b"\x44\x00":
        raise ValueError("its boxes are laid out in another way")
    (count,) = struct.unpack_from(">H", iloc, 6)
    for n in range(count):
        item, _, extents, offset, length = struct.unpack_from(">HHHII", iloc, 8 + 14 * n)
        if extents != 1:
            raise ValueError("its boxes are laid out in another way")
        yield item, start + 8 + 14 * n + 6, offset, length


def _pictures(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(item, coded data) of the picture and of its alpha."""
    kinds = {}
    for kind, content in boxes(meta_boxes(data)[b"iinf"][6:]):
        if kind == b"infe":
            kinds[struct.unpack_from(">H", content, 4)[0]] = content[8:12]
    for item, _, offset, length in _places(data):
        if kinds.get(item) == b"av01":
            yield item, data[offset : offset + length]


def _take_over(out: bytearray, coded: bytes) -> None:
    """Give the properties that tell the depth, and how RGB became YCbCr, those of `coded`."""
    for kind in (b"av1C", b"pixi", b"colrnclx"):
        here, there = -1, -1
        while True:
            here, there = out.find(kind, here + 1), coded.find(kind, there + 1)
            if here < 0 or there < 0:
                break
            size = int.from_bytes(out[here - 4 : here], "big")
            if size != int.from_bytes(coded[there - 4 : there], "big"):
                raise ValueError("its boxes are laid out in another way")
            if kind == b"colrnclx":  # matrix and range; the primaries are those of the photo
                out[here + 12 : here + size - 4] = coded[there + 12 : there + size - 4]
            else:
                out[here : here + size - 4] = coded[there : there + size - 4]
