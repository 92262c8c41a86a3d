"""The numbers of the page, gathered in two passes that stream over the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hbr.curation.pipeline.store import TaskSet
from hbr.curation.record import ERRORS, REASONS, STAGES, FunnelStep, Record, funnel
from hbr.curation.runs.run_folder import RunFolder, score_column, side
from hbr.curation.runs.status import RunStatus

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
        name: of the data set.
        finished: the passes over the whole set have run.
        status: of an unfinished run; None if it left no status file.
        images, rows, kept, errors: how many.
        funnel: what each stage did.
        histograms: of every column with values, of the sources that the run's thresholds hold for.
        sheets: kept first, then by stage and reason.
        splits: split → kept crops.
        sources: source → images, rows, kept.
        licences: licence → kept crops; an empty one where none is stated.
        persons: people in the crop → kept crops.
        tags: tag → kept crops.
        problems: images, and entries of annotations, that could not be used; at most 200.
        costs: stage → (things, CPU seconds).
        settings: what the rows depend on.
    """

    name: str
    finished: bool
    status: RunStatus | None
    images: int
    rows: int
    kept: int
    errors: int
    funnel: tuple[FunnelStep, ...]
    histograms: tuple[Histogram, ...]
    sheets: tuple[Sheet, ...]
    splits: Mapping[str, int]
    sources: Mapping[str, Mapping[str, int]]
    licences: Mapping[str, int]
    persons: Mapping[int, int]
    tags: Mapping[str, int]
    problems: tuple[Record, ...]
    costs: Mapping[str, tuple[int, float]]
    settings: Mapping[str, Any]


def collect(run: RunFolder, *, kept: int, rejected: int) -> Contents:
    """Go through a run's rows.

    `kept` is the number of kept crops to show, `rejected` that of rows for each reason.
    """
    counts = run.counts()
    histograms = _empty_histograms(run, sum(counts.values()))
    tally = _Tally(kept, rejected)
    wanted, apart = [*_COLUMNS, *map(score_column, run.metrics)], run.judged_apart
    for table in run.tables(wanted):
        tally.add(table)
        alive = ~np.asarray(table["reason"].is_valid())
        common = np.array([source not in apart for source in table["source"].to_pylist()], bool)
        for histogram in histograms:
            column = score_column(histogram.column)
            if column in table.column_names:
                values = table[column].to_numpy().astype(np.float64)
                histogram.add(values[common], alive[common])
    steps = funnel(counts)
    store = run.store
    return Contents(
        name=run.name,
        finished=run.manifest is not None,
        status=run.status(),
        images=sum(len(images) for images in tally.images.values()),
        rows=sum(counts.values()),
        kept=steps[-1].passed,
        errors=sum(n for (_, reason), n in counts.items() if reason in ERRORS),
        funnel=steps,
        histograms=tuple(h for h in histograms if h.n),
        sheets=tally.sheets(run),
        splits=tally.in_order(run.about.get("splits", {}), tally.splits),
        sources={
            name: {"images": len(tally.images[name]), "rows": n, "kept": tally.by_source[name]}
            for name, n in sorted(tally.rows.items())
        },
        licences=dict(tally.licences.most_common()),
        persons=dict(sorted(tally.persons.items())),
        tags=dict(tally.tags.most_common(40)),
        problems=tuple(run.chosen("id", tally.problems)[:_ERRORS]) if tally.problems else (),
        costs=store.costs() if store is not None else {},
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


class _Tally:
    """What is counted and picked in the second pass."""

    def __init__(self, kept: int, rejected: int) -> None:
        self._limits = {True: kept, False: rejected}
        self.images: dict[str, TaskSet] = {}
        self.rows: Counter[str] = Counter()
        self.by_source: Counter[str] = Counter()
        self.splits: Counter[str] = Counter()
        self.licences: Counter[str] = Counter()
        self.persons: Counter[int] = Counter()
        self.tags: Counter[str] = Counter()
        self.problems: set[str] = set()
        self._groups: Counter[_Group] = Counter()
        self._picked: dict[_Group, list[str]] = {}

    def add(self, table: Any) -> None:
        """Count the rows of a table."""
        for row in table.to_pylist():
            source, reason = row["source"], row["reason"]
            self.rows[source] += 1
            self.images.setdefault(source, TaskSet()).add(int(row["image_id"], 16))
            if reason is None:
                self.by_source[source] += 1
                self.splits[row["split"] or ""] += 1
                self.licences[row["licence"] or ""] += 1
                if (people := row.get("crop_persons")) is not None:
                    self.persons[people] += 1
                self.tags.update(row.get("tags") or ())
            elif reason in REASONS["read"] and len(self.problems) < _ERRORS:
                self.problems.add(row["id"])
            self._pick(row)

    def _pick(self, row: Mapping[str, Any]) -> None:
        stage, reason = row["stage"], row["reason"]
        metric = None
        if reason in ("below-threshold", "above-ceiling"):
            metric = (row["detail"] or "").partition(" ")[0] or None
        group = ("splits" if reason is None else stage, reason, metric)
        self._groups[group] += 1
        if reason in REASONS["read"]:
            return
        picked, limit = self._picked.setdefault(group, []), self._limits[reason is None]
        # twice as many are held so that sorting is rare; the least ids stay
        if len(picked) < 2 * limit:
            picked.append(row["id"])
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

    @staticmethod
    def in_order(settings: Mapping[str, Any], splits: Mapping[str, int]) -> dict[str, int]:
        """Splits in the order of the configuration."""
        order: Sequence[str] = [*settings.get("parts", {}), *settings.get("fixed", {}).values()]
        names = dict.fromkeys([*order, *sorted(splits)])
        return {name: splits.get(name, 0) for name in names if name}
