"""The manifest: one Parquet file, a row for each candidate, sorted by id.

The same photos and settings give the same bytes, whatever the order of the photos and however the
work was divided.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
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


@contextlib.contextmanager
def manifest_writer(
    path: Path, metrics: Sequence[str], about: dict[str, Any], *, keypoints: bool
) -> Iterator[Callable[[Sequence[Record]], None]]:
    """Yield a function that writes records, in the order of their ids, as a row group.

    Args:
        path: a part file, which the caller renames (`hbr.files.replacing`).
        metrics: those that have a column.
        about: plain values that are kept in the file's metadata under `hbr`.
        keypoints: with the column of key points.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    metadata = {"hbr": json.dumps(about, sort_keys=True)}
    columns = schema(metrics, keypoints=keypoints).with_metadata(metadata)
    writer = pq.ParquetWriter(path, columns, compression="zstd")

    def write(records: Sequence[Record]) -> None:
        if records:
            writer.write_table(pa.Table.from_pylist(list(map(to_row, records)), schema=columns))

    try:
        yield write
    except BaseException:
        with contextlib.suppress(OSError):  # an error in the block is not masked by one here
            writer.close()
        raise
    writer.close()


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
