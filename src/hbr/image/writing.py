"""Writing: a `Photo` into a file of its format, whole or not at all."""

from __future__ import annotations

import errno
import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from hbr.errors import OutputError, PhotoError, display_name
from hbr.files import write_bytes
from hbr.image import avif, png, tiff
from hbr.image.jpeg import with_segments
from hbr.image.kept import PHOTOSHOP, as_text, iptc_of
from hbr.image.metadata import EXIF_PREFIX
from hbr.image.notes import Notes
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
# metadata that a format holds
_HELD = {
    "jpeg": {"EXIF", "XMP", "IPTC", "comments"},
    "png": {"EXIF", "XMP", "IPTC", "comments", "texts"},
    "tiff": {"EXIF", "XMP", "IPTC"},
    "webp": {"EXIF", "XMP"},
    "avif": {"EXIF", "XMP"},
    "bmp": set[str](),
}
# Two bytes of length in a JPEG segment, less their own two, less the names of EXIF and XMP.
_LONGEST_SEGMENT = 65533
_JPEG_EXIF, _JPEG_XMP, _JPEG_PHOTOSHOP = 65527, 65504, 65519
# Errors of a disk, a drive or a network rather than of one file.
_OF_THE_PLACE = frozenset(
    getattr(errno, name)
    for name in (
        *("ENOSPC", "EDQUOT", "EROFS", "EIO", "ENODEV", "ENXIO", "ESTALE"),
        *("ENOTCONN", "EHOSTDOWN", "EHOSTUNREACH", "ETIMEDOUT"),
    )
    if hasattr(errno, name)
)
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
    png_compression: int = 4,
    lossless: bool = False,
    strict: bool = False,
) -> Path:
    """Write a photo, atomically: a reader of `path` sees the old file or the new one, whole.

    PNG and TIFF keep 16 bits, AVIF those of an AVIF of 10 or 12, the others have 8. EXIF, XMP and
    ICC profile go into every format but BMP, the resolution into JPEG, PNG, TIFF and BMP, IPTC into
    JPEG, PNG and TIFF. JPEG and BMP hold no alpha: there the photo is composited on white. From
    quality 90 on, JPEG and AVIF of 8 bits keep colour at full resolution. A photo that came as a
    lossless WebP is written as one. What the format cannot hold of the photo is a warning in the
    log. Missing folders are created. The same photo and settings give the same bytes.

    Args:
        format: `jpeg`, `png`, `tiff`, `webp`, `avif` or `bmp`; None takes it from the suffix.
        quality: 1 to 100, of JPEG, WebP and AVIF.
        png_compression: 0 (fast, large) to 9 (slow, small), without loss; above 4 for drawings,
            in which more repeats than in photos.
        lossless: WebP is written without loss, JPEG and AVIF are refused.
        strict: refuse what would be a warning.

    Returns:
        The path.

    Raises:
        PhotoError: a format or size that cannot be written, no permission; `OutputError` if the
            disk is full or gone. The file that was there is untouched then.
        ValueError: `quality` or `png_compression` out of range.
    """
    path = Path(path)
    data = encode_photo(
        photo,
        path,
        format=format,
        quality=quality,
        png_compression=png_compression,
        lossless=lossless,
        strict=strict,
    )
    try:
        write_bytes(path, data)
    except (OSError, ValueError) as error:
        raise not_written(path, error) from error
    return path


def encode_photo(
    photo: Photo,
    name: str | Path,
    *,
    format: str | None = None,
    quality: int = 95,
    png_compression: int = 4,
    lossless: bool = False,
    strict: bool = False,
) -> bytes:
    """The bytes that `write_photo` writes to a file of this name, with the same settings.

    Raises:
        PhotoError: a format or size that cannot be written.
        ValueError: `quality` or `png_compression` out of range.
    """
    kind, shown = format_of(Path(name), format), display_name(name)
    if not 1 <= quality <= 100:
        raise ValueError(f"quality is {quality!r}; it must be 1 to 100")
    if not 0 <= png_compression <= 9:
        raise ValueError(f"png_compression is {png_compression!r}; it must be 0 to 9")
    height, width = photo.size
    if max(height, width) > _LARGEST_SIDE.get(kind, max(height, width)):
        raise PhotoError(
            f"{shown}: {width}x{height} is too large for {kind.upper()}, whose sides are at most "
            f"{_LARGEST_SIDE[kind]}; write PNG or TIFF"
        )
    lossless = _is_lossless(photo, kind, shown, lossless)
    notes = Notes(shown, strict=strict)
    for loss in _losses(photo, kind, lossless):
        notes.warn(loss)
    try:
        return _encode(photo, kind, quality, png_compression, lossless)
    except tiff.TiffError as error:
        raise PhotoError(f"{shown}: {error}") from None
    except (OSError, ValueError) as error:
        raise PhotoError(f"{shown}: cannot be encoded ({error}); try another format") from error


def format_of(name: Path, given: str | None = None) -> str:
    """The format of a file of this name: the given one, else by its suffix.

    Raises:
        PhotoError: it cannot be written.
    """
    suffix = name.suffix if given is None else f".{given.removeprefix('.')}"
    kind = _SUFFIXES.get(suffix.lower())
    if kind is None:
        what = f"suffix {suffix!r}" if given is None else f"format {given!r}"
        known = ", ".join(sorted(set(_SUFFIXES.values())))
        raise PhotoError(
            f"{display_name(name)}: {what} cannot be written; it may be one of {known}"
        )
    return kind


def not_written(path: Path, error: Exception) -> PhotoError:
    """The error of a file that cannot be written, an `OutputError` if no other file could be."""
    number = getattr(error, "errno", None)
    reason = getattr(error, "strerror", None) or str(error)
    why = f"cannot be written ({reason}); choose another place"
    if number in (errno.ENOSPC, errno.EDQUOT):
        why = "cannot be written, the disk is full; free some space or choose another folder"
    elif number == errno.EFBIG:
        why = "cannot be written, it is larger than this file system allows; choose another folder"
    elif number in (errno.EACCES, errno.EPERM, errno.EROFS):
        why = f"cannot be written ({reason}); choose a folder that you may write to"
    elif number == errno.EISDIR:
        why = "is a folder; name a file"
    elif number in (errno.ENOTDIR, errno.EEXIST):
        why = "cannot be written, a part of its path is a file; choose another folder"
    kind = OutputError if number in _OF_THE_PLACE else PhotoError
    return kind(f"{display_name(path)}: {why}")


def _is_lossless(photo: Photo, kind: str, name: str, asked: bool) -> bool:
    """Whether the file is to be written without loss.

    Raises:
        PhotoError: that is asked for, and the format has only lossy compression.
    """
    if asked and kind in ("jpeg", "avif"):
        raise PhotoError(f"{name}: {kind.upper()} is written with loss; choose PNG, TIFF or WebP")
    return kind not in ("jpeg", "avif", "webp") or asked or (kind == "webp" and photo.lossless)


def _losses(photo: Photo, kind: str, lossless: bool) -> list[str]:
    """What of the photo the new file will not hold, in words."""
    said = []
    shown = kind.upper()
    deep = kind in ("png", "tiff") or (kind == "avif" and photo.avif_bits > 8)
    if photo.bits == 16 and not deep:
        said.append(f"its 16 bits become 8 in {shown}; PNG and TIFF keep them")
    if photo.alpha is not None and kind in ("jpeg", "bmp"):
        said.append(f"its transparency becomes white in {shown}; PNG, TIFF and WebP keep it")
    left = _left_out(photo, kind)
    if kind == "jpeg":
        too_large = {
            "EXIF": len(photo.exif or b"") > _JPEG_EXIF,
            "XMP": len(photo.xmp or b"") > _JPEG_XMP,
            "IPTC": len(photo.photoshop or b"") > _JPEG_PHOTOSHOP,
        }
        for name, too in too_large.items():
            if too:
                said.append(f"its {name} is too large for JPEG and left out")
    if left:
        said.append(f"left out: {', '.join(left)}")
    return said


def _encode(photo: Photo, kind: str, quality: int, png_compression: int, lossless: bool) -> bytes:
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
    if kind == "tiff":
        return tiff.encode(
            channels,
            icc=icc,
            exif=photo.exif,
            xmp=photo.xmp,
            dpi=photo.dpi,
            photoshop=photo.photoshop,
        )
    options = _options(photo, icc, kind, quality, lossless)
    if kind == "png":
        options["compress_level"] = png_compression
        if png.looks_for_runs(png_compression):
            options["compress_type"] = zlib.Z_RLE
    if kind == "png" and channels.dtype == np.uint16:
        around = _with_pillow(np.zeros((1, 1, 1), np.uint8), kind, options)
        return png.encode_deep(channels, around, png_compression)
    if kind == "avif" and photo.avif_bits > 8:
        rgb = np.repeat(channels[..., :1], 3, axis=2) if grey else channels[..., :3]
        deep = rgb if alpha is None else np.dstack([rgb, alpha])
        around = _with_pillow(np.zeros_like(deep, np.uint8), kind, options)
        return avif.encode_deep(deep, around, photo.avif_bits, quality)
    data = _with_pillow(to_8_bits(channels), kind, options)
    return with_segments(data, _jpeg_segments(photo)) if kind == "jpeg" else data


def _with_pillow(channels: np.ndarray, kind: str, options: dict[str, Any]) -> bytes:
    image = Image.fromarray(channels[..., 0] if channels.shape[2] == 1 else channels)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _options(
    photo: Photo, icc: bytes | None, kind: str, quality: int, lossless: bool
) -> dict[str, Any]:
    """What Pillow's encoder takes."""
    options: dict[str, Any] = {"quality": quality}
    exif, xmp = photo.exif, photo.xmp
    if kind == "jpeg":
        exif = exif if exif and len(exif) <= _JPEG_EXIF else None
        xmp = xmp if xmp and len(xmp) <= _JPEG_XMP else None
    if kind != "bmp":
        options["icc_profile"] = icc
        options |= {"exif": EXIF_PREFIX + exif} if exif else {}
        options |= {"xmp": xmp} if xmp else {}
    if kind == "png" and (xmp or photo.texts or photo.comments or photo.photoshop):
        options["pnginfo"] = _png_texts(photo)
    if kind in ("jpeg", "bmp") and photo.dpi:
        options["dpi"] = tuple(max(1, round(v)) for v in photo.dpi)
    elif kind == "png":
        options["dpi"] = photo.dpi
    if kind in ("jpeg", "avif"):
        options["subsampling"] = "4:4:4" if quality >= 90 else "4:2:0"
    if kind == "webp" and lossless:
        options |= {"lossless": True, "quality": 80, "exact": True}
    return options


def _png_texts(photo: Photo) -> PngInfo:
    """XMP, texts and comments, and IPTC as ImageMagick and exiftool write and read it."""
    info = PngInfo()
    if photo.xmp:
        info.add_itxt("XML:com.adobe.xmp", photo.xmp)
    for keyword, text in [*photo.texts, *(("Comment", as_text(c)) for c in photo.comments)]:
        info.add_text(keyword, text)
    if photo.photoshop:
        digits = photo.photoshop.hex()
        lines = [digits[at : at + 72] for at in range(0, len(digits), 72)]
        words = f"\niptc\n{len(photo.photoshop):8}\n" + "\n".join(lines) + "\n"
        info.add_text("Raw profile type iptc", words, zip=True)
    return info


def _jpeg_segments(photo: Photo) -> list[tuple[int, bytes]]:
    """Photoshop's resources and comments."""
    comments = [*photo.comments, *(t.encode() for k, t in photo.texts if k == "Comment")]
    added = [(0xFE, comment[:_LONGEST_SEGMENT]) for comment in comments]
    if photo.photoshop and len(photo.photoshop) <= _JPEG_PHOTOSHOP:
        added.insert(0, (0xED, PHOTOSHOP + photo.photoshop))
    return added


def _left_out(photo: Photo, kind: str) -> list[str]:
    """What a file of this format will not hold of the photo, in words."""
    held = _HELD[kind]
    there = {
        "EXIF": bool(photo.exif),
        "XMP": bool(photo.xmp),
        "IPTC": bool(photo.photoshop),
        "comments": bool(photo.comments),
    }
    words = [name for name, found in there.items() if found and name not in held]
    if "IPTC" in words and iptc_of(photo.photoshop) is None:
        words[words.index("IPTC")] = "Photoshop's settings"
    homeless = [k for k, _ in photo.texts if "texts" not in held]
    names = [k for k in homeless if k != "Comment" or "comments" not in held]
    if names:
        words.append(f"PNG text ({', '.join(dict.fromkeys(names))})")
    return [*photo.lost, *words]
