"""The finished work of a run on disk: a part for each chunk of images, written whole.

    OUT/work/config.json                     the configuration of the latest run
    OUT/work/SETTINGS/plan.parquet           the chunks that are to be done, while they are
    OUT/work/SETTINGS/attempts/CHUNK         a byte for each worker of a cluster that began it
    OUT/work/SETTINGS/parts/CHUNK.parquet    the chunk's rows; if the file exists, it is done
    OUT/work/SETTINGS/crops/CHUNK.bin        the files of its crops, concatenated
    OUT/work/SETTINGS/costs.jsonl            CPU time of each chunk, by stage
    OUT/work/SETTINGS/settings.json          the settings that the rows depend on

`SETTINGS` is a hash of the settings of the stages up to f. Other settings of the passes over the
whole set reuse the parts; other settings of earlier stages start a folder of their own.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hbr.archives import read_part
from hbr.config import from_dict, to_dict
from hbr.curation.config import CurationConfig
from hbr.curation.pipeline.stages.quality import version_of
from hbr.curation.record import Counts, CurationError, Record, schema, to_row
from hbr.errors import one_line
from hbr.files import file_lock, remove_parts, replacing, write_text
from hbr.ledger import Ledger, read_rows
from hbr.processes import finishing

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = 2
"""Raised whenever the same settings would give other rows."""


def plain(config: CurationConfig) -> dict[str, Any]:
    """Plain values of a configuration, the same for equal ones: 100 and 100.0 are both 100.0."""
    return to_dict(from_dict(CurationConfig, to_dict(config)))


# What decides the rows of one image, without looking at any other image.
_PER_IMAGE = ("boxes", "sharpness", "size", "crop", "tagger", "max_pixels")


def per_image_settings(config: CurationConfig) -> dict[str, Any]:
    """What stages a to f depend on; work done with other values of these cannot be reused.

    Devices and batch sizes are left out: moving to a GPU keeps the work that is done.
    """
    values = plain(config)
    settings = {name: values[name] for name in _PER_IMAGE}
    if config.crop.height is None:
        del settings["crop"]["height"]
    if config.limits:
        settings["limits"] = {
            source: {name: value for name, value in own.items() if name != "count"}
            for source, own in sorted(values["limits"].items())
        }
    for model in (settings["boxes"]["detector"], settings["tagger"]):
        if isinstance(model, dict):
            del model["device"], model["batch"]
    quality = values["quality"]
    settings["metrics"] = sorted(quality["metrics"], key=lambda metric: metric["name"])
    settings["all_scores"] = quality["all_scores"]
    for stage in (settings["sharpness"], *settings["metrics"]):
        if stage["ceiling"] is None:
            del stage["ceiling"]
    output = values["output"]
    settings["format"] = output["format"]
    settings["jpeg_quality"] = output["jpeg_quality"] if output["format"] == "jpeg" else None
    return settings


def latest_config(out: Path) -> CurationConfig:
    """The configuration of the latest run in a folder, begun or finished.

    Raises:
        CurationError: there is none.
    """
    path = Path(out) / "work" / "config.json"
    try:
        return from_dict(CurationConfig, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or one_line(error)
        raise CurationError(f"{out} holds no run of hbr curate ({why})") from None


class Store:
    """The work of a run.

    Attributes:
        folder: `OUT/work/SETTINGS`.
        metrics: those that have a column.
    """

    def __init__(self, out: Path, config: CurationConfig) -> None:
        self._config = config
        versions = {m.name: version_of(m.name) for m in config.quality.metrics}
        settings = {"version": VERSION, "versions": versions, **per_image_settings(config)}
        self._settings = json.dumps(settings, sort_keys=True, indent=1)
        name = hashlib.sha256(self._settings.encode()).hexdigest()[:16]
        self.folder = Path(out) / "work" / name
        self.metrics = sorted(metric.name for metric in config.quality.metrics)

    @property
    def plan(self) -> Path:
        """The file of the plan of the run."""
        return self.folder / "plan.parquet"

    @property
    def _schema(self) -> pa.Schema:
        import pyarrow as pa

        return schema(self.metrics, task=pa.string(), crop_at=pa.int64())

    def create(self) -> None:
        """Make the folders, and remove what a killed run left half done.

        To be called by one process, while no other works here (`run_lock`).
        """
        for name in ("parts", "crops", "attempts"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
            remove_parts(self.folder / name)
        for path in (self.folder / "attempts").iterdir():
            path.unlink()
        done = {path.stem for path in self.parts()}
        for path in (self.folder / "crops").glob("*.bin"):
            if path.stem not in done:
                path.unlink()
        write_text(self.folder / "settings.json", self._settings + "\n")
        text = json.dumps(plain(self._config), indent=1, ensure_ascii=False)
        write_text(self.folder.parent / "config.json", text + "\n")

    def parts(self) -> list[Path]:
        """The parts that are done, sorted by name."""
        return sorted((self.folder / "parts").glob("[0-9a-f]*.parquet"))

    def write_part(self, chunk: str, rows: Sequence[tuple[Record, str, bytes | None]]) -> None:
        """Record a chunk as done.

        Each row is a record, the id of its task, and the file of its crop.

        Raises:
            OSError: no space, no permission; the chunk is then not done.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        at, values, crops = 0, [], []
        for record, task, crop in sorted(rows, key=lambda row: row[0].id):
            where = None
            if crop is not None:
                where, at = at, at + len(crop)
                crops.append(crop)
            values.append({**to_row(record), "task": task, "crop_at": where})
        table = pa.Table.from_pylist(values, schema=self._schema)
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        with finishing():
            if crops:
                crops_file = self.folder / "crops" / f"{chunk}.bin"
                with replacing(crops_file) as part, part.open("wb") as file:
                    file.writelines(crops)
            with replacing(self.folder / "parts" / f"{chunk}.parquet") as part:
                part.write_bytes(buffer.getbuffer())

    def begin(self, chunk: str) -> int:
        """How many workers have begun a chunk, this one included, without ending it."""
        with (self.folder / "attempts" / chunk).open("ab") as file:
            file.write(b".")
            return file.tell()

    def end(self, chunk: str) -> None:
        """Forget the workers that began a chunk, which is done."""
        (self.folder / "attempts" / chunk).unlink(missing_ok=True)

    def counts(self, chunk: str) -> Counts | None:
        """(stage, reason) → rows of a chunk that is done; None if it is not."""
        import pyarrow.parquet as pq

        path = self.folder / "parts" / f"{chunk}.parquet"
        if not path.exists():
            return None
        table = pq.read_table(path, columns=["stage", "reason"], memory_map=False)
        return Counter((row["stage"], row["reason"]) for row in table.to_pylist())

    def forget(self, reasons: Collection[str]) -> None:
        """Remove the rows that stopped for these reasons, so that their images are done again."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        for path in self.parts():
            column = pq.read_table(path, columns=["reason"], memory_map=False)["reason"]
            stays = [reason not in reasons for reason in column.to_pylist()]
            if not any(stays):
                path.unlink()
            elif not all(stays):
                table = pq.read_table(path, memory_map=False).filter(pa.array(stays))
                with replacing(path) as part:
                    pq.write_table(table, part)

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[tuple[str, pa.Table]]:
        """The parts that are done: their chunk's id, and their rows."""
        import pyarrow.parquet as pq

        wanted = None if columns is None else list(columns)
        whole = self._schema  # older parts lack columns, which are null then
        for path in self.parts():
            yield path.stem, pq.read_table(path, columns=wanted, schema=whole, memory_map=False)

    def tasks(self) -> TaskSet:
        """The tasks that are done."""
        done = TaskSet()
        for _, table in self.tables(["task"]):
            for task in table["task"].unique().to_pylist():
                done.add(int(task, 16))
        return done

    def crops(self, wanted: Collection[str] | None = None) -> CropFiles:
        """The crops of everything that is done, or of these ids alone."""
        return CropFiles(self, wanted)

    def log_costs(self, costs: Mapping[str, tuple[int, float]]) -> None:
        """Append what a chunk cost: stage → (things, CPU seconds)."""
        with Ledger(self.folder / "costs.jsonl") as ledger:
            ledger.append({stage: [n, round(s, 6)] for stage, (n, s) in sorted(costs.items())})

    def costs(self) -> dict[str, tuple[int, float]]:
        """What all chunks cost: stage → (things, CPU seconds)."""
        total: dict[str, tuple[int, float]] = {}
        for row in read_rows(self.folder / "costs.jsonl"):
            add_costs(total, row)
        return total


def add_costs(total: dict[str, tuple[int, float]], more: Mapping[str, Sequence[float]]) -> None:
    """Add costs, stage by stage."""
    for stage, (n, seconds) in more.items():
        before = total.get(stage, (0, 0.0))
        total[stage] = (before[0] + int(n), before[1] + float(seconds))


class TaskSet:
    """A set of 64-bit numbers in 8 bytes each: millions of tasks fit."""

    _FRESH = 1 << 16

    def __init__(self) -> None:
        self._sorted = np.empty(0, np.uint64)
        self._fresh: set[int] = set()

    def __len__(self) -> int:
        return len(self._sorted) + len(self._fresh)

    def __contains__(self, number: int) -> bool:
        if number in self._fresh:
            return True
        key = np.uint64(number)
        at = int(np.searchsorted(self._sorted, key))
        return at < len(self._sorted) and bool(self._sorted[at] == key)

    def add(self, number: int) -> None:
        """Add one."""
        if number in self:
            return
        self._fresh.add(number)
        if len(self._fresh) >= self._FRESH:
            self._settle()

    def holds(self, numbers: np.ndarray) -> np.ndarray:
        """[n] bool: which of [n] uint64 are in the set."""
        self._settle()
        if not len(self._sorted):
            return np.zeros(len(numbers), bool)
        at = np.searchsorted(self._sorted, numbers)
        return self._sorted[np.minimum(at, len(self._sorted) - 1)] == numbers

    def _settle(self) -> None:
        fresh = np.fromiter(self._fresh, np.uint64, len(self._fresh))
        self._sorted = np.union1d(self._sorted, fresh)
        self._fresh.clear()


class CropFiles:
    """The files of crops by id, read in place; 24 bytes of memory for each."""

    def __init__(self, store: Store, wanted: Collection[str] | None = None) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        self._folder = store.folder / "crops"
        self._chunks: list[str] = []
        only = None if wanted is None else pa.array(sorted(wanted), pa.string())
        places = []
        for chunk, table in store.tables(["id", "crop_at", "crop_size"]):
            table = table.filter(table["crop_at"].is_valid())
            if only is not None:
                table = table.filter(pc.is_in(table["id"], only))
            ids = np.array([int(i, 16) for i in table["id"].to_pylist()], np.uint64)
            numbers = np.full(len(ids), len(self._chunks), np.uint64)
            at, size = (table[name].to_numpy() for name in ("crop_at", "crop_size"))
            places.append(np.stack([ids, numbers, at.astype(np.uint64), size.astype(np.uint64)]))
            self._chunks.append(chunk)
            if only is not None and sum(found.shape[1] for found in places) == len(only):
                break
        joined = np.concatenate(places, axis=1) if places else np.empty((4, 0), np.uint64)
        self._places = joined[:, np.argsort(joined[0], kind="stable")]

    def read(self, crop: str) -> bytes | None:
        """The file of a crop, PNG or JPEG; None if the row has no crop, or its file is gone.

        Raises:
            CurationError: the file cannot be read, or is cut short.
        """
        key = np.uint64(int(crop, 16))
        at = int(np.searchsorted(self._places[0], key))
        if at == self._places.shape[1] or self._places[0, at] != key:
            return None
        chunk, start, size = (int(n) for n in self._places[1:, at])
        path = self._folder / f"{self._chunks[chunk]}.bin"
        try:
            return read_part(path, start, size)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CurationError(f"{path} cannot be read: {error.strerror or error}") from None


@contextlib.contextmanager
def run_lock(out: Path) -> Iterator[None]:
    """Hold the folder for one run, once the workers of a killed one have exited.

    Raises:
        CurationError: another run works in it.
    """
    busy = CurationError(f"{out}: another run works in it; wait for it, or take another folder")
    with file_lock(Path(out) / "work" / "run.lock", busy):
        with worker_lock(out, shared=False):
            pass
        yield


def worker_lock(out: Path, *, shared: bool = True) -> contextlib.AbstractContextManager[None]:
    """Held by each worker process of a run: a new run waits until all have exited."""
    return file_lock(Path(out) / "work" / "workers.lock", shared=shared)
