"""The kept crops as a data set: a file each, WebDataset tars, or Parquet with their bytes.

Each is written beside its place and then renamed, so that it is there whole or not at all. The same
manifest gives the same bytes.
"""

from __future__ import annotations

import io
import itertools
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from hbr.curation.config import OutputConfig
from hbr.curation.manifest import FOLDERS, Manifest, crop_place
from hbr.curation.pipeline.store import CropFiles
from hbr.curation.record import CurationError, Record, schema, to_row
from hbr.files import making_folder

_ROW_GROUP = 100

CropRow = tuple[Record, bytes]
"""A kept crop's row, and its file."""

Written = Callable[[int], None]
"""Called with the number of crops written so far."""


def write_folder(
    manifest: Manifest, crops: CropFiles, target: Path, suffix: str, report: Written
) -> None:
    """A file a crop, `SPLIT/3f/ID.png`.

    Raises:
        OSError: no space, no permission; what was there before is untouched then.
    """
    with making_folder(target, replace=True) as part:
        for n, record in enumerate(manifest.kept(), 1):
            path = part / crop_place(record.split, record.id, suffix)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_read(crops, record))
            report(n)


def write_webdataset(
    manifest: Manifest, crops: CropFiles, target: Path, suffix: str, shard: int, report: Written
) -> None:
    """Tars of `ID.png` and `ID.json` (the row), `SPLIT-000000.tar` and so on.

    Raises:
        OSError: as in `write_folder`.
    """
    with making_folder(target, replace=True) as part:
        for split, number, rows in _shards(manifest, crops, shard, report):
            with tarfile.open(
                part / f"{split}-{number:06d}.tar", "w", format=tarfile.USTAR_FORMAT
            ) as tar:
                for record, data in rows:
                    _add(tar, record.id + suffix, data)
                    row = {k: v for k, v in to_row(record).items() if v is not None}
                    _add(tar, record.id + ".json", json.dumps(row, ensure_ascii=False).encode())


def write_parquet(
    manifest: Manifest, crops: CropFiles, target: Path, suffix: str, shard: int, report: Written
) -> None:
    """Parquet files of all columns and `image` {bytes, path}, as Hugging Face `datasets` reads it.

    Raises:
        OSError: as in `write_folder`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = schema(manifest.metrics, keypoints="keypoints" in manifest.names, image=image)
    with making_folder(target, replace=True) as part:
        for split, number, rows in _shards(manifest, crops, shard, report):
            with pq.ParquetWriter(part / f"{split}-{number:06d}.parquet", columns) as writer:
                for group in _groups(rows):
                    values = [
                        {**to_row(record), "image": {"bytes": data, "path": record.id + suffix}}
                        for record, data in group
                    ]
                    writer.write_table(pa.Table.from_pylist(values, schema=columns))


def _groups(rows: Iterator[CropRow]) -> Iterator[list[CropRow]]:
    """Small row groups: a writer or reader holds one in memory."""
    while group := list(itertools.islice(rows, _ROW_GROUP)):
        yield group


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)  # time 0, owner 0: the same bytes every time
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _read(crops: CropFiles, record: Record) -> bytes:
    data = crops.read(record.id)
    if data is None:
        raise CurationError(
            f"the crop of {record.id} is not in the run's work folder any more; run it again"
        )
    return data


def _shards(
    manifest: Manifest, crops: CropFiles, size: int, report: Written
) -> Iterator[tuple[str, int, Iterator[CropRow]]]:
    """Split, number, and up to `size` crops, read as they are asked for, in the order of ids."""
    waiting: dict[str, list[Record]] = {}
    numbers: dict[str, int] = {}
    written = 0

    def close(split: str) -> tuple[str, int, Iterator[CropRow]]:
        number = numbers.get(split, 0)
        numbers[split] = number + 1
        return split, number, ((record, _read(crops, record)) for record in waiting.pop(split))

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


def write_output(
    config: OutputConfig,
    kind: str,
    manifest: Manifest,
    crops: CropFiles,
    out: Path,
    report: Written = lambda _: None,
) -> Path:
    """Write one kind of output into its folder below `out`, which it gives back."""
    target = out / FOLDERS[kind]
    if kind == "folder":
        write_folder(manifest, crops, target, config.suffix, report)
    elif kind == "webdataset":
        write_webdataset(manifest, crops, target, config.suffix, config.shard, report)
    else:
        write_parquet(manifest, crops, target, config.suffix, config.shard, report)
    return target
