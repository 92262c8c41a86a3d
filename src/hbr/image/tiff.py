"""TIFF: structure, the 16-bit and floating-point kinds that Pillow cannot read, and a writer.

Source: TIFF Revision 6.0, Adobe 1992; Technical Note 1 for sub-directories.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import struct
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from hbr.errors import HbrError
from hbr.image.directories import LAYOUT, exif_of, read_directory
from hbr.image.kept import IPTC as IPTC_RESOURCE
from hbr.image.kept import iptc_of, kept_resources, resource
from hbr.image.metadata import ByteOrder, StoredMetadata, byte_order, entries
from hbr.image.pixels import FLOAT_ROUNDING, peak, strips

if TYPE_CHECKING:
    import tifffile

DNG_VERSION, ICC, XMP, ORIENTATION = 50706, 34675, 700, 274
GREY_WHITE_IS_ZERO, GREY, RGB, CFA, LINEAR_RAW = 0, 1, 2, 32803, 34892
IPTC, PHOTOSHOP, LAYERS = 33723, 34377, 37724
SUB_DIRECTORIES = {0x8769: "ExifTag", 0x8825: "GPSTag"}
# Compressions that take the package imagecodecs, by their numbers; Pillow has ZSTD for 8 bits.
CODECS = {
    34887: "LERC",
    34926: "ZSTD",
    34927: "WebP",
    50000: "ZSTD",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
    22610: "JPEG XR",
    34934: "JPEG XR",
    33003: "JPEG 2000",
    33004: "JPEG 2000",
    33005: "JPEG 2000",
    34712: "JPEG 2000",
}


class TiffError(HbrError, ValueError):
    """A TIFF that cannot be used; the message says what is wrong, then what to do."""

    http_status = 422


def open_tiff(file: BinaryIO) -> tifffile.TiffFile:
    """Open the structure of a TIFF, without reading pixels; tifffile's own log is silenced."""
    file.seek(0)
    return _tifffile().TiffFile(file)


def _tifffile() -> Any:
    import tifffile

    # Its reports end in an error of ours, and one line is enough.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)
    return tifffile


def check_page(tiff: tifffile.TiffFile, size: int) -> Any:
    """The only image of a file of `size` bytes, as a page of tifffile.

    Raises:
        TiffError: camera raw, many pages, or strips that lie outside the file.
    """
    page: Any = tiff.pages.first
    if page.is_reduced or DNG_VERSION in page.tags or page.photometric in (CFA, LINEAR_RAW):
        raise TiffError("is a camera raw file; develop it to JPEG, PNG or TIFF first")
    for other in islice(tiff.pages, 1, 16):
        if not (other.is_reduced or other.is_mask):  # previews and masks are not further images
            raise TiffError("holds several pages; choose one with --page, from 1")
    spans = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    if not spans or any(offset + length > size for offset, length in spans):
        raise TiffError("ends too early; get an undamaged copy")
    return page


def with_page(file: BinaryIO, number: int) -> BinaryIO:
    """A TIFF whose only page is one of the pages of `file`, for any reader.

    The header is made to point to the directory of the page, and that directory to no other. Pages
    are counted from 1, without previews and masks.

    Raises:
        TiffError: there is no such page.
    """
    with open_tiff(file) as structure:
        first: Any = structure.pages.first
        pages: list[Any] = list(structure.pages)
        starts = [p.offset for p in pages if p is first or not (p.is_reduced or p.is_mask)]
        order, is_big = structure.byteorder, structure.is_bigtiff
    if not 1 <= number <= len(starts):
        held = "1 page" if len(starts) == 1 else f"{len(starts)} pages, 1 to {len(starts)}"
        raise TiffError(f"holds {held}; there is no --page {number}")
    start = starts[number - 1]
    file.seek(0)
    data = bytearray(file.read())
    count, size, pointer, head = ("Q", 20, "Q", 8) if is_big else ("H", 12, "I", 4)
    struct.pack_into(order + pointer, data, head, start)
    (n,) = struct.unpack_from(order + count, data, start)
    struct.pack_into(order + pointer, data, start + struct.calcsize(count) + n * size, 0)
    return io.BytesIO(data)


def is_deep(page: Any) -> bool:
    """Whether the samples are more than 8 bits wide, which Pillow cannot hold in colour."""
    return page.dtype is None or page.dtype.itemsize > 1


def needs_codecs(page: Any) -> bool:
    """Whether Pillow cannot read the page, by its compression or as a big-endian BigTIFF.

    Raises:
        TiffError: it is, and the package imagecodecs is not installed.
    """
    name = CODECS.get(int(page.compression))
    if name is None or (name == "ZSTD" and not is_deep(page) and not _beyond_pillow(page)):
        return _beyond_pillow(page)
    if importlib.util.find_spec("imagecodecs") is None:
        raise TiffError(
            f"is compressed with {name}, which needs the package imagecodecs; "
            "pip install 'hbr[codecs]', or save it with Deflate or LZW"
        )
    return True


def _beyond_pillow(page: Any) -> bool:
    """Whether it is a BigTIFF with the most significant byte first."""
    return bool(page.parent.is_bigtiff and page.parent.byteorder == ">")


def decode_8_bits(page: Any, file: BinaryIO) -> np.ndarray:
    """A page that `needs_codecs` → [h, w, c] uint8, alpha straight.

    Raises:
        TiffError: it is neither grey nor RGB.
    """
    if page.dtype != np.uint8 or page.photometric not in (GREY, RGB):
        raise TiffError("is neither grey nor RGB in this compression; save it with Deflate or LZW")
    return _with_straight_alpha(page, _samples(page, file))


def decode_deep(page: Any, file: BinaryIO) -> np.ndarray:
    """A 16-bit or floating-point page → [h, w, c] uint16, alpha straight.

    Raises:
        TiffError: samples of another kind, or values that are outside [0, 1] or not finite.
    """
    if page.dtype is None or (page.dtype.kind != "f" and page.dtype != np.uint16):
        raise TiffError("holds samples that are not a photograph's; save it with 8 or 16 bits")
    if page.dtype == np.uint16 and page.bitspersample != 16:
        raise TiffError(f"has {page.bitspersample} bits a sample; save it with 8 or 16")
    if page.photometric not in (GREY_WHITE_IS_ZERO, GREY, RGB):
        raise TiffError("is neither grey nor RGB at this depth; save it as RGB")
    needs_codecs(page)
    array = _samples(page, file)
    if array.dtype.kind == "f":
        array = _unit_floats(array)
    array = array.astype(np.uint16, copy=False)
    if page.photometric == GREY_WHITE_IS_ZERO:
        array = np.concatenate([65535 - array[..., :1], array[..., 1:]], axis=-1)
    return _with_straight_alpha(page, array)


def _samples(page: Any, file: BinaryIO) -> np.ndarray:
    n, shape = page.samplesperpixel, (page.imagelength, page.imagewidth)
    try:
        array = page.asarray()
    except (ValueError, KeyError):
        # Codecs that tifffile leaves to another package: OpenCV has LZW, PackBits and others.
        array = _with_opencv(page, file)
    if n > 1 and page.planarconfig == 2:
        array = np.moveaxis(array.reshape(n, *shape), 0, -1)
    return array.reshape(*shape, n)


def _with_opencv(page: Any, file: BinaryIO) -> np.ndarray:
    import cv2

    if page.planarconfig == 2 or page.samplesperpixel not in (1, 3, 4):
        raise TiffError("is compressed in a way that is not read here; save it uncompressed")
    file.seek(0)
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(0)
    try:
        array = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    finally:
        cv2.utils.logging.setLogLevel(level)
    size = page.imagelength * page.imagewidth * page.samplesperpixel
    if array is None or array.dtype != page.dtype.newbyteorder("=") or array.size != size:
        raise TiffError("cannot be decoded; get an undamaged copy, or save it uncompressed")
    return array if array.ndim == 2 else array[..., [2, 1, 0, 3][: array.shape[2]]]


def _unit_floats(array: np.ndarray) -> np.ndarray:
    low, high = float(array.min()), float(array.max())
    # One NaN among the samples makes both of them NaN.
    if not np.isfinite([low, high]).all():
        raise TiffError("holds values that are not numbers (NaN or infinite); export it again")
    if low < -FLOAT_ROUNDING or high > 1 + FLOAT_ROUNDING:
        raise TiffError(
            f"holds floating-point values from {low:.4g} to {high:.4g}; bring them into 0 to 1, "
            "or save it with 16 bits"
        )
    out = np.empty(array.shape, np.uint16)
    for rows in strips(*array.shape[:2]):
        out[rows] = np.rint(np.clip(array[rows].astype(np.float64), 0, 1) * 65535)
    return out


def _with_straight_alpha(page: Any, array: np.ndarray) -> np.ndarray:
    """The samples [h, w, c] of a page that are grey or RGB, and its alpha, if it has one.

    Colour that is premultiplied by alpha is made straight.
    """
    n = 3 if page.photometric == RGB else 1
    kind = int(page.extrasamples[0]) if page.extrasamples else 0
    array = np.ascontiguousarray(array[..., : n + (kind in (1, 2))])
    if kind == 1:
        white = peak(array.dtype)
        for rows in strips(*array.shape[:2]):
            alpha = array[rows][..., -1:].astype(np.uint32)
            scaled = array[rows][..., :-1].astype(np.uint32) * white + alpha // 2
            array[rows][..., :-1] = np.minimum(scaled // np.maximum(alpha, 1), white)
    return array


def page_dpi(page: Any) -> tuple[float, float] | None:
    """Dots per inch of a page, None if it has none."""
    unit = page.tags.valueof(296, 2)
    found = []
    for tag in (282, 283):
        value = page.tags.valueof(tag)
        if int(unit) not in (2, 3) or not isinstance(value, tuple) or not value[1]:
            return None
        found.append(value[0] / value[1] * (2.54 if int(unit) == 3 else 1))
    return found[0], found[1]


def page_orientation(page: Any) -> int:
    """1 to 8; 1 for what is no orientation."""
    said = int(page.tags.valueof(ORIENTATION, 1))
    return said if 1 <= said <= 8 else 1


def page_places(page: Any) -> list[float]:
    """White point and primaries of a page in xy, as far as it states them."""
    places: list[float] = []
    for tag in (318, 319):
        values = page.tags.valueof(tag, ())
        if isinstance(values, tuple) and not len(values) % 2 and all(values[1::2]):
            places += [a / b for a, b in zip(values[::2], values[1::2], strict=True)]
    return places


def page_metadata(file: BinaryIO) -> StoredMetadata:
    """All tags that describe the picture, as EXIF, and IPTC; of TIFF and BigTIFF."""
    found, order = read_directory(file, lambda tag: tag not in LAYOUT)
    blocks = {entry.tag: entry.data for entry in found if entry.tag in (IPTC, PHOTOSHOP)}
    # the description by which tifffile finds the shape of its arrays again
    shapes = (b'{"shape":', b"ImageJ=")
    found = [e for e in found if not (e.tag == 270 and e.data.startswith(shapes))]
    kept = [e for e in found if e.tag not in (IPTC, PHOTOSHOP, LAYERS)]
    photoshop = kept_resources(blocks.get(PHOTOSHOP, b"")) or b""
    if IPTC in blocks and iptc_of(photoshop) is None:
        photoshop += resource(IPTC_RESOURCE, blocks[IPTC].rstrip(b"\0"))
    return StoredMetadata(
        exif=exif_of(kept, order) if kept else None,
        photoshop=photoshop or None,
        lost=("layers",) if any(entry.tag == LAYERS for entry in found) else (),
    )


def encode(
    array: np.ndarray,
    *,
    icc: bytes | None = None,
    exif: bytes | None = None,
    xmp: bytes | None = None,
    dpi: tuple[float, float] | None = None,
    photoshop: bytes | None = None,
) -> bytes:
    """[h, w, c] uint8 or uint16 (c = 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha) → TIFF.

    Deflate with horizontal differences, in strips. The EXIF, itself a TIFF structure, opens the
    file, so that every offset inside it (maker notes too) stays right; its directory's entries
    move, with those of the picture, to a new directory behind it.

    Raises:
        TiffError: the file would pass 4 GiB.
    """
    height, width, n = array.shape
    order: ByteOrder = (byte_order(exif) if exif else None) or "<"
    head = bytearray(exif if exif else b"II*\0\0\0\0\0")
    tags: dict[int, Moved] = _moved(exif, order) if exif else {}
    if xmp:
        tags[XMP] = (XMP, 1, len(xmp), xmp, True)
    if photoshop:
        tags[PHOTOSHOP] = (PHOTOSHOP, 1, len(photoshop), photoshop, True)
    if iptc := iptc_of(photoshop):
        tags[IPTC] = (IPTC, 7, len(iptc), iptc, True)
    struct.pack_into(order + "I", head, 4, 0)  # no directory yet: tifffile's becomes the first
    out = io.BytesIO(head)
    try:
        with _tifffile().TiffWriter(out, append="force") as writer:
            writer.write(
                array if n > 1 else array[..., 0],
                photometric="rgb" if n > 2 else "minisblack",
                planarconfig="contig" if n > 1 else None,
                extrasamples=["unassalpha"] if n in (2, 4) else None,
                compression="zlib",
                predictor=True,
                rowsperstrip=next(strips(height, width)).stop,
                maxworkers=1,
                iccprofile=icc,
                resolution=dpi,
                extratags=list(tags.values()),
                software=False,
                metadata=None,
            )
    except struct.error:
        raise TiffError("would be larger than a TIFF file can be (4 GiB); write PNG") from None
    return out.getvalue()


Moved = tuple[int | str, int, int, bytes | tuple[int, ...], bool]


def _moved(exif: bytes, order: ByteOrder) -> dict[int, Moved]:
    """The entries of the EXIF's directory, by tag, as tifffile takes them."""
    formats = _tifffile().TIFF.DATA_FORMATS
    (first,) = struct.unpack_from(order + "I", exif, 4)
    moved: dict[int, Moved] = {}
    for tag, kind, count, at in entries(exif, order, first):
        if tag in LAYOUT or kind not in formats:
            continue
        size = struct.calcsize(formats[kind]) * count
        if size > 4:
            (at,) = struct.unpack_from(order + "I", exif, at)
        value: bytes | tuple[int, ...] = exif[at : at + size]
        if at + size > len(exif):
            continue
        if kind in (5, 10):  # tifffile miscounts fractions given as bytes
            value = struct.unpack_from(f"{order}{2 * count}{'I' if kind == 5 else 'i'}", exif, at)
        # Sub-directories pass only by name.
        moved[tag] = (SUB_DIRECTORIES.get(tag, tag), kind, count, value, True)
    return moved
