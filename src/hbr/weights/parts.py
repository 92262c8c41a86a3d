"""The parts of a model that is assembled on this machine: what is missing, how large, from where.

Everything is known before the first byte is downloaded: what lies here is verified, servers are
asked for sizes, and the disk for its free space.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from hbr.weights.catalogue import Entry, entries
from hbr.weights.download import ByteProgress, ask_size, fetch
from hbr.weights.sources import DownloadError, KnownFile, check_file


@dataclass(frozen=True)
class MissingFile:
    """A file of a part that is not on this machine.

    Attributes:
        known: what it is.
        size: in bytes, as the catalogue or the server says it; None if neither does.
    """

    known: KnownFile
    size: int | None

    def __str__(self) -> str:
        """For messages."""
        size = "size unknown" if self.size is None else size_text(self.size)
        return f"{self.known.path}: {size}, {self.known.all_sources[0]}"


@dataclass(frozen=True)
class Part:
    """One entry of the catalogue that a model is assembled from.

    Attributes:
        entry: of the catalogue.
        folder: where its files lie, or will.
        missing: its files that are not there.
    """

    entry: Entry
    folder: Path
    missing: tuple[MissingFile, ...]


def look_for_parts(entry: Entry, into: Path | None = None) -> list[Part]:
    """The parts of an assembled model; what is here is verified, what is not is asked for.

    Args:
        entry: of the catalogue, with `assembled_from`.
        into: a folder with a folder for each part; None is where hbr looks for weights.

    Raises:
        DownloadError: a file here is not the one that it should be, or one that is missing has no
            source, or none that has it.
    """
    found = []
    for part in (entries()[name] for name in entry.assembled_from):
        folder = into / part.name if into is not None else part.find() or part.folder
        folder = folder.parent if folder.is_file() else folder
        absent = [known for known in part.files if not _is_there(folder, known)]
        for known in absent:
            if not known.all_sources:
                raise DownloadError(
                    f"{known.path} of {part.name} has no address; get it ({part.source}) and put "
                    f"it into {folder}"
                )
        missing = tuple(MissingFile(known, ask_size(known)) for known in absent)
        found.append(Part(part, folder, missing))
    return found


def check_space(entry: Entry, parts: Sequence[Part], folder: Path) -> str:
    """Whether the missing files and the assembled model fit on the disk of `folder`.

    Returns:
        what is needed and free, in one line.

    Raises:
        DownloadError: they do not fit.
    """
    sizes = [file.size for part in parts for file in part.missing]
    coming = sum(size or 0 for size in sizes)
    more = " or more" if None in sizes else ""
    model = entry.assembled_size or 0
    place = next(p for p in (folder, *folder.absolute().parents) if p.is_dir())
    free = shutil.disk_usage(place).free
    need = (
        f"{len(sizes)} files to download, {size_text(coming)}{more}, and about {size_text(model)} "
        f"for the model made of them"
    )
    if coming + model > free:
        raise DownloadError(
            f"{entry.name}: {need}; {folder} has {size_text(free)} free: make room, or choose "
            "another folder by --into or HBR_WEIGHTS"
        )
    return f"{need}; {size_text(free)} are free"


def fetch_parts(
    parts: Sequence[Part],
    *,
    progress: Callable[[str], AbstractContextManager[ByteProgress]],
    report: Callable[[str], None],
) -> dict[str, Path]:
    """Download what is missing, file by file; see `hbr.weights.fetch`.

    Returns:
        name of each part → its folder.

    Raises:
        DownloadError: as `fetch`.
        OSError: no permission, a full disk.
    """
    for part in parts:
        for file in part.missing:
            with progress(file.known.path) as moved:
                path = fetch(file.known, part.folder, progress=moved, report=report)
            report(f"{path}: {size_text(path.stat().st_size)}")
    return {part.entry.name: part.folder for part in parts}


def size_text(size: int) -> str:
    """A number of bytes for people."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _is_there(folder: Path, known: KnownFile) -> bool:
    path = folder / known.path
    if not path.is_file():
        return False
    try:
        check_file(path, known)
    except DownloadError as error:
        raise DownloadError(f"{error}; delete it and run the same command again") from None
    return True
