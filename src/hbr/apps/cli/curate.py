"""`hbr curate run | plan | captions | review`; see `curate_results` for the other commands."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hbr.apps.cli import curate_results
from hbr.apps.cli.options import ActorGpus, AsJson, EngineOption, RayAddress
from hbr.apps.cli.recipes import Settings, recipe_file
from hbr.apps.cli.reporting import print_json, to_stderr
from hbr.errors import ExitCode

if TYPE_CHECKING:
    from hbr.curation.config import CurationConfig
    from hbr.curation.engines.local import LocalEngine
    from hbr.curation.engines.ray import RayEngine
    from hbr.curation.runs.captions import CaptionTotals
    from hbr.curation.runs.run import RunProgress
    from hbr.curation.runs.summary import RunSummary

app = typer.Typer(
    help="Build a data set of people from photographs (HQ-ACF).", no_args_is_help=True
)
app.command("status")(curate_results.status)
app.command("explain")(curate_results.explain)
app.command("diff")(curate_results.diff)
app.command("report")(curate_results.report)
app.command("export")(curate_results.export)
app.command("thresholds")(curate_results.thresholds)

RecipeArgument = Annotated[
    str,
    typer.Argument(metavar="[RECIPE]", help="A recipe name (see hbr recipes list) or a YAML file."),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        "-i",
        metavar="SOURCE",
        help="Photos or annotations to use instead of the recipe's sources; may be repeated.",
    ),
]
DetectorOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Detector for photos without boxes: rtdetr, dfine, rfdetr, nanodet, or a file.",
    ),
]


@app.callback()
def _curate() -> None:
    pass


@app.command()
def captions(
    run: curate_results.RunArgument = curate_results.HERE,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            help="Vision-language model: a name of hbr models list, or its folder.",
        ),
    ] = "smolvlm-256m",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or mps.")] = "cpu",
) -> None:
    """Describe the people in the kept crops by tags, in captions.jsonl of RUN.

    The same command resumes; another model needs a new file. Answers that are no tags are kept as
    empty texts, with the reason.
    """
    from hbr.curation.runs.captions import write_captions
    from hbr.curation.runs.run_folder import RunFolder
    from hbr.models.captioner import load_captioner
    from hbr.processes import StopSignals

    def tell(totals: CaptionTotals) -> None:
        if (totals.written + totals.refused) % 100 == 0:
            to_stderr(f"{totals.written:,} captions, {totals.refused:,} refused")

    opened, folder = RunFolder(run), Path(model)
    name = str(folder.resolve()) if folder.is_dir() else model
    with StopSignals():
        path, totals = write_captions(opened, load_captioner(model, device), name, tell=tell)
    parts = [f"{totals.written:,} captions", f"{totals.earlier:,} were there"]
    parts += [f"{totals.refused:,} answers were no tags"] if totals.refused else []
    to_stderr(", ".join(parts))
    typer.echo(path)
    raise typer.Exit(ExitCode.of(done=totals.written + totals.earlier, failed=totals.refused))


@app.command()
def review(
    run: curate_results.RunArgument = curate_results.HERE,
    apply: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE.json", help="Choices saved on a page, to apply; may be repeated."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE.html", help="Default: review.html in RUN."),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Number of crops on the page.")] = 400,
) -> None:
    """Write a page on which a person unticks crops; --apply drops what was unticked.

    Each page shows kept crops that nobody has seen yet. The choices are kept in review.json of RUN,
    and the crops, the manifest and the card are written again without what is left out.
    """
    from hbr.curation.runs.review import apply_choices, write_page
    from hbr.curation.runs.run import curate
    from hbr.curation.runs.run_folder import RunFolder
    from hbr.processes import StopSignals

    opened = RunFolder(run)
    if apply:
        if opened.config is None:
            raise typer.BadParameter(f"{run} has no work folder to write the data set from.")
        made = apply_choices(opened, apply)
        with StopSignals():
            summary = curate(opened.config, run)
        seen, left = len(made.seen), len(made.left_out)
        to_stderr(f"{seen:,} seen, {left:,} left out; {summary.kept:,} kept")
        typer.echo(run / "manifest.parquet")
        return
    page = run / "review.html" if out is None else out
    shown, left = write_page(opened, page, count=count)
    if not shown:
        to_stderr("every kept crop has been reviewed")
        return
    to_stderr(f"{shown:,} crops on the page, {left:,} left for the next")
    typer.echo(page)


@app.command()
def run(
    name: RecipeArgument = "people-photos",
    inputs: Inputs = None,
    out: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the data set and the working files.")
    ] = Path("curated"),
    detector: DetectorOption = None,
    settings: Settings = None,
    engine: EngineOption = "local",
    address: RayAddress = None,
    gpus: ActorGpus = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Number of processes (default: one per core) or actors (default: all that fit).",
        ),
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option(
            min=0.1, help="Memory limit in GB for all processes together; with ray, per actor."
        ),
    ] = None,
    max_errors: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Largest fraction of the images that may fail.",
        ),
    ] = None,
) -> None:
    """Detect people, crop, filter by quality, and split into data sets.

    The same command resumes an interrupted run. Progress goes to stderr; the last line, on stdout,
    is the manifest.
    """
    from hbr.curation.manifest import Manifest
    from hbr.curation.runs.run import curate
    from hbr.curation.runs.status import StatusFile
    from hbr.curation.runs.summary import named_sources, why_nothing
    from hbr.processes import StopSignals

    recipe = _recipe(name, settings, inputs, detector)
    if max_errors is not None:
        recipe = dataclasses.replace(recipe, errors=max_errors)
    for option, value in (("--ray-address", address), ("--gpus", gpus)):
        if value is not None and engine != "ray":
            raise typer.BadParameter("only valid with --engine ray.", param_hint=option)
    machine = _engine(engine, address, gpus, workers, memory)
    status = StatusFile(out, _ProgressLine())
    try:
        # Ray reports lost nodes on stdout
        with StopSignals(), status.recording(), contextlib.redirect_stdout(sys.stderr):
            summary = curate(recipe, out, engine=machine, report=status)
    except KeyboardInterrupt:
        again = shlex.join(["hbr", *sys.argv[1:]])
        to_stderr(f"stopped; the same command resumes: {again}")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    _show(summary)
    for source, setting in named_sources(recipe).items():
        if source not in summary.sources:
            told = f"warning: {setting} names {source}, which is no source of this run"
            to_stderr(f"{told}; there are {', '.join(summary.sources)}")
    typer.echo(out / "manifest.parquet")
    if not summary.kept:
        to_stderr(why_nothing(summary, Manifest(out)))
    # a run that used less than its sources hold, or kept nothing, is not all done
    done = summary.images - summary.errors - summary.entries
    code = ExitCode.of(done=done, failed=summary.errors)
    partly = code == ExitCode.OK and (summary.entries or not summary.kept)
    raise typer.Exit(ExitCode.SOME if partly else code)


@app.command()
def plan(
    name: RecipeArgument = "people-photos",
    inputs: Inputs = None,
    detector: DetectorOption = None,
    settings: Settings = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of processes. Default: one per core.")
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(min=1, help="Number of images to estimate for, instead of counting them."),
    ] = None,
    sample: Annotated[
        int, typer.Option(min=1, help="Number of images to process as a sample.")
    ] = 32,
    as_json: AsJson = False,
) -> None:
    """Estimate a run: sources, stages, missing weights, and time.

    A sample of the images goes through all stages on this machine; nothing is written. Counting
    the images of a source takes at most 10 seconds. Exit code 4: something is missing.
    """
    from hbr.curation.runs.estimate import estimate_run, lines
    from hbr.processes import cores

    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a plan downloads nothing
    recipe = _recipe(name, settings, inputs, detector)
    made = estimate_run(recipe, sample=sample, tell=to_stderr)
    n_workers = cores() if workers is None else workers
    if as_json:
        n = made.images if images is None else images
        values: dict[str, Any] = {
            "sources": [dataclasses.asdict(source) for source in made.sources],
            "stages": [dataclasses.asdict(stage) for stage in made.stages],
            "sample": {"images": made.sample, "crops": made.crops, "passed": made.passed},
            "images": n,
            "workers": n_workers,
            "hours": made.hours(n, n_workers),
            "missing": made.missing,
        }
        print_json(values)
    else:
        for line in lines(made, images, n_workers):
            typer.echo(line)
    if made.missing:
        raise typer.Exit(ExitCode.WEIGHTS)


def _recipe(
    name: str, settings: list[str] | None, inputs: list[str] | None, detector: str | None
) -> CurationConfig:
    """Return the recipe with the command line's overrides and absolute paths."""
    from hbr.config import load_yaml
    from hbr.curation.config import CurationConfig, DetectorConfig
    from hbr.curation.sources.opening import guess_source

    recipe = load_yaml(CurationConfig, recipe_file(name, "curation"), settings or ())
    if inputs:
        recipe = dataclasses.replace(recipe, sources=tuple(map(guess_source, inputs)))
    if not recipe.sources:
        raise typer.BadParameter("give photos or annotations.", param_hint="--input")
    if detector is not None:
        old = recipe.boxes.detector
        new = dataclasses.replace(old, name=detector) if old else DetectorConfig(detector)
        recipe = dataclasses.replace(recipe, boxes=dataclasses.replace(recipe.boxes, detector=new))
    # later commands may run in another folder
    return dataclasses.replace(recipe, sources=tuple(map(_with_absolute_paths, recipe.sources)))


def _with_absolute_paths(source: Any) -> Any:
    values = {field.name: getattr(source, field.name) for field in dataclasses.fields(source)}
    paths = {name: value.absolute() for name, value in values.items() if isinstance(value, Path)}
    return dataclasses.replace(source, **paths)


def _engine(
    name: str,
    address: str | None,
    gpus: float | None,
    workers: int | None,
    memory: float | None,
) -> LocalEngine | RayEngine:
    limit = None if memory is None else int(memory * 1e9)
    if name == "ray":
        from hbr.curation.engines.ray import RayEngine

        return RayEngine(address=address, workers=workers, gpus=gpus, memory=limit)
    from hbr.curation.engines.local import LocalEngine
    from hbr.processes import cores

    return LocalEngine(cores() if workers is None else workers, limit)


class _ProgressLine:
    """Prints the progress of a run every few seconds."""

    def __init__(self) -> None:
        self._next = 0.0
        self._doing = ""

    def __call__(self, progress: RunProgress) -> None:
        now = time.monotonic()
        if progress.doing == self._doing and now < self._next:
            return
        self._doing, self._next = progress.doing, now + 5
        of = "" if progress.total is None else f" of {progress.total:,}"
        errors = f", {progress.errors:,} errors" if progress.errors else ""
        to_stderr(f"{progress.doing}: {progress.done:,}{of}{errors}")


def _show(summary: RunSummary) -> None:
    """Print the funnel to stderr."""
    for step in summary.funnel:
        why = ", ".join(f"{reason} {n:,}" for reason, n in step.stopped.items())
        line = f"{step.stage:<11}{step.entered:>9,} → {step.passed:,}"
        to_stderr(line + (f"   ({why})" if why else ""))
    unlabelled = next((step.stopped.get("unlabelled", 0) for step in summary.funnel[1:2]), 0)
    if unlabelled:
        to_stderr(f"{unlabelled:,} images have no boxes; use --detector rtdetr")
    splits = ", ".join(f"{name} {n:,}" for name, n in summary.splits.items())
    to_stderr(f"{summary.kept:,} kept of {summary.images:,} images: {splits}")
