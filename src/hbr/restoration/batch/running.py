"""Restoring many photos: a bad one does not stop the others, an interruption loses no result.

`run_batch` executes a `BatchPlan` (`batch.jobs`) and yields a record for each input.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from hbr.files import remove_parts
from hbr.image import Photo
from hbr.image.notes import log_held, messages_held, warnings_kept
from hbr.processes import StopSignals
from hbr.restoration.batch.jobs import BatchPlan, Job
from hbr.restoration.batch.outputs import Files
from hbr.restoration.batch.records import FileRecord
from hbr.restoration.batch.work import BatchWork, Begun

if TYPE_CHECKING:
    from hbr.restoration.batch.work import RestorePhoto
    from hbr.restoration.result import Restored


def run_batch(
    plan: BatchPlan,
    load: Callable[[], RestorePhoto],
    files: Files,
    *,
    strict: bool = False,
    stop: StopSignals | None = None,
    starting: Callable[[Job], None] = lambda job: None,
    made: Callable[[Job, Photo, Restored], None] = lambda job, photo, result: None,
) -> Iterator[FileRecord]:
    """Execute a plan; a record is yielded as soon as its file is written or has failed.

    What killed runs have left in the folders of the outputs is removed. If the plan is shared with
    other runs, a photo that one of them restores is left to it, and restored only if it fails
    there. An error that every further input would fail with, as a full disk, ends the batch.

    Args:
        plan: what to do (`plan_batch`).
        load: loads the model; called once, if there is anything to do.
        files: how files are read and written.
        strict: stop at the first input that fails.
        stop: signals that end the batch.
        starting: called with each job before it is done.
        made: called with each job that was done, its photo, and the result.

    Raises:
        KeyboardInterrupt: a signal arrived; no file is half written.
        Exception: whatever `load` raises.
    """
    if not (yield from beginning(plan, strict=strict)):
        return
    work = BatchWork(plan, load(), files, stop, made)
    with closing(overlapping(work, starting)) as records:
        for done in records:
            yield done
            if done.ends_batch or (strict and done.status == "failed"):
                return


def beginning(plan: BatchPlan, *, strict: bool) -> Generator[FileRecord, None, bool]:
    """What comes before the first photo is restored; returns whether there is anything to do.

    The records that need no work are yielded, and what killed runs have left is removed.
    """
    for record in settled(plan):
        yield record
        if strict and record.status == "failed":
            return False
    for folder in {job.target.parent for job in (*plan.jobs, *plan.finished) if not job.stdout}:
        remove_parts(folder)
    return bool(plan.jobs)


def settled(plan: BatchPlan) -> Iterator[FileRecord]:
    """The records that need no work: bad inputs, and results of an earlier run."""
    for bad in plan.bad:
        yield FileRecord(input=bad.source, status="failed", error=bad.error)
    for job in plan.finished:
        yield FileRecord(input=job.input, status="skipped", output=job.output)


def look_at(plan: BatchPlan) -> Iterator[FileRecord]:
    """The records of a plan that is not executed."""
    yield from settled(plan)
    for job in plan.jobs:
        yield FileRecord(input=job.input, status="planned", output=job.output)


def overlapping(
    work: BatchWork, starting: Callable[[Job], None]
) -> Generator[FileRecord, None, None]:
    """Do all jobs of a batch in order, so that the model waits for nothing else.

    The next photo is read while one is restored. Where encoding takes long, the last one is encoded
    meanwhile too; it is written when the next one is restored, or at an interruption of that.
    """
    waiting: deque[Begun | FileRecord] = deque()
    try:
        for job, following, again in work.turns():
            if again:  # other runs are waited for, and may wait for this one
                yield from _ended(work, waiting)
            starting(job)
            try:
                with messages_held() if waiting else nullcontext(()) as messages:
                    begun = work.begin(job, following, again=again)
            except KeyboardInterrupt:
                yield from _ended(work, waiting)
                raise
            if begun is None:
                continue
            waiting.append(begun)
            yield from _ended(work, waiting, leave=1)
            if messages:  # its turn has come
                with warnings_kept() as warnings:
                    log_held(messages)
                begun = waiting[0] = replace(begun, warnings=tuple(warnings))
            encoding = work.encoding(begun) if isinstance(begun, Begun) else None
            if encoding:
                waiting[0] = encoding
            else:
                yield from _ended(work, waiting)
        yield from _ended(work, waiting)
    finally:
        for left in waiting:
            if isinstance(left, Begun):
                left.held.close()
        work.close()


def _ended(
    work: BatchWork, waiting: deque[Begun | FileRecord], leave: int = 0
) -> Iterator[FileRecord]:
    """Write photos that were restored, the earliest first."""
    while len(waiting) > leave:
        yield work.end(waiting.popleft())
