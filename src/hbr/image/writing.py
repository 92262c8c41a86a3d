"""Writing: a `Photo` into a file of its format, whole or not at all."""

from __future__ import annotations

import errno
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from hbr.errors import PhotoError, display_name
from hbr.files import write_bytes
from hbr.image import png, tiff
from hbr.image.metadata import EXIF_PREFIX
from hbr.image.notes import log
from hbr.image.paths import HAS_AVIF
from hbr.image.photo import Photo
from hbr.image.pixels import on_white, to_8_bits

_SUFFIXES = {
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".jpe": "jpeg",
    ".jfif": "jpeg",
    ".png": "png",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".webp": "webp",
    ".bmp": "bmp",
    **({".avif": "avif"} if HAS_AVIF else {}),
}
WRITE_SUFFIXES = frozenset(_SUFFIXES)
# Two bytes of length in a JPEG segment, less their own two, less the names of EXIF and XMP.
_JPEG_EXIF, _JPEG_XMP = 65527, 65504
_LARGEST_SIDE = {"jpeg": 65535, "webp": 16383, "avif": 65536}


def output_suffix(photo_format: str | None) -> str:
    """The suffix to write a photo of this `Photo.format` under; `.png` for None or unknown."""
    suffix = {"jpeg": ".jpg", "jpg": ".jpg", "tiff": ".tif", "tif": ".tif"}.get(
        photo_format or "", f".{photo_format}"
    )
    return suffix if suffix in WRITE_SUFFIXES else ".png"


def write_photo(
    photo: Photo,
    path: str | Path,
    *,
    format: str | None = None,
    quality: int = 95,
    png_compression: int = 6,
) -> Path:
    """Write a photo, atomically: a reader of `path` sees the old file or the new one, whole.

    PNG and TIFF keep 16 bits, the others have 8. EXIF, XMP and ICC profile go into every format
    but BMP, the resolution into JPEG, PNG, TIFF and BMP. JPEG and BMP hold no alpha: there the
    photo is composited on white. From quality 90 on, JPEG and AVIF keep colour at full resolution.
    Missing folders are created. The same photo and settings give the same bytes.

    Args:
        photo: what to write.
        path: where to.
        format: `jpeg`, `png`, `tiff`, `webp`, `avif` or `bmp`; None takes it from the suffix.
        quality: 1 to 100, of JPEG, WebP and AVIF.
        png_compression: 0 (fast, large) to 9 (slow, small), without loss.

    Returns:
        The path.

    Raises:
        PhotoError: a format or size that cannot be written, no permission, a full disk; the file
            that was there is untouched then.
        ValueError: `quality` or `png_compression` out of range.
    """
    path = Path(path)
    name = display_name(path)
    kind = _format_of(path, format, name)
    if not 1 <= quality <= 100:
        raise ValueError(f"quality is {quality!r}; it must be 1 to 100")
    if not 0 <= png_compression <= 9:
        raise ValueError(f"png_compression is {png_compression!r}; it must be 0 to 9")
    height, width = photo.size
    if max(height, width) > _LARGEST_SIDE.get(kind, max(height, width)):
        raise PhotoError(
            f"{name}: {width}x{height} is too large for {kind.upper()}, whose sides are at most "
            f"{_LARGEST_SIDE[kind]}; write PNG or TIFF"
        )
    try:
        data = _encode(photo, kind, name, quality, png_compression)
    except tiff.TiffError as error:
        raise PhotoError(f"{name}: {error}") from None
    except (OSError, ValueError) as error:
        raise PhotoError(f"{name}: cannot be encoded ({error}); try another format") from error
    try:
        write_bytes(path, data)
    except (OSError, ValueError) as error:
        raise PhotoError(f"{name}: {_why_not_written(error)}") from error
    return path


def _format_of(path: Path, given: str | None, name: str) -> str:
    if given is not None:
        kind = _SUFFIXES.get(f".{given.lower().removeprefix('.')}")
        what = f"format {given!r}"
    else:
        kind = _SUFFIXES.get(path.suffix.lower())
        what = f"suffix {path.suffix!r}"
    if kind is None:
        known = ", ".join(sorted(set(_SUFFIXES.values())))
        raise PhotoError(f"{name}: {what} cannot be written; it may be one of {known}")
    return kind


def _encode(photo: Photo, kind: str, name: str, quality: int, png_compression: int) -> bytes:
    grey = photo.mode == "grey"
    # WebP and AVIF have no grey mode, and a grey profile does not apply to RGB.
    with_icc = kind != "bmp" and not (grey and kind in ("webp", "avif"))
    pixels, icc = photo.encoded(with_icc=with_icc)
    alpha = photo.alpha
    if alpha is not None and kind in ("jpeg", "bmp"):
        pixels = on_white(np.atleast_3d(pixels), alpha)
        pixels, alpha = (pixels[..., 0] if grey else pixels), None
    channels = np.atleast_3d(pixels)
    if alpha is not None:
        channels = np.dstack([channels, alpha])
    kept: dict[str, Any] = {"icc": icc, "exif": photo.exif, "xmp": photo.xmp, "dpi": photo.dpi}
    if kind == "tiff":
        return tiff.encode(channels, **kept)
    settings = {"quality": quality, "compress_level": png_compression}
    if kind == "png" and channels.dtype == np.uint16:
        around = _encode_with_pillow(np.zeros((1, 1, 1), np.uint8), kind, name, settings, kept)
        return png.encode_deep(channels, around, png_compression)
    return _encode_with_pillow(to_8_bits(channels), kind, name, settings, kept)


def _encode_with_pillow(
    channels: np.ndarray, kind: str, name: str, settings: dict[str, int], kept: dict[str, Any]
) -> bytes:
    image = Image.fromarray(channels[..., 0] if channels.shape[2] == 1 else channels)
    options: dict[str, Any] = dict(settings)
    if kind != "bmp":
        options["icc_profile"] = kept["icc"]
        exif, xmp = kept["exif"], kept["xmp"]
        if kind == "jpeg" and exif and len(exif) > _JPEG_EXIF:
            log.warning("%s: its EXIF is too large for JPEG and left out", name)
            exif = None
        if kind == "jpeg" and xmp and len(xmp) > _JPEG_XMP:
            log.warning("%s: its XMP is too large for JPEG and left out", name)
            xmp = None
        options |= {"exif": EXIF_PREFIX + exif} if exif else {}
        options |= {"xmp": xmp} if xmp else {}
        if kind == "png" and xmp:
            options["pnginfo"] = PngInfo()
            options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp)
    if kind in ("jpeg", "bmp") and kept["dpi"]:
        options["dpi"] = tuple(max(1, round(v)) for v in kept["dpi"])
    elif kind == "png":
        options["dpi"] = kept["dpi"]
    if kind in ("jpeg", "avif"):
        options["subsampling"] = "4:4:4" if settings["quality"] >= 90 else "4:2:0"
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _why_not_written(error: Exception) -> str:
    number = getattr(error, "errno", None)
    reason = getattr(error, "strerror", None) or str(error)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return "cannot be written, the disk is full; free some space or choose another folder"
    if number == errno.EFBIG:
        return "cannot be written, it is larger than this file system allows; choose another folder"
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"cannot be written ({reason}); choose a folder that you may write to"
    if number == errno.EISDIR:
        return "is a folder; name a file"
    if number in (errno.ENOTDIR, errno.EEXIST):
        return "cannot be written, a part of its path is a file; choose another folder"
    return f"cannot be written ({reason}); choose another place"
