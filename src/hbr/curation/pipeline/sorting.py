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
    writers: dict[int, Any] = {}
    with contextlib.ExitStack() as files:
        for table in tables:
            held.append(table)
            rows += len(table)
            if rows > IN_MEMORY:
                if not writers:
                    files.enter_context(_scratch(scratch, writers))
                _divide(pa.concat_tables(held), scratch, writers)
                held, rows = [], 0
        if writers:
            if held:
                _divide(pa.concat_tables(held), scratch, writers)
            for writer in writers.values():
                writer.close()
            for byte in sorted(writers):
                path = scratch / _name(byte)
                with pa.ipc.open_stream(path) as reader:
                    yield _sort(reader.read_all())
                path.unlink()
        elif rows:
            yield _sort(pa.concat_tables(held))


def _sort(table: pa.Table) -> pa.Table:
    return table.sort_by("id").combine_chunks()


@contextlib.contextmanager
def _scratch(folder: Path, writers: dict[int, Any]) -> Iterator[None]:
    """An empty folder that goes away with the block, once its writers are closed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield
    finally:
        for writer in writers.values():
            with contextlib.suppress(OSError):
                writer.close()
        shutil.rmtree(folder, ignore_errors=True)


def _divide(table: pa.Table, folder: Path, writers: dict[int, Any]) -> None:
    """Divide rows among 256 files by the first byte of their id."""
    first = np.array([int(i[:2], 16) for i in table["id"].to_pylist()], np.int64)
    order = np.argsort(first, kind="stable")
    table, first = table.take(order), first[order]
    for byte in np.unique(first).tolist():
        start, end = np.searchsorted(first, [byte, byte + 1]).tolist()
        if byte not in writers:
            writers[byte] = pa.ipc.new_stream(folder / _name(byte), table.schema)
        writers[byte].write_table(table.slice(start, end - start))


def _name(byte: int) -> str:
    return f"{byte:02x}.arrow"
