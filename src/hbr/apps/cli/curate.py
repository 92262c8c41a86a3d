"""`hbr curate`."""

from __future__ import annotations

import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hbr.apps.cli import ExitCode

if TYPE_CHECKING:
    from hbr.curation.run import Progress, Summary

app = typer.Typer(help="Make a data set of people from photographs (HQ-ACF).", no_args_is_help=True)


@app.callback()
def _curate() -> None:
    pass


@app.command()
def run(
    config: Annotated[
        Path | None,
        typer.Argument(
            metavar="[CONFIG.yaml]",
            exists=True,
            dir_okay=False,
            help="The recipe, as in configs/curation; without one, the defaults.",
        ),
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            metavar="SOURCE",
            help="Photos or annotations, in place of the recipe's sources; may be repeated.",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the data set and of the work.")
    ] = Path("curated"),
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes; by default one a core.")
    ] = None,
    memory: Annotated[
        float | None, typer.Option(min=0.1, help="Gigabytes that they should stay below.")
    ] = None,
) -> None:
    """Find, cut out, judge and split crops of people.

    The same command goes on where an earlier run stopped. Progress goes to stderr; the last line,
    on stdout, is the manifest.
    """
    import dataclasses

    from hbr.config import load_yaml
    from hbr.curation.config import CurationConfig
    from hbr.curation.engine_local import LocalEngine, cores
    from hbr.curation.run import curate
    from hbr.curation.sources.opening import guess_source

    recipe = load_yaml(CurationConfig, config) if config else CurationConfig()
    if inputs:
        recipe = dataclasses.replace(recipe, sources=tuple(map(guess_source, inputs)))
    if not recipe.sources:
        raise typer.BadParameter("name photos or annotations.", param_hint="--input")
    engine = LocalEngine(
        cores() if workers is None else workers, None if memory is None else int(memory * 1e9)
    )
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        summary = curate(recipe, out, engine=engine, report=_Line())
    except KeyboardInterrupt:
        again = shlex.join(["hbr", *sys.argv[1:]])
        typer.echo(f"stopped; the same command goes on: {again}", err=True)
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    _show(summary)
    typer.echo(out / "manifest.parquet")
    if summary.errors:
        raise typer.Exit(ExitCode.SOME if summary.errors < summary.images else ExitCode.NOTHING)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


class _Line:
    """Says every few seconds where a run is."""

    def __init__(self) -> None:
        self._next = 0.0
        self._doing = ""

    def __call__(self, progress: Progress) -> None:
        import time

        now = time.monotonic()
        if progress.doing == self._doing and now < self._next:
            return
        self._doing, self._next = progress.doing, now + 5
        of = "" if progress.total is None else f" of {progress.total:,}"
        errors = f", {progress.errors:,} errors" if progress.errors else ""
        typer.echo(f"{progress.doing}: {progress.done:,}{of}{errors}", err=True)


def _show(summary: Summary) -> None:
    """The funnel, to stderr."""
    for step in summary.funnel:
        why = ", ".join(f"{reason} {n:,}" for reason, n in step.stopped.items())
        line = f"{step.stage:<11}{step.entered:>9,} → {step.passed:,}"
        typer.echo(line + (f"   ({why})" if why else ""), err=True)
    splits = ", ".join(f"{name} {n:,}" for name, n in summary.splits.items())
    typer.echo(f"{summary.kept:,} kept of {summary.images:,} images: {splits}", err=True)
