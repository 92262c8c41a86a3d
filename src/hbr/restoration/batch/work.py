"""The work on one photo of a batch: claimed, read, restored, encoded, written, recorded."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from hbr.devices import is_device_failure
from hbr.errors import OutputError, display_name
from hbr.files import FolderWatch, claim, existing_above, write_bytes, write_text
from hbr.image import Photo, PhotoError
from hbr.image.notes import warnings_kept
from hbr.image.writing import not_written
from hbr.processes import StopSignals
from hbr.restoration.batch.beside import PhotoReader, Reading, Thread
from hbr.restoration.batch.jobs import BatchPlan, Job, date_output
from hbr.restoration.batch.outputs import Files, encode_restored
from hbr.restoration.batch.records import FileRecord, describe_failure
from hbr.restoration.recipe import NamedFile, sidecar_of

if TYPE_CHECKING:
    from hbr.restoration.result import Restored

    RestorePhoto = Callable[[Photo], Restored]
    """`hbr.Restorer` with its settings, for one photo."""

log = logging.getLogger(__name__)

_SLOW = 0.1  # encoding is, from this part of the time for restoring on


@dataclass(frozen=True, eq=False, kw_only=True)
class Begun:
    """A photo that was restored, and is not written yet.

    Attributes:
        job: that it belongs to.
        reading: the photo before.
        result: the photo after.
        seconds: how long the model took.
        encoded: returns the bytes of the file and the text of its sidecar, and the seconds.
        warnings: what was said of it so far.
        held: the claim to it.
    """

    job: Job
    reading: Reading
    result: Restored
    seconds: float
    encoded: Callable[[], tuple[bytes, str | None, float]]
    warnings: Sequence[str]
    held: ExitStack


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
        self._reader = PhotoReader(files, hashed=plan.record is not None)
        self._encoder = Thread("hbr-encode")
        self._encodes_slowly = False  # the last photo was
        self._written: set[tuple[int, int]] = set()
        self._over: set[Job] = set()
        self._busy: list[Job] = []  # other runs were at them
        self._size = 0  # of the last output, in bytes

    def turns(self) -> Iterator[tuple[Job, Job | None, bool]]:
        """The jobs in order, and then again those that other runs were at.

        Each has the next one, and whether its turn has come again.
        """
        jobs = self._plan.jobs
        for job, following in zip(jobs, (*jobs[1:], None), strict=True):
            yield job, following, False
        yield from ((job, None, True) for job in self._busy)

    def attempt(self, job: Job, *, again: bool = False) -> FileRecord | None:
        """Do a job; None if another run is at it, and its turn comes again."""
        begun = self.begin(job, again=again)
        return None if begun is None else self.end(begun)

    def close(self) -> None:
        """End the threads."""
        self._reader.close()
        self._encoder.close()

    def begin(
        self, job: Job, following: Job | None = None, *, again: bool = False
    ) -> Begun | FileRecord | None:
        """Restore the photo of a job.

        `following` is to be read meanwhile; `again` says that the turn of `job` has come again.

        Returns:
            What `end` takes, or a record if it was done before or has failed; None if another run
            is at it, and its turn comes again.
        """
        self._check_stop()
        with warnings_kept() as warnings, ExitStack() as held:
            try:
                self._check_place()
                if self._plan.shared and not job.stdout:
                    try:
                        held.enter_context(claim(job.target, wait=again))
                    except BlockingIOError:
                        self._busy.append(job)
                        self._over.add(job)
                        return None
                    except OSError as error:
                        raise not_written(job.target, error) from error
                    if self._plan.is_finished(job):
                        self._over.add(job)
                        return FileRecord(input=job.input, status="skipped", output=job.output)
                reading = self._reader.take(job)
                self._reader.begin(following)
                began = time.perf_counter()
                result = self._restore(reading.photo)
                return Begun(
                    job=job,
                    reading=reading,
                    result=result,
                    seconds=time.perf_counter() - began,
                    encoded=partial(self._encode, job, result, reading.source),
                    warnings=warnings,
                    held=held.pop_all(),
                )
            except BrokenPipeError:
                raise
            except Exception as error:
                self._check_stop()  # a library can turn an interruption into another error
                return self._failed(job, error, warnings)

    def encoding(self, begun: Begun) -> Begun | None:
        """Encode a restored photo in a thread until it is written; None if that takes no time."""
        if not self._encodes_slowly:
            return None
        return replace(begun, encoded=self._encoder.start(begun.encoded))

    def end(self, begun: Begun | FileRecord) -> FileRecord:
        """Write a restored photo; a record is returned as it is."""
        if isinstance(begun, FileRecord):
            return begun
        with begun.held, warnings_kept() as warnings:
            try:
                return self._finish(begun, warnings)
            except BrokenPipeError:  # of stdout
                raise
            except Exception as error:
                self._check_stop()
                return self._failed(begun.job, error, (*begun.warnings, *warnings))

    def _encode(
        self, job: Job, result: Restored, source: NamedFile | None
    ) -> tuple[bytes, str | None, float]:
        began = time.perf_counter()
        data, sidecar = encode_restored(result, job.target, source, self._files)
        return data, sidecar, time.perf_counter() - began

    def _finish(self, begun: Begun, warnings: Sequence[str]) -> FileRecord:
        job, result, reading = begun.job, begun.result, begun.reading
        data, sidecar, encoding = begun.encoded()
        self._encodes_slowly = encoding > _SLOW * begun.seconds
        began = time.perf_counter()
        self._write(job, data, sidecar, reading.given)
        if self._plan.record and reading.source and not (job.stdin or job.stdout):
            self._plan.record.add(job.target, reading.source.sha256)
        writing = encoding + time.perf_counter() - began
        self._made(job, reading.photo, result)
        self._over.add(job)
        timings = {
            **result.timings,
            "read": result.timings.get("read", 0.0) + reading.seconds,
            "write": writing,
            "total": reading.seconds + begun.seconds + writing,
        }
        height, width = result.photo.size
        return FileRecord(
            input=job.input,
            status="restored",
            output=job.output,
            size=(width, height),
            timings=timings,
            provenance=result.provenance,
            warnings=(*begun.warnings, *warnings),
        )

    def _write(
        self, job: Job, data: bytes, sidecar: str | None, given: os.stat_result | None
    ) -> None:
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

    def _failed(self, job: Job, error: Exception, warnings: Sequence[str]) -> FileRecord:
        """The record of a job that failed."""
        self._over.add(job)
        log.debug("%s", job.source, exc_info=error)
        line, short = describe_failure(error, job.source)
        return FileRecord(
            input=job.input,
            status="failed",
            output=job.output,
            error=line,
            out_of_memory=short,
            ends_batch=self._recurs(job, error),
            warnings=tuple(warnings),
        )

    def _recurs(self, job: Job, error: Exception) -> bool:
        """Whether every further job would fail with the same error."""
        left = (other for other in self._plan.jobs if other not in self._over)
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
