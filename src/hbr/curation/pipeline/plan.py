"""The plan of a run: a table on disk, with a row for each chunk that is still to be done.

It is written while the sources are read, and read by an engine as its workers become free, so that
a source of millions of images is never in memory.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hbr.curation.pipeline.chunk import Chunk, Task
from hbr.curation.sources.base import Box, ImageRef, SourceImage
from hbr.files import replacing

_GROUP = 16  # chunks in a row group, which is what a reader holds at a time


@dataclass(frozen=True)
class Plan:
    """The chunks of a run.

    Attributes:
        path: a Parquet file: `id` of the chunk, number of `images`, and `tasks` as JSON.
    """

    path: Path

    def __len__(self) -> int:
        import pyarrow.parquet as pq

        return int(pq.read_metadata(self.path).num_rows)

    def __iter__(self) -> Iterator[Chunk]:
        """The chunks, read a few at a time."""
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(batch_size=_GROUP, columns=["id", "tasks"]):
                for row in batch.to_pylist():
                    yield read_chunk(row["id"], row["tasks"])


def write_plan(path: Path, tasks: Iterable[Task], size: int) -> Plan:
    """Write tasks as they come, in chunks of this many."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("id", pa.string()), ("images", pa.int64()), ("tasks", pa.string())])
    rest = iter(tasks)
    with replacing(path) as part, pq.ParquetWriter(part, schema, compression="zstd") as writer:
        chunks = iter(lambda: list(itertools.islice(rest, size)), [])
        while rows := [_row(chunk) for chunk in itertools.islice(chunks, _GROUP)]:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    return Plan(path)


def read_chunk(id: str, tasks: str) -> Chunk:
    """A chunk from its row of the table."""
    return Chunk(id, tuple(_task(values) for values in _tuples(json.loads(tasks))))


def _row(tasks: Sequence[Task]) -> dict[str, Any]:
    text = json.dumps(tasks, default=_fields, separators=(",", ":"))
    return {"id": Chunk.of(tasks).id, "images": len(tasks), "tasks": text}


def _fields(value: Any) -> list[Any]:
    """The values of a dataclass; of a task, an image, its place or a box."""
    return [getattr(value, name) for name in value.__dataclass_fields__]


def _task(values: Any) -> Task:
    id, image, repeat = values
    named = _named(SourceImage, image)
    if named["ref"] is not None:
        named["ref"] = ImageRef(**_named(ImageRef, named["ref"]))
    if named["boxes"] is not None:
        named["boxes"] = tuple(Box(**_named(Box, box)) for box in named["boxes"])
    return Task(id, SourceImage(**named), repeat)


def _named(kind: Any, values: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(kind.__dataclass_fields__, values, strict=True))


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
