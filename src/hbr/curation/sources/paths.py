"""Images on disk by the names that annotations give them."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from hbr.curation.sources.base import ImageRef, SourceError, SourceImage
from hbr.curation.sources.disk_tables import in_order
from hbr.image.paths import READ_SUFFIXES, photo_suffix, walk_files
from hbr.image.search import walk_photos
from hbr.people.values import clean, name_parts


def walk(folder: Path, accept: Callable[[str], bool] | None = None) -> Iterator[str]:
    """Files below `folder`, as relative paths with slashes, sorted.

    Hidden files and folders are left out, and links to folders are not followed.

    Args:
        folder: where to look.
        accept: whether a file of this name is wanted; None wants photos, and warns of pictures that
            are not read and of folders of thumbnails.

    Raises:
        SourceError: it is no folder.
        OSError: a folder cannot be listed.
    """
    root = folder.absolute()
    if not root.is_dir():
        raise SourceError(f"{folder}: no such folder")
    yield from in_order(walk_photos(root) if accept is None else walk_files(root, accept))


@dataclass(frozen=True)
class Located:
    """The place of an image that annotations name.

    Attributes:
        path: None if the name leads out of the folder.
        error: one line if it is missing or ambiguous.
        exact: it lies where the name says; no leading folder was dropped.
    """

    path: str | None
    error: str | None = None
    exact: bool = False


def locate(folder: Path, name: str) -> Located:
    """Find an image below `folder` by the name that annotations give it.

    Annotations often name folders that a download does not have (`images/v1/patch8/x.jpg` for
    `patch8/x.jpg`, `/data/me/x.jpg`, `C:\\x.jpg`): leading folders are dropped until a file is
    there. A name without the suffix of a picture (`x`, `22.05`) stands for the one with it.
    """
    parts = name_parts(name)
    if not parts or ".." in parts or "\0" in name:
        return Located(None, f"{name!r} is no file name within the folder of images")
    for first in range(len(parts)):
        path = f"{folder}/{'/'.join(parts[first:])}"
        found = [path] if os.path.isfile(path) else _with_suffix(path)  # noqa: PTH113
        if len(found) > 1:
            places = " and ".join(file.removeprefix(f"{folder}/") for file in found[:2])
            return Located(path, f"{name}: {places} are both there; name the suffix")
        if found:
            return Located(found[0], exact=first == 0)
    # a published manifest, which has this line, must not show folders of this machine
    missing = f"{name}: named by the annotations, but not in the folder {folder.name}"
    return Located(f"{folder}/{'/'.join(parts)}", missing)


def _with_suffix(path: str) -> list[str]:
    """The files of this name with the suffix of a picture, which it lacks."""
    if photo_suffix(path):
        return []
    suffixes = [*sorted(READ_SUFFIXES), *sorted(map(str.upper, READ_SUFFIXES))]
    return [path + suffix for suffix in suffixes if os.path.isfile(path + suffix)]  # noqa: PTH113


class Places:
    """Which image below a folder each name of an annotation file falls on.

    Two names may fall on one image once leading folders are dropped. The one that names it exactly
    has it; where none or several do, all are errors.

    Args:
        folder: of the images.
        names: (key of an entry, name of its image), all that will be asked for.
        database: for the tables (`disk_tables.on_disk`).
    """

    def __init__(
        self, folder: Path, names: Iterable[tuple[str, str]], database: sqlite3.Connection
    ) -> None:
        self._folder = folder.absolute()
        self._database = database
        run = database.execute
        run("CREATE TABLE places (key TEXT PRIMARY KEY, path, error, exact) WITHOUT ROWID")
        run("CREATE INDEX place_path ON places (path)")
        rows = self._rows(names)
        database.executemany("INSERT OR IGNORE INTO places VALUES (?,?,?,?)", rows)

    def _rows(
        self, names: Iterable[tuple[str, str]]
    ) -> Iterator[tuple[str, str | None, str | None, bool]]:
        for key, name in names:
            found = locate(self._folder, name)
            # an entry that is called as its image claims it before others
            exact = found.exact and _stem(key) == _stem(found.path or "")
            yield key, found.path, found.error, exact

    def at(self, key: str) -> tuple[ImageRef | None, str | None]:
        """The image of an entry, and one line if it is not there, or is another entry's too."""
        run = self._database.execute
        row = run("SELECT path, error, exact FROM places WHERE key = ?", (key,)).fetchone()
        assert row is not None, f"{key} was not among the names"
        path, error, exact = row
        if path is None:
            return None, error
        claims = "SELECT count(*), sum(exact) FROM places WHERE path = ?"
        count, n_exact = run(claims, (path,)).fetchone()
        if error is None and count > 1 and not (exact and n_exact == 1):
            other = "SELECT key FROM places WHERE path = ? AND key != ? ORDER BY exact DESC, key"
            (key_of_other,) = run(other, (path, key)).fetchone()
            image = path.removeprefix(f"{self._folder}/")
            error = f"{key} and {key_of_other} both fall on {image}; which one it is, is not known"
        return ImageRef(path=path), error


def _stem(name: str) -> str:
    last = (name_parts(name) or ("",))[-1]
    return last.removesuffix(photo_suffix(last))


def broken(source: str, key: str, error: str) -> SourceImage:
    """The record of something that is not an image: a bad line, a truncated file."""
    return SourceImage(source=source, key=clean(key), ref=None, error=clean(error))


def unused(source: str, place: str, problem: str) -> SourceImage:
    """The record of an entry of the annotations that cannot be used and costs only itself."""
    return replace(broken(source, place, problem), entry=True)


def badly_named(source: str, name: str) -> SourceImage | None:
    """The record of a file whose name no manifest can hold; None for all others."""
    if clean(name) == name:
        return None
    return broken(source, name, f"{name}: the name of the file is not UTF-8; rename it")
