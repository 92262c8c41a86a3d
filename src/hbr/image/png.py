"""PNG: the 16-bit kinds, which Pillow can neither read nor write, through OpenCV.

Source: Portable Network Graphics (Third Edition), W3C.
"""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from hbr.errors import HbrError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}
LARGEST_SIDE = 1_000_000
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2))


class PngChunk(NamedTuple):
    """A chunk as it is in a file, sound or not."""

    kind: bytes
    content: bytes
    sound: bool

    @property
    def critical(self) -> bool:
        """Whether the pixels cannot be read without it."""
        return not self.kind[0] & 0x20


class PngError(HbrError, ValueError):
    """A file that contradicts its header."""

    http_status = 422


def declared_size(data: bytes) -> tuple[int, int] | None:
    """Width and height as the header has them, sound or not; None where there is no header."""
    if data[12:16] != b"IHDR" or len(data) < 24:
        return None
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def raw_chunks(data: bytes) -> tuple[list[PngChunk], bool]:
    """The chunks, damaged ones too, and whether IEND is among them; pixels may be cut off."""
    found: list[PngChunk] = []
    at = len(SIGNATURE)
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        content = data[at + 8 : at + 8 + length]
        at += 12 + length
        if at > len(data):
            if kind == b"IDAT":
                found.append(PngChunk(kind, content, True))
            break
        sound = zlib.crc32(kind + content) == int.from_bytes(data[at - 4 : at], "big")
        found.append(PngChunk(kind, content, sound))
        if kind == b"IEND":
            return found, True
    return found, False


def unpacked_pixels(chunks: list[PngChunk]) -> tuple[bytes, bool]:
    """The filtered rows as far as they can be unpacked, and whether they are whole and sound.

    Raises:
        PngError: there is no header.
    """
    if not chunks or chunks[0].kind != b"IHDR" or len(chunks[0].content) != 13:
        raise PngError("its header is damaged")
    width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[0].content)
    passes = list(_passes(width, height, CHANNELS.get(colour, 1) * bits, bool(interlaced)))
    size = sum(n * row for n, row in passes)
    inflate = zlib.decompressobj()
    rows = bytearray()
    with contextlib.suppress(zlib.error):
        for chunk in chunks:
            if chunk.kind == b"IDAT":
                # a little at a time, so that what lies before an error is kept
                for at in range(0, len(chunk.content), 256):
                    if len(rows) <= size:
                        rows += inflate.decompress(chunk.content[at : at + 256])
    whole = inflate.eof and len(rows) >= size
    rows = rows[:size].ljust(size, b"\0")
    at = 0
    for n, row in passes:
        for start in range(at, at + n * row, row):
            rows[start] = rows[start] if rows[start] <= 4 else 0  # there are five filters
        at += n * row
    return bytes(rows), whole


def rebuilt(chunks: list[PngChunk], rows: bytes | None = None) -> bytes:
    """A PNG of the chunks that are sound or critical, each with its checksum.

    Args:
        chunks: as `raw_chunks` gives them.
        rows: filtered rows to be packed in place of the pixel data.
    """
    out = bytearray(SIGNATURE)
    kept = [c for c in chunks if c.kind != b"IEND" and (c.sound or c.critical)]
    kept = kept if rows is None else [c for c in kept if c.kind != b"IDAT"]
    parts = [(c.kind, c.content) for c in kept]
    parts += [] if rows is None else [(b"IDAT", zlib.compress(rows, 1))]
    for kind, content in [*parts, (b"IEND", b"")]:
        out += struct.pack(">I", len(content)) + kind + content
        out += struct.pack(">I", zlib.crc32(kind + content))
    return bytes(out)


def decode_deep(data: bytes) -> np.ndarray:
    """A 16-bit PNG → [h, w, c] uint16, c = 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.

    Its chunks are sound (`hbr.image.damage.whole_png`). The amount of its data is checked before
    libpng sees them, because libpng reports errors to the terminal.

    Raises:
        PngError: the file holds less data than its header declares, or OpenCV fails.
    """
    import cv2

    size, colour, key = _check_content(data)
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None or found.dtype != np.uint16 or found.shape[:2] != size:
        raise PngError("it cannot be decoded")
    found = found.reshape(*size, -1)  # blue, green, red, alpha, or grey alone
    order = {0: (0,), 2: (2, 1, 0), 4: (0, 3), 6: (2, 1, 0, 3)}[colour]
    parts = [found[..., i] for i in order]
    if key is not None and len(key) == len(parts):
        hidden = np.all([part == k for part, k in zip(parts, key, strict=True)], axis=0)
        parts.append(np.where(hidden, 0, 65535).astype(np.uint16))
    return np.stack(parts, axis=-1)


def _check_content(data: bytes) -> tuple[tuple[int, int], int, np.ndarray | None]:
    """(height, width) and the kind of colour in the header, and the transparent colour, if any.

    Raises:
        PngError: there are fewer pixels than the header declares.
    """
    key = None
    unpacked = 0
    inflate = zlib.decompressobj()
    for kind, content, _ in raw_chunks(data)[0]:
        if kind == b"IHDR":
            width, height, _, colour, _, _, interlaced = struct.unpack(">IIBBBBB", content)
        elif kind == b"tRNS" and colour in (0, 2):
            key = np.frombuffer(content, ">u2").astype(np.uint16)
        elif kind == b"IDAT":
            rest = content
            while rest:
                unpacked += len(inflate.decompress(rest, 1 << 20))
                rest = inflate.unconsumed_tail
    passes = _passes(width, height, CHANNELS[colour] * 16, bool(interlaced))
    if unpacked < sum(rows * size for rows, size in passes):
        raise PngError("it holds less data than its header declares")
    return (height, width), colour, key


def _passes(width: int, height: int, bits: int, interlaced: bool) -> Iterator[tuple[int, int]]:
    """(rows, bytes of a row with its filter) of the whole picture, or of the passes of Adam7."""
    for x, y, dx, dy in (*_ADAM7, (0, 1, 1, 2)) if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - x) // dx), -(-(height - y) // dy)
        if columns > 0 and rows > 0:
            yield rows, 1 + (columns * bits + 7) // 8


def looks_for_runs(compression: int) -> bool:
    """Whether zlib looks for runs of equal bytes alone (`Z_RLE`), as it does here up to level 4.

    Filtered photos have little else that repeats: half the time for 1 % larger files.
    """
    return compression <= 4


def encode_deep(array: np.ndarray, around: bytes, compression: int) -> bytes:
    """[h, w, c] uint16 (c = 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha) → PNG.

    Args:
        around: a PNG of one pixel, whose chunks before the pixel data are taken over.
        compression: zlib's level, 0 to 9.

    Raises:
        PngError: a side is too long for libpng, or OpenCV fails.
    """
    import cv2
    from PIL.PngImagePlugin import putchunk

    height, width, n = array.shape
    if max(height, width) > LARGEST_SIDE:  # libpng would report it to the terminal
        raise PngError(f"sides of 16-bit PNG are at most {LARGEST_SIDE} here")
    header = struct.pack(">IIBBBBB", width, height, 16, COLOURS[n], 0, 0, 0)
    if n == 2:
        # OpenCV has no grey with alpha. Filters and zlib see only the four bytes of a pixel, which
        # can be encoded as 8-bit RGB with alpha; only the header says what they are.
        array = array.astype(">u2").view(np.uint8)
    if n > 1:
        array = cv2.cvtColor(array, cv2.COLOR_RGB2BGR if n == 3 else cv2.COLOR_RGBA2BGRA)
    options = [cv2.IMWRITE_PNG_COMPRESSION, compression]
    if looks_for_runs(compression):
        options += [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
    done, pixels = cv2.imencode(".png", array, options)
    if not done:
        raise PngError("OpenCV cannot encode it")
    out = io.BytesIO()
    out.write(SIGNATURE)
    putchunk(out, b"IHDR", header)
    out.write(around[out.tell() : around.rindex(b"IDAT") - 4])
    out.write(pixels.data[len(SIGNATURE) + 12 + len(header) :])
    return out.getvalue()
