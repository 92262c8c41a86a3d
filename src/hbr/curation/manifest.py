"""The manifest: one Parquet file, a row for each candidate, sorted by id.

The same photos and settings give the same bytes, whatever the order of the photos and however the
work was divided.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from hbr.config import from_dict
from hbr.curation.config import CropConfig, OutputConfig
from hbr.curation.record import SCORE, CurationError, Record, from_row, schema, to_row
from hbr.errors import one_line

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

NAME = "manifest.parquet"

FOLDERS = {"folder": "crops", "webdataset": "shards", "parquet": "data"}
"""Kind of output → the folder, beside the manifest, that holds it."""


def crop_place(split: str | None, crop: str, suffix: str) -> str:
    """Where the kept crop of an id lies below `crops`: `train/3f/3f09….png`."""
    return f"{split}/{crop[:2]}/{crop}{suffix}"


def crops_of(about: Mapping[str, Any]) -> CropConfig:
    """How the crops of a manifest were cut, by its metadata (`Manifest.about`)."""
    return from_dict(CropConfig, about.get("stages", {}).get("crop", {}))


def crop_suffix(about: Mapping[str, Any]) -> str:
    """The suffix of the crops' file names, by the metadata of a manifest."""
    return OutputConfig(format=about.get("stages", {}).get("format", "png")).suffix


class ManifestWriter:
    """Writes records, in the order of their ids, a row group at a time.

    Args:
        path: a part file, which the caller renames (`hbr.files.replacing`).
        metrics: those that have a column.
        about: plain values that are kept in the file's metadata under `hbr`.
        keypoints: with the column of key points.
    """

    def __init__(
        self, path: Path, metrics: Sequence[str], about: dict[str, Any], *, keypoints: bool
    ) -> None:
        import pyarrow.parquet as pq

        metadata = {"hbr": json.dumps(about, sort_keys=True)}
        self._schema = schema(metrics, keypoints=keypoints).with_metadata(metadata)
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")

    def __enter__(self) -> ManifestWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write the footer of the file; an error in the block is not masked by one here."""
        with contextlib.nullcontext() if error is None else contextlib.suppress(OSError):
            self._writer.close()

    def write(self, records: Sequence[Record]) -> None:
        """Write a row group."""
        import pyarrow as pa

        if records:
            rows = [to_row(record) for record in records]
            self._writer.write_table(pa.Table.from_pylist(rows, schema=self._schema))


class Manifest:
    """A manifest to be read, a few rows at a time.

    Attributes:
        path: the file, or the folder of a run that holds it.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        self.path = path / NAME if path.is_dir() else path

    def __len__(self) -> int:
        return int(self._file().metadata.num_rows)

    def __iter__(self) -> Iterator[Record]:
        """All records, in the order of their ids."""
        for batch in self._file().iter_batches(batch_size=4096):
            for row in batch.to_pylist():
                yield from_row(row)

    @property
    def about(self) -> dict[str, Any]:
        """What the writer stored: name, configuration, version."""
        text = (self._file().schema_arrow.metadata or {}).get(b"hbr", b"{}")
        return dict(json.loads(text))

    @property
    def metrics(self) -> list[str]:
        """The metrics that have a column."""
        return [name.removeprefix(SCORE) for name in self.names if name.startswith(SCORE)]

    @property
    def names(self) -> list[str]:
        """All columns."""
        return list(self._file().schema_arrow.names)

    def kept(self) -> Iterator[Record]:
        """The records that no stage stopped."""
        return (record for record in self if record.alive)

    def kept_ids(self, split: str) -> np.ndarray:
        """[n] uint64: the ids of what is kept in a split, in their order."""
        import numpy as np

        found = [bytes.fromhex("".join(b["id"].to_pylist())) for b in self.kept_rows(split, "id")]
        return np.frombuffer(b"".join(found), ">u8").astype(np.uint64)

    def kept_rows(self, split: str, *names: str) -> Iterator[pa.RecordBatch]:
        """These columns of what is kept in a split, in the order of the ids."""
        import pyarrow.compute as pc

        needed = {"split", "reason", *names}
        if not needed <= {*self.names}:
            raise ValueError(f"{self.path}: is not a manifest of hbr curate (it has other columns)")
        for batch in self._file().iter_batches(columns=sorted(needed)):
            wanted = pc.and_(pc.is_null(batch["reason"]), pc.equal(batch["split"], split))
            yield batch.filter(wanted)

    def find(self, start: str) -> list[Record]:
        """The records whose id starts with this; at most 10."""
        found = []
        for record in self:
            if record.id.startswith(start):
                found.append(record)
            if len(found) == 10 or (found and not record.id.startswith(start)):
                break
        return found

    def columns(self, *names: str) -> pa.Table:
        """Some columns of all rows; a metric's is `score_NAME`."""
        return self._file().read(columns=list(names))

    def _file(self) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return pq.ParquetFile(self.path)
        except (OSError, pa.ArrowInvalid) as error:
            raise CurationError(
                f"{self.path}: is not a manifest of hbr curate ({one_line(error, 150)})"
            ) from None
