"""Which files are photographs, by their names, and finding them in folders and by globs."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import features

HAS_AVIF = features.check_module("avif")
READ_SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".tif", ".tiff", ".webp", ".bmp"]
    + ([".avif"] if HAS_AVIF else [])
)
UNREADABLE_SUFFIXES = frozenset([".gif", ".heic", ".heif", ".jp2", ".jxl"])


def is_photo_name(path: str | Path) -> bool:
    """Whether the name has the suffix of a readable photograph and is not hidden.

    The file itself is not opened.
    """
    path = Path(path)
    return path.suffix.lower() in READ_SUFFIXES and not path.name.startswith(".")


def is_picture_name(path: str | Path) -> bool:
    """Like `is_photo_name`, but also for pictures that cannot be read here, as HEIC.

    They are reported as failed, because skipping them silently would suggest that they were done.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    return suffix in READ_SUFFIXES | UNREADABLE_SUFFIXES and not path.name.startswith(".")


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

    Args:
        folder: where to look.
        accept: whether a file of this name is wanted.
        enter: whether to look into a sub-folder.
        on_error: called with the error of a folder that cannot be read.

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


def find_photos(folder: Path) -> list[Path]:
    """The photos in a folder and its sub-folders, sorted.

    Raises:
        OSError: a folder cannot be read.
    """
    found = (folder / name for name in walk_files(folder, is_photo_name))
    return sorted(path for path in found if path.is_file())


def match_files(pattern: str) -> list[Path]:
    """The files and folders that match a glob, which may be absolute and hold `**`; sorted."""
    return [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207
