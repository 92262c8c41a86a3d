"""Reading: a file of any kind to a `Photo`, or a one-line error."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO, cast

from hbr.errors import PhotoError, display_name, one_line, with_type
from hbr.image import png, tiff
from hbr.image.formats import READERS
from hbr.image.limits import DEFAULT_MAX_PIXELS
from hbr.image.notes import Notes, Truncated, pillow_quiet
from hbr.image.paths import CAMERA_RAW, HAS_AVIF, HAS_HEIC, HAS_JXL, UNREADABLE
from hbr.image.photo import Photo

_ALSO = [("HEIC", HAS_HEIC), ("JPEG XL", HAS_JXL), ("BMP", True), ("AVIF", HAS_AVIF)]
READABLE = " and".join(
    ", ".join(["JPEG, PNG, TIFF, WebP", *(name for name, has in _ALSO if has)]).rsplit(",", 1)
)
_EXTRAS = {"HEIC": "heic", "JPEG XL": "jxl"}
_NAMES = {"jpeg": "JPEG", "png": "PNG", "tiff": "TIFF", "webp": "WebP", "avif": "AVIF"}


def read_photo(
    source: str | Path | IO[bytes],
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    page: int | None = None,
    strict: bool = False,
    truncated: Truncated = "refuse",
) -> Photo:
    """Read a photograph: upright, in sRGB, with its metadata.

    Args:
        source: a path, or a binary file.
        max_pixels: refuse pictures of more pixels (width x height) before decoding them.
        page: of a TIFF, from 1; None refuses a file of several pages.
        strict: refuse a file about which there is a warning: corrupt data, or a guess.
        truncated: `accept` reads what is there of a file that is cut short, and takes corrupt data
            as a warning even if `strict`.

    Raises:
        PhotoError: the file cannot be read; one line says why.
    """
    name = display_name(source)
    notes = Notes(name, strict=strict, truncated=truncated)
    try:
        with _opened(source, name) as file, pillow_quiet():  # what matters raises an error
            photo = _read(_chosen_page(file, name, page), notes, max_pixels)
    except PhotoError:
        raise
    except (tiff.TiffError, png.PngError) as error:
        tail = "" if ";" in str(error) else "; get an undamaged copy"
        raise PhotoError(f"{name}: {_one_line(error)}{tail}") from error
    except MemoryError as error:
        raise PhotoError(
            f"{name}: needs more memory than is available; make it smaller, or close other programs"
        ) from error
    except Exception as error:  # decoders raise nearly anything on malicious files
        raise PhotoError(
            f"{name}: cannot be decoded ({_one_line(error)}); it is damaged or cut short, "
            "get an undamaged copy"
        ) from error
    path = Path(source) if isinstance(source, (str, Path)) else None
    return dataclasses.replace(photo, path=path, warnings=tuple(notes.warnings))


def photo_size(source: str | Path | IO[bytes]) -> tuple[int, int] | None:
    """(height, width) in pixels as stored, by the header alone; None if it does not say.

    A file that can seek is read from its start, and stands there afterwards.
    """
    from PIL import Image

    formats = ("JPEG", "MPO", "PNG", "TIFF", "WEBP", "AVIF", "BMP", "HEIF", "JXL")
    name = display_name(source)
    try:
        with _opened(source, name) as file, pillow_quiet():
            Image.init()
            try:
                with Image.open(file, formats=[f for f in formats if f in Image.OPEN]) as image:
                    return image.height, image.width
            finally:
                file.seek(0)
    except Exception:  # decoders raise nearly anything on malicious files
        return None


def named_bytes(data: bytes, name: str) -> io.BytesIO:
    """A file in memory for `read_photo`, with a name for messages."""
    file = io.BytesIO(data)
    file.name = name
    return file


def _one_line(error: BaseException) -> str:
    text = one_line(error, 200).rstrip(".")
    return text if " " in text else with_type(error, 200)


@contextlib.contextmanager
def _opened(source: str | Path | IO[bytes], name: str) -> Iterator[BinaryIO]:
    file: BinaryIO
    if not isinstance(source, (str, Path)):
        file = cast(BinaryIO, source)
        yield file if file.seekable() else io.BytesIO(file.read())
        return
    try:
        mode = Path(source).stat().st_mode
        if stat.S_ISDIR(mode):
            raise PhotoError(f"{name}: is a folder, not a photograph; name a file in it")
        if not stat.S_ISREG(mode):
            raise PhotoError(f"{name}: is not a regular file; name a photograph")
        file = Path(source).open("rb")  # noqa: SIM115  (closed below; only errors of opening are handled here)
    except FileNotFoundError:
        raise PhotoError(f"{name}: does not exist; check the name") from None
    except PermissionError:
        raise PhotoError(f"{name}: may not be read; change its permissions") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or _one_line(error)
        if isinstance(error, PhotoError):
            raise
        raise PhotoError(f"{name}: cannot be opened ({reason}); check the name") from None
    with file:
        yield file


def _chosen_page(file: BinaryIO, name: str, page: int | None) -> BinaryIO:
    """The file, or a TIFF of the page that is asked for."""
    if page is None:
        return file
    head = file.read(64)
    if sniff(head, name) == "tiff":
        return tiff.with_page(io.BytesIO(head + file.read()), page)
    if page != 1:
        raise PhotoError(f"{name}: is no TIFF and holds 1 page; there is no --page {page}")
    file.seek(-len(head), io.SEEK_CUR)
    return file


# offset of the signature, its values, and the format
_SIGNATURES: tuple[tuple[int, tuple[bytes, ...], str], ...] = (
    (0, (b"\xff\xd8\xff",), "jpeg"),
    (0, (png.SIGNATURE,), "png"),
    (0, (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "tiff"),
    (0, (b"BM",), "bmp"),
    (0, (b"GIF87a", b"GIF89a"), "GIF"),
    (0, (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"), "JPEG 2000"),
    (0, (b"\xff\x0a", b"\0\0\0\x0cJXL "), "JPEG XL"),
    (0, (b"8BPS",), "Photoshop"),
    (0, (b"gimp xcf",), "GIMP"),
    (0, (b"\x76\x2f\x31\x01",), "OpenEXR"),
    (0, (b"#?RADIANCE", b"#?RGBE"), "Radiance"),
    (0, (b"DDS ",), "DDS"),
    (0, (b"II\xbc\x01",), "JPEG XR"),
    (0, (b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FUJIFILMCCD-RAW", b"FOVb", b"\0MRM"), CAMERA_RAW),
    (8, (b"crx ",), CAMERA_RAW),
    (8, (b"heic", b"heix", b"heim", b"heis", b"mif1", b"hevc", b"msf1"), "HEIC"),
)
_NETPBM = re.compile(rb"P[1-6]\s+[\d#]|P7\n|P[Ff]\n\d")


def picture_format(path: Path) -> str | None:
    """The format of a file by its first bytes, as `sniff`; None if it cannot be opened."""
    try:
        if not path.is_file():  # a pipe would wait here
            return None
        with path.open("rb") as file:
            return sniff(file.read(64), path)
    except OSError:
        return None


def is_read(kind: str | None) -> bool:
    """Whether pictures of a format of `sniff` can be read."""
    return kind in READERS


def not_read(first: str, n: int, kind: str) -> str:
    """The error of `n` pictures whose format is not read, in one line that names the first."""
    one = n == 1
    if kind == CAMERA_RAW:
        advice = f"develop {'it' if one else 'them'} to JPEG, PNG or TIFF first"
    else:
        advice = f"save {'it' if one else 'them'} as one of {READABLE}"
        if extra := _EXTRAS.get(kind):
            advice = f"pip install 'hbr[{extra}]' to read {'it' if one else 'them'}, or {advice}"
    kind = _NAMES.get(kind, kind)
    if one:
        return f"{first}: is a {kind} file; {advice}"
    return f"{first} and {n - 1} more are {kind} files, which are not read; {advice}"


def sniff(head: bytes, name: str | Path = "") -> str | None:
    """The format by the first bytes of a file; None if unknown.

    Args:
        head: 64 bytes, or as many as there are.
        name: of the file. Only it tells camera raw files that begin as TIFF.
    """
    kind = _by_content(head)
    if kind == "tiff" and (
        head[8:10] == b"CR" or UNREADABLE.get(Path(name).suffix.lower()) == CAMERA_RAW
    ):
        return CAMERA_RAW
    return kind


def _by_content(head: bytes) -> str | None:
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    base_media = head[4:8] == b"ftyp"
    if base_media and (b"avif" in head[8:64] or b"avis" in head[8:64]):
        return "avif"
    for start, signatures, kind in _SIGNATURES:
        if kind == "bmp" and head[15:18] != b"\0\0\0":  # two letters may begin a text
            continue
        if head.startswith(signatures, start) and (start == 0 or base_media):
            return kind
    return "Netpbm" if _NETPBM.match(head) else None


def _read(file: BinaryIO, notes: Notes, max_pixels: int) -> Photo:
    start = file.tell()
    head = file.read(64)
    name = notes.name
    if not head:
        raise PhotoError(f"{name}: is empty; get an undamaged copy")
    kind = sniff(head, name)
    if kind is None:
        raise PhotoError(f"{name}: is not a photograph; {READABLE} are read")
    if not is_read(kind):
        raise PhotoError(not_read(name, 1, kind))
    if start:  # offsets in TIFF count from the start of the file
        file = io.BytesIO(head + file.read())
    file.seek(0)
    return READERS[kind](file, notes, max_pixels)
