"""Reading each format: an open file to a `Photo`.

Every reader takes the file at its start, the notes on it and the limit of pixels.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Mapping
from typing import BinaryIO

import numpy as np
from PIL import ImageFile

from hbr.errors import PhotoError, one_line
from hbr.image import avif, png, tiff
from hbr.image.boxes import bit_depth, box_signals, main_properties
from hbr.image.colorimetry import Signals, bmp_signals, chromaticities_of, png_signals
from hbr.image.damage import check_jpeg_kind, messages_judged, whole_jpeg, whole_png
from hbr.image.jpeg import jpeg_segments
from hbr.image.jxl import jxl_header
from hbr.image.kept import jpeg_metadata, pil_metadata, png_metadata
from hbr.image.metadata import StoredMetadata
from hbr.image.notes import Notes
from hbr.image.paths import HAS_AVIF, HAS_HEIC, HAS_JXL
from hbr.image.photo import Photo, photo_from_pil, upright_photo
from hbr.image.pillow import lenient, no_pillow_limit, pil_channels
from hbr.image.pixels import full_range

Reader = Callable[[BinaryIO, Notes, int], Photo]


def _read_jpeg(file: BinaryIO, notes: Notes, max_pixels: int) -> Photo:
    data = file.read()
    check_jpeg_kind(data, notes)
    with _opened("jpeg", io.BytesIO(data), notes, max_pixels):
        pass  # only small enough pictures are decoded, as a check too
    segments, end = jpeg_segments(data)
    beside = jpeg_metadata(
        ((s.marker, data[s.start + 4 : s.end]) for s in segments), data[end or len(data) :]
    )
    whole = whole_jpeg(data, notes)
    with _opened("jpeg", io.BytesIO(whole), notes, max_pixels) as image, lenient(notes):
        stored = dataclasses.replace(pil_metadata(image), **beside)
        return photo_from_pil(image, notes, stored=stored, format="jpeg")


def _read_webp(file: BinaryIO, notes: Notes, max_pixels: int) -> Photo:
    head = file.read(16)
    # The lossless kind of pixels; lossy pixels are "VP8 ", a lossless alpha is in "ALPH".
    lossless = head[12:16] == b"VP8L" or (head[12:16] == b"VP8X" and b"VP8L" in _riff_kinds(file))
    file.seek(0)
    with _opened("webp", file, notes, max_pixels) as image:
        return photo_from_pil(image, notes, format="webp", lossless=lossless)


def _riff_kinds(file: BinaryIO) -> list[bytes]:
    """The kinds of the chunks of a RIFF file."""
    kinds: list[bytes] = []
    at = 12
    while True:
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            return kinds
        kinds.append(head[:4])
        size = int.from_bytes(head[4:], "little")
        at += 8 + size + size % 2


def _read_bmp(file: BinaryIO, notes: Notes, max_pixels: int) -> Photo:
    with _opened("bmp", file, notes, max_pixels) as image:
        file.seek(0)
        signals = bmp_signals(file.read())
        return photo_from_pil(image, notes, signals, format="bmp")


def _read_png(file: BinaryIO, notes: Notes, max_pixels: int) -> Photo:
    # Pillow reads the metadata and detects animations; OpenCV keeps the 16 bits.
    data = file.read()
    if (declared := png.declared_size(data)) is not None:
        check_size(*declared, max_pixels, notes)  # before anything is unpacked
    data, parts = whole_png(data, notes)
    with _opened("png", io.BytesIO(data), notes, max_pixels) as image:
        stored = dataclasses.replace(png_metadata(parts), dpi=image.info.get("dpi"))
        signals = png_signals(dict(reversed(parts)), image.info.get("icc_profile") or stored.icc)
        if data[24:25] != b"\x10":
            return photo_from_pil(image, notes, signals, stored, format="png")
    with messages_judged(notes):
        channels = png.decode_deep(data)
    return upright_photo(channels, "rgb", notes, stored, signals, format="png")


def _read_avif(file: BinaryIO, notes: Notes, max_pixels: int) -> Photo:
    data = file.read()
    properties = main_properties(data)
    signals = box_signals(properties)
    with _opened("avif", io.BytesIO(data), notes, max_pixels) as image:
        signals = dataclasses.replace(signals, icc=image.info.get("icc_profile"))
        bits = bit_depth(properties)
        if bits == 8:
            return photo_from_pil(image, notes, signals, format="avif")
        stored = pil_metadata(image)
        size = image.height, image.width
    with messages_judged(notes):
        channels = avif.decode_deep(data, bits, size)
    kept = {"format": "avif", "avif_bits": bits}
    return upright_photo(channels, "rgb", notes, stored, signals, **kept)


def _read_tiff(file: BinaryIO, notes: Notes, max_pixels: int) -> Photo:
    size = file.seek(0, io.SEEK_END)
    with tiff.open_tiff(file) as structure:
        page = tiff.check_page(structure, size)
        check_size(page.imagewidth, page.imagelength, max_pixels, notes)
        tags = page.tags
        orientation = tiff.page_orientation(page)
        stored = dataclasses.replace(
            _tiff_metadata(file, notes),
            xmp=tags.valueof(tiff.XMP),
            dpi=tiff.page_dpi(page),
            orientation=orientation,
        )
        places = chromaticities_of(tiff.page_places(page))
        signals: Signals | None = Signals(icc=tags.valueof(tiff.ICC), chromaticities=places)
        with messages_judged(notes):
            if tiff.is_deep(page):
                channels, mode = tiff.decode_deep(page, file), "rgb"
            elif tiff.needs_codecs(page):
                channels, mode = tiff.decode_8_bits(page, file), "rgb"
            else:
                file.seek(0)
                with _plugin("tiff")(file) as image, no_pillow_limit(image):
                    channels, mode, keep_icc = pil_channels(image, notes)
                # Pillow turns TIFF upright by itself when it loads, and then drops the tag.
                stored = dataclasses.replace(stored, orientation=1)
                signals = signals if keep_icc else None
        photo = upright_photo(channels, mode, notes, stored, signals, format="tiff")
        return dataclasses.replace(photo, orientation=orientation)


def _tiff_metadata(file: BinaryIO, notes: Notes) -> StoredMetadata:
    try:
        return tiff.page_metadata(file)
    except Exception as error:  # broken metadata must not make the photo unreadable
        notes.warn(f"its EXIF is broken and dropped: {one_line(error, 200)}")
        return StoredMetadata()


def _opened(kind: str, file: BinaryIO, notes: Notes, max_pixels: int) -> ImageFile.ImageFile:
    """A picture that is small enough and alone in its file, not yet decoded."""
    image = _plugin(kind)(file)
    check_size(image.width, image.height, max_pixels, notes)
    if getattr(image, "is_animated", False):
        raise PhotoError(f"{notes.name}: is an animation; save the picture you want by itself")
    return image


def _plugin(kind: str) -> type[ImageFile.ImageFile]:
    """Pillow's class for one format: no other can be reached, nor its global pixel limit."""
    from PIL import AvifImagePlugin, BmpImagePlugin, JpegImagePlugin, PngImagePlugin
    from PIL import TiffImagePlugin, WebPImagePlugin  # isort: skip

    return {
        "jpeg": JpegImagePlugin.JpegImageFile,
        "png": PngImagePlugin.PngImageFile,
        "tiff": TiffImagePlugin.TiffImageFile,
        "webp": WebPImagePlugin.WebPImageFile,
        "avif": AvifImagePlugin.AvifImageFile,
        "bmp": BmpImagePlugin.BmpImageFile,
    }[kind]


def check_size(width: int, height: int, max_pixels: int, notes: Notes) -> None:
    """Refuse a picture without pixels or with more than `max_pixels`.

    Raises:
        PhotoError: it is.
    """
    name = notes.name
    if width < 1 or height < 1:
        raise PhotoError(f"{name}: is {width}x{height} pixels; get an undamaged copy")
    if width * height > max_pixels:
        raise PhotoError(
            f"{name}: is {width}x{height}, {width * height / 1e6:.1f} megapixels, above the limit "
            f"of {max_pixels / 1e6:.1f}; if you trust it, raise --max-pixels"
        )


def _read_heic(file: BinaryIO, notes: Notes, max_pixels: int) -> Photo:
    import pillow_heif

    data = file.read()
    found = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False)
    image = found[found.primary_index]
    width, height = image.size
    check_size(width, height, max_pixels, notes)
    info = image.info
    lost = {"a depth map"} if info.get("depth_images") else set()
    for kind in info.get("aux") or {}:
        lost.add("a gain map" if "gainmap" in kind.lower() else "an auxiliary picture")
    if len(found) > 1:
        lost.add("further pictures")
    signals = box_signals(main_properties(data))
    icc = info.get("icc_profile") or signals.icc
    channels = np.asarray(image)
    channels = channels.reshape(*channels.shape[:2], -1)
    if channels.dtype == np.uint16:  # the bits stand at the top
        channels = full_range(channels >> (16 - info["bit_depth"]), info["bit_depth"])
    stored = StoredMetadata(
        exif=info.get("exif"),
        xmp=info.get("xmp"),
        orientation=1,  # the decoder has turned it, whatever EXIF says
        lost=tuple(sorted(lost)),
    )
    signals = dataclasses.replace(signals, icc=icc)
    return upright_photo(channels, "rgb", notes, stored, signals, format="heic")


def _read_jxl(file: BinaryIO, notes: Notes, max_pixels: int) -> Photo:
    from pillow_jxl import Decoder

    data = file.read()
    header = jxl_header(data)
    check_size(header.width, header.height, max_pixels, notes)
    if header.animated:
        raise PhotoError(f"{notes.name}: is an animation; save the picture you want by itself")
    try:
        is_jpeg, image, pixels, icc, boxes = Decoder(num_threads=1)(data)
    except Exception as error:  # its own words tell how to build libjxl
        raise ValueError("its data are broken") from error
    if is_jpeg:  # a JPEG in fewer bytes, which comes back whole
        return dataclasses.replace(_read_jpeg(io.BytesIO(pixels), notes, max_pixels), format="jxl")
    deep = image.mode == "I;16"
    if header.floating or image.mode not in ("L", "LA", "RGB", "RGBA", "I;16"):
        raise PhotoError(f"{notes.name}: holds floating-point numbers; save it with 8 or 16 bits")
    if header.bits > 8 and not deep:
        notes.warn(f"its {header.bits} bits are read as 8")
    channels = np.frombuffer(pixels, np.uint16 if deep else np.uint8)
    channels = channels.reshape(image.height, image.width, -1)
    held = {bytes(box.box_type): bytes(box.data) for box in boxes}
    exif = held.get(b"Exif", b"")
    if exif[:2] not in (b"II", b"MM"):  # some writers leave out the offset that stands first
        exif = exif[4 + int.from_bytes(exif[:4], "big") :]
    stored = StoredMetadata(
        exif=exif or None,
        xmp=held.get(b"xml "),
        orientation=1,  # the decoder has turned it, whatever EXIF says
        lost=("content credentials",) if b"jumb" in held else (),
    )
    return upright_photo(channels, "rgb", notes, stored, Signals(icc=icc or None), format="jxl")


READERS: Mapping[str, Reader] = {
    "jpeg": _read_jpeg,
    "png": _read_png,
    "tiff": _read_tiff,
    "webp": _read_webp,
    "bmp": _read_bmp,
    **({"avif": _read_avif} if HAS_AVIF else {}),
    **({"HEIC": _read_heic} if HAS_HEIC else {}),
    **({"JPEG XL": _read_jxl} if HAS_JXL else {}),
}
"""The formats that are read, by the names of `sniff`."""
