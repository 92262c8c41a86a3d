"""Read members of tars and cells of Parquet files in place, without unpacking."""

from __future__ import annotations

import bisect
import itertools
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hbr.errors import one_line

COMPRESSED = (".gz", ".tgz", ".bz2", ".xz", ".zst")
"""Suffixes of compressed tars, which do not allow random access."""

# Image bytes are read this many rows at a time: 64 photos of 500 kB are 32 MB.
_ROWS_AT_ONCE = 64


def tar_members(path: str | Path) -> Iterator[tarfile.TarInfo]:
    """Yield the regular files in an uncompressed tar, in order, without holding them in memory.

    Raises:
        tarfile.TarError: the file is not a tar, or is truncated within the last member yielded.
        OSError: the file cannot be read.
    """
    size = Path(path).stat().st_size
    with tarfile.open(path, "r:") as tar:
        while (member := tar.next()) is not None:
            if member.isreg():
                yield member
            if member.offset_data + member.size > size:
                raise tarfile.ReadError(f"{member.name} goes on beyond the end")
            tar.members.clear()  # type: ignore[attr-defined]


def read_part(path: str | Path, offset: int, size: int) -> bytes:
    """Read `size` bytes of a file from `offset` on.

    Raises:
        OSError: the file cannot be read, or is too short.
    """
    with Path(path).open("rb") as file:
        file.seek(offset)
        data = file.read(size)
    if len(data) != size:
        raise OSError(f"expected {size} bytes at {offset}, got {len(data)}")
    return data


def read_cell(path: str | Path, column: str, row: int) -> Any:
    """Return the value of a column in a row of a Parquet file.

    Reading rows in ascending order is fast; going back re-reads the row group.

    Raises:
        OSError: the file cannot be read, is damaged, or has no such row.
    """
    import pyarrow

    try:
        return _reader.cell(str(path), column, row)
    except (OSError, pyarrow.ArrowException, StopIteration) as error:
        _reader.place = None
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise OSError(f"row {row}: {one_line(error)}") from None


def image_bytes(value: Any, folder: Path) -> bytes | None:
    """Return the image file in a cell: bytes, or {bytes, path} as Hugging Face `datasets` writes.

    Returns:
        the bytes, or None if the cell has no image.

    Raises:
        OSError: the file at `path` cannot be read.
    """
    if isinstance(value, dict):
        if value.get("bytes") is None and value.get("path"):
            return (folder / value["path"]).read_bytes()
        value = value.get("bytes")
    return value if isinstance(value, bytes) else None


class _Reader(threading.local):
    """The open file of this thread, and the batch of rows read last."""

    def __init__(self) -> None:
        self.place: tuple[str, str] | None = None
        self.batch: Any = None

    def cell(self, path: str, column: str, row: int) -> Any:
        """Return the value in a row."""
        from pyarrow import parquet

        if self.place != (path, column):
            self.place = None
            self.file = parquet.ParquetFile(path, pre_buffer=False)
            metadata = self.file.metadata
            counts = (metadata.row_group(g).num_rows for g in range(metadata.num_row_groups))
            self.starts = list(itertools.accumulate(counts, initial=0))
            self.place, self.first, self.batch = (path, column), 0, None
            self.group = -1
        if not 0 <= row < self.starts[-1]:
            raise OSError("no such row")
        group = bisect.bisect_right(self.starts, row) - 1
        if group != self.group or self.batch is None or row < self.first:
            self._open(group, column)
        while row >= self.first + len(self.batch):
            self.first += len(self.batch)
            self.batch = next(self.batches)
        return self.batch.column(0)[row - self.first].as_py()

    def _open(self, group: int, column: str) -> None:
        self.batches = self.file.iter_batches(
            batch_size=_ROWS_AT_ONCE, row_groups=[group], columns=[column]
        )
        self.batch = next(self.batches)
        self.group, self.first = group, self.starts[group]


_reader = _Reader()
