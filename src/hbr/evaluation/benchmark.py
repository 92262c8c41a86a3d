"""Runs a benchmark: methods × data sets → restored pictures, rows and cells.

The folder of a run: `benchmark.json` (what it is), `lq/` (what was degraded here),
`restored/DATA SET/METHOD/`, `kept/` (measured values), `run.json` (the results), `report/`.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hbr.config import ConfigError, to_dict
from hbr.errors import one_line, with_type
from hbr.evaluation.benchmark_config import Benchmark, DataSetConfig
from hbr.evaluation.comparison import compare, differences_from
from hbr.evaluation.datasets import DataSetFiles, find_data_set
from hbr.evaluation.evaluate import (
    Evaluation,
    MetricSummary,
    PairProgress,
    UnavailableError,
    evaluate,
)
from hbr.evaluation.methods import build_method
from hbr.evaluation.methods.base import MethodError, MethodOutcome, Report
from hbr.evaluation.methods.config import MethodConfig
from hbr.evaluation.pairing import PairingError, PicturePair
from hbr.evaluation.provenance import commit, machine
from hbr.evaluation.results import (
    BenchmarkRun,
    Cell,
    DataSetInfo,
    Difference,
    MethodInfo,
    PictureRow,
    TableLayout,
)
from hbr.evaluation.settings import EvaluateConfig
from hbr.files import write_text
from hbr.metrics import MetricInfo, find_metric
from hbr.processes import cores
from hbr.version import __version__


@dataclass(frozen=True)
class Resources:
    """Resources of a run; they do not affect the results.

    Attributes:
        workers: processes that degrade and measure; None for one per core, 0 for this process.
        device: where the networks of metrics run.
        weights: folder of the weights of metrics; None searches hbr's default locations.
    """

    workers: int | None = None
    device: str = "cpu"
    weights: Path | None = None

    @property
    def processes(self) -> int:
        """How many processes there are."""
        return cores() if self.workers is None else self.workers


def run_benchmark(
    benchmark: Benchmark,
    out: Path,
    *,
    resources: Resources | None = None,
    resume: bool = False,
    report: Report = lambda line: None,
) -> BenchmarkRun:
    """Restore, measure and summarise; the results are written to `out/run.json`.

    The failure of a method or picture does not affect the others. With `resume`, results in `out`
    of a stopped run of this benchmark, or of a run with other methods or metrics, are reused;
    without, `out` must not hold any.

    Raises:
        ConfigError: `out` contains something else, or no data set is usable.
        KeyboardInterrupt: re-raised; finished work is kept.
    """
    resources = resources or Resources()
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    _open_folder(benchmark, out, resume=resume)
    work = _Work(benchmark, out, resources, report)
    warnings = [
        f"{name} is skipped; --data {missing[0]}=PATH adds it"
        for name, missing in benchmark.left_out.items()
    ]
    warnings += [
        f"{id} is left out; `hbr fetch {id}` gets its weights" for id in benchmark.without_weights
    ]
    if benchmark.not_run:
        warnings.append(
            f"not run, because their paths were not given: {', '.join(benchmark.not_run)}"
        )
    for name, config in benchmark.config.data_sets.items():
        try:
            work.data_set(name, config)
        except (PairingError, ConfigError) as error:
            warnings.append(f"{name} is left out: {error}")
            report(f"{name}: {error}")
    if not work.data_sets:
        raise ConfigError("; ".join(warnings) or "there is no data set")
    run = work.finish(started, warnings)
    run.save(out)
    return run


class _Work:
    """A run in progress."""

    def __init__(
        self, benchmark: Benchmark, out: Path, resources: Resources, report: Report
    ) -> None:
        self._name = benchmark.name
        self._config = benchmark.config
        self._out = out
        self._resources = resources
        self._report = report
        self.data_sets: list[DataSetInfo] = []
        self._methods = {
            name: MethodInfo(name=name, kind=config.kind, settings=_plain(config))
            for name, config in self._config.methods.items()
        }
        self._methods |= {name: MethodInfo(name=name, run=False) for name in benchmark.not_run}
        self._rows: list[PictureRow] = []
        self._cells: list[Cell] = []
        self._differences: list[Difference] = []
        self._warnings: list[str] = []
        self._infos: dict[str, MetricInfo] = {}
        self._reasons: dict[str, str] = {}  # metric → why it cannot be computed at all

    def data_set(self, name: str, config: DataSetConfig) -> None:
        """Restore and measure one data set by every method.

        Raises:
            PairingError: its files cannot be used.
            ConfigError: the configuration of the data set is invalid.
        """
        made = self._out / "lq" / _folder_name(name)
        files = find_data_set(
            name, config, made, workers=self._resources.processes, report=self._report
        )
        lq, hq = map(self._place, (files.info.lq, files.info.hq))
        self.data_sets.append(dataclasses.replace(files.info, lq=lq, hq=hq))
        self._warnings += files.warnings
        values: dict[str, dict[str, Mapping[str, float]]] = {}
        for method, settings in self._config.methods.items():
            outcome = self._restore(files, method, settings)
            evaluation = self._measure(files, method, outcome)
            values[method] = self._keep(files, method, outcome, evaluation)
        self._differ(files, values)

    def _restore(self, files: DataSetFiles, method: str, settings: MethodConfig) -> MethodOutcome:
        """Restore the data set with a method; a method that cannot run fails for every picture."""
        data_set = files.info.name
        folder = self._out / "restored" / _folder_name(data_set) / _folder_name(method)
        self._report(f"{data_set}: {method} restores {len(files.lq)} pictures")
        error = "there is nothing to restore"
        if files.lq:
            try:
                return build_method(settings).run(
                    files.lq,
                    folder,
                    report=lambda line: self._report(f"{data_set}: {method}: {line}"),
                )
            except (MethodError, ValueError, OSError, ImportError) as failure:
                error = one_line(failure)
            except Exception as failure:  # a peer's own code may raise anything
                error = f"unexpected error: {with_type(failure)}"
        self._report(f"{data_set}: {method} cannot run: {error}")
        self._warnings.append(f"{data_set}: {method} cannot run: {error}")
        self._methods[method].error[data_set] = error
        return MethodOutcome({}, dict.fromkeys(files.lq, error), 0.0)

    def _measure(
        self, files: DataSetFiles, method: str, outcome: MethodOutcome
    ) -> Evaluation | None:
        """Every metric on the restored pictures; None if there are none."""
        data_set, config = files.info.name, files.config
        if not outcome.restored:
            return None
        hq = files.hq or {}
        pairs = [PicturePair(s, path, hq.get(s)) for s, path in sorted(outcome.restored.items())]
        self._report(f"{data_set}: {method}: {len(pairs)} pictures are measured")
        settings = EvaluateConfig(
            metrics=config.ids,
            resamples=self._config.resamples,
            seed=self._config.seed,
            workers=self._resources.workers,
            device=self._resources.device,
            weights=self._resources.weights,
            people=config.people,
            pose=config.pose,
        )
        kept = self._out / "kept" / _folder_name(data_set) / f"{_folder_name(method)}.jsonl"
        try:
            found = evaluate(
                pairs,
                settings,
                kept=kept,
                statistics=kept.parent / "statistics",
                progress=_paced(lambda line: self._report(f"{data_set}: {method}: {line}")),
            )
        except UnavailableError as error:
            self._reasons |= error.reasons
            self._warnings += error.reasons.values()
            return None
        self._infos |= found.metrics
        return found

    def _keep(
        self,
        files: DataSetFiles,
        method: str,
        outcome: MethodOutcome,
        evaluation: Evaluation | None,
    ) -> dict[str, Mapping[str, float]]:
        """Rows, cells and what is known of the method; metric → stem → value."""
        data_set, config = files.info.name, files.config
        hq = files.hq or {}
        measured = {m.pair.stem: m for m in (evaluation.rows if evaluation else ())}
        lost = {**files.failed, **outcome.failed}
        for stem in sorted({*files.lq, *files.failed}):
            found = measured.get(stem)
            error = lost.get(stem) or (found.error if found else "was not measured")
            self._rows.append(
                PictureRow(
                    method=method,
                    data_set=data_set,
                    stem=stem,
                    values=dict(found.values) if found else {},
                    errors=dict(found.errors) if found else {},
                    error=error,
                    lq=self._place(files.lq.get(stem)),
                    restored=self._place(outcome.restored.get(stem)),
                    reference=self._place(hq.get(stem)),
                )
            )
        total = len(files.lq) + len(files.failed)
        info = self._methods[method]
        for name in config.ids:
            if evaluation is None:
                why = info.error.get(data_set) or self._reasons.get(name, "nothing was measured")
                summary = MetricSummary(metric=name, mean=None, failed=total, error=why)
            else:
                summary = evaluation.summaries[name]
                summary = dataclasses.replace(summary, failed=summary.failed + len(lost))
            self._cells.append(Cell(method=method, data_set=data_set, **vars(summary)))
        made_with = json.dumps(dict(outcome.provenance), default=str)
        info.provenance[data_set] = json.loads(made_with)
        info.restored[data_set] = len(outcome.restored)
        if outcome.restored:
            info.seconds[data_set] = outcome.seconds / len(outcome.restored)
        if lost:
            info.failed[data_set] = lost
        if evaluation:
            everywhere = set(evaluation.unavailable.values())
            self._warnings += [
                line if line in everywhere else f"{data_set}: {method}: {line}"
                for line in evaluation.warnings
            ]
        return {
            name: {stem: m.values[name] for stem, m in measured.items() if name in m.values}
            for name in config.ids
        }

    def _differ(
        self, files: DataSetFiles, values: Mapping[str, Mapping[str, Mapping[str, float]]]
    ) -> None:
        """Compare every method with one of them, picture by picture."""
        data_set = files.info.name
        other = self._config.against or next(iter(values))
        if other not in values:
            self._warnings.append(f"{data_set}: no differences, as {other} was not run")
            return
        self._differences += differences_from(
            other,
            data_set,
            files.config.ids,
            values,
            resamples=self._config.resamples,
            seed=self._config.seed,
        )

    def finish(self, started: str, warnings: list[str]) -> BenchmarkRun:
        """The complete run, with the paper's numbers for comparison."""
        config, layout = self._config, self._config.table
        columns = {d.name: config.data_sets[d.name].ids for d in self.data_sets}
        tolerance = {find_metric(name).id: value for name, value in config.tolerance.items()}
        ids = dict.fromkeys(name for names in columns.values() for name in names)
        run = BenchmarkRun(
            name=self._name,
            title=config.title,
            layout=TableLayout(
                caption=layout.caption,
                rows=layout.rows,
                columns=columns,
                decimals={find_metric(name).id: digits for name, digits in layout.decimals.items()},
                notes=layout.notes,
            ),
            data_sets=tuple(self.data_sets),
            methods=tuple(self._methods.values()),
            metrics=tuple(self._infos.get(name) or find_metric(name) for name in ids),
            rows=tuple(self._rows),
            cells=tuple(self._cells),
            differences=tuple(self._differences),
            warnings=tuple(dict.fromkeys([*warnings, *self._warnings])),
            version=__version__,
            commit=commit(),
            machine=machine(),
            settings={
                "resamples": config.resamples,
                "seed": config.seed,
                "device of the metrics": self._resources.device,
                "tolerance": tolerance,
            },
            started=started,
            folder=self._out,
        )
        return compare(run, config.paper, tolerance)

    def _place(self, path: str | Path | None) -> str | None:
        """A file or a folder as results name it: below the run's folder, or absolute."""
        if path is None:
            return None
        path, out = Path(path).absolute(), self._out.absolute()
        return str(path.relative_to(out) if path.is_relative_to(out) else path)


def _paced(report: Report) -> PairProgress:
    """Progress as a line every ten seconds."""
    last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= 10:
            last = time.monotonic()
            report(f"measured {done} of {total}")

    return progress


def _plain(config: Any) -> dict[str, Any]:
    """A method's configuration for JSON, without `env`, which may contain secrets."""
    return {key: value for key, value in to_dict(config).items() if key != "env"}


def _open_folder(benchmark: Benchmark, out: Path, *, resume: bool) -> None:
    """Create the run's folder, or check that it belongs to this benchmark.

    Raises:
        ConfigError: it contains something else, or a run while `resume` is false.
    """
    file = out / "benchmark.json"
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: is not a folder; choose another output")
    if file.is_file():
        try:
            found = json.loads(file.read_text(encoding="utf-8")).get("name")
        except (ValueError, AttributeError):
            found = None
        if found != benchmark.name:
            raise ConfigError(f"{out}: holds a run of {found!r}; choose another output")
        if not resume:
            raise ConfigError(f"{out}: already contains a run; --resume continues it")
    elif out.is_dir() and any(out.iterdir()):
        raise ConfigError(f"{out}: holds other files; choose an empty folder, or a new one")
    values = {"name": benchmark.name, "config": to_dict(benchmark.config)}
    write_text(file, json.dumps(values, indent=1, ensure_ascii=False) + "\n")


def _folder_name(name: str) -> str:
    """A unique folder name for a data set or method."""
    plain = re.sub(r"[^A-Za-z0-9.+-]", "_", name).strip(".") or "_"
    if plain == name:
        return plain
    return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
