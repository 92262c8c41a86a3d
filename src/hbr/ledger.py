"""Append-only files of JSON lines, from which an interrupted run resumes."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Self

from hbr.files import file_lock, os_error_context, write_text

Row = Mapping[str, Any]

LOOK = 10.0
"""Seconds between two looks for the files of other runs."""


class Ledger:
    """An append-only file with one JSON object per line.

    Once `append` has returned, the row survives a kill of the process. Readers skip a line that was
    torn by a kill, and the next row starts on a new line.

    Attributes:
        path: the file; None for a temporary one.
    """

    def __init__(self, path: Path | None, *, read_only: bool = False) -> None:
        """Open the file; create it with its folders if missing.

        Args:
            path: the file; None creates an unnamed temporary file.
            read_only: whether to only read an existing file, to which others may append.

        Raises:
            OSError: the file cannot be opened.
        """
        self.path = path
        if path is None:
            self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed by `close`)
        elif read_only:
            self._file = path.open("rb")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")

    def _end_torn_line(self) -> None:
        if self._file.seek(0, os.SEEK_END):
            self._file.seek(-1, os.SEEK_END)
            if self._file.read(1) != b"\n":
                self._file.write(b"\n")

    def rows(self, start: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the offset of each row, for `read`, and the row.

        `start` is the offset of the first row.
        """
        place = self._file.seek(start)
        for line in self._file:
            with contextlib.suppress(ValueError):
                row = json.loads(line)
                if isinstance(row, dict):
                    yield place, row
            place += len(line)

    def read(self, place: int) -> dict[str, Any]:
        """Return the row at an offset from `rows` or `append`."""
        self._file.seek(place)
        row: dict[str, Any] = json.loads(self._file.readline())
        return row

    def append(self, *rows: Row) -> int:
        """Append rows to the file and return the offset of the first.

        Raises:
            OSError: the rows cannot be written, e.g. because the disk is full.
        """
        with os_error_context(self.path or tempfile.gettempdir()):
            self._end_torn_line()
            place = self._file.seek(0, os.SEEK_END)
            self._file.write("".join(map(_line, rows)).encode())
            self._file.flush()
        return place

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):  # `append` has raised it already
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SharedLedger:
    """The ledgers of all runs into a folder, by the name in each row; runs may go on meanwhile.

    Of several rows of one name, the last one counts. Runs that work on different parts have a file
    each, the others share one. Only places in the files are held in memory.
    """

    def __init__(self, folder: Path | None, stem: str, part: str = "") -> None:
        """Read what runs into the folder have written.

        Args:
            folder: of the outputs, created by the first row; None keeps rows in a temporary file.
            stem: of the names of the files, such as `.hbr-degrade`.
            part: what the file of this run has after the stem.

        Raises:
            OSError: a file cannot be opened.
        """
        self._folder, self._pattern = folder, f"{stem}*.jsonl"
        self._file = None if folder is None else folder / f"{stem}{part}.jsonl"
        self._own = Ledger(None) if folder is None else None  # a file is opened by the first row
        self._read: dict[Path, Ledger] = {}
        self._ends: dict[Path, int] = {}
        self._next_look = 0.0
        self._places: dict[str, tuple[Ledger, int]] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read what runs have written since; a new file is found after `LOOK` seconds."""
        found = set(self._read)
        if self._file is not None and self._file.exists():
            found.add(self._file)
        if self._folder is not None and time.monotonic() >= self._next_look:
            # listing a folder of many outputs takes long
            self._next_look = time.monotonic() + LOOK
            found |= set(self._folder.glob(self._pattern))
        for path in sorted(found, key=lambda path: (path == self._file, path)):
            if path not in self._read:
                self._read[path] = Ledger(path, read_only=True)
            for place, row in self._read[path].rows(self._ends.get(path, 0)):
                self._ends[path] = place  # not behind it: a line there may be half written
                if "name" in row:
                    self._places[str(row["name"])] = (self._read[path], place)

    def find(self, name: str) -> dict[str, Any] | None:
        """The last row of this name, if it can be read."""
        if name not in self._places:
            return None
        ledger, place = self._places[name]
        try:
            return ledger.read(place)
        except ValueError:
            return None

    def add(self, row: Row) -> None:
        """Write a row, which has a `name`; from then on it survives a kill of the process.

        Raises:
            OSError: it cannot be written.
        """
        with contextlib.ExitStack() as held:
            if self._file is not None:  # which other runs may write into; see `remove_parts`
                lock = self._file.with_name(self._file.name + ".part.lock")
                held.enter_context(file_lock(lock, remove=True))
            self._own = self._own or Ledger(self._file)
            self._places[str(row["name"])] = (self._own, self._own.append(row))

    def close(self) -> None:
        """Close the files."""
        for ledger in filter(None, (*self._read.values(), self._own)):
            ledger.close()


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a ledger, to which others may append; none if the file is missing."""
    if path.exists():
        with Ledger(path, read_only=True) as ledger:
            yield from (row for _, row in ledger.rows())


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Replace the rows of a ledger, atomically."""
    write_text(path, "".join(map(_line, rows)))


def _line(row: Row) -> str:
    return json.dumps(row) + "\n"
