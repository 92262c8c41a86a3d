"""Working a plan of photos off at the command line, or showing what it would do."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hbr.apps.cli.options import open_stdout, read_stdin
from hbr.apps.cli.reporting import Reporter
from hbr.errors import ExitCode, HbrError
from hbr.files import STDIO

if TYPE_CHECKING:
    from hbr.image import Photo
    from hbr.restoration import Restored, Restorer
    from hbr.restoration.batch.contents import ByContents
    from hbr.restoration.batch.jobs import BatchPlan, Existing, Job
    from hbr.restoration.batch.outputs import Files
    from hbr.restoration.batch.previews import Previews
    from hbr.restoration.batch.ray import RayActors
    from hbr.restoration.batch.records import BatchTally
    from hbr.restoration.batch.work import RestorePhoto
    from hbr.restoration.passes.inference import TileProgress
    from hbr.restoration.report.collecting import BatchReport
    from hbr.restoration.settings import RestoreSettings


def plan_given(
    given: list[str],
    manifest: Path | None,
    out: str,
    file_format: str,
    recursive: bool,
    existing: Existing,
    shard: str | None,
    by_contents: Callable[[], ByContents] | None = None,
) -> BatchPlan:
    """The plan of what is named on the command line, where `-` stands for stdin and stdout."""
    from hbr.distributed import Shard
    from hbr.restoration.batch.finding import PhotoList
    from hbr.restoration.batch.jobs import Streams, plan_batch

    if shard is not None and STDIO in (*given, out):
        raise typer.BadParameter("- stands for one photo; name files.", param_hint="--shard")

    return plan_batch(
        [*given, *([PhotoList(manifest)] if manifest else [])],
        out,
        format=file_format,
        recursive=recursive,
        existing=by_contents() if by_contents else existing,
        shard=None if shard is None else Shard.parse(shard),
        streams=Streams(read_stdin(given), open_stdout(out)),
    )


def run_planned(
    plan_of: Callable[[], BatchPlan],
    load: Callable[[BatchPlan | None], Restorer],
    settings: RestoreSettings,
    files: Files,
    *,
    reporter: Reporter,
    hint: str,
    dry_run: bool = False,
    steady: bool = False,
    actors: RayActors | None = None,
    page: Path | None = None,
    maps: Path | None = None,
    previews: Previews | None = None,
) -> ExitCode:
    """Restore the photos of a plan, or show what would be done.

    `load` gets the plan, or None on a cluster, where `actors` do the work. `steady`: the photos of
    a folder are frames of a video. `hint` follows the line of an early end and says how to
    continue. `page` is written however the batch ends; `maps` is a folder for the maps of invented
    detail.
    """
    from hbr.restoration.batch.ray import run_on_cluster
    from hbr.restoration.batch.records import BatchTally
    from hbr.restoration.batch.running import run_batch
    from hbr.restoration.report.collecting import BatchReport

    tally = BatchTally()  # the records of a large batch would fill memory
    total = 0
    with (
        reporter.running(lambda: f"stopped, {tally.done} of {total} done{hint}") as stop,
        ExitStack() as around,
    ):
        plan = plan_of()
        total = plan.total
        reporter.found(plan.bad, plan.thumbnails)
        load = partial(load, None if actors else plan)
        if dry_run:
            return _show(plan, load, settings, reporter)
        if actors:  # Ray reports lost machines on stdout
            around.enter_context(redirect_stdout(sys.stderr))
        report = None if page is None else BatchReport(jobs=plan.jobs)
        if page is not None and report is not None:
            around.enter_context(_writing(page, report, total, reporter))
        if previews is not None:
            around.enter_context(closing(previews))
        made = partial(_made, plan, report, maps)
        run = partial(run_on_cluster, actors=actors) if actors else partial(run_batch, made=made)
        progress = None if actors else reporter.tiles
        loading = partial(_loaded, load, settings, files, steady, progress, previews)
        starting = partial(_start, reporter, previews)
        batch = run(plan, loading, files, strict=files.strict, stop=stop, starting=starting)
        with reporter.bar(len(plan.jobs)):
            for record in batch:
                tally.add(record)
                if report is not None:
                    report.records.append(record)
                tail = f"; stopped, {tally.done} of {total} done{hint}" if tally.ended else ""
                reporter.record(record, tail)
        if not tally.ended:
            reporter.summary(tally)
        return exit_code_of(tally)


def _start(reporter: Reporter, previews: Previews | None, job: Job) -> None:
    """What comes before each job."""
    reporter.start(job)
    if previews is not None:
        previews.start(job)


def _made(
    plan: BatchPlan,
    report: BatchReport | None,
    maps: Path | None,
    job: Job,
    photo: Photo,
    result: Restored,
) -> None:
    """What follows each photo that was restored: its map, and its pictures for the page."""
    if maps is not None:
        from hbr.restoration.pixels.invented import save_map

        place = Path(job.target.name)
        if plan.folder is not None and job.target.is_relative_to(plan.folder):
            place = job.target.relative_to(plan.folder)
        save_map(maps, place, photo, result.photo)
    if report is not None:
        report.look(job, photo, result)


@contextmanager
def _writing(page: Path, report: BatchReport, total: int, reporter: Reporter) -> Iterator[None]:
    """Write the page of a batch when it ends, however it ends."""
    from hbr.files import write_text
    from hbr.image.writing import not_written
    from hbr.restoration.report.html import as_html

    began = time.perf_counter()
    try:
        yield
    finally:
        if report.records:
            seconds = time.perf_counter() - began
            now = time.strftime("%Y-%m-%d %H:%M")
            text = as_html(report, page, total=total, ended=now, seconds=seconds)
            try:
                write_text(page, text)
            except OSError as error:
                raise not_written(page, error) from error
            reporter.say("info", f"the report is {page}")


def _loaded(
    load: Callable[[], Restorer],
    settings: RestoreSettings,
    files: Files,
    steady: bool,
    progress: TileProgress | None,
    previews: Previews | None,
) -> RestorePhoto:
    """What restores each photo of a batch."""
    restorer = load()
    if previews is not None and not restorer.capabilities.samples:
        why = f"{restorer.name} restores in one step: there is nothing to preview"
        raise typer.BadParameter(why, param_hint="--preview")
    restore = partial(restorer, settings=settings, progress=progress, preview=previews)
    if not steady:
        return restore
    from hbr.restoration.batch.frames import log, with_steady_colors

    if (color := restorer.color_fix(settings)) != "adain":
        log.warning("%s: its colour fix, %s, takes no statistics to keep", restorer.name, color)
        return restore

    return with_steady_colors(restore, settings, files)


def _show(
    plan: BatchPlan,
    load: Callable[[], Restorer],
    settings: RestoreSettings,
    reporter: Reporter,
) -> ExitCode:
    """Report what would be done, and about how long it would take."""
    from hbr.restoration.batch.records import BatchTally
    from hbr.restoration.batch.running import look_at

    tally = BatchTally()
    for record in look_at(plan):
        tally.add(record)
        reporter.record(record)
    parts = [f"{len(plan.jobs)} to restore"]
    if plan.finished:
        parts.append(f"{len(plan.finished)} restored before")
    if plan.bad:
        parts.append(f"{len(plan.bad)} failed")
    if plan.jobs:
        from hbr.restoration.batch.estimate import estimate

        try:
            parts.append(str(estimate(plan.jobs, load(), settings)))
        except (HbrError, typer.BadParameter) as error:
            reporter.say("warning", f"the time cannot be estimated: {error}")
    reporter.say("info", f"dry run: {', '.join(parts)}")
    return exit_code_of(tally)


def exit_code_of(tally: BatchTally) -> ExitCode:
    """The exit code of a batch: `ExitCode.MEMORY` if nothing was done for want of memory."""
    code = ExitCode.of(done=tally.done, failed=tally.failed)
    return ExitCode.MEMORY if code is ExitCode.NOTHING and tally.out_of_memory else code
