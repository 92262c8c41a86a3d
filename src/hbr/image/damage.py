"""What counts as damaged: a formality, corrupt data, or a part that is missing.

* A formality is repaired silently: a missing end marker behind a whole picture, a wrong
  checksum of pixels that another checksum proves. Damaged text in PNG is left out with a warning.
* Corrupt data, of which the decoder makes some picture, are a warning, and an error if strict.
* A picture that is cut short is refused, unless what is left of it is asked for.

`Notes` decides what a warning does. Sources: ITU-T T.81, annex B; Portable Network Graphics (Third
Edition), W3C, 5 and 11.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import numpy as np

from hbr.errors import PhotoError
from hbr.image import png
from hbr.image.jpeg import Segment, jpeg_segments
from hbr.image.notes import Notes, log
from hbr.streams import native_stderr

# What libjpeg, libpng, libtiff and OpenCV write to stderr.
_MESSAGES = re.compile(
    r"Corrupt JPEG data|Premature end of JPEG|Invalid SOS parameters|Inconsistent progression"
    r"|Unsupported marker type|Warning: unknown JFIF|Unknown Adobe color|libpng (warning|error)"
    r"|tempfile\.tif: |TIFF\w*: |\w+Decode\w*: |\[ ?(WARN|ERROR|INFO):\d|OpenCV TIFF"
)
# Those that mean that pixels are wrong, and not only metadata.
_ABOUT_PIXELS = re.compile(
    r"Corrupt JPEG data|Premature end of JPEG|Inconsistent progression|IDAT|libpng error"
    r"|tempfile\.tif: |TIFF\w*: |\w+Decode\w*: "
)
_EOI = b"\xff\xd9"
_JPEG_KINDS = {0xC3: "lossless", 0xC7: "lossless", 0xCB: "lossless", 0xCF: "lossless"}
_HIERARCHICAL = {0xC5, 0xC6, 0xCD, 0xCE}


def _is_message(line: str) -> bool:
    """Whether a line on stderr is one of an image library."""
    return _MESSAGES.match(line) is not None


@contextlib.contextmanager
def messages_judged(notes: Notes) -> Iterator[None]:
    """Judge what the libraries write while they decode in this block."""
    with native_stderr(_is_message) as lines:
        yield
    for line in lines:
        if _ABOUT_PIXELS.match(line):
            notes.damaged(f"its data are corrupt ({line.removeprefix('tempfile.tif: ')})")
        else:
            log.debug("%s: %s", notes.name, line)


def whole_jpeg(data: bytes, notes: Notes) -> bytes:
    """A JPEG, to be decoded, with an end marker; judged by what libjpeg says of its data.

    Raises:
        PhotoError: it is cut short, or strictly corrupt.
    """
    segments, end = jpeg_segments(data)
    complaint = _complaint(data, segments, end)
    if end is None:
        if complaint or not any(s.marker == 0xDA for s in segments):
            notes.cut_short("is damaged or cut short")
        data += _EOI
    elif complaint:
        notes.damaged(f"its data are corrupt ({complaint})")
    return data


def check_jpeg_kind(data: bytes, notes: Notes) -> None:
    """Refuse the kinds of JPEG that are intact, but that no decoder here reads.

    Raises:
        PhotoError: it is lossless, hierarchical, or has not 8 bits a sample.
    """
    for segment in jpeg_segments(data)[0]:
        if not 0xC0 <= segment.marker <= 0xCF or segment.marker in (0xC4, 0xC8, 0xCC):
            continue
        bits = data[segment.start + 4] if segment.start + 4 < len(data) else 8
        what = _JPEG_KINDS.get(segment.marker)
        if segment.marker in _HIERARCHICAL:
            what = "hierarchical"
        if what is None and bits != 8:
            what = f"{bits}-bit"
        if what is not None:
            raise PhotoError(
                f"{notes.name}: is a {what} JPEG, which is not read; save it as PNG or TIFF"
            )
        return


def _complaint(data: bytes, segments: list[Segment], end: int | None) -> str | None:
    """What libjpeg says of the coded data, in its own words.

    Only its first message is printed. So the segments of text and metadata, which may deserve one
    too, are left out.
    """
    import cv2

    parts, at = [], 0
    for segment in segments:
        if (0xE0 <= segment.marker <= 0xEF and segment.marker != 0xEE) or segment.marker == 0xFE:
            parts.append(data[at : segment.start])
            at = segment.end
    parts.append(data[at:end])
    if end is None:
        parts.append(_EOI)
    flags = cv2.IMREAD_REDUCED_GRAYSCALE_8 | cv2.IMREAD_IGNORE_ORIENTATION
    with native_stderr(_is_message) as lines:
        cv2.imdecode(np.frombuffer(b"".join(parts), np.uint8), flags)
    return next((line for line in lines if _ABOUT_PIXELS.match(line)), None)


# Read by `hbr.image.colorimetry`; Pillow fails on those of a wrong length.
_COLOUR_CHUNKS = (b"gAMA", b"cHRM", b"sRGB", b"cICP")


def whole_png(data: bytes, notes: Notes) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """A PNG, to be decoded: all chunks sound, those of colours and damaged ones left out.

    Returns:
        The file, and kind and content of its sound chunks but those of pixels.

    Raises:
        PhotoError: pixels are missing, or strictly corrupt.
    """
    chunks, ended = png.raw_chunks(data)
    lost = sorted({c.kind.decode("latin-1") for c in chunks if not c.sound and not c.critical})
    if lost:
        notes.warn(f"damaged parts beside its pixels are left out ({', '.join(lost)})")
    parts = [(c.kind, c.content) for c in chunks if c.sound and c.kind != b"IDAT"]
    if ended and all(c.sound and c.kind not in _COLOUR_CHUNKS for c in chunks):
        return data, parts
    kept = [c for c in chunks if c.kind not in _COLOUR_CHUNKS]
    if ended and all(c.sound or not c.critical for c in chunks):
        return png.rebuilt(kept), parts
    rows, whole = png.unpacked_pixels(chunks)
    if whole:
        return png.rebuilt(kept), parts
    notes.cut_short(
        "its checksums do not match" if ended else "is damaged or cut short (it ends too early)"
    )
    return png.rebuilt(kept, rows), parts
