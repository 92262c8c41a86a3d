"""`hbr curate run | plan`; what looks at runs is in `curate_results`."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hbr.apps.cli import curate_results
from hbr.apps.cli.options import AsJson
from hbr.apps.cli.recipes import Settings, recipe_file
from hbr.apps.cli.reporting import print_json
from hbr.errors import ExitCode

if TYPE_CHECKING:
    from hbr.curation.config import CurationConfig
    from hbr.curation.engines.base import Engine
    from hbr.curation.runs.run import RunProgress
    from hbr.curation.runs.summary import RunSummary

app = typer.Typer(help="Make a data set of people from photographs (HQ-ACF).", no_args_is_help=True)
app.command("status")(curate_results.status)
app.command("explain")(curate_results.explain)
app.command("diff")(curate_results.diff)
app.command("report")(curate_results.report)
app.command("export")(curate_results.export)
app.command("thresholds")(curate_results.thresholds)

RecipeArgument = Annotated[
    str,
    typer.Argument(metavar="[RECIPE]", help="A name of hbr recipes list, or a YAML file."),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        "-i",
        metavar="SOURCE",
        help="Photos or annotations, in place of the recipe's sources; may be repeated.",
    ),
]
DetectorOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Finds the people in photos without boxes: rtdetr, dfine, rfdetr, a file.",
    ),
]


@app.callback()
def _curate() -> None:
    pass


@app.command()
def run(
    name: RecipeArgument = "people-photos",
    inputs: Inputs = None,
    out: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the data set and of the work.")
    ] = Path("curated"),
    detector: DetectorOption = None,
    settings: Settings = None,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(help="Processes on this machine, or a cluster of Ray (extra `ray`)."),
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            "--ray-address", metavar="auto|HOST:PORT", help="Of Ray's head; none starts Ray here."
        ),
    ] = None,
    gpus: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="With ray, GPUs of each actor, 0.25 for four to share one; by default 1 "
            "where the recipe says cuda.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes or actors; by default one a core, or as many as fit."),
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option(
            min=0.1, help="Gigabytes that all processes should stay below; with ray, of each actor."
        ),
    ] = None,
    max_errors: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Part of the images that may be unusable.",
        ),
    ] = None,
) -> None:
    """Find, cut out, judge and split crops of people.

    The same command resumes where an earlier run stopped. Progress goes to stderr; the last line,
    on stdout, is the manifest.
    """
    import dataclasses

    from hbr.curation.runs.run import curate
    from hbr.curation.runs.status import StatusFile
    from hbr.processes import StopSignals

    recipe = _recipe(name, settings, inputs, detector)
    if max_errors is not None:
        recipe = dataclasses.replace(recipe, errors=max_errors)
    for option, value in (("--ray-address", address), ("--gpus", gpus)):
        if value is not None and engine != "ray":
            raise typer.BadParameter("it is for --engine ray.", param_hint=option)
    machine = _engine(engine, address, gpus, workers, memory)
    status = StatusFile(out, _Line())
    try:
        # Ray reports lost machines on stdout
        with StopSignals(), status.recording(), contextlib.redirect_stdout(sys.stderr):
            summary = curate(recipe, out, engine=machine, report=status)
    except KeyboardInterrupt:
        again = shlex.join(["hbr", *sys.argv[1:]])
        typer.echo(f"stopped; the same command resumes: {again}", err=True)
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    _show(summary)
    typer.echo(out / "manifest.parquet")
    if summary.errors:
        raise typer.Exit(ExitCode.SOME if summary.errors < summary.images else ExitCode.NOTHING)


@app.command()
def plan(
    name: RecipeArgument = "people-photos",
    inputs: Inputs = None,
    detector: DetectorOption = None,
    settings: Settings = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; by default one a core.")
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(min=1, help="Estimate for so many, in place of those that are counted."),
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="Images to try.")] = 32,
    as_json: AsJson = False,
) -> None:
    """Say what would run, what it lacks, and how long it would take.

    A sample of the images goes through all stages on this machine; nothing is written. The images
    of each source are counted for at most 10 seconds. Exit code 4: something is missing.
    """
    import dataclasses

    from hbr.curation.runs.estimate import estimate_run, lines
    from hbr.processes import cores

    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a plan downloads nothing
    recipe = _recipe(name, settings, inputs, detector)
    made = estimate_run(recipe, sample=sample, tell=lambda text: typer.echo(text, err=True))
    crew = cores() if workers is None else workers
    if as_json:
        n = made.images if images is None else images
        values: dict[str, Any] = {
            "sources": [dataclasses.asdict(source) for source in made.sources],
            "stages": [dataclasses.asdict(stage) for stage in made.stages],
            "sample": {"images": made.sample, "crops": made.crops, "passed": made.passed},
            "images": n,
            "workers": crew,
            "hours": made.hours(n, crew),
            "missing": made.missing,
        }
        print_json(values)
    else:
        for line in lines(made, images, crew):
            typer.echo(line)
    if made.missing:
        raise typer.Exit(ExitCode.WEIGHTS)


def _recipe(
    name: str, settings: list[str] | None, inputs: list[str] | None, detector: str | None
) -> CurationConfig:
    """The recipe with what the command line puts in its place; its paths are whole."""
    import dataclasses

    from hbr.config import load_yaml
    from hbr.curation.config import CurationConfig, DetectorConfig
    from hbr.curation.sources.opening import guess_source

    recipe = load_yaml(CurationConfig, recipe_file(name, "curation"), settings or ())
    if inputs:
        recipe = dataclasses.replace(recipe, sources=tuple(map(guess_source, inputs)))
    if not recipe.sources:
        raise typer.BadParameter("name photos or annotations.", param_hint="--input")
    if detector is not None:
        old = recipe.boxes.detector
        new = dataclasses.replace(old, name=detector) if old else DetectorConfig(detector)
        recipe = dataclasses.replace(recipe, boxes=dataclasses.replace(recipe.boxes, detector=new))
    # later commands may run in another folder
    return dataclasses.replace(recipe, sources=tuple(map(_with_whole_paths, recipe.sources)))


def _with_whole_paths(source: Any) -> Any:
    import dataclasses

    values = {field.name: getattr(source, field.name) for field in dataclasses.fields(source)}
    paths = {name: value.absolute() for name, value in values.items() if isinstance(value, Path)}
    return dataclasses.replace(source, **paths)


def _engine(
    name: str,
    address: str | None,
    gpus: float | None,
    workers: int | None,
    memory: float | None,
) -> Engine:
    given = None if memory is None else int(memory * 1e9)
    if name == "ray":
        from hbr.curation.engines.ray import RayEngine

        return RayEngine(address=address, workers=workers, gpus=gpus, memory=given)
    from hbr.curation.engines.local import LocalEngine
    from hbr.processes import cores

    return LocalEngine(cores() if workers is None else workers, given)


class _Line:
    """Says every few seconds where a run is."""

    def __init__(self) -> None:
        self._next = 0.0
        self._doing = ""

    def __call__(self, progress: RunProgress) -> None:
        import time

        now = time.monotonic()
        if progress.doing == self._doing and now < self._next:
            return
        self._doing, self._next = progress.doing, now + 5
        of = "" if progress.total is None else f" of {progress.total:,}"
        errors = f", {progress.errors:,} errors" if progress.errors else ""
        typer.echo(f"{progress.doing}: {progress.done:,}{of}{errors}", err=True)


def _show(summary: RunSummary) -> None:
    """The funnel, to stderr."""
    for step in summary.funnel:
        why = ", ".join(f"{reason} {n:,}" for reason, n in step.stopped.items())
        line = f"{step.stage:<11}{step.entered:>9,} → {step.passed:,}"
        typer.echo(line + (f"   ({why})" if why else ""), err=True)
    bare = next((step.stopped.get("unlabelled", 0) for step in summary.funnel[1:2]), 0)
    if bare:
        typer.echo(f"{bare:,} images have no boxes: --detector rtdetr finds the people", err=True)
    splits = ", ".join(f"{name} {n:,}" for name, n in summary.splits.items())
    typer.echo(f"{summary.kept:,} kept of {summary.images:,} images: {splits}", err=True)
