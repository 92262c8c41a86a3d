"""Our numbers compared with a paper's: the difference and a verdict."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Container, Iterator, Mapping, Sequence

from hbr.evaluation.papers import PaperTable, paper_table, tolerance_of
from hbr.evaluation.results import (
    NO_PAPER_VALUE,
    NOT_COMPARABLE,
    NOT_RUN,
    OUTSIDE,
    WITHIN,
    BenchmarkRun,
    Cell,
    DataSetInfo,
    Difference,
    MethodInfo,
)
from hbr.evaluation.statistics import paired_difference
from hbr.metrics import MetricInfo, find_metric
from hbr.metrics.table import PRINTED, is_printed_edition


def compare(
    run: BenchmarkRun, paper: str, tolerance: Mapping[str, float] | None = None
) -> BenchmarkRun:
    """The run with the numbers of a paper's table in its cells.

    Methods of the paper that were not run get cells too, behind the others.

    Args:
        run: what was measured.
        paper: the table (`hbr.evaluation.papers.paper_tables`); empty takes papers' numbers out.
        tolerance: metric id → how far a mean may be, in place of the usual.

    Raises:
        hbr.config.ConfigError: there is no such table.
    """
    warnings = [line for line in run.warnings if not line.startswith("of the paper: ")]
    if not paper:
        return dataclasses.replace(
            run,
            paper="",
            paper_table="",
            methods=tuple(method for method in run.methods if method.run),
            cells=tuple(_bare(c) for c in run.cells if c.verdict != NOT_RUN),
            warnings=tuple(warnings),
        )
    table = paper_table(paper)
    columns = run.layout.columns
    # numbers of another paper, compared before, are removed
    own_methods = [m for m in run.methods if m.run or _has_any(table, m.name, columns)]
    names = {method.name for method in own_methods}
    others = [
        MethodInfo(name=name, run=False)
        for name in table.methods
        if name not in names and _has_any(table, name, columns)
    ]
    methods = (*own_methods, *others)
    own = {(c.method, c.data_set, c.metric): c for c in run.cells}
    infos = {info.id: info for info in run.metrics}
    cells = []
    for data_set in run.data_sets:
        for method in methods:
            for metric in columns[data_set.name]:
                place = method.name, data_set.name, metric
                empty = Cell(method=place[0], data_set=place[1], metric=metric, mean=None)
                cell = _bare(own.get(place, empty))
                cell = _compared(cell, method, data_set, table, tolerance)
                cells.append(_of_one_edition(cell, infos.get(metric)))
    warnings += [f"of the paper: {note}" for note in table.notes]
    warnings += _not_measured(table, columns)
    if all(cell.paper is None for cell in cells):
        found = ", ".join(sorted({data_set for _, data_set, _ in table.values}))
        warnings.append(f"of the paper: {table.name} has none of these cells; it is of {found}")
    return dataclasses.replace(
        run,
        paper=table.source,
        paper_table=table.name,
        methods=methods,
        cells=tuple(cells),
        warnings=tuple(warnings),
    )


def _not_measured(table: PaperTable, data_sets: Container[str]) -> Iterator[str]:
    """A line for each printed column that hbr does not measure."""
    for (data_set, column), printed in table.not_measured.items():
        if data_set in data_sets:
            numbers = ", ".join(f"{method} {value:g}" for method, value in printed.items())
            yield f"of the paper: {column} on {data_set}, not measured here: {numbers}"


def differences_from(
    other: str,
    data_set: str,
    metrics: Sequence[str],
    values: Mapping[str, Mapping[str, Mapping[str, float]]],
    *,
    resamples: int,
    seed: int,
) -> list[Difference]:
    """Every method's mean difference from one of them, over the pictures that both have.

    `values`: method → metric → stem → value.
    """
    differences = []
    for method in values:
        for metric in metrics if method != other else ():
            ours, theirs = values[method][metric], values[other][metric]
            found = paired_difference(ours, theirs, resamples=resamples, seed=seed)
            if found is None or found.low is None or found.high is None:
                continue
            sure = found.low > 0 or found.high < 0
            better = (found.mean > 0) == (find_metric(metric).better == "higher")
            differences.append(
                Difference(
                    method=method,
                    other=other,
                    data_set=data_set,
                    metric=metric,
                    **vars(found),
                    better=better if sure else None,
                )
            )
    return differences


def _has_any(table: PaperTable, method: str, columns: Mapping[str, Sequence[str]]) -> bool:
    """Whether the paper prints anything of the method in these columns."""
    cells = ((data_set, metric) for data_set, metrics in columns.items() for metric in metrics)
    return any(table.value(method, *cell) is not None for cell in cells)


def _bare(cell: Cell) -> Cell:
    return dataclasses.replace(
        cell, paper=None, difference=None, tolerance=None, verdict=NO_PAPER_VALUE
    )


def _compared(
    cell: Cell,
    method: MethodInfo,
    data_set: DataSetInfo,
    table: PaperTable,
    tolerance: Mapping[str, float] | None,
) -> Cell:
    printed = table.value(cell.method, cell.data_set, cell.metric)
    if table.rows == "data sets" and method.settings.get("baseline") != "input":
        printed = None  # it is of the pictures as they are
    if not method.run:
        return dataclasses.replace(cell, paper=printed, verdict=NOT_RUN)
    if printed is None:
        return cell
    allowed = tolerance_of(cell.metric, printed, tolerance)
    difference = None if cell.mean is None else cell.mean - printed
    verdict = _verdict(cell, data_set, difference, allowed)
    return dataclasses.replace(
        cell, paper=printed, difference=difference, tolerance=allowed, verdict=verdict
    )


def _of_one_edition(cell: Cell, info: MetricInfo | None) -> Cell:
    """The cell without a verdict where its metric is another edition than the paper's."""
    if cell.verdict not in (WITHIN, OUTSIDE):
        return cell
    now = find_metric(cell.metric)
    reported = next((ids[0] for ids in PRINTED.values() if cell.metric in ids), cell.metric)
    if not is_printed_edition(cell.metric):
        why = f"papers report {reported}, another edition of the metric"
    elif info is not None and not re.match(rf"{re.escape(now.version)}(?![^, ])", info.version):
        why = f"measured by version {info.version} of {cell.metric}; now it is {now.version}"
    else:
        return cell
    return dataclasses.replace(cell, tolerance=None, verdict=f"{NOT_COMPARABLE}: {why}")


def _verdict(cell: Cell, data_set: DataSetInfo, difference: float | None, allowed: float) -> str:
    if difference is None:
        return f"{NOT_COMPARABLE}: {cell.error or 'no picture was measured'}"
    if not data_set.comparable:
        return f"{NOT_COMPARABLE}: {data_set.status}"
    if cell.failed:
        return f"{NOT_COMPARABLE}: {cell.failed} of {cell.n + cell.failed} pictures failed"
    return WITHIN if abs(difference) <= allowed else OUTSIDE
