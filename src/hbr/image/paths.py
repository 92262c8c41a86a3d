"""Which files are photographs, by their names, and finding them in folders and by globs."""

from __future__ import annotations

import glob
import importlib.util
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import features

HAS_AVIF = features.check_module("avif")
# extras: pillow-heif and pillow-jxl-plugin
HAS_HEIC = importlib.util.find_spec("pillow_heif") is not None
HAS_JXL = importlib.util.find_spec("pillow_jxl") is not None
READ_SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".tif", ".tiff", ".webp", ".bmp"]
    + ([".avif"] if HAS_AVIF else [])
    + ([".heic", ".heif", ".hif"] if HAS_HEIC else [])
    + ([".jxl"] if HAS_JXL else [])
)
CAMERA_RAW = "camera raw"
# pictures that are not read: their format, and its suffixes
_UNREADABLE = {
    CAMERA_RAW: ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .gpr .iiq .k25 .kdc .mef .mos .mrw "
    ".nef .nrw .orf .ori .pef .raf .raw .rw2 .rwl .sr2 .srf .srw .x3f",
    "HEIC": ".avci .heics .heifs" if HAS_HEIC else ".avci .heic .heics .heif .heifs .hif",
    "JPEG XL": "" if HAS_JXL else ".jxl",
    "JPEG 2000": ".j2c .j2k .jp2 .jpc .jpf .jpm .jpx",
    "JPEG XR": ".hdp .jxr .wdp",
    "Photoshop": ".psb .psd",
    "GIMP": ".xcf",
    "Netpbm": ".pam .pbm .pfm .pgm .pnm .ppm",
    "TGA": ".tga",
    "PCX": ".pcx",
    "PICT": ".pct .pict",
    "SGI": ".sgi",
    "OpenEXR": ".exr",
    "Radiance": ".hdr",
    "DDS": ".dds",
    "GIF": ".gif",
} | ({} if HAS_AVIF else {"AVIF": ".avif"})
UNREADABLE = {suffix: name for name, suffixes in _UNREADABLE.items() for suffix in suffixes.split()}
"""The format of a picture that cannot be read here, by its suffix."""

# The folders that a NAS fills with thumbnails or with what was deleted: Synology, QNAP, Asustor.
_THUMBNAIL_FOLDERS = frozenset(
    ["@eadir", "@__thumb", ".@__thumb", ".@thumb", "#recycle", "@recycle", "$recycle.bin"]
)


def photo_suffix(name: str) -> str:
    """The suffix of a picture at the end of a name, as it is written; empty for `22.05` or `a`."""
    suffix = Path(name).suffix
    known = suffix.lower() in READ_SUFFIXES or suffix.lower() in UNREADABLE
    return suffix if known else ""


def is_photo_name(path: str | Path) -> bool:
    """Whether the name has the suffix of a readable photograph and is not hidden.

    The file itself is not opened.
    """
    path = Path(path)
    return path.suffix.lower() in READ_SUFFIXES and not path.name.startswith(".")


def is_picture_name(path: str | Path) -> bool:
    """Like `is_photo_name`, but also for pictures that cannot be read here, as HEIC.

    They are reported as failed, because skipping them silently would suggest that they were done.
    Camera raw files and those of picture editors do not count: they lie beside the picture that was
    made of them.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if UNREADABLE.get(suffix) in (CAMERA_RAW, "Photoshop", "GIMP"):
        return False
    return (suffix in READ_SUFFIXES or suffix in UNREADABLE) and not path.name.startswith(".")


def has_suffix(path: str | Path) -> bool:
    """Whether the name ends in a dot and a word, as `a.jpg`, but not `Anna 3.5.1962`."""
    return re.fullmatch(r"\.[a-zA-Z][\w~-]*", Path(path).suffix) is not None


def is_thumbnail_folder(path: str | Path) -> bool:
    """Whether a NAS made the folder by itself, for thumbnails (`@eaDir`) or what was deleted."""
    return Path(path).name.lower() in _THUMBNAIL_FOLDERS


def walk_files(
    folder: Path,
    accept: Callable[[str], bool],
    *,
    enter: Callable[[Path], bool] = lambda folder: True,
    on_error: Callable[[OSError], None] | None = None,
) -> Iterator[str]:
    """Files below a folder, as relative paths with slashes, in no particular order.

    Hidden files and folders are left out, and links to folders, which may form loops, are not
    followed. The names of a folder are never all in memory.

    `accept` decides by a file's name, `enter` by a sub-folder's path; `on_error` is called with the
    error of a folder that cannot be read.

    Raises:
        OSError: a folder cannot be read, and there is no `on_error`.
    """
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        try:
            with os.scandir(os.fspath(folder / prefix)) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if not _is_folder(entry):
                        if accept(entry.name):
                            yield prefix + entry.name
                    elif not entry.is_symlink() and enter(Path(entry.path)):
                        waiting.append(f"{prefix}{entry.name}/")
        except OSError as error:
            if on_error is None:
                raise
            on_error(error)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def match_files(pattern: str) -> list[Path]:
    """The files and folders that match a glob, which may be absolute and hold `**`; sorted.

    A part of the pattern that is the name of a file or folder stands for that name: in
    `Album [2020]/*.jpg`, the brackets are the folder's.
    """
    base, wild = split_glob(pattern)
    found = {base} if wild or os.path.lexists(base) else set()
    for number, part in enumerate(wild, 1):
        found = {path for above in found for path in _matches(above, part, number == len(wild))}
    if pattern.endswith(("/", os.sep)):
        found = {path for path in found if path.is_dir()}
    return sorted(found, key=str)


def split_glob(pattern: str) -> tuple[Path, tuple[str, ...]]:
    """The part of a glob that stands for one folder, and the parts behind it, as `match_files`."""
    parts = Path(pattern).parts
    base = Path()
    for number, part in enumerate(parts):
        if glob.has_magic(part) and not os.path.lexists(base / part):
            return base, parts[number:]
        base /= part
    return base, ()


def _matches(folder: Path, part: str, is_last: bool) -> Iterator[Path]:
    """What one part of a glob matches in a folder."""
    if part == "**":
        yield folder
        pattern = "**" if is_last else "**/"
        names = glob.iglob(pattern, root_dir=folder, recursive=True)  # noqa: PTH207
    elif os.path.lexists(folder / part):
        names = iter([part])
    else:
        names = glob.iglob(part, root_dir=folder)  # noqa: PTH207
    for name in names:
        yield folder / name
