"""Finding photos: what files, folders and globs on a command line stand for."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hbr.errors import display_name, one_line
from hbr.image.paths import (
    READ_SUFFIXES,
    UNREADABLE,
    has_suffix,
    is_thumbnail_folder,
    match_files,
    split_glob,
    walk_files,
)
from hbr.image.reading import is_read, not_read, picture_format

InputPhoto = tuple[Path, Path]
"""A photo, and where it lies below the input that it was found in."""


@dataclass(frozen=True)
class PhotoList:
    """A file that lists photos.

    Attributes:
        path: a text file with a path in each line, or a Parquet table with a column of paths. They
            count from the folder of the file.
    """

    path: Path


@dataclass(frozen=True)
class BadInput:
    """An input without a photo.

    Attributes:
        source: as given, or the file or folder in it that cannot be read.
        error: "SOURCE: what is wrong; what to do".
        format: of a picture in a folder that is not read, as `camera raw`.
        place: of such a picture below its input.
    """

    source: str
    error: str
    format: str | None = None
    place: Path | None = None


@dataclass
class Found:
    """What inputs stand for.

    Attributes:
        photos: in the order of the inputs.
        bad: inputs without a photo, and pictures in folders that are not read.
        thumbnails: the folders of thumbnails that were skipped.
    """

    photos: list[InputPhoto] = field(default_factory=list)
    bad: list[BadInput] = field(default_factory=list)
    thumbnails: list[Path] = field(default_factory=list)

    def fail(self, source: str, why: str) -> None:
        """Add an input without a photo."""
        self.bad.append(BadInput(source, f"{display_name(source)}: {why}"))


def find_inputs(inputs: Iterable[str | PhotoList], out: str, *, recursive: bool) -> Found:
    """The photos that files, folders and globs stand for; none is decoded.

    A file stands for itself, whatever its name. A folder stands for the photos in it, sorted by
    name, and in its sub-folders if `recursive`: files with the suffix of a photo, and files without
    any suffix or with that of a format that is not read if their first bytes are those of a photo.
    Pictures of other formats are in `Found.bad`. Hidden files and folders, links to folders (which
    may form loops), folders that a NAS makes for thumbnails, and `out` itself if it is inside an
    input are skipped. A glob, unless a file has that name, stands for the files and folders that
    match, by the same rules. A manifest stands for the files in it, whatever their names.
    """
    found = Found()
    for given in inputs:
        if isinstance(given, PhotoList):
            _add_listed(found, given.path)
            continue
        path = Path(given)
        if is_folder(path):
            _add_folder(found, path, path, Path(out), recursive)
        elif (why := _why_missing(path)) is None:
            found.photos.append((path, Path(path.name)))
        elif glob.has_magic(given):
            _add_matches(found, given, Path(out), recursive)
        else:
            found.fail(given, why)
    return found


_COLUMNS = ("path", "file_name", "file", "name")


def _add_listed(found: Found, manifest: Path) -> None:
    """Add the photos of a manifest, each with its place below the folder that holds them all."""
    try:
        listed = _listed(manifest)
    except (OSError, ValueError) as error:
        found.fail(str(manifest), f"is no list of photos ({one_line(error)}); check the file")
        return
    if not listed:
        found.fail(str(manifest), "lists no photos; check the file")
        return
    home = manifest.parent
    paths = [Path(os.path.normpath(home / name)) for name in listed]
    base = Path(os.path.normpath(home))
    if any(base not in path.parents for path in paths):
        paths = [path.absolute() for path in paths]
        base = Path(os.path.commonpath([path.parent for path in paths]))
    for path in paths:
        if (why := _why_missing(path)) is None:
            found.photos.append((path, path.relative_to(base)))
        else:
            found.fail(str(path), why)


def _listed(manifest: Path) -> list[str]:
    """The paths in a manifest, as they are written there.

    Raises:
        OSError: it cannot be read.
        ValueError: it is a table without a column of paths.
    """
    if manifest.suffix.lower() != ".parquet":
        lines = os.fsdecode(manifest.read_bytes()).splitlines()
        return [line.strip() for line in lines if line.strip()]
    import pyarrow.parquet as pq

    names = pq.read_schema(manifest).names
    column = next((name for name in _COLUMNS if name in names), None)
    if column is None:
        raise ValueError(f"it has none of the columns {', '.join(_COLUMNS)}")
    values = pq.read_table(manifest, columns=[column])[column].to_pylist()
    return [str(value) for value in values if value]


def lines_of(bad: Sequence[BadInput]) -> list[str]:
    """A line for each bad input; one for all pictures of a format that is not read."""
    of_format: dict[str, list[str]] = {}
    for item in bad:
        if item.format is not None:
            of_format.setdefault(item.format, []).append(display_name(item.source))
    return [item.error for item in bad if item.format is None] + [
        not_read(names[0], len(names), format) for format, names in of_format.items()
    ]


def is_folder(path: Path) -> bool:
    """Whether a path is a folder, which nothing is said of if it cannot be looked at."""
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name too long, a folder that may not be looked into
        return False


def _why_missing(path: Path) -> str | None:
    """What keeps a file from being found; None if it is there, or reading it will tell more."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return "does not exist; check the name"
    except PermissionError:
        return "may not be read; change its permissions"
    except (OSError, ValueError):
        return None
    return None


def may_be_picture(name: str) -> bool:
    """Whether a file of this name may be a picture of any format."""
    suffix = Path(name).suffix.lower()
    return suffix in READ_SUFFIXES or suffix in UNREADABLE or not has_suffix(name)


def add_file(found: Found, path: Path, base: Path) -> bool:
    """Add a file of a folder, if it is a picture of any format; return whether it is.

    `base` is the folder that the output's place counts from.
    """
    suffix = path.suffix.lower()
    if suffix not in READ_SUFFIXES:
        format = picture_format(path) or UNREADABLE.get(suffix)
        if format is None:
            return False
        if not is_read(format):
            error = not_read(display_name(path), 1, format)
            found.bad.append(BadInput(str(path), error, format, path.relative_to(base)))
            return True
    found.photos.append((path, path.relative_to(base)))
    return True


def _add_folder(found: Found, folder: Path, base: Path, out: Path, recursive: bool) -> None:
    """Add the pictures in a folder, each with its place below `base`."""
    is_output = output_below(base, out)
    broken: list[OSError] = []
    passed_over = False

    def enter(inner: Path) -> bool:
        nonlocal passed_over
        if is_thumbnail_folder(inner):
            if recursive:
                found.thumbnails.append(inner)
            return False
        passed_over |= not recursive
        return recursive and not is_output(inner)

    names = list(walk_files(folder, may_be_picture, enter=enter, on_error=broken.append))
    n_found = sum([add_file(found, folder / name, base) for name in sorted(names, key=_order)])
    for error in broken:
        reason = (error.strerror or str(error)).lower()
        name = error.filename or str(folder)
        found.fail(name, f"cannot be read ({reason}); change its permissions")
    if not n_found and not broken:
        hint = "--recursive looks into its folders" if passed_over else "check the name"
        found.fail(str(folder), f"holds no photographs; {hint}")


def _add_matches(found: Found, pattern: str, out: Path, recursive: bool) -> None:
    """Add what matches a glob, each with its place below the glob's fixed part."""
    base, _ = split_glob(pattern)
    is_output = output_below(base, out)
    n_found = 0
    for path in match_files(pattern):
        below = [folder for folder in (path, *path.parents) if base in folder.parents]
        if thumbnails := [folder for folder in below if is_thumbnail_folder(folder)]:
            if thumbnails[-1] not in found.thumbnails:
                found.thumbnails.append(thumbnails[-1])
        elif any(is_output(folder) for folder in below):
            continue
        elif is_folder(path):
            if recursive and not path.is_symlink():
                n_found += 1
                _add_folder(found, path, base, out, recursive)
        elif may_be_picture(path.name):
            n_found += add_file(found, path, base)
    if not n_found:
        found.fail(pattern, "matches no photographs; check the name")


def _order(name: str) -> list[tuple[bool, str]]:
    """Sorts the files in a folder by name, before those in its sub-folders."""
    *folders, file = name.split("/")
    return [*((True, folder) for folder in folders), (False, file)]


def output_below(base: Path, out: Path) -> Callable[[Path], bool]:
    """A test whether a folder is the output, which is never an input even if it is inside one."""
    real = os.path.realpath(out)
    inside = Path(os.path.realpath(base)) in Path(real).parents
    return lambda folder: inside and os.path.realpath(folder) == real
