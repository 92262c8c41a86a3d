"""Working a plan of photos off at the command line, or showing what it would do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

import typer

from hbr.apps.cli.options import open_stdout, read_stdin
from hbr.apps.cli.reporting import Reporter
from hbr.errors import ExitCode, HbrError

if TYPE_CHECKING:
    from hbr.restoration import Restorer
    from hbr.restoration.batch import BatchTally, FileRecord
    from hbr.restoration.jobs import BatchPlan, Existing
    from hbr.restoration.outputs import Files
    from hbr.restoration.settings import RestoreSettings


def plan_given(
    given: list[str], out: str, file_format: str, recursive: bool, existing: Existing
) -> BatchPlan:
    """The plan of what is named on the command line, where `-` stands for stdin and stdout."""
    from hbr.restoration.jobs import plan_batch

    return plan_batch(
        given,
        out,
        format=file_format,
        recursive=recursive,
        existing=existing,
        stdin=read_stdin(given),
        stdout=open_stdout(out),
    )


def run_planned(
    plan_of: Callable[[], BatchPlan],
    load: Callable[[], Restorer],
    settings: RestoreSettings,
    files: Files,
    *,
    reporter: Reporter,
    dry_run: bool,
    strict: bool,
    hint: str,
) -> ExitCode:
    """Restore the photos of a plan, or show what would be done.

    Args:
        plan_of: makes the plan.
        load: loads the model.
        settings: of the restoration.
        files: how files are read and written.
        reporter: reports records and errors.
        dry_run: only show.
        strict: stop at the first bad file.
        hint: how to continue, after the line of an early end.
    """
    from hbr.processes import StopSignals
    from hbr.restoration.batch import BatchTally, run_batch

    records: list[FileRecord] = []
    total = 0
    with (
        StopSignals() as stop,
        reporter.listening(),
        reporter.interruption(
            stop, lambda: f"stopped, {BatchTally.of(records).done} of {total} done{hint}"
        ),
    ):
        plan = plan_of()
        total = plan.total
        reporter.found(plan.bad, plan.thumbnails)
        if dry_run:
            return _show(plan, load, settings, reporter)
        batch = run_batch(
            plan,
            lambda: partial(load(), settings=settings, progress=reporter.tiles),
            files,
            strict=strict,
            stop=stop,
            starting=reporter.start,
        )
        return _report(plan, batch, records, reporter, hint)


def _report(
    plan: BatchPlan,
    batch: Iterable[FileRecord],
    records: list[FileRecord],
    reporter: Reporter,
    hint: str,
) -> ExitCode:
    """Report the records of a batch as they come, and collect them in `records`."""
    from hbr.restoration.batch import BatchTally

    with reporter.bar(len(plan.jobs)):
        for record in batch:
            records.append(record)
            done = BatchTally.of(records).done if record.ends_batch else 0
            tail = f"; stopped, {done} of {plan.total} done{hint}" if record.ends_batch else ""
            reporter.record(record, tail)
    tally = BatchTally.of(records)
    if not (records and records[-1].ends_batch):
        reporter.summary(tally)
    return exit_code_of(tally)


def _show(
    plan: BatchPlan,
    load: Callable[[], Restorer],
    settings: RestoreSettings,
    reporter: Reporter,
) -> ExitCode:
    """Report what would be done, and about how long it would take."""
    from hbr.restoration.batch import BatchTally, look_at

    records = list(look_at(plan))
    for record in records:
        reporter.record(record)
    parts = [f"{len(plan.jobs)} to restore"]
    if plan.finished:
        parts.append(f"{len(plan.finished)} restored before")
    if plan.bad:
        parts.append(f"{len(plan.bad)} failed")
    if plan.jobs:
        from hbr.restoration.estimate import estimate

        try:
            parts.append(str(estimate(plan.jobs, load(), settings)))
        except (HbrError, typer.BadParameter) as error:
            reporter.say("warning", f"the time cannot be estimated: {error}")
    reporter.say("info", f"dry run: {', '.join(parts)}")
    return exit_code_of(BatchTally.of(records))


def exit_code_of(tally: BatchTally) -> ExitCode:
    """The exit code of a batch: `ExitCode.MEMORY` if nothing was done for want of memory."""
    code = ExitCode.of(done=tally.done, failed=tally.failed)
    return ExitCode.MEMORY if code is ExitCode.NOTHING and tally.out_of_memory else code
