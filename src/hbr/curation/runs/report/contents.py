"""The numbers of the page, gathered in two passes that stream over the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hbr.curation.pipeline.passes import ManifestTotals
from hbr.curation.record import REASONS, STAGES, Record, from_row
from hbr.curation.runs.run_folder import RunFolder, score_column, side
from hbr.curation.runs.status import RunStatus
from hbr.curation.runs.summary import RunSummary, split_names, summarize

BINS = 48
_SAMPLE = 20_000  # values that the ends of a histogram are taken from
_ERRORS = 200  # that are listed
_COLUMNS = (
    *("id", "source", "key", "image_id", "licence", "crop_persons", "stage", "reason", "detail"),
    *("split", "sharpness", "box_edge", "z_mean", "tags"),
)


@dataclass(kw_only=True)
class Histogram:
    """The distribution of a column.

    Attributes:
        column: `sharpness`, `box_edge`, `z_mean`, or a metric.
        better: which end of its scale is the good one.
        threshold: None if there is none.
        logarithmic: the bins are even on a logarithmic scale.
        edges: [BINS + 1]; values beyond are in the first and the last bin.
        all, kept: [BINS] values of all rows that have one, and of kept crops.
        n, n_kept, total, total_kept: how many, and their sums.
        passed: values on the good side of the threshold.
        below, above: values beyond the edges.
    """

    column: str
    better: str
    threshold: float | None
    logarithmic: bool
    edges: np.ndarray
    all: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    kept: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    n: int = 0
    n_kept: int = 0
    total: float = 0.0
    total_kept: float = 0.0
    passed: int = 0
    below: int = 0
    above: int = 0

    def add(self, values: np.ndarray, kept: np.ndarray) -> None:
        """Count [n] values, of which some ([n] bool) are of kept crops."""
        there = np.isfinite(values)
        values, kept = values[there], kept[there]
        inside = np.clip(values, self.edges[0], self.edges[-1])
        self.all += np.histogram(inside, self.edges)[0]
        self.kept += np.histogram(inside[kept], self.edges)[0]
        self.n += len(values)
        self.n_kept += int(kept.sum())
        self.total += float(values.sum())
        self.total_kept += float(values[kept].sum())
        self.below += int((values < self.edges[0]).sum())
        self.above += int((values > self.edges[-1]).sum())
        if self.threshold is not None:
            good = values >= self.threshold
            if self.better == "lower":
                good = values <= self.threshold
            self.passed += int(good.sum())


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A contact sheet: a bounded sample of rows, the first by id, which is a hash.

    Attributes:
        stage, reason: of its rows; reason None for rows that are kept, or not stopped yet.
        metric: the one that stopped them, at stage `quality`.
        count: how many such rows there are.
        records: those that are shown.
    """

    stage: str
    reason: str | None
    metric: str | None
    count: int
    records: tuple[Record, ...]


@dataclass(frozen=True, kw_only=True)
class Contents:
    """The contents of the page.

    Attributes:
        summary: the counts of all rows, and what all stages cost.
        totals: what else was counted, over kept crops.
        finished: the passes over the whole set have run.
        status: of an unfinished run; None if it left no status file.
        histograms: of every column with values, of the sources that the run's thresholds hold for.
        sheets: kept first, then by stage and reason.
        problems: images, and entries of annotations, that could not be used; at most 200.
        settings: what the rows depend on.
    """

    summary: RunSummary
    totals: ManifestTotals
    finished: bool
    status: RunStatus | None
    histograms: tuple[Histogram, ...]
    sheets: tuple[Sheet, ...]
    problems: tuple[Record, ...]
    settings: Mapping[str, Any]


def collect(run: RunFolder, *, kept: int, rejected: int) -> Contents:
    """Go through a run's rows.

    `kept` is the number of kept crops to show, `rejected` that of rows for each reason.
    """
    histograms = _empty_histograms(run, sum(run.counts().values()))
    totals, picks, problems = ManifestTotals(), _Picks(kept, rejected), list[Record]()
    wanted, apart = [*_COLUMNS, *map(score_column, run.metrics)], run.judged_apart
    for table in run.tables(wanted):
        records = [from_row(row) for row in table.to_pylist()]
        totals.add(records)
        unusable = [record for record in records if record.reason in REASONS["read"]]
        problems += unusable[: _ERRORS - len(problems)]
        for record in records:
            picks.add(record)
        alive = np.array([record.alive for record in records], bool)
        common = np.array([record.source not in apart for record in records], bool)
        for histogram in histograms:
            column = score_column(histogram.column)
            if column in table.column_names:
                values = table[column].to_numpy().astype(np.float64)
                histogram.add(values[common], alive[common])
    costs = run.store.costs() if run.store is not None else {}
    return Contents(
        summary=summarize(run.name, totals, splits=split_names(run.about), costs=costs),
        totals=totals,
        finished=run.manifest is not None,
        status=run.status(),
        histograms=tuple(h for h in histograms if h.n),
        sheets=picks.sheets(run),
        problems=tuple(sorted(problems, key=lambda record: record.id)),
        settings=run.about,
    )


def _empty_histograms(run: RunFolder, rows: int) -> list[Histogram]:
    """With edges from a sample: an even part of all ids, whatever their order."""
    names = ["sharpness", "box_edge", *run.metrics, "z_mean"]
    columns = [score_column(name) for name in names]
    share = min(1.0, _SAMPLE / max(rows, 1))
    samples: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for table in run.tables(["id", *columns]):
        digits = np.array([int(i[:6], 16) for i in table["id"].to_pylist()], np.int64)
        picked = digits < share * 16**6
        for name, column in zip(names, columns, strict=True):
            if column in table.column_names:
                values = table[column].to_numpy().astype(np.float64)[picked]
                samples[name].append(values[np.isfinite(values)])
    made = []
    for name in names:
        values = np.concatenate(samples[name]) if samples[name] else np.empty(0)
        threshold = run.thresholds().get(name)
        logarithmic = name in ("sharpness", "box_edge")
        edges = _edges(values, threshold, logarithmic=logarithmic)
        made.append(
            Histogram(
                column=name,
                better=side(name),
                threshold=threshold,
                logarithmic=logarithmic,
                edges=edges,
            )
        )
    return made


def _edges(values: np.ndarray, threshold: float | None, *, logarithmic: bool) -> np.ndarray:
    """Even bins from the 0.5 % to the 99.5 % quantile, with the threshold inside."""
    low, high = np.quantile(values, (0.005, 0.995)).tolist() if len(values) else (0.0, 1.0)
    if threshold is not None:
        low, high = min(low, threshold), max(high, threshold)
    if logarithmic:
        low = max(low, 1.0)
        high = max(high, low * 1.5)
        return np.geomspace(low, high, BINS + 1)
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, BINS + 1)


_Group = tuple[str, str | None, str | None]  # stage, reason, metric


class _Picks:
    """Of each group of rows its number, and the ids of some, the first."""

    def __init__(self, kept: int, rejected: int) -> None:
        self._limits = {True: kept, False: rejected}
        self._groups: Counter[_Group] = Counter()
        self._picked: dict[_Group, list[str]] = {}

    def add(self, record: Record) -> None:
        """Count a row, and pick it if its id is among the first."""
        metric = None
        if record.reason in ("below-threshold", "above-ceiling"):
            metric = (record.detail or "").partition(" ")[0] or None
        group = ("splits" if record.alive else record.stage, record.reason, metric)
        self._groups[group] += 1
        if record.reason in REASONS["read"]:
            return
        picked, limit = self._picked.setdefault(group, []), self._limits[record.alive]
        # twice as many are held so that sorting is rare; the least ids stay
        if len(picked) < 2 * limit:
            picked.append(record.id)
        if limit and len(picked) == 2 * limit:
            picked.sort()
            del picked[limit:]

    def sheets(self, run: RunFolder) -> tuple[Sheet, ...]:
        """Kept first, then in the order of the stages, the most frequent first."""
        ids = {
            group: sorted(picked)[: self._limits[group[1] is None]]
            for group, picked in self._picked.items()
        }
        wanted = [i for some in ids.values() for i in some]
        records = {record.id: record for record in run.chosen("id", wanted)} if wanted else {}

        def place(group: _Group) -> tuple[bool, int, int, str]:
            stage, reason, metric = group
            at = STAGES.index(stage)
            return reason is not None, at, -self._groups[group], f"{reason}{metric}"

        return tuple(
            Sheet(
                stage=group[0],
                reason=group[1],
                metric=group[2],
                count=self._groups[group],
                records=tuple(records[i] for i in ids[group]),
            )
            for group in sorted(ids, key=place)
        )
