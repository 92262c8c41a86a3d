"""Append-only files of JSON lines, from which an interrupted run resumes."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Self

from hbr.files import os_error_context, write_text

Row = Mapping[str, Any]


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
            self._end_torn_line()

    def _end_torn_line(self) -> None:
        if self._file.seek(0, os.SEEK_END):
            self._file.seek(-1, os.SEEK_END)
            if self._file.read(1) != b"\n":
                self._file.write(b"\n")

    def rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the offset of each row, for `read`, and the row."""
        self._file.seek(0)
        place = 0
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
            place = self._file.seek(0, os.SEEK_END)
            self._file.write("".join(map(_line, rows)).encode())
            self._file.flush()
        return place

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):  # `append` has raised it already
            self._file.close()

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()


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
