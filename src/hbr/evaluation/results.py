"""What an evaluation has found, as plain data that goes to JSON and back.

A `BenchmarkRun` holds everything that a report shows: the rows (one for each picture of a method),
the cells (one for each number of the table), and how they came about.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hbr.config import ConfigError, check, from_dict, to_dict
from hbr.files import write_text
from hbr.metrics import MetricInfo

SCHEMA = 1

WITHIN = "within"
OUTSIDE = "outside"
NO_PAPER_VALUE = "no paper value"
NOT_RUN = "not run"
NOT_COMPARABLE = "not comparable"


@dataclass(frozen=True, kw_only=True)
class PictureRow:
    """One picture of one method.

    Attributes:
        method, data_set: names in the run.
        stem: of the picture; it may have `/` in it.
        values: metric id → number, always finite. Metrics over a whole folder are not here.
        errors: metric id → one line, for what could not be computed.
        error: one line if there is nothing to measure: the method failed on it, or a file is
            missing or cannot be read. `values` is empty then.
        lq, restored, reference: the files, to be resolved by `BenchmarkRun.path`; None where there
            is none.
        seconds: what restoring it took, where that is known.
    """

    method: str
    data_set: str
    stem: str
    values: dict[str, float] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    error: str | None = None
    lq: str | None = None
    restored: str | None = None
    reference: str | None = None
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number of the table: a metric of a method on a data set.

    Attributes:
        method, data_set: names in the run.
        metric: id.
        mean: over the pictures, or the one number of a metric over folders; None if there is none.
        low, high: ends of the bootstrap's 95 % interval of the mean; None where there is none.
        n: pictures that went into it.
        failed: pictures that should have, and did not.
        error: one line, if the metric could not be computed at all.
        paper: the published value; None if there is none.
        difference: mean − paper.
        tolerance: how large the difference may be.
        verdict: `within`, `outside`, `no paper value`, `not run`, or
            `not comparable: <the reason>`.
    """

    method: str
    data_set: str
    metric: str
    mean: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    failed: int = 0
    error: str | None = None
    paper: float | None = None
    difference: float | None = None
    tolerance: float | None = None
    verdict: str = NO_PAPER_VALUE


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Two methods on the same pictures: the mean of `method` − `other`, paired.

    Attributes:
        method, other, data_set: names in the run.
        metric: id.
        mean: over the pictures that both have.
        low, high: ends of the bootstrap's 95 % interval.
        n: how many pictures those are.
        better: `method` is better (True), worse (False), or the interval holds 0 (None).
    """

    method: str
    other: str
    data_set: str
    metric: str
    mean: float
    low: float
    high: float
    n: int
    better: bool | None


@dataclass(frozen=True, kw_only=True)
class DataSetInfo:
    """A data set as it was found.

    Attributes:
        name: in tables.
        n: pictures.
        lq, hq: folders; None where there is none.
        edition: of the LQ files: the name of the list of checksums that they match, or how they
            were made here ("real-esrgan, seed 0"); None if they are not known.
        status: whether the LQ files are those that they should be, in one line.
        comparable: the LQ files are the published ones, so the paper's numbers are comparable.
        checksum: SHA-256 over the names and hashes of all LQ files.
    """

    name: str
    n: int
    lq: str | None = None
    hq: str | None = None
    edition: str | None = None
    status: str = ""
    comparable: bool = False
    checksum: str = ""


@dataclass(frozen=True, kw_only=True)
class MethodInfo:
    """A method, and how it went.

    Attributes:
        name: in tables.
        kind: hbr, spandrel, program, folder, baseline; empty if it was not run.
        settings: its configuration, as plain values.
        provenance: what it says of itself: versions, weights, hashes; by data set.
        seconds: mean for one picture, by data set.
        restored: data set → how many pictures came out.
        failed: data set → stem → one line.
        error: data set → why the method could not run at all.
        run: whether it was run.
    """

    name: str
    kind: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    restored: dict[str, int] = field(default_factory=dict)
    failed: dict[str, dict[str, str]] = field(default_factory=dict)
    error: dict[str, str] = field(default_factory=dict)
    run: bool = True


@dataclass(frozen=True, kw_only=True)
class TableLayout:
    """How the table looks.

    Attributes:
        caption: the line above it.
        rows: what the rows are; the columns are the metrics, grouped by the other one.
        columns: data set → metric ids, in order; only these have cells.
        decimals: metric id → digits after the point; others have 4.
        notes: lines below it.
    """

    caption: str = ""
    rows: Literal["methods", "data sets"] = "methods"
    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    decimals: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for metric, digits in self.decimals.items():
            check(0 <= digits <= 10, f"decimals.{metric}", digits, "0 to 10")


@dataclass(frozen=True, kw_only=True)
class BenchmarkRun:
    """A benchmark that was run: its numbers, and all that they depend on.

    Attributes:
        name: of the benchmark.
        title: in words.
        layout: of the table.
        data_sets, methods, metrics: in the order of the table.
        rows: pictures; by data set, then method, then stem.
        cells: numbers of the table; by data set, then method, then metric. Methods of the paper
            that were not run have cells too, of verdict `not run`.
        differences: each method against the first.
        paper: citation of the published numbers shown for comparison; empty if there are none.
        paper_table: the name of that table, as `osdhuman.table2_methods`.
        warnings: one line each.
        version: of hbr.
        commit: of the source, if it is a checkout.
        machine: processor, system, versions of libraries.
        settings: seed, resamples of the bootstrap and the like.
        started: date and time, ISO 8601 in UTC.
        folder: where `run.json` lies; relative files of the rows are below it. Not in the JSON.
    """

    name: str
    title: str
    layout: TableLayout
    data_sets: tuple[DataSetInfo, ...]
    methods: tuple[MethodInfo, ...]
    metrics: tuple[MetricInfo, ...]
    rows: tuple[PictureRow, ...]
    cells: tuple[Cell, ...]
    differences: tuple[Difference, ...] = ()
    paper: str = ""
    paper_table: str = ""
    warnings: tuple[str, ...] = ()
    version: str = ""
    commit: str | None = None
    machine: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    started: str = ""
    schema: int = SCHEMA
    folder: Path = Path()

    def path(self, file: str | Path) -> Path:
        """Where a file of a `PictureRow` is."""
        return self.folder / file

    def metric(self, name: str) -> MetricInfo:
        """The metric of this id.

        Raises:
            KeyError: the run has none.
        """
        return {info.id: info for info in self.metrics}[name]

    def to_json(self) -> str:
        """All but `folder`, as JSON text; the same run gives the same bytes."""
        values = to_dict(self)
        del values["folder"]
        return json.dumps(values, ensure_ascii=False, allow_nan=False, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, *, folder: Path = Path()) -> BenchmarkRun:
        """Read what `to_json` wrote.

        Raises:
            ConfigError: it is something else, or another version's; the message says which.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"the run is not JSON: {error}") from None
        found = values.get("schema") if isinstance(values, dict) else None
        check(found == SCHEMA, "schema", found, f"{SCHEMA}, what this version of hbr writes")
        return dataclasses.replace(from_dict(cls, values), folder=folder)

    def save(self, folder: Path) -> Path:
        """Write `run.json` into `folder`, whole or not at all; its path."""
        path = folder / "run.json"
        write_text(path, self.to_json())
        return path

    @classmethod
    def load(cls, path: Path) -> BenchmarkRun:
        """Read `run.json`, or the one in a folder.

        Raises:
            ConfigError: there is none, or it cannot be used; the file is named.
        """
        file = path / "run.json" if path.is_dir() else path
        try:
            return cls.from_json(file.read_text(encoding="utf-8"), folder=file.parent)
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"{file}: {reason}; `hbr benchmark run` makes it") from None
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}") from None
