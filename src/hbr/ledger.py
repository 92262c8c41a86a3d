"""Append-only files of JSON lines, from which a run that was killed resumes."""

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
    """A file with a JSON object on each line, of which none is ever changed.

    A row outlives a kill of the process from the return of `append` on. A line that a kill has
    torn is skipped by readers, and the next row starts on a line of its own.

    Attributes:
        path: the file; None for a temporary one.
    """

    def __init__(self, path: Path | None, *, read_only: bool = False) -> None:
        """Open the file, or make it with its folders.

        Args:
            path: the file; None makes a temporary one without a name.
            read_only: the file exists, and another process may append to it.

        Raises:
            OSError: no permission, a full disk.
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
        """The place of each row, for `read`, and the row."""
        self._file.seek(0)
        place = 0
        for line in self._file:
            with contextlib.suppress(ValueError):
                row = json.loads(line)
                if isinstance(row, dict):
                    yield place, row
            place += len(line)

    def read(self, place: int) -> dict[str, Any]:
        """The row at a place that `rows` or `append` gave."""
        self._file.seek(place)
        row: dict[str, Any] = json.loads(self._file.readline())
        return row

    def append(self, *rows: Row) -> int:
        """Write rows to the end of the file; the place of the first.

        Raises:
            OSError: they cannot be written, as on a full disk; the file is named.
        """
        with os_error_context(self.path or tempfile.gettempdir()):
            place = self._file.seek(0, os.SEEK_END)
            self._file.write("".join(map(_line, rows)).encode())
            self._file.flush()
        return place

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):  # of a full disk, `append` has told
            self._file.close()

    def __enter__(self) -> Self:
        """The ledger itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a ledger, which others may append to; none if there is no file."""
    if path.exists():
        with Ledger(path, read_only=True) as ledger:
            yield from (row for _, row in ledger.rows())


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Replace a ledger by these rows, whole or not at all."""
    write_text(path, "".join(map(_line, rows)))


def _line(row: Row) -> str:
    return json.dumps(row) + "\n"
