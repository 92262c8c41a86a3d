"""`hbr benchmark list | show | run | compare | report | pin`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hbr.apps.cli import options
from hbr.apps.cli.reporting import Reporter, print_json, print_table, to_stderr
from hbr.errors import ExitCode

if TYPE_CHECKING:
    from hbr.evaluation.results import BenchmarkRun, Cell

app = typer.Typer(
    help="Run benchmarks, such as the tables of papers: restore, measure, compare, report.",
    no_args_is_help=True,
)

_Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, or its run.json.")]
_Paper = Annotated[
    str | None,
    typer.Option(help="Another table to compare with, e.g. osdhuman.table2_methods."),
]


@app.command("list")
def list_benchmarks(as_json: options.AsJson = False) -> None:
    """List the benchmarks that come with hbr, and the data that each requires."""
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
    name: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A benchmark or YAML file.")],
) -> None:
    """Show a benchmark's YAML file; its header explains commands, data and parameters."""
    from importlib.resources import files

    from hbr.evaluation.benchmark_config import read_raw, shipped

    read_raw(name)
    folder = files("hbr.evaluation").joinpath("benchmarks")
    source = folder.joinpath(f"{name}.yaml") if name in shipped() else Path(name)
    typer.echo(source.read_text(encoding="utf-8").rstrip("\n"))


@app.command("run")
def run(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE", help="A benchmark (see hbr benchmark list) or a YAML file."
        ),
    ],
    out: Annotated[Path, typer.Option("--output", "-o", metavar="RUN", help="Folder of the run.")],
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PATH", help="Set a parameter of the benchmark; may be repeated."
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PLACE",
            help="Add or replace a method: a folder of results, a model file of hbr, or the YAML "
            "file of a method; may be repeated.",
        ),
    ] = None,
    workers: options.MeasuringWorkers = None,
    device: Annotated[str, typer.Option(help="Device of the metrics' networks.")] = "cpu",
    weights: options.MetricWeights = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume a run that was stopped or that failed.")
    ] = False,
    no_report: Annotated[
        bool, typer.Option("--no-report", help="Write only run.json, without tables and page.")
    ] = False,
) -> None:
    """Restore and measure, then write the tables and the page; their paths go to stdout.

    A failure does not stop the rest. Exit codes: 0 all done; 3 some data sets, methods or pictures
    failed; 1 all failed; 2 usage error; 130 stopped, use --resume to continue.
    """
    from hbr.evaluation.benchmark import Resources, run_benchmark
    from hbr.evaluation.benchmark_config import load_benchmark

    given = (options.named_values(data, "--data"), options.named_values(method, "--method"))
    benchmark = load_benchmark(name, *given)
    reporter = Reporter(as_json=False)
    with reporter.running(
        lambda: "stopped; run the same command with --resume to continue"
    ) as stop:

        def report(line: str) -> None:
            stop.check()  # a library may have swallowed the interruption
            reporter.say("info", line)

        found = run_benchmark(
            benchmark,
            out,
            resources=Resources(workers, device, weights),
            resume=resume,
            report=report,
        )
        if not no_report:
            _render(found, out / "report")
        for line in found.warnings:
            reporter.say("warning", line)
    typer.echo(out / "run.json")
    code = _exit_code(found)
    # data sets that failed have been reported
    n_missing = len(benchmark.config.data_sets) - len(found.data_sets)
    raise typer.Exit(ExitCode.SOME if n_missing and code == ExitCode.OK else code)


@app.command("compare")
def compare(
    run: _Run,
    paper: _Paper = None,
    tolerance: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC=NUMBER", help="Allowed deviation of a mean; may be repeated."),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Compare a run's numbers with a paper's, with differences and verdicts."""
    found = _load(run, paper, tolerance)
    if not found.paper:
        raise typer.BadParameter(
            f"{found.name} does not name a paper's table; give one", param_hint="--paper"
        )
    if as_json:
        from hbr.config import to_dict

        cells = [to_dict(cell) for cell in found.cells]
        content = {"paper": found.paper, "warnings": list(found.warnings), "cells": cells}
        print_json(content)
        return
    to_stderr(f"hbr: {found.paper} ({found.paper_table})")
    for line in found.warnings:
        to_stderr(f"hbr: {line}")
    columns = ("data set", "method", "metric", "mean", "paper", "difference", "verdict")
    print_table(columns, [_compared(found, cell) for cell in found.cells])


@app.command("report")
def report(
    run: _Run,
    out: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Folder to write. Default: report/ in RUN."
        ),
    ] = None,
    paper: _Paper = None,
) -> None:
    """Write a run's tables as Markdown, LaTeX, CSV and one self-contained HTML page."""
    found = _load(run, paper, None)
    _render(found, out or found.folder / "report")


@app.command("pin")
def pin(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of LQ files as downloaded.")
    ],
    out: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="File to write.")],
    recursive: options.Recursive = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Write the checksums of a folder's pictures, against which later runs are checked.

    The file has the format of sha256sum. Give it to a benchmark as the checksums of an edition.
    """
    from hbr.evaluation.editions import hash_files, write_checksums
    from hbr.evaluation.pairing import find_pictures

    options.check_new(out, "--output", replace=overwrite)
    hashes = hash_files(find_pictures(folder, recursive=recursive), folder)
    write_checksums(hashes, out)
    typer.echo(out)


def _load(run: Path, paper: str | None, tolerance: Sequence[str] | None) -> BenchmarkRun:
    """Load a run, compared with another table or with other tolerances if given."""
    from hbr.evaluation.comparison import compare
    from hbr.evaluation.results import BenchmarkRun
    from hbr.metrics import MetricError, find_metric

    found = BenchmarkRun.load(run)
    allowed = dict(found.settings.get("tolerance", {}))
    for name, text in options.named_values(tolerance, "--tolerance", "METRIC=NUMBER").items():
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
