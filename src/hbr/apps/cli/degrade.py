"""`hbr degrade`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hbr.apps.cli.options import MaxPixels, Overwrite, Recursive
from hbr.apps.cli.reporting import Reporter
from hbr.errors import ExitCode
from hbr.image.limits import DEFAULT_MAX_PIXELS

if TYPE_CHECKING:
    from hbr.degradation.folder import DegradedFile, DegradeSettings, Item
    from hbr.degradation.recipe import Recipe
    from hbr.people.coco import AnnotatedPeople
    from hbr.restoration.jobs import BatchPlan

_FILES_A_WORKER = 8  # starting a process takes as long as some files


class Format(StrEnum):
    """Formats without loss."""

    png = "png"
    tif = "tif"
    bmp = "bmp"


def degrade(
    source: Annotated[
        str, typer.Option("--input", "-i", metavar="HQ", help="Photo, folder or glob.")
    ],
    out: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="LQ",
            help="A file, if HQ is one file and LQ ends like a photo; else a folder, which keeps "
            "sub-folders and names.",
        ),
    ],
    recipe: Annotated[
        str,
        typer.Option(
            help="real-esrgan, photo, codeformer, diffbir, motion-blur, light, none, or a .yaml "
            "file (docs/degradations.md)."
        ),
    ] = "real-esrgan",
    strength: Annotated[
        float,
        typer.Option(help="0 to 1: how much of each range of severity is drawn from."),
    ] = 1.0,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="With the bytes of a file, it decides all.")
    ] = 0,
    pairs_out: Annotated[
        Path | None,
        typer.Option(
            metavar="MANIFEST.parquet", help="A row for each file, with all that was drawn."
        ),
    ] = None,
    people: Annotated[
        Path | None,
        typer.Option(
            metavar="COCO.json",
            help="Boxes, keypoints or outlines of the people, for motion blur; without it shapes "
            "like limbs are made up.",
        ),
    ] = None,
    keep_small: Annotated[
        bool,
        typer.Option(
            "--keep-small", help="Leave LQ smaller by the recipe's scale; else it has HQ's size."
        ),
    ] = False,
    file_format: Annotated[Format, typer.Option("--format", help="Of LQ.")] = Format.png,
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="Do only part I, from 0, of N; by hash of the file.")
    ] = "0/1",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; as many as cores if not given.")
    ] = None,
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS,
    recursive: Recursive = False,
    overwrite: Overwrite = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Keep outputs that the same recipe and seed made of the same photo; do the rest.",
        ),
    ] = False,
) -> None:
    """Degrade good photographs, for pairs of HQ and LQ.

    What happens to a file depends on its bytes, the recipe and the seed alone: the order, the
    shards and the number of processes do not matter. The name of each file that is written goes to
    stdout, all else to stderr. A bad file does not stop the others. Exit code: 0 all done, 3 some,
    1 none; 2 wrong usage, nothing was done; 5 out of memory; 130 stopped by Ctrl-C or SIGTERM, no
    file is half written.
    """
    if overwrite and resume:
        raise typer.BadParameter("choose one of them.", param_hint="--overwrite and --resume")
    reporter = Reporter(as_json=False)
    tally = _Tally()

    from hbr.processes import StopSignals

    with StopSignals() as stop, reporter.listening():
        try:
            from hbr.degradation.folder import DegradeSettings, refuse_existing
            from hbr.degradation.named_recipes import find_recipe
            from hbr.distributed import Shard
            from hbr.restoration.jobs import plan_batch

            chosen, part = find_recipe(recipe), Shard.parse(shard)
            settings = DegradeSettings(
                recipe=chosen,
                recipe_name=recipe,
                seed=seed,
                strength=strength,
                resize_back=not keep_small,
                shard=part,
                max_pixels=max_pixels,
            )
            _check_manifest(pairs_out, may_exist=overwrite or resume)
            # planned as if resumed, which never lets an output take the place of an input
            plan = plan_batch(
                [source], out, format=file_format.value, recursive=recursive, existing="resume"
            )
            annotated = _people(people, chosen)
            if annotated is not None and annotated.warning:
                reporter.say("warning", annotated.warning)
            items = _items(plan, Path(out), annotated)
            if not overwrite and not resume:
                refuse_existing(items, part)
            for bad in plan.bad:
                tally.failed += 1
                reporter.say("error", bad.error)
            alone = [item.target for item in items] == [Path(out)]
            ledger = None if alone else Path(out)
            _run(items, settings, ledger, resume, workers, pairs_out, reporter, tally)
        except BaseException:
            # An interrupted import can end in any error.
            if stop.received is None:
                raise
            hint = "" if overwrite else "; the same command with --resume goes on"
            reporter.say("error", f"stopped, {tally.done} done{hint}")
            raise typer.Exit(ExitCode.INTERRUPTED) from None
    raise typer.Exit(tally.exit_code)


@dataclass
class _Tally:
    """What became of the files so far."""

    done: int = 0
    failed: int = 0
    made_up: int = 0
    """Done with motion blur in made-up shapes."""

    @property
    def exit_code(self) -> ExitCode:
        if not self.failed:
            return ExitCode.OK
        return ExitCode.SOME if self.done else ExitCode.NOTHING


def _check_manifest(path: Path | None, *, may_exist: bool) -> None:
    from hbr.config import ConfigError

    if path is None:
        return
    if path.suffix.lower() != ".parquet":
        raise typer.BadParameter(f"{path} does not end in .parquet.", param_hint="--pairs-out")
    if path.exists() and not may_exist:
        raise ConfigError(f"{path} exists; --resume and --overwrite make it again")


def _people(path: Path | None, recipe: Recipe) -> AnnotatedPeople | None:
    """The annotated people; what is asked for and not used is an error."""
    if path is None:
        return None
    if recipe.motion is None:
        raise typer.BadParameter("the recipe has no motion blur.", param_hint="--people")
    from hbr.people.coco import read_people

    return read_people(path)


def _items(plan: BatchPlan, out: Path, people: AnnotatedPeople | None) -> list[Item]:
    """What is planned, sorted by name, each with its people."""
    from hbr.config import ConfigError
    from hbr.degradation.folder import Item

    items = []
    for job in (*plan.jobs, *plan.finished):
        place = Path(job.target.name) if job.target == out else job.target.relative_to(out)
        hq = place.with_name(job.source.name).as_posix()
        found = people.find(hq) if people is not None else None
        items.append(
            Item(
                source=job.source,
                target=job.target,
                name=place.as_posix(),
                hq=hq,
                people=found or (),
            )
        )
    if people is not None and items and not any(item.people for item in items):
        raise ConfigError(f"{people.path} has no people in these photos, such as {items[0].hq}")
    return sorted(items, key=lambda item: item.name)


def _run(
    items: Sequence[Item],
    settings: DegradeSettings,
    folder: Path | None,
    resume: bool,
    workers: int | None,
    pairs_out: Path | None,
    reporter: Reporter,
    tally: _Tally,
) -> None:
    """Do the work, and write the manifest."""
    from hbr.degradation.folder import degrade_files
    from hbr.degradation.pairs import PairLedger, write_manifest
    from hbr.processes import cores

    if not items:  # all that was wrong has been told
        return
    if workers is None:
        workers = min(cores(), -(-len(items) // _FILES_A_WORKER))
    names = []
    with closing(PairLedger(folder, settings.shard)) as ledger:
        previous = ledger.find if resume else (lambda name: None)
        outcomes = degrade_files(items, settings, previous=previous, workers=workers)
        with closing(outcomes), reporter.bar(len(items)):
            for number, outcome in enumerate(outcomes, 1):
                reporter.moved(number, len(items))
                if outcome.row is None:
                    continue
                names.append(outcome.row.name)
                if not outcome.kept:
                    ledger.add(outcome.row)
                _tell(outcome, items[number - 1], reporter, tally)
        if pairs_out is not None:
            write_manifest(pairs_out, ledger.rows(names))
    if settings.recipe.motion is not None and tally.made_up:
        reporter.say(
            "warning",
            f"{tally.made_up} of {tally.done} have no annotated people (--people): "
            "their motion blur is in made-up places",
        )
    if tally.done + tally.failed != 1:
        failed = f", {tally.failed} failed" if tally.failed else ""
        reporter.say("info", f"{tally.done} done{failed}")


def _tell(outcome: DegradedFile, item: Item, reporter: Reporter, tally: _Tally) -> None:
    row = outcome.row
    assert row is not None
    if row.error is not None:
        tally.failed += 1
        reporter.say("error", row.error)
        return
    tally.done += 1
    tally.made_up += not row.people
    if not outcome.kept:
        typer.echo(str(item.target))
