"""A run on disk: finished, stopped, still running, or only a manifest."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hbr.config import from_dict
from hbr.curation.config import CurationConfig, SharpnessConfig, SplitsConfig
from hbr.curation.manifest import FOLDERS, NAME, Manifest, crop_place, crop_suffix
from hbr.curation.pipeline.sorting import by_id
from hbr.curation.pipeline.stages.quality import better
from hbr.curation.pipeline.store import Store, latest_config
from hbr.curation.record import SCORE, Counts, CurationError, Record, from_row, schema
from hbr.curation.runs.run import about
from hbr.curation.runs.status import RunStatus, read_status
from hbr.curation.sources.opening import with_names
from hbr.metrics.base import Better

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH = 8192


class RunFolder:
    """The results of `hbr curate run -o OUT`, read a few thousand rows at a time.

    A finished run is read from its manifest; an unfinished one from its parts, whose rows lack what
    the passes over the whole set decide.

    Attributes:
        path: OUT, or the file of a manifest.
        config: of the latest run; None where there is only a manifest.
        manifest: of the latest run, or None while it has not finished.
        about: the settings that the rows depend on, as `hbr.curation.runs.run.about` gives them.

    Raises:
        CurationError: nothing of the kind is there.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config: CurationConfig | None = None
        self.manifest: Manifest | None = None
        if not self.path.exists():
            raise CurationError(f"{self.path}: no such file or folder")
        if self.path.is_dir() and (self.path / "work" / "config.json").exists():
            self.config = latest_config(self.path)
        if self._has_finished():
            self.manifest = Manifest(self.path)
            self.about = self.manifest.about
        elif self.config is not None:
            self.about = about(self.config)
        else:
            raise CurationError(f"{self.path} holds no run of hbr curate, nor a manifest of one")

    def finished(self) -> Manifest:
        """The manifest in the folder.

        Raises:
            CurationError: the run has not finished, or there is only the file of a manifest.
        """
        if self.manifest is None:
            raise CurationError(
                f"{self.path} has not finished; the command that began it resumes it"
            )
        if not self.path.is_dir():
            raise CurationError(f"{self.path} is not the folder of a finished run of hbr curate")
        return self.manifest

    def _has_finished(self) -> bool:
        if self.path.is_file():
            return True
        manifest = self.path / NAME
        if not manifest.exists():
            return False
        if self.config is None:
            return True
        if (status := self.status()) is not None:
            return status.state == "done"
        # each run writes its configuration first and the manifest towards its end
        config = self.path / "work" / "config.json"
        return manifest.stat().st_mtime_ns >= config.stat().st_mtime_ns

    @property
    def name(self) -> str:
        """Of the data set."""
        return str(self.about.get("name") or self.path.resolve().name)

    @property
    def store(self) -> Store | None:
        """The work of the latest run; None where there is only a manifest."""
        return None if self.config is None else Store(self.path, self.config)

    @property
    def metrics(self) -> list[str]:
        """The metrics that have a column."""
        if self.manifest is not None:
            return self.manifest.metrics
        assert self.config is not None
        return Store(self.path, self.config).metrics

    def thresholds(self, source: str = "", *, ceilings: bool = False) -> dict[str, float]:
        """Column (`sharpness`, `box_edge`, a metric) → its threshold.

        Args:
            source: for its photos, where it has thresholds of its own.
            ceilings: the upper ends of the quality instead of the lower ones.
        """
        stages = dict(self.about.get("stages", {}))
        own = stages.get("limits", {}).get(source, {})
        stages |= {name: value for name, value in own.items() if value is not None}
        key = "ceiling" if ceilings else "threshold"
        lines = {"sharpness": stages.get("sharpness", {}).get(key)}
        if not ceilings:
            lines["box_edge"] = stages.get("size", {}).get("longer")
        for metric in stages.get("metrics", ()):
            lines[metric["name"]] = metric.get(key)
        return {name: float(value) for name, value in lines.items() if value is not None}

    @property
    def judged_apart(self) -> frozenset[str]:
        """The sources with thresholds of their own, and those of a test set."""
        splits = from_dict(SplitsConfig, self.about.get("splits", {}))
        return splits.held_out | {*self.about.get("limits", {})}

    @property
    def top(self) -> float:
        """The part that Eq. 1 keeps."""
        return float(self.about.get("quality", {}).get("top", 1.0))

    @property
    def sharpness_edge(self) -> int:
        """The edge that regions are shrunk to before their sharpness is measured; 0 for none."""
        stage = self.about.get("stages", {}).get("sharpness", {})
        return int(stage.get("edge", SharpnessConfig.edge))

    def status(self) -> RunStatus | None:
        """The status of the latest run; None if it left no status file."""
        return read_status(self.path)

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Some columns of all rows, in tables of some thousand rows.

        Args:
            columns: of `record.schema`; those that are not there are left out.
        """
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        if self.manifest is not None:
            there = [name for name in columns if name in self.manifest.names]
            with pq.ParquetFile(self.manifest.path) as file:
                for batch in file.iter_batches(batch_size=_BATCH, columns=there):
                    yield pa.Table.from_batches([batch])
            return
        assert self.config is not None
        store = Store(self.path, self.config)
        # parts may hold rows of other sources too, of earlier runs
        named = [source.name for source in with_names(self.config.sources)]
        known = schema(store.metrics).names
        there = [name for name in columns if name in known]
        for _, table in store.tables([*dict.fromkeys([*there, "source"])]):
            if named:
                table = table.filter(pc.is_in(table["source"], pa.array(named)))
            yield table.select(there)

    @property
    def columns(self) -> list[str]:
        """All columns of a row."""
        return list(schema(self.metrics).names)

    def rows(self) -> Iterator[Record]:
        """All rows, in the order of their ids."""
        with contextlib.ExitStack() as stack:
            tables = self.tables(self.columns)
            if self.manifest is None:
                scratch = stack.enter_context(tempfile.TemporaryDirectory())
                tables = by_id(tables, Path(scratch) / "sort")
            for table in tables:
                for batch in table.to_batches(max_chunksize=_BATCH):
                    yield from map(from_row, batch.to_pylist())

    def chosen(self, column: str, values: Collection[str]) -> list[Record]:
        """The rows whose column has one of these values; they should be few."""
        import pyarrow as pa
        import pyarrow.compute as pc

        wanted, found = pa.array(sorted(values), pa.string()), []
        for table in self.tables(self.columns):
            for row in table.filter(pc.is_in(table[column], wanted)).to_pylist():
                found.append(from_row(row))
        return sorted(found, key=lambda record: record.id)

    def starting(self, prefix: str) -> list[Record]:
        """The rows whose id starts with this; some of them if there are more than 10."""
        import pyarrow.compute as pc

        found: list[Record] = []
        for table in self.tables(self.columns):
            found += map(from_row, table.filter(pc.starts_with(table["id"], prefix)).to_pylist())
            if len(found) >= 10:
                break
        return sorted(found, key=lambda record: record.id)[:10]

    def counts(self) -> Counts:
        """(stage, reason) → rows."""
        counts: Counts = Counter()
        for table in self.tables(["stage", "reason"]):
            grouped = table.group_by(["stage", "reason"]).aggregate([([], "count_all")])
            for row in grouped.to_pylist():
                counts[row["stage"], row["reason"]] += row["count_all"]
        return counts

    def crop_path(self, record: Record) -> Path | None:
        """The file of a kept crop below `crops`; None where there is none."""
        if not (record.alive and record.split):
            return None
        place = crop_place(record.split, record.id, crop_suffix(self.about))
        path = self.path / FOLDERS["folder"] / place
        return path if path.is_file() else None

    def crop_reader(self) -> Callable[[Record], bytes]:
        """A function that reads the file of a kept crop, from `crops` or else from the work.

        The parts are read once, for the first crop that is not in `crops`. The function raises
        CurationError where a crop is in neither.
        """
        store = self.store
        in_work = None if store is None else functools.cache(store.crops)

        def read(record: Record) -> bytes:
            if (path := self.crop_path(record)) is not None:
                return path.read_bytes()
            data = None if in_work is None else in_work().read(record.id)
            if data is None:
                raise CurationError(f"the crop of {record.id} is not in {self.path} any more")
            return data

        return read

    def crop_files(self, records: Sequence[Record]) -> dict[str, bytes]:
        """id → file of the crop, of those that came to one and where it is still there."""
        files = {record.id: self.crop_path(record) for record in records}
        found = {crop: path.read_bytes() for crop, path in files.items() if path is not None}
        left = [r.id for r in records if r.phash is not None and r.id not in found]
        if left and (store := self.store) is not None:
            crops = store.crops(left)
            found |= {crop: data for crop in left if (data := crops.read(crop)) is not None}
        return found


_PLAIN = ("sharpness", "box_edge", "z_mean")


def score_column(name: str) -> str:
    """The column of a metric, or the column itself."""
    return name if name in _PLAIN else SCORE + name


def side(name: str) -> Better:
    """Which end of a column's scale is the good one."""
    return "higher" if name in _PLAIN else better(name)
