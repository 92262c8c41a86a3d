"""Sorting tables of rows by id, on disk where they are too many for memory."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

IN_MEMORY = 1 << 16
"""Rows that are held at a time."""


def by_id(tables: Iterable[pa.Table], scratch: Path) -> Iterator[pa.Table]:
    """The rows of all tables in the order of `id`, in tables that follow each other.

    Args:
        tables: they share a schema; `id` is 16 hexadecimal digits, evenly spread.
        scratch: a folder that is made where memory does not suffice, and removed at the end.
    """
    held: list[pa.Table] = []
    rows = 0
    with contextlib.ExitStack() as stack:
        spill: _Spill | None = None
        for table in tables:
            held.append(table)
            rows += len(table)
            if rows > IN_MEMORY:
                spill = spill or stack.enter_context(_Spill(scratch))
                spill.write(pa.concat_tables(held))
                held, rows = [], 0
        if spill is None:
            if rows:
                yield _sort(pa.concat_tables(held))
            return
        if held:
            spill.write(pa.concat_tables(held))
        yield from spill.read()


def _sort(table: pa.Table) -> pa.Table:
    return table.sort_by("id").combine_chunks()


class _Spill:
    """Rows on disk, in 256 files by the first byte of their id."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[int, Any] = {}

    def __enter__(self) -> _Spill:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def write(self, table: pa.Table) -> None:
        """Divide rows among the files."""
        first = np.array([int(i[:2], 16) for i in table["id"].to_pylist()], np.int64)
        order = np.argsort(first, kind="stable")
        table, first = table.take(order), first[order]
        for byte in np.unique(first).tolist():
            start, end = np.searchsorted(first, [byte, byte + 1]).tolist()
            if byte not in self._writers:
                self._writers[byte] = pa.ipc.new_stream(self._path(byte), table.schema)
            self._writers[byte].write_table(table.slice(start, end - start))

    def read(self) -> Iterator[pa.Table]:
        """The rows in order, a file at a time."""
        there = sorted(self._writers)
        self._close()
        for byte in there:
            with pa.ipc.open_stream(self._path(byte)) as reader:
                table = reader.read_all()
            self._path(byte).unlink()
            yield _sort(table)

    def _close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _path(self, byte: int) -> Path:
        return self._folder / f"{byte:02x}.arrow"
