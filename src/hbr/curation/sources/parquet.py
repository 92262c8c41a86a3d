"""Parquet files with image bytes in a column, as binary or, as on the hub, as {bytes, path}."""

from __future__ import annotations

import bisect
import itertools
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hbr.curation.sources.base import ImageRef, SourceError, SourceImage
from hbr.curation.sources.paths import broken
from hbr.curation.sources.row_reader import COLUMNS, Told
from hbr.errors import one_line

ROWS_AT_ONCE = 1000
# Image bytes are read this many rows at a time: 64 photos of 500 kB are 32 MB.
IMAGES_AT_ONCE = 64


@dataclass(frozen=True)
class ParquetSource:
    """Images in the rows of Parquet files.

    Attributes:
        name: of the source.
        files: in their order.
        told: how the other columns are read.
        column: the one with the bytes; None for `image`, or the only one that can be it.
    """

    name: str
    files: tuple[Path, ...]
    told: Told
    column: str | None = None

    def __iter__(self) -> Iterator[SourceImage]:
        """The images in the order of files and rows; no image bytes are read for it."""
        import pyarrow

        for path in self.files:
            try:
                yield from self._file(path)
            except FileNotFoundError:
                raise SourceError(f"{path}: no such file") from None
            except (OSError, pyarrow.ArrowException) as error:
                said = one_line(error)
                yield broken(self.name, path.name, f"{path.name} is cut or no Parquet: {said}")

    def _file(self, path: Path) -> Iterator[SourceImage]:
        from pyarrow import parquet

        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            column = self.column or _image_column(schema, path)
            if column not in schema.names:
                there = ", ".join(schema.names)
                raise SourceError(f"{path}: no column {column}; there are {there}")
            columns = [name for name in COLUMNS if name in schema.names]
            told = self.told
            if not told.classes:
                told = replace(told, classes=class_names(_features(schema)))
            rows: Iterator[dict[str, Any]] = ({} for _ in range(file.metadata.num_rows))
            if columns:
                batches = file.iter_batches(batch_size=ROWS_AT_ONCE, columns=columns)
                rows = (values for batch in batches for values in batch.to_pylist())
            for row, values in enumerate(rows):
                ref = ImageRef(str(path.absolute()), column=column, row=row)
                yield SourceImage(self.name, f"{path.name}/{row:08d}", ref, **told.read(values))


def _image_column(schema: Any, path: Path) -> str:
    """The column of image bytes."""
    from pyarrow import types

    def holds_bytes(kind: Any) -> bool:
        if types.is_struct(kind):
            return kind.get_field_index("bytes") >= 0
        return types.is_binary(kind) or types.is_large_binary(kind)

    names = [field.name for field in schema if holds_bytes(field.type)]
    if "image" in names:
        return "image"
    if len(names) == 1:
        return str(names[0])
    raise SourceError(
        f"{path}: which column holds the images? `column` names it; "
        + (f"it may be {', '.join(names)}" if names else "none here holds bytes")
    )


def _features(schema: Any) -> Any:
    """What the hub's library wrote down about the columns."""
    try:
        return json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return None


def class_names(features: Any) -> tuple[str, ...]:
    """The names behind the numbers of `objects.category`, wherever the features tell them."""
    if isinstance(features, dict):
        if features.get("_type") == "ClassLabel" and isinstance(features.get("names"), list):
            return tuple(map(str, features["names"]))
        for key in ("objects", "annotations", "feature", "category", "label"):
            if key in features and (names := class_names(features[key])):
                return names
    return class_names(features[0]) if isinstance(features, list) and features else ()


class _Reader(threading.local):
    """The file that this thread reads from, and the rows that it has read last.

    Rows are mostly asked for one after the other; going back starts the row group again.
    """

    def __init__(self) -> None:
        self.place: tuple[str, str] | None = None
        self.batch: Any = None

    def cell(self, path: str, column: str, row: int) -> Any:
        """The value in this row."""
        from pyarrow import parquet

        if self.place != (path, column):
            self.place = None
            self.file = parquet.ParquetFile(path, pre_buffer=False)
            told = self.file.metadata
            counts = (told.row_group(g).num_rows for g in range(told.num_row_groups))
            self.starts = list(itertools.accumulate(counts, initial=0))
            self.place, self.first, self.batch = (path, column), 0, None
            self.group = -1
        if not 0 <= row < self.starts[-1]:
            raise SourceError(f"{path}: no row {row}")
        group = bisect.bisect_right(self.starts, row) - 1
        if group != self.group or self.batch is None or row < self.first:
            self._open(group, column)
        while row >= self.first + len(self.batch):
            self.first += len(self.batch)
            self.batch = next(self.batches)
        return self.batch.column(0)[row - self.first].as_py()

    def _open(self, group: int, column: str) -> None:
        self.batches = self.file.iter_batches(
            batch_size=IMAGES_AT_ONCE, row_groups=[group], columns=[column]
        )
        self.batch = next(self.batches)
        self.group, self.first = group, self.starts[group]


_reader = _Reader()


def read_cell(ref: ImageRef) -> bytes:
    """The image bytes of a cell.

    Raises:
        SourceError: they are not there.
    """
    import pyarrow

    assert ref.column is not None
    assert ref.row is not None
    try:
        value = _reader.cell(ref.path, ref.column, ref.row)
    except (pyarrow.ArrowException, StopIteration) as error:
        _reader.place = None
        said = one_line(error)
        raise SourceError(f"{ref.path}, row {ref.row}: {said}") from None
    return bytes_of(value, ref, Path(ref.path).parent)


def bytes_of(value: Any, ref: ImageRef, folder: Path) -> bytes:
    """The bytes of a value as the hub writes them: bytes, or {bytes, path}."""
    if isinstance(value, dict):
        data, path = value.get("bytes"), value.get("path")
        if data is None and path:
            return (folder / path).read_bytes()
        value = data
    if not isinstance(value, bytes):
        raise SourceError(f"{ref.path}, row {ref.row}: no image bytes in {ref.column}")
    return value
