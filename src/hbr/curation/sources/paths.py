"""Images on disk by the names that annotations give them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from hbr.curation.sources.base import ImageRef, SourceError, SourceImage
from hbr.curation.sources.disk_tables import in_order
from hbr.image.paths import walk_files
from hbr.people.values import clean


def walk(folder: Path, accept: Callable[[str], bool]) -> Iterator[str]:
    """Files below `folder` whose name is accepted, as relative paths with slashes, sorted.

    Hidden files and folders are left out, and links to folders are not followed.

    Raises:
        SourceError: the folder cannot be listed.
    """
    root = folder.absolute()
    if not root.is_dir():
        raise SourceError(f"{folder}: no such folder")
    try:
        yield from in_order(walk_files(root, accept))
    except OSError as error:
        raise SourceError(f"{error.filename}: {error.strerror}") from None


def locate(folder: Path, name: str) -> tuple[str | None, str | None]:
    """Where an image that annotations name lies below `folder`, and what is wrong with it.

    Annotations often name folders that a download does not have (`images/v1/patch8/x.jpg` for
    `patch8/x.jpg`): leading folders are dropped until a file is there.

    Returns:
        its path, None if the name leads out of the folder, and one line if it is not there.
    """
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or ".." in parts or parts[0].startswith("/") or "\0" in name:
        return None, f"{name!r} is no file name within the folder of images"
    for first in range(len(parts)):
        path = f"{folder}/{'/'.join(parts[first:])}"
        if os.path.isfile(path):  # noqa: PTH113 - plain text: this is done for millions
            return path, None
    return f"{folder}/{'/'.join(parts)}", f"{name}: named by the annotations, but not in {folder}"


def broken(source: str, key: str, error: str) -> SourceImage:
    """The record of something that is not an image: a bad line, a truncated file."""
    return SourceImage(source=source, key=clean(key), ref=None, error=clean(error))


def badly_named(source: str, name: str) -> SourceImage | None:
    """The record of a file whose name no manifest can hold; None for all others."""
    if clean(name) == name:
        return None
    return broken(source, name, f"{name}: the name of the file is not UTF-8; rename it")


def at(folder: Path, name: str) -> tuple[ImageRef | None, str | None]:
    """`locate`, as a reference."""
    path, error = locate(folder.absolute(), name)
    return (None if path is None else ImageRef(path=path)), error
