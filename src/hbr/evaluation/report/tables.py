"""The table of a run as plain rows and columns, before it becomes Markdown, LaTeX or HTML."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hbr.evaluation.results import (
    NO_PAPER_VALUE,
    NOT_COMPARABLE,
    NOT_RUN,
    OUTSIDE,
    WITHIN,
    BenchmarkRun,
    Cell,
)
from hbr.metrics import MetricInfo

NONE = "–"
Rank = Literal["best", "second", ""]


@dataclass(frozen=True)
class Column:
    """One column: a metric within a group (a data set, or a method)."""

    group: str
    metric: MetricInfo

    @property
    def heading(self) -> str:
        """The metric's name with an arrow that says which way is better."""
        return f"{self.metric.name} {self.metric.arrow}"


@dataclass(frozen=True, kw_only=True)
class TableEntry:
    """One place of the table, in digits.

    Attributes:
        rank: best or second of its column, among what was measured; equals share it.
        mean: or a dash.
        interval: "low to high", or empty.
        paper: the published number, or empty.
        difference: to the paper, signed, or empty.
        verdict: in words for a reader; empty where there is nothing to compare.
        tone: `good`, `bad` or `quiet`, as the verdict.
        note: further information: failed pictures, or why there is no number.
    """

    rank: Rank = ""
    mean: str = NONE
    interval: str = ""
    paper: str = ""
    difference: str = ""
    verdict: str = ""
    tone: str = "quiet"
    note: str = ""

    @property
    def mark(self) -> str:
        """✓ or ✗, as the verdict; else empty."""
        return {"good": "✓", "bad": "✗"}.get(self.tone, "")


@dataclass(frozen=True)
class Line:
    """One row: the name of a method or a data set, and an entry for each column."""

    name: str
    entries: tuple[TableEntry, ...]


@dataclass(frozen=True)
class Table:
    """The table of a run. `groups` are (name, how many columns), in order."""

    corner: str
    groups: tuple[tuple[str, int], ...]
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]

    @property
    def has_paper(self) -> bool:
        """Whether it contains any published number."""
        return any(entry.paper for line in self.lines for entry in line.entries)

    @property
    def reasons(self) -> list[str]:
        """Why numbers are not comparable with the published ones, each reason once."""
        verdicts = [entry.verdict for line in self.lines for entry in line.entries]
        reasons = dict.fromkeys(v for v in verdicts if v.startswith(NOT_COMPARABLE))
        return [reason[:1].upper() + reason[1:] for reason in reasons]


def build(run: BenchmarkRun) -> Table:
    """The table in the layout of the run."""
    cells = {(c.method, c.data_set, c.metric): c for c in run.cells}
    shown = run.layout.columns or {d.name: tuple(m.id for m in run.metrics) for d in run.data_sets}
    known = {info.id for info in run.metrics}
    shown = {name: tuple(m for m in ids if m in known) for name, ids in shown.items()}
    methods = [m.name for m in run.methods]
    if run.layout.rows == "methods":
        names, groups = methods, shown
    else:
        names = list(shown)
        every = tuple(dict.fromkeys(m for metrics in shown.values() for m in metrics))
        groups = dict.fromkeys(methods, every)
    columns = [Column(group, run.metric(m)) for group, ids in groups.items() for m in ids]

    def cell(name: str, column: Column) -> Cell | None:
        pair = (name, column.group) if run.layout.rows == "methods" else (column.group, name)
        return cells.get((*pair, column.metric.id))

    grid = [[cell(name, column) for column in columns] for name in names]
    ranks = [_ranks([row[i] for row in grid], c.metric) for i, c in enumerate(columns)]
    lines = [
        Line(
            name,
            tuple(
                _entry(found, ranks[i].get(row, ""), digits(run, columns[i].metric.id))
                for i, found in enumerate(grid[row])
            ),
        )
        for row, name in enumerate(names)
    ]
    return Table(
        "method" if run.layout.rows == "methods" else "data set",
        tuple((group, len(ids)) for group, ids in groups.items() if ids),
        tuple(columns),
        tuple(lines),
    )


def digits(run: BenchmarkRun, metric: str) -> int:
    """Digits after the point of a metric in this run."""
    return run.layout.decimals.get(metric, 4)


def number(value: float | None, decimals: int, *, signed: bool = False) -> str:
    """A number in digits with a true minus sign, a dash for None."""
    if value is None:
        return NONE
    text = f"{value:{'+' if signed else ''}.{decimals}f}"
    return text.replace("-", "−")


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as CSV; None is empty."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return buffer.getvalue()


def differences(run: BenchmarkRun) -> Iterator[dict[str, str]]:
    """The differences of a run in digits and words: those of `Difference`, `word` and `tone`."""
    for d in run.differences:
        mean, low, high = (
            number(value, digits(run, d.metric), signed=True) for value in (d.mean, d.low, d.high)
        )
        yield {
            "method": d.method,
            "data_set": d.data_set,
            "metric": run.metric(d.metric).name,
            "mean": mean,
            "interval": f"{low} to {high}",
            "n": str(d.n),
            "word": {True: "better", False: "worse", None: "not significant"}[d.better],
            "tone": {True: "good", False: "bad", None: "quiet"}[d.better],
        }


def verdict_line(run: BenchmarkRun) -> str:
    """How many cells with a published number came to which kind of verdict; empty without any."""
    counts = {WITHIN: 0, OUTSIDE: 0, NOT_COMPARABLE: 0, NOT_RUN: 0}
    for cell in run.cells:
        kind = cell.verdict.partition(":")[0]
        if cell.paper is not None and kind in counts:
            counts[kind] += 1
    told = [f"{count} {kind}" + (" tolerance" if kind in (WITHIN, OUTSIDE) else "")
            for kind, count in counts.items() if count]  # fmt: skip
    return f"Against the published numbers: {', '.join(told)}." if told else ""


def _ranks(cells: Iterable[Cell | None], metric: MetricInfo) -> dict[int, Rank]:
    """Row → rank; one method alone is not the best of anything."""
    values = {i: c.mean for i, c in enumerate(cells) if c is not None and c.mean is not None}
    order = sorted(set(values.values()), reverse=metric.better == "higher")
    if len(values) < 2:
        return {}
    names: dict[float, Rank] = dict(zip(order, ("best", "second"), strict=False))
    return {row: names[value] for row, value in values.items() if value in names}


def _entry(cell: Cell | None, rank: Rank, decimals: int) -> TableEntry:
    if cell is None:
        return TableEntry()
    interval = ""
    if cell.low is not None and cell.high is not None:
        interval = f"{number(cell.low, decimals)} to {number(cell.high, decimals)}"
    kind = cell.verdict.partition(":")[0]
    verdict, tone = cell.verdict, {WITHIN: "good", OUTSIDE: "bad"}.get(kind, "quiet")
    if cell.tolerance is not None and kind in (WITHIN, OUTSIDE):
        verdict = f"{kind} ±{cell.tolerance:g}"
    notes = []
    if cell.error:
        notes.append(cell.error)
    if cell.failed:
        notes.append(f"{cell.failed} of {cell.n + cell.failed} failed")
    return TableEntry(
        rank=rank,
        mean=number(cell.mean, decimals),
        interval=interval,
        paper=number(cell.paper, decimals) if cell.paper is not None else "",
        difference=number(cell.difference, decimals, signed=True)
        if cell.difference is not None
        else "",
        verdict="" if kind == NO_PAPER_VALUE else verdict,
        tone=tone,
        note="; ".join(notes),
    )
