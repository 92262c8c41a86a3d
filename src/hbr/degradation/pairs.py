"""Rows that say how a pair of files came about: the ledger of a run, and its Parquet manifest.

Paths are relative to the folders of the run and rows are sorted by name, so that the manifests of
shards, one after another and sorted, are the manifest of the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hbr.config import ConfigError, from_dict, to_dict
from hbr.distributed import Shard
from hbr.files import replacing
from hbr.ledger import SharedLedger

if TYPE_CHECKING:
    import pyarrow

_ROW_GROUP = 2048


@dataclass(frozen=True, kw_only=True)
class PairRow:
    """One HQ file and its result; unknown values are None.

    Attributes:
        name: the LQ file, below the output folder.
        hq: the HQ file, below the input folder.
        status: `ok`, or `failed` with its `error`.
        error: one line.
        hq_sha256, lq_sha256: of the bytes of the files.
        width, height, lq_width, lq_height: in pixels, upright.
        recipe: the name or file that was asked for.
        recipe_version: what the recipe says of itself.
        recipe_sha256: of the recipe as canonical JSON, strength included.
        strength: see `hbr.degradation.weakened`.
        seed: of the run; with `hq_sha256` and the recipe it decides what was drawn.
        resize_back: the LQ file has the size of the HQ file.
        people: how many annotated people its motion blur could choose from.
        people_sha256: of their annotations.
        degradation: all that was drawn, `hbr.degradation.Degradation` as JSON.
        hbr: version of hbr.
    """

    name: str
    hq: str
    status: Literal["ok", "failed"]
    error: str | None = None
    hq_sha256: str | None = None
    lq_sha256: str | None = None
    width: int | None = None
    height: int | None = None
    lq_width: int | None = None
    lq_height: int | None = None
    recipe: str
    recipe_version: int
    recipe_sha256: str
    strength: float
    seed: int
    resize_back: bool
    people: int
    people_sha256: str | None = None
    degradation: str | None = None
    hbr: str


class PairLedger:
    """The rows of finished files, from which an interrupted run resumes, and which runs share."""

    def __init__(self, folder: Path | None, shard: Shard) -> None:
        """Read what runs into `folder` have written, in any sharding, and append to it.

        Args:
            folder: of the outputs; None keeps the rows in a temporary file.
            shard: whose rows are written; each shard has its own file.
        """
        self.folder = folder
        self._rows = SharedLedger(folder, ".hbr-degrade", shard.suffix)

    def find(self, name: str, *, fresh: bool = False) -> PairRow | None:
        """The last row of this name, if it can be read.

        `fresh` first reads what other runs have written since.
        """
        if fresh:
            self._rows.refresh()
        try:
            row = self._rows.find(name)
            return None if row is None else from_dict(PairRow, row)
        except ConfigError:  # of another version
            return None

    def add(self, row: PairRow) -> None:
        """Write a row; from then on it survives a kill of the process."""
        self._rows.add(to_dict(row))

    def rows(self, names: Iterable[str]) -> Iterator[PairRow]:
        """The rows of these names, sorted by name, with those that other processes wrote."""
        self._rows.refresh()
        for name in sorted(names):
            if (row := self.find(name)) is not None:
                yield row

    def close(self) -> None:
        """Close the files."""
        self._rows.close()


def schema() -> pyarrow.Schema:
    """Columns of the manifest: the fields of `PairRow`."""
    import pyarrow as pa

    kinds = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
    columns = []
    for field in fields(PairRow):
        kind = str(field.type).removesuffix(" | None")
        columns.append(pa.field(field.name, kinds.get(kind, pa.string())))
    return pa.schema(columns)


def write_manifest(path: Path, rows: Iterable[PairRow]) -> None:
    """Write rows as Parquet, whole or not at all, with few of them in memory.

    Raises:
        OSError: no permission, a full disk.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with replacing(path) as part, pq.ParquetWriter(part, schema()) as writer:
        group: list[dict[str, object]] = []
        for row in rows:
            group.append({name: _utf8(value) for name, value in to_dict(row).items()})
            if len(group) == _ROW_GROUP:
                writer.write_table(pa.Table.from_pylist(group, schema()))
                group.clear()
        writer.write_table(pa.Table.from_pylist(group, schema()))


def _utf8(value: object) -> object:
    """Names of files may hold bytes that are not UTF-8, which Parquet cannot."""
    if not isinstance(value, str):
        return value
    return value.encode("utf-8", "backslashreplace").decode()
