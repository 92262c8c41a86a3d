"""The kept crops as a data set: single files, WebDataset tars, or Parquet with image bytes.

Each folder is written under another name and then renamed, so it is complete or absent. The same
manifest gives the same bytes.
"""

from __future__ import annotations

import io
import itertools
import json
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from hbr.curation.config import OutputConfig
from hbr.curation.manifest import FOLDERS, Manifest, crop_place
from hbr.curation.pipeline.store import CropFiles
from hbr.curation.record import CurationError, Record, schema, to_row
from hbr.files import making_folder

_ROW_GROUP = 100

CropRow = tuple[Record, bytes]
"""A kept crop's row, and the bytes of its file."""

Written = Callable[[int], None]
"""Called with the number of crops written so far."""


def write_output(
    config: OutputConfig,
    kind: str,
    manifest: Manifest,
    crops: CropFiles,
    out: Path,
    report: Written,
) -> None:
    """Write one kind of output into its folder below `out`.

    Raises:
        OSError: the disk is full or not writable; existing files are unchanged.
    """
    write = {"folder": _write_folder, "webdataset": _write_webdataset, "parquet": _write_parquet}
    with making_folder(out / FOLDERS[kind], replace=True) as part:
        write[kind](manifest, crops, part, config, report)


def _write_folder(
    manifest: Manifest, crops: CropFiles, folder: Path, config: OutputConfig, report: Written
) -> None:
    """One file per crop, `SPLIT/3f/ID.png`."""
    for n, record in enumerate(manifest.kept(), 1):
        path = folder / crop_place(record.split, record.id, config.suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_read(crops, record))
        report(n)


def _write_webdataset(
    manifest: Manifest, crops: CropFiles, folder: Path, config: OutputConfig, report: Written
) -> None:
    """Tars of `ID.png` and `ID.json` (the row), `SPLIT-000000.tar` and so on."""
    for split, number, rows in _shards(manifest, crops, config.shard, report):
        path = folder / f"{split}-{number:06d}.tar"
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for record, data in rows:
                _add(tar, record.id + config.suffix, data)
                row = {k: v for k, v in to_row(record).items() if v is not None}
                _add(tar, record.id + ".json", json.dumps(row, ensure_ascii=False).encode())


def _write_parquet(
    manifest: Manifest, crops: CropFiles, folder: Path, config: OutputConfig, report: Written
) -> None:
    """Parquet files of all columns and `image` {bytes, path}, as Hugging Face `datasets` reads it.

    Row groups are small, as a writer or a reader holds one in memory.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = schema(manifest.metrics, keypoints="keypoints" in manifest.names, image=image)
    for split, number, rows in _shards(manifest, crops, config.shard, report):
        values = (
            {**to_row(row), "image": {"bytes": data, "path": row.id + config.suffix}}
            for row, data in rows
        )
        with pq.ParquetWriter(folder / f"{split}-{number:06d}.parquet", columns) as writer:
            while group := list(itertools.islice(values, _ROW_GROUP)):
                writer.write_table(pa.Table.from_pylist(group, schema=columns))


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)  # time 0, owner 0: the same bytes every time
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _read(crops: CropFiles, record: Record) -> bytes:
    data = crops.read(record.id)
    if data is None:
        raise CurationError(
            f"the crop of {record.id} is not in the run's work folder any more; "
            "remove what is left of that folder, and run it again"
        )
    return data


def _shards(
    manifest: Manifest, crops: CropFiles, size: int, report: Written
) -> Iterator[tuple[str, int, Iterator[CropRow]]]:
    """Yield split, number, and up to `size` crops in the order of ids, which are read lazily."""
    waiting: dict[str, list[Record]] = {}
    numbers = Counter[str]()
    written = 0

    def close(split: str) -> tuple[str, int, Iterator[CropRow]]:
        numbers[split] += 1
        rows = ((record, _read(crops, record)) for record in waiting.pop(split))
        return split, numbers[split] - 1, rows

    for record in manifest.kept():
        split = record.split or ""
        waiting.setdefault(split, []).append(record)
        if len(waiting[split]) == size:
            yield close(split)
            written += size
            report(written)
    for split in sorted(waiting):
        written += len(waiting[split])
        yield close(split)
        report(written)
