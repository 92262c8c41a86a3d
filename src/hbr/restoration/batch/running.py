"""Restoring many photos: a bad one does not stop the others, an interruption loses no result.

`run_batch` executes a `BatchPlan` (`batch.jobs`) and yields a record for each input.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hbr.devices import is_device_failure, is_out_of_memory
from hbr.errors import OutputError, display_name, one_line, with_type
from hbr.files import FolderWatch, claim, existing_above, remove_parts, write_bytes, write_text
from hbr.image import Photo, PhotoError, read_photo
from hbr.image.notes import warnings_kept
from hbr.image.writing import not_written
from hbr.processes import StopSignals
from hbr.restoration.batch.jobs import BatchPlan, Job, date_output
from hbr.restoration.batch.outputs import Files, encode_restored, named_source
from hbr.restoration.recipe import NamedFile, sidecar_of

if TYPE_CHECKING:
    from hbr.restoration.result import Restored

    RestorePhoto = Callable[[Photo], Restored]
    """`hbr.Restorer` with its settings, for one photo."""

log = logging.getLogger(__name__)

Status = Literal["restored", "skipped", "failed", "planned"]


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """The outcome of one input.

    Attributes:
        input: the file, or the folder or glob that matched none.
        status: `restored`, `skipped` (done by an earlier run), `failed`, or `planned`.
        output: the file that was written, or will be.
        error: one line, if it failed.
        out_of_memory: whether it failed because memory ran out.
        ends_batch: whether it failed in a way that every further input would fail in.
        size: (width, height) of the output in pixels.
        timings: seconds of each part of the work.
        provenance: what is needed to reproduce the same bytes.
        warnings: what was said of it while it was worked on, a line each.
    """

    input: str
    status: Status
    output: str | None = None
    error: str | None = None
    out_of_memory: bool = False
    ends_batch: bool = False
    size: tuple[int, int] | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()

    @property
    def people(self) -> Sequence[Mapping[str, Any]] | None:
        """Those who were found, by number; None if nobody was looked for."""
        about = self.provenance.get("people")
        return None if about is None else about["found"]

    def as_json(self) -> dict[str, Any]:
        """Plain values, without empty ones."""
        width, height = self.size or (None, None)
        values = {
            "input": self.input,
            "status": self.status,
            "output": self.output,
            "error": self.error,
            "width": width,
            "height": height,
            "people": self.people,
            "timings": {name: round(s, 4) for name, s in self.timings.items()},
            "provenance": dict(self.provenance),
            "warnings": list(self.warnings),
        }
        return {name: value for name, value in values.items() if value not in (None, {}, [])}


@dataclass
class BatchTally:
    """The number of inputs by outcome, so far.

    Attributes:
        done: restored now or by an earlier run, or planned.
        failed: not restored.
        out_of_memory: failed because memory ran out.
        ended: an input failed in a way that every further one would fail in.
    """

    done: int = 0
    failed: int = 0
    out_of_memory: int = 0
    ended: bool = False

    def add(self, record: FileRecord) -> None:
        """Count a record."""
        self.ended |= record.ends_batch
        if record.status == "failed":
            self.failed += 1
            self.out_of_memory += record.out_of_memory
        else:
            self.done += 1


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
    for job in work.turns():
        starting(job)
        if done := work.attempt(job):
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


class BatchWork:
    """The work on the jobs of a plan, and what it has met so far."""

    def __init__(
        self,
        plan: BatchPlan,
        restore: RestorePhoto,
        files: Files,
        stop: StopSignals | None = None,
        made: Callable[[Job, Photo, Restored], None] = lambda job, photo, result: None,
    ) -> None:
        self._plan = plan
        self._restore = restore
        self._files = files
        self._stop = stop
        self._made = made
        self._place = None if plan.folder is None else FolderWatch(plan.folder)
        self._written: set[tuple[int, int]] = set()
        self._tried: set[Job] = set()
        self._busy: list[Job] = []  # other runs were at them
        self._size = 0  # of the last output, in bytes

    def turns(self) -> Iterator[Job]:
        """The jobs in order, and then again those that other runs were at."""
        yield from self._plan.jobs
        yield from self._busy

    def attempt(self, job: Job, *, again: bool = False) -> FileRecord | None:
        """Do a job; None if another run is at it, and its turn comes again.

        Args:
            job: one of the plan.
            again: its turn has come again.
        """
        self._check_stop()
        again = again or job in self._tried
        self._tried.add(job)
        with warnings_kept() as warnings:
            try:
                self._check_place()
                if job.stdout or not self._plan.shared:
                    done: FileRecord | None = self._do(job)
                else:
                    done = self._claim(job, wait=again)
            except BrokenPipeError:  # of stdout
                raise
            except Exception as error:
                self._check_stop()  # a library can turn an interruption into another error
                done = self._failed(job, error)
        return done and replace(done, warnings=tuple(warnings))

    def _claim(self, job: Job, *, wait: bool) -> FileRecord | None:
        """Do a job that other runs may do too."""
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(claim(job.target, wait=wait))
            except BlockingIOError:
                self._busy.append(job)
                return None
            except OSError as error:
                raise not_written(job.target, error) from error
            if self._plan.is_finished(job):
                return FileRecord(input=job.input, status="skipped", output=job.output)
            return self._do(job)

    def _do(self, job: Job) -> FileRecord:
        began = time.perf_counter()
        given = _times_of(job)
        record = None if job.stdin or job.stdout else self._plan.record
        source = named_source(job) if record or self._files.recipe != "off" else None
        photo = read_photo(
            job.stdin or job.source,
            max_pixels=self._files.max_pixels,
            page=self._files.page,
            strict=self._files.strict,
            truncated=self._files.truncated,
        )
        read = time.perf_counter()
        result = self._restore(photo)
        restored = time.perf_counter()
        self._write(job, result, source, given)
        if record and source:
            record.add(job.target, source.sha256)
        done = time.perf_counter()
        self._made(job, photo, result)
        timings = {
            **result.timings,
            "read": result.timings.get("read", 0.0) + read - began,
            "write": done - restored,
            "total": done - began,
        }
        height, width = result.photo.size
        return FileRecord(
            input=job.input,
            status="restored",
            output=job.output,
            size=(width, height),
            timings=timings,
            provenance=result.provenance,
        )

    def _write(
        self, job: Job, result: Restored, source: NamedFile | None, given: os.stat_result | None
    ) -> None:
        data, sidecar = encode_restored(result, job.target, source, self._files)
        if job.stdout:
            job.stdout.write(data)
            job.stdout.flush()
            return
        self._check_place()
        self._check_free(job)
        self._size = len(data)
        try:
            # first: an output that is there is finished (`is_finished`)
            if sidecar is not None:
                write_text(sidecar_of(job.target), sidecar)
            write_bytes(job.target, data)
        except (OSError, ValueError) as error:
            raise not_written(job.target, error) from error
        if given is not None:
            date_output(job, given, keep=self._files.keep_times)
        status = job.target.stat()
        self._written.add((status.st_dev, status.st_ino))

    def _check_stop(self) -> None:
        if self._stop is not None:
            self._stop.check()

    def _check_place(self) -> None:
        if self._place is not None:
            self._place.check()

    def _check_free(self, job: Job) -> None:
        """Refuse a target that did not exist when the batch was planned.

        On a case-insensitive file system, different names can be the same file.
        """
        name = display_name(job.target)
        try:
            status = job.target.stat()
        except OSError:
            return
        if (status.st_dev, status.st_ino) in self._written:
            raise PhotoError(f"{name}: was just written from another input; rename one")
        if not job.may_replace and not self._plan.shared:
            raise PhotoError(f"{name}: was created since the start; --overwrite replaces it")

    def _failed(self, job: Job, error: Exception) -> FileRecord:
        """The record of a job that failed."""
        log.debug("%s", job.source, exc_info=error)
        line, short = describe_failure(error, job.source)
        return FileRecord(
            input=job.input,
            status="failed",
            output=job.output,
            error=line,
            out_of_memory=short,
            ends_batch=self._recurs(job, error),
        )

    def _recurs(self, job: Job, error: Exception) -> bool:
        """Whether every further job would fail with the same error."""
        left = (other for other in self._plan.jobs if other not in self._tried)
        if getattr(error.__cause__, "errno", None) == errno.ENOSPC:
            following = next(left, None)
            return following is not None and not self._has_room(job, following)
        if isinstance(error, OutputError) or is_device_failure(error):
            return True
        if job.stdin or os.path.lexists(job.source):
            return False
        gone = [not os.path.lexists(other.source) for other in left]
        return bool(gone) and all(gone)

    def _has_room(self, job: Job, other: Job) -> bool:
        """Whether a disk that has no room for an output has room for another, by their inputs."""
        try:
            growth = self._size / max(1, job.source.stat().st_size)
            free = shutil.disk_usage(existing_above(other.target.parent)).free
            return growth * other.source.stat().st_size < free
        except OSError:
            return False


def _times_of(job: Job) -> os.stat_result | None:
    """Of the input, before it is read; None of a stream, or if reading it will fail."""
    if job.stdin:
        return None
    try:
        return job.source.stat()
    except (OSError, ValueError):
        return None


def describe_failure(error: Exception, source: Path) -> tuple[str, bool]:
    """The error in one line that names the file, and whether memory ran out."""
    name = display_name(source)
    text = one_line(error)
    if isinstance(error, PhotoError):
        return text, isinstance(error.__cause__, MemoryError)
    if isinstance(error, MemoryError):
        words = text if str(error) else "out of memory; use smaller tiles (--tile)"
        return f"{name}: {words}", True
    if isinstance(error, ValueError | FloatingPointError):
        return f"{name}: {text}", False
    if isinstance(error, OSError) and error.strerror:
        return f"{name}: {error.strerror}", False
    if is_out_of_memory(error):
        return f"{name}: out of memory; use smaller tiles (--tile) or --device cpu", True
    return (
        f"{name}: unexpected error: {with_type(error)} (set HBR_DEBUG=1 for the traceback)",
        False,
    )
