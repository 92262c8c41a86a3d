"""Photos in folders and archives; what is passed over is counted and reported."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TypeVar

from hbr.errors import display_name
from hbr.image.paths import (
    UNREADABLE,
    has_suffix,
    is_photo_name,
    is_thumbnail_folder,
    walk_files,
)
from hbr.image.reading import is_read, not_read, picture_format

T = TypeVar("T")

log = logging.getLogger(__name__)

_NO_SUFFIX, _THUMBNAILS = "photo without a suffix", "thumbnails"


@dataclass
class LeftOut:
    """What a search for photos passes over: of each kind, the first name, and how many."""

    kinds: dict[str, tuple[str, int]] = field(default_factory=dict)

    def add_name(self, name: str) -> None:
        """Count a file by its name, if it is that of a picture of a format that is not read."""
        if kind := UNREADABLE.get(PurePosixPath(name).suffix.lower()):
            self._add(kind, name)

    def add_file(self, path: Path) -> None:
        """Count a file by its name or, without a suffix, by its first bytes."""
        if has_suffix(path):
            self.add_name(str(path))
        elif kind := picture_format(path):
            self._add(_NO_SUFFIX if is_read(kind) else kind, str(path))

    def add_thumbnails(self, folder: Path) -> None:
        """Count a folder of thumbnails, which a NAS made by itself."""
        self._add(_THUMBNAILS, str(folder))

    def _add(self, kind: str, name: str) -> None:
        first, n = self.kinds.get(kind, (name, 0))
        self.kinds[kind] = (first, n + 1)

    def lines(self) -> list[str]:
        """A line for each kind, the thumbnails last."""
        lines = []
        for kind, (first, n) in sorted(self.kinds.items(), key=lambda kind: kind[0] == _THUMBNAILS):
            name = display_name(first)
            several = f"{name} and {n - 1} more" if n > 1 else name
            if kind == _NO_SUFFIX:
                lines.append(f"{several}: without a suffix, passed over; rename")
            elif kind == _THUMBNAILS:
                lines.append(f"{several}: thumbnails, skipped")
            else:
                lines.append(not_read(name, n, kind))
        return lines

    def say(self) -> None:
        """Log a warning for each kind."""
        for line in self.lines():
            log.warning("%s", line)


def walk_photos(
    folder: Path,
    accept: Callable[[str], bool] = is_photo_name,
    *,
    recursive: bool = True,
) -> Iterator[str]:
    """Photos below a folder, as `walk_files`; then log a warning of what is left out.

    Args:
        accept: whether a file of this name is wanted.
        recursive: look into sub-folders too, but for those that a NAS makes for thumbnails.

    Raises:
        OSError: a folder cannot be read.
    """
    left_out = LeftOut()

    def enter(inner: Path) -> bool:
        if recursive and is_thumbnail_folder(inner):
            left_out.add_thumbnails(inner)
            return False
        return recursive

    for name in walk_files(folder, lambda name: accept(name) or _counts(name), enter=enter):
        if accept(PurePosixPath(name).name):
            yield name
        else:
            left_out.add_file(folder / name)
    left_out.say()


def find_photos(folder: Path) -> list[Path]:
    """The photos in a folder and its sub-folders, sorted; a warning names what is left out.

    Raises:
        OSError: a folder cannot be read.
    """
    return sorted(path for name in walk_photos(folder) if (path := folder / name).is_file())


def spread(photos: Sequence[T], most: int) -> list[T]:
    """At most so many of some photos, evenly spread: each is the middle one of its part."""
    n = min(most, len(photos))
    return [photos[(2 * i + 1) * len(photos) // (2 * n)] for i in range(n)]


def _counts(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in UNREADABLE or not has_suffix(name)
