"""`hbr degrade`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hbr.apps.cli import options
from hbr.apps.cli.reporting import Reporter
from hbr.errors import ExitCode, OutputError
from hbr.image.limits import DEFAULT_MAX_PIXELS

if TYPE_CHECKING:
    from hbr.degradation.contents import Item
    from hbr.degradation.folder import DegradeSettings
    from hbr.degradation.recipe import Recipe
    from hbr.people.names import AnnotatedPeople
    from hbr.restoration.batch.jobs import BatchPlan
    from hbr.restoration.batch.records import BatchTally

_FILES_PER_WORKER = 8  # starting a process takes as long as a few files


def degrade(
    out: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="LQ",
            help="A file, if IN is one file and LQ has the extension of a photo; otherwise a "
            "folder, in which sub-folders and names are kept.",
        ),
    ],
    photos: options.PhotoArguments = None,
    inputs: options.InputOption = None,
    recipe: Annotated[
        str,
        typer.Option(
            help="real-esrgan, photo, small, noise-jpeg, web, codeformer, diffbir, motion-blur, "
            "light, none, or a .yaml file (see docs/degradations.md)."
        ),
    ] = "real-esrgan",
    strength: Annotated[
        float,
        typer.Option(help="Fraction of each severity range to draw from, 0 to 1."),
    ] = 1.0,
    seed: Annotated[
        int,
        typer.Option(
            min=0, max=2**63 - 1, help="Random seed; combined with the bytes of each file."
        ),
    ] = 0,
    pairs_out: Annotated[
        Path | None,
        typer.Option(
            metavar="MANIFEST.parquet",
            help="Write a manifest with one row per file and all parameters drawn.",
        ),
    ] = None,
    people: Annotated[
        Path | None,
        typer.Option(
            metavar="COCO.json",
            help="Boxes, keypoints or outlines of the people, for motion blur. Default: random "
            "limb-like shapes.",
        ),
    ] = None,
    people_grid: options.PeopleGrid = "stored",
    keep_small: Annotated[
        bool,
        typer.Option(
            "--keep-small",
            help="Keep LQ smaller by the recipe's scale instead of resizing it to HQ's size.",
        ),
    ] = False,
    file_format: Annotated[
        Literal["png", "tif", "bmp"], typer.Option("--format", help="Format of LQ.")
    ] = "png",
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="Process only shard I of N (from 0), by file hash.")
    ] = "0/1",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of processes. Default: one per core.")
    ] = None,
    max_pixels: options.MaxPixels = DEFAULT_MAX_PIXELS,
    recursive: options.Recursive = False,
    overwrite: options.Overwrite = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Keep outputs of the same photo, recipe and seed; degrade the rest.",
        ),
    ] = False,
) -> None:
    """Degrade high-quality photographs to make pairs of HQ and LQ.

    The result for a file depends only on its bytes, the recipe and the seed, not on the order, the
    shards or the number of processes. The name of each written file goes to stdout, everything else
    to stderr. An unreadable file does not stop the others. Exit codes: 0 all done; 3 some failed;
    1 all failed; 2 usage error, nothing was done; 5 out of memory; 130 stopped by Ctrl-C or
    SIGTERM. No file is left half-written.
    """
    if overwrite and resume:
        raise typer.BadParameter("choose one of the two.", param_hint="--overwrite and --resume")
    given = options.all_inputs(photos, inputs)
    reporter = Reporter(as_json=False)
    from hbr.restoration.batch.records import BatchTally

    tally = BatchTally()

    hint = "" if overwrite else "; run the same command with --resume to continue"
    with reporter.running(lambda: f"stopped, {tally.done} done{hint}"):
        from hbr.degradation.contents import refuse_existing
        from hbr.degradation.folder import DegradeSettings
        from hbr.degradation.named_recipes import find_recipe
        from hbr.distributed import Shard
        from hbr.restoration.batch.jobs import plan_batch

        chosen, part = find_recipe(recipe), Shard.parse(shard)
        settings = DegradeSettings(
            recipe=chosen,
            recipe_name=recipe,
            seed=seed,
            strength=strength,
            resize_back=not keep_small,
            shard=part,
            max_pixels=max_pixels,
            people_grid=people_grid,
        )
        _check_manifest(pairs_out, may_exist=overwrite or resume)
        # planned as a resumed run, in which an output never overwrites an input
        plan = plan_batch(given, out, format=file_format, recursive=recursive, existing="resume")
        annotated = _people(people, chosen)
        items, warnings = _items(plan, Path(out), file_format, annotated)
        for warning in warnings:
            reporter.say("warning", warning)
        if not overwrite and not resume:
            refuse_existing(items, part)
        # pictures that are not read have rows in the manifest, as other failures
        bad = [item for item in plan.bad if item.place is None]
        tally.failed = len(reporter.found(bad, plan.thumbnails))
        alone = [item.target for item in items] == [Path(out)]
        ledger = None if alone else Path(out)
        try:
            _run(items, settings, ledger, resume, workers, pairs_out, reporter, tally)
        except OutputError as error:
            tally.failed += 1
            stopped = f"stopped, {tally.done} of {len(items)} done{hint}"
            reporter.say("error", f"{error.line}; {stopped}")
    raise typer.Exit(ExitCode.of(done=tally.done, failed=tally.failed))


def _check_manifest(path: Path | None, *, may_exist: bool) -> None:
    from hbr.config import ConfigError

    if path is None:
        return
    if path.suffix.lower() != ".parquet":
        raise typer.BadParameter(f"{path} does not end in .parquet.", param_hint="--pairs-out")
    if path.exists() and not may_exist:
        raise ConfigError(f"{path} exists; use --resume or --overwrite to write it again")


def _people(path: Path | None, recipe: Recipe) -> AnnotatedPeople | None:
    """Read the annotated people; it is an error if the recipe does not use them."""
    if path is None:
        return None
    if recipe.motion is None:
        raise typer.BadParameter("the recipe has no motion blur.", param_hint="--people")
    from hbr.people.coco import read_people

    return read_people(path)


def _items(
    plan: BatchPlan, out: Path, file_format: str, people: AnnotatedPeople | None
) -> tuple[list[Item], list[str]]:
    """Return the planned files, sorted by name, each with its people, and warnings about these."""
    from hbr.config import ConfigError
    from hbr.degradation.contents import Item
    from hbr.restoration.batch.jobs import Job

    unread = [
        Job(source=Path(bad.source), target=out / f"{bad.place}.{file_format}")
        for bad in plan.bad
        if bad.place is not None
    ]
    items = []
    for job in (*plan.jobs, *plan.finished, *unread):
        place = Path(job.target.name) if job.target == out else job.target.relative_to(out)
        hq = place.with_name(job.source.name).as_posix()
        items.append(Item(source=job.source, target=job.target, name=place.as_posix(), hq=hq))
    warnings: list[str] = []
    if people is not None:
        found, clashes = people.match(item.hq for item in items)
        items = [replace(item, people=found.get(item.hq, ())) for item in items]
        warnings = [*filter(None, [people.warning]), *clashes]
        if items and not any(item.people for item in items):
            why = f" ({clashes[0]})" if clashes else f", such as {items[0].hq}"
            raise ConfigError(f"{people.path} has no people in these photos{why}")
    return sorted(items, key=lambda item: item.name), warnings


def _run(
    items: Sequence[Item],
    settings: DegradeSettings,
    folder: Path | None,
    resume: bool,
    workers: int | None,
    pairs_out: Path | None,
    reporter: Reporter,
    tally: BatchTally,
) -> None:
    """Degrade the files and write the manifest."""
    from hbr.degradation.folder import degrade_files
    from hbr.degradation.pairs import PairLedger, write_manifest
    from hbr.processes import cores

    if not items:  # errors have been reported
        return
    if workers is None:
        workers = min(cores(), -(-len(items) // _FILES_PER_WORKER))
    names, without_people = [], 0
    with closing(PairLedger(folder, settings.shard)) as ledger:
        outcomes = degrade_files(items, settings, ledger=ledger, resume=resume, workers=workers)
        with closing(outcomes), reporter.bar(len(items)):
            for number, outcome in enumerate(outcomes, 1):
                reporter.moved(number, len(items))
                if (row := outcome.row) is None:
                    continue
                names.append(row.name)
                if row.error is not None:
                    tally.failed += 1
                    reporter.say("error", row.error)
                    continue
                tally.done += 1
                without_people += not row.people
                if not outcome.kept:
                    typer.echo(str(outcome.item.target))
        if pairs_out is not None:
            write_manifest(pairs_out, ledger.rows(names))
    if settings.recipe.motion is not None and without_people:
        reporter.say(
            "warning",
            f"{without_people} of {tally.done} have no annotated people (--people): "
            "motion blur was applied in random places",
        )
    if tally.done + tally.failed != 1:
        failed = f", {tally.failed} failed" if tally.failed else ""
        reporter.say("info", f"{tally.done} done{failed}")
