"""`hbr benchmark list | show | run | compare | report | pin`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hbr.apps.cli.options import AsJson, MeasuringWorkers, MetricWeights, Overwrite, Recursive
from hbr.apps.cli.reporting import Reporter, print_json, print_table
from hbr.errors import ExitCode

if TYPE_CHECKING:
    from hbr.evaluation.results import BenchmarkRun, Cell

app = typer.Typer(
    help="The papers' tables, and others: restore, measure, compare, report.",
    no_args_is_help=True,
)

_Run = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run, or its run.json.")]
_Paper = Annotated[
    str | None,
    typer.Option(help="Another table to compare with, as osdhuman.table2_methods."),
]


@app.command("list")
def list_benchmarks(as_json: AsJson = False) -> None:
    """List the benchmarks that hbr ships, and what has to be given to each."""
    from hbr.evaluation.benchmark_config import parameters, read_raw, shipped

    found = []
    for name in shipped():
        _, values = read_raw(name)
        data = parameters(values.get("data_sets"))
        methods = parameters(values.get("methods"))
        found.append(
            {
                "name": name,
                "title": values.get("title", ""),
                "paper": values.get("paper", ""),
                "data": [parameter for parameter, default in data.items() if default is None],
                "methods": list(values.get("methods", {})),
                "all parameters": {**data, **methods},
            }
        )
    if as_json:
        print_json(found)
        return
    columns = ("name", "title", "needs")
    needs = [" ".join(f"--data {parameter}=PATH" for parameter in b["data"]) for b in found]
    rows = [(b["name"], b["title"], need) for b, need in zip(found, needs, strict=True)]
    print_table(columns, rows)


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE", help="Of a benchmark.")],
) -> None:
    """Show a benchmark's YAML, with what it says of itself: commands, data, parameters."""
    from importlib.resources import files

    from hbr.evaluation.benchmark_config import read_raw, shipped

    read_raw(name)
    folder = files("hbr.evaluation").joinpath("benchmarks")
    source = folder.joinpath(f"{name}.yaml") if name in shipped() else Path(name)
    typer.echo(source.read_text(encoding="utf-8").rstrip("\n"))


@app.command("run")
def run(
    name: Annotated[
        str, typer.Argument(metavar="NAME|FILE", help="hbr benchmark list, or a YAML file.")
    ],
    out: Annotated[Path, typer.Option("--output", "-o", metavar="RUN", help="The run's folder.")],
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PATH", help="A parameter of the benchmark; repeatable."),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PLACE",
            help="A folder of results, or a YAML file of a method; in place of the benchmark's "
            "method of that name, or another one. Repeatable.",
        ),
    ] = None,
    workers: MeasuringWorkers = None,
    device: Annotated[str, typer.Option(help="Where metrics' networks run.")] = "cpu",
    weights: MetricWeights = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was stopped, or that failed.")
    ] = False,
    no_report: Annotated[
        bool, typer.Option("--no-report", help="Write run.json only, no tables and page.")
    ] = False,
) -> None:
    """Restore and measure, then write the tables and the page; their paths go to stdout.

    What fails costs only itself. Exit code: 0 all done, 3 some data sets, methods or pictures
    failed, 1 none is done; 2 wrong usage; 130 stopped, --resume goes on.
    """
    from hbr.evaluation.benchmark import Resources, run_benchmark
    from hbr.evaluation.benchmark_config import load_benchmark
    from hbr.processes import StopSignals

    benchmark = load_benchmark(name, _given(data, "--data"), _given(method, "--method"))
    reporter = Reporter(as_json=False)
    with StopSignals() as stop, reporter.listening():

        def report(line: str) -> None:
            stop.check()  # a library may have swallowed the interruption
            reporter.say("info", line)

        try:
            found = run_benchmark(
                benchmark,
                out,
                resources=Resources(workers, device, weights),
                resume=resume,
                report=report,
            )
            if not no_report:
                _render(found, out / "report")
        except BaseException:
            if stop.received is None:
                raise
            reporter.say("error", "stopped; the same command with --resume goes on")
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        for line in found.warnings:
            reporter.say("warning", line)
    typer.echo(out / "run.json")
    code = _exit_code(found)
    lost = len(benchmark.config.data_sets) - len(found.data_sets)  # by errors, which are told
    raise typer.Exit(ExitCode.SOME if lost and code == ExitCode.OK else code)


@app.command("compare")
def compare(
    run: _Run,
    paper: _Paper = None,
    tolerance: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC=NUMBER", help="How far a mean may be off; repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Set a run's numbers beside a paper's, with differences and verdicts."""
    found = _load(run, paper, tolerance)
    if not found.paper:
        raise typer.BadParameter(
            f"{found.name} names no table of a paper; give one", param_hint="--paper"
        )
    if as_json:
        from hbr.config import to_dict

        cells = [to_dict(cell) for cell in found.cells]
        content = {"paper": found.paper, "warnings": list(found.warnings), "cells": cells}
        print_json(content)
        return
    typer.echo(f"hbr: {found.paper} ({found.paper_table})", err=True)
    for line in found.warnings:
        typer.echo(f"hbr: {line}", err=True)
    columns = ("data set", "method", "metric", "mean", "paper", "difference", "verdict")
    print_table(columns, [_compared(found, cell) for cell in found.cells])


@app.command("report")
def report(
    run: _Run,
    out: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Default: report/ in the run's folder."),
    ] = None,
    paper: _Paper = None,
) -> None:
    """Write a run as Markdown, LaTeX, CSV, and one HTML page that needs nothing else."""
    found = _load(run, paper, None)
    _render(found, out or found.folder / "report")


@app.command("pin")
def pin(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="LQ files as downloaded.")],
    out: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="To be written.")],
    recursive: Recursive = False,
    overwrite: Overwrite = False,
) -> None:
    """Write the checksums of a folder's pictures, to which later runs are held.

    The file is what sha256sum writes. Give it to a benchmark as the checksums of an edition.
    """
    from hbr.evaluation.editions import hash_files, write_checksums
    from hbr.evaluation.pairing import find_pictures

    if out.exists() and not overwrite:
        raise typer.BadParameter(f"{out} exists; --overwrite replaces it", param_hint="--output")
    hashes = hash_files(find_pictures(folder, recursive=recursive), folder)
    write_checksums(hashes, out)
    typer.echo(out)


def _given(options: Sequence[str] | None, hint: str) -> dict[str, str]:
    """NAME=VALUE, several times."""
    found: dict[str, str] = {}
    for option in options or ():
        name, equals, value = option.partition("=")
        if not (name and equals and value):
            raise typer.BadParameter(f"{option!r} must be NAME=PATH", param_hint=hint)
        if name in found:
            raise typer.BadParameter(f"{name} is given twice", param_hint=hint)
        found[name] = value
    return found


def _load(run: Path, paper: str | None, tolerance: Sequence[str] | None) -> BenchmarkRun:
    """A run, with another table of a paper beside it if one is asked for."""
    from hbr.evaluation.comparison import compare
    from hbr.evaluation.results import BenchmarkRun
    from hbr.metrics import MetricError, find_metric

    found = BenchmarkRun.load(run)
    allowed = dict(found.settings.get("tolerance", {}))
    for name, text in _given(tolerance, "--tolerance").items():
        try:
            value = float(text)
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} is {text}; it must be 0 or more")
            allowed[find_metric(name).id] = value
        except (MetricError, ValueError) as error:
            raise typer.BadParameter(str(error), param_hint="--tolerance") from None
    if paper is None and not tolerance:
        return found
    return compare(found, found.paper_table if paper is None else paper, allowed)


def _render(found: BenchmarkRun, out: Path) -> None:
    from hbr.evaluation.report import render

    for path in render(found, out):
        typer.echo(path)


def _compared(run: BenchmarkRun, cell: Cell) -> tuple[str, ...]:
    digits = run.layout.decimals.get(cell.metric, 4)

    def number(value: float | None, sign: str = "") -> str:
        return "-" if value is None else f"{value:{sign}.{digits}f}"

    name = run.metric(cell.metric).name
    numbers = (number(cell.mean), number(cell.paper), number(cell.difference, "+"))
    return (cell.data_set, cell.method, name, *numbers, cell.verdict)


def _exit_code(run: BenchmarkRun) -> ExitCode:
    due = [cell for cell in run.cells if cell.verdict != "not run"]
    bad = [cell for cell in due if cell.failed or cell.error]
    if not bad:
        return ExitCode.OK
    return ExitCode.SOME if any(cell.mean is not None for cell in due) else ExitCode.NOTHING
