"""PNG: the 16-bit kinds that Pillow cannot read, and a writer for both depths.

Source: Portable Network Graphics (Third Edition), W3C.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from hbr.image.pixels import strips

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2))


class PngError(ValueError):
    """A file that is not what its header promises."""


def chunks(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """(type, content) of every chunk, to IEND; `PngError` if one is cut short or damaged."""
    at = len(SIGNATURE)
    while True:
        if at + 12 > len(data):
            raise PngError("it ends too early")
        (length,) = struct.unpack_from(">I", data, at)
        end = at + 12 + length
        if end > len(data):
            raise PngError("it ends too early")
        (crc,) = struct.unpack_from(">I", data, end - 4)
        if zlib.crc32(data[at + 4 : end - 4]) != crc:
            raise PngError("its checksums do not fit")
        kind = bytes(data[at + 4 : at + 8])
        yield kind, data[at + 8 : end - 4]
        if kind == b"IEND":
            return
        at = end


def decode_deep(data: bytes) -> np.ndarray:
    """A 16-bit PNG → [h, w, c] uint16, c = 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.

    Every byte is accounted for before libpng sees it, since libpng reports to the terminal.

    Raises:
        PngError: the file is damaged, cut short, or holds less than its header promises.
    """
    import cv2

    key = None
    unpacked = 0
    inflate = zlib.decompressobj()
    for kind, content in chunks(memoryview(data)):
        if kind == b"IHDR":
            width, height, _, colour, _, _, interlaced = struct.unpack(">IIBBBBB", content)
        elif kind == b"tRNS" and colour in (0, 2):
            key = np.frombuffer(content, ">u2").astype(np.uint16)
        elif kind == b"IDAT":
            rest = bytes(content)
            while rest:
                unpacked += len(inflate.decompress(rest, 1 << 20))
                rest = inflate.unconsumed_tail
    if unpacked < _raw_size(width, height, CHANNELS[colour] * 2, bool(interlaced)):
        raise PngError("it holds less than its header promises")
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None or found.dtype != np.uint16 or found.shape[:2] != (height, width):
        raise PngError("it cannot be decoded")
    if colour in (0, 4):
        parts = [found if found.ndim == 2 else found[..., 0]]
        if colour == 4:
            parts.append(found[..., 3])
    else:
        parts = [found[..., i] for i in (2, 1, 0, 3)[: 4 if colour == 6 else 3]]
    if key is not None and len(key) == len(parts):
        hidden = np.all([part == k for part, k in zip(parts, key, strict=True)], axis=0)
        parts.append(np.where(hidden, 0, 65535).astype(np.uint16))
    return np.stack(parts, axis=-1)


def _raw_size(width: int, height: int, pixel: int, interlaced: bool) -> int:
    if not interlaced:
        return height * (1 + width * pixel)
    total = 0
    for x, y, dx, dy in (*_ADAM7, (0, 1, 1, 2)):
        columns, rows = -(-(width - x) // dx), -(-(height - y) // dy)
        if columns > 0 and rows > 0:
            total += rows * (1 + columns * pixel)
    return total


def encode(
    array: np.ndarray,
    *,
    compression: int = 6,
    icc: bytes | None = None,
    exif: bytes | None = None,
    xmp: bytes | None = None,
    dpi: tuple[float, float] | None = None,
) -> bytes:
    """[h, w, c] uint8 or uint16 (c = 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha) → PNG.

    Args:
        array: the pixels.
        compression: zlib's level, 0 to 9.
        icc: a profile; exif: bare EXIF; xmp: an XMP packet; dpi: dots per inch (x, y).
    """
    height, width, n = array.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[n]
    out = [
        SIGNATURE,
        _chunk(
            b"IHDR", struct.pack(">IIBBBBB", width, height, array.itemsize * 8, colour, 0, 0, 0)
        ),
    ]
    if icc:
        out.append(_chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc)))
    if dpi:
        x, y = (round(v / 0.0254) for v in dpi)
        out.append(_chunk(b"pHYs", struct.pack(">IIB", x, y, 1)))
    if exif:
        out.append(_chunk(b"eXIf", exif))
    if xmp:
        out.append(_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp))
    packer = zlib.compressobj(compression)
    above = np.zeros((1, width * n * array.itemsize), np.uint8)
    for rows in strips(height, width):
        strip = np.ascontiguousarray(array[rows])
        raw = strip.astype(strip.dtype.newbyteorder(">"), copy=False).view(np.uint8)
        raw = raw.reshape(len(strip), -1)
        packed = packer.compress(_filtered(raw, above, n * array.itemsize, compression))
        above = raw[-1:]
        out.extend([_chunk(b"IDAT", packed)] if packed else [])
    return b"".join([*out, _chunk(b"IDAT", packer.flush()), _chunk(b"IEND", b"")])


def _chunk(kind: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(content, zlib.crc32(kind))
    return b"".join([struct.pack(">I", len(content)), kind, content, struct.pack(">I", crc)])


def _filtered(raw: np.ndarray, above: np.ndarray, pixel: int, compression: int) -> Any:
    """Rows [r, bytes] → bytes with a filter type before each, the filter by least absolute sum."""
    if compression == 0:
        return np.pad(raw, ((0, 0), (1, 0))).tobytes()
    up = np.concatenate([above, raw[:-1]])
    left = np.pad(raw, ((0, 0), (pixel, 0)))[:, : raw.shape[1]]
    corner = np.pad(up, ((0, 0), (pixel, 0)))[:, : raw.shape[1]]
    a, b, c = (v.astype(np.int16) for v in (left, up, corner))
    to_a, to_b, to_c = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    nearest = np.where((to_a <= to_b) & (to_a <= to_c), left, np.where(to_b <= to_c, up, corner))
    best = np.zeros((len(raw), raw.shape[1] + 1), np.uint8)
    least = np.full(len(raw), np.iinfo(np.int64).max)
    for kind, guess in ((0, None), (1, left), (2, up), (4, nearest)):
        row = raw if guess is None else raw - guess
        cost = np.abs(row.view(np.int8).astype(np.int16)).sum(axis=1, dtype=np.int64)
        better = cost < least
        least[better] = cost[better]
        best[better, 0] = kind
        best[better, 1:] = row[better]
    return best.tobytes()
