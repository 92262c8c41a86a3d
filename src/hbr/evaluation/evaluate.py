"""Pairs of pictures → a row for each, and means that say their confidence intervals.

The process that runs this loads no torch; its workers (`hbr.evaluation.measuring`) do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from hbr.config import ConfigError, check
from hbr.evaluation.folders import FolderMetrics
from hbr.evaluation.measuring import Availability, Measured, Measurer, as_row, open_measurer
from hbr.evaluation.pairing import PicturePair
from hbr.evaluation.settings import EvaluateConfig
from hbr.evaluation.statistics import bootstrap_mean
from hbr.ledger import Ledger
from hbr.metrics import MetricError, MetricInfo
from hbr.processes import WorkerDied, pool_map

PairProgress = Callable[[int, int], None]
Result = tuple[list[Measured], Availability]
PairChunk = tuple[PicturePair, ...]

_PRELOAD = ("torch", "cv2", "hbr.evaluation.measuring")


@dataclass(frozen=True, kw_only=True)
class MetricSummary:
    """A metric over all pictures.

    Attributes:
        metric: id.
        mean: of the pictures' values, or the one value of a metric over folders; None if there
            is none.
        low, high: ends of the bootstrap's 95 % interval; None where there is none.
        n: pictures that went into it.
        failed: pictures that should have, and did not.
        error: why there is no value.
    """

    metric: str
    mean: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    failed: int = 0
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        metrics: id → row of the table of metrics, with the versions that were loaded.
        rows: one per pair, in the order of the stems, including skipped pairs.
        summaries: id → the number for the whole.
        warnings: one line each.
        unavailable: id → one line, of those that could not be loaded; among the warnings too.
    """

    metrics: Mapping[str, MetricInfo]
    rows: Sequence[Measured]
    summaries: Mapping[str, MetricSummary]
    warnings: Sequence[str] = field(default_factory=tuple)
    unavailable: Mapping[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        """Pairs for which a requested value is missing."""
        return sum(bool(row.error or row.errors) and not row.skipped for row in self.rows)

    @property
    def measured(self) -> int:
        """Pairs with at least one value."""
        return sum(bool(row.values) for row in self.rows)


class UnavailableError(MetricError):
    """None of the metrics can be computed; `reasons` has one line for each id."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        """Join the reasons into one message."""
        super().__init__("; ".join(reasons.values()))
        self.reasons = dict(reasons)


def evaluate(
    pairs: Sequence[PicturePair],
    config: EvaluateConfig,
    *,
    kept: Path | None = None,
    statistics: Path | None = None,
    resume: bool = True,
    progress: PairProgress = lambda done, total: None,
) -> Evaluation:
    """Measure every pair; an error affects only its own pair.

    Args:
        pairs: of `hbr.evaluation.pairing.pair`.
        config: what is computed.
        kept: a file of values, filed under the content of both pictures and the version of the
            metric, so that nothing in it can be stale. Values are added to it as they come.
        statistics: a folder that keeps what metrics over folders know of the restored pictures,
            under their content.
        resume: reuse the values in `kept`; otherwise the file is started again.
        progress: called with the number of pairs that are done, and of all; then, for metrics
            over folders, with that of the pictures of each folder.

    Raises:
        ConfigError: a metric needs references or people and there are none.
        UnavailableError: not one of the metrics can be computed.
    """
    _check_needs(pairs, config)
    infos = config.infos
    over_folders = [info for info in infos.values() if info.kind == "distribution"]
    folders = FolderMetrics(over_folders, config.device, config.weights)
    infos |= folders.infos
    unavailable = dict(folders.unavailable)
    _check_some(unavailable, infos)
    if kept is not None and not resume:
        kept.unlink(missing_ok=True)
    rows: list[Measured] = []
    noted: dict[str, None] = {}
    with contextlib.ExitStack() as opened:
        ledger = opened.enter_context(Ledger(kept)) if kept is not None else None
        for measured, available in measure_all(pairs, config, kept):
            infos |= available.infos
            unavailable |= available.unavailable
            noted |= dict.fromkeys(available.warnings)
            _check_some(unavailable, infos)
            if ledger is not None:
                ledger.append(*filter(None, (as_row(m, infos) for m in measured)))
            rows += measured
            progress(len(rows), len(pairs))
    numbers = folders.measure(rows, statistics, progress)
    summaries = {}
    for name in infos:
        error = unavailable.get(name)
        if name in numbers:
            summaries[name] = _of_folder(name, numbers[name], rows)
        else:
            summaries[name] = _over_rows(name, rows, config, error)
    warnings = (*noted, *_warnings(rows, summaries), *folders.warnings)
    return Evaluation(
        metrics=infos, rows=rows, summaries=summaries, warnings=warnings, unavailable=unavailable
    )


def measure_all(
    pairs: Sequence[PicturePair], config: EvaluateConfig, known: Path | None = None
) -> Iterator[Result]:
    """Measure every pair; results come in the order of the pairs, a batch at a time.

    A batch whose worker dies is measured again one pair at a time; only a pair whose process dies
    again is lost. `known` is a file of values of an earlier run.

    Yields:
        the pairs of a batch, and which metrics could be loaded.
    """
    size = config.at_once
    chunks = [tuple(pairs[i : i + size]) for i in range(0, len(pairs), size)]
    named = tuple(pairs) if config.people is not None else ()
    if config.processes == 0:
        measurer = Measurer(config, known, named)
        for chunk in chunks:
            yield measurer(chunk), measurer.available
        return
    worker = partial(open_measurer, config, known, named)
    for result in pool_map(worker, chunks, workers=config.processes, preload=_PRELOAD):
        yield _one_by_one(worker, result.item) if isinstance(result, WorkerDied) else result


def _one_by_one(worker: Callable[[], Callable[[PairChunk], Result]], chunk: PairChunk) -> Result:
    found: list[Measured] = []
    available = Availability()
    singles = [(pair,) for pair in chunk]
    for result in pool_map(worker, singles, workers=1, preload=_PRELOAD):
        if isinstance(result, WorkerDied):
            (pair,) = result.item
            line = (
                f"{pair.restored.name}: the process that measured it died, possibly out of memory"
            )
            found.append(Measured(pair=pair, error=line))
        else:
            measured, available = result
            found += measured
    return found, available


def _check_some(unavailable: Mapping[str, str], infos: Mapping[str, MetricInfo]) -> None:
    if unavailable.keys() >= infos.keys():
        raise UnavailableError(unavailable)


def _check_needs(pairs: Sequence[PicturePair], config: EvaluateConfig) -> None:
    check(len(pairs) > 0, "pairs", [], "one or more")
    for name, info in config.infos.items():
        needy = info.needs_reference or info.kind == "distribution"
        if needy and any(pair.reference is None for pair in pairs):
            raise ConfigError(f"{name} compares with references; give them by --reference")
        if info.kind == "person" and config.people is None:
            raise ConfigError(f"{name} needs the people in the pictures; give them by --people")
        if "restored keypoints" in info.needs and config.pose is None:
            raise ConfigError(f"{name} looks for key points itself; give --pose FILE.onnx")


def _over_rows(
    name: str, rows: Sequence[Measured], config: EvaluateConfig, error: str | None
) -> MetricSummary:
    values = [row.values[name] for row in rows if name in row.values]
    due = [row for row in rows if not row.skipped and name not in row.values]
    failed = sum(bool(error or row.error or name in row.errors) for row in due)
    if not values:
        why = error or next((row.errors[name] for row in due if name in row.errors), None)
        return MetricSummary(
            metric=name, mean=None, failed=failed, error=why or "no picture could be measured"
        )
    mean = bootstrap_mean(values, resamples=config.resamples, seed=config.seed)
    return MetricSummary(metric=name, **vars(mean), failed=failed, error=error)


def _of_folder(name: str, number: float | str, rows: Sequence[Measured]) -> MetricSummary:
    failed = sum(row.error is not None and not row.skipped for row in rows)
    if isinstance(number, str):
        return MetricSummary(metric=name, mean=None, failed=failed, error=number)
    n = sum(row.error is None for row in rows)
    return MetricSummary(metric=name, mean=number, n=n, failed=failed)


def _warnings(rows: Sequence[Measured], summaries: Mapping[str, MetricSummary]) -> Iterator[str]:
    for summary in summaries.values():
        if summary.error:
            told = summary.error.startswith(summary.metric)
            yield summary.error if told else f"{summary.metric}: {summary.error}"
    if skipped := sum(row.skipped for row in rows):
        yield f"{skipped} of {len(rows)} pairs left out, of unequal sizes"
    grey = sum("grey" in note for row in rows for note in row.notes)
    if grey:
        yield f"{grey} of {len(rows)} pairs are grey against colour, compared with R = G = B"
    resized = sum("resized" in note for row in rows for note in row.notes)
    if resized:
        yield f"{resized} of {len(rows)} restored pictures were resized to their references"
