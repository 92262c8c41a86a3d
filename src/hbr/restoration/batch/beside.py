"""What a batch does beside the model: it reads the next photo, and encodes the last one.

Each has one thread, so that there are three photos in memory at most: one that was read ahead, one
that is restored, and one that is encoded. Files are written, and records made, by the main thread.
What a thread logs is held back until the turn of its photo.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from logging import LogRecord
from typing import Any, TypeVar

from hbr.image import Photo, read_photo
from hbr.image.notes import log_held, messages_held
from hbr.restoration.batch.jobs import Job
from hbr.restoration.batch.outputs import Files, named_source
from hbr.restoration.recipe import NamedFile

T = TypeVar("T")

_PATIENCE = 600.0  # seconds


@dataclass(frozen=True, eq=False)
class Reading:
    """A photo that was read.

    Attributes:
        photo: the photo.
        source: its file by its hash, if that is asked for.
        given: its file from before it was read; None of a stream.
        seconds: how long it took.
    """

    photo: Photo
    source: NamedFile | None
    given: os.stat_result | None
    seconds: float


class PhotoReader:
    """Reads the photos of jobs, one of them ahead."""

    def __init__(self, files: Files, *, hashed: bool) -> None:
        """Read photos in a certain way.

        Args:
            files: how.
            hashed: whether their hashes are asked for.
        """
        self._files = files
        self._hashed = hashed
        self._thread = Thread("hbr-read")
        self._ahead: tuple[Job, Callable[[], Reading]] | None = None

    def begin(self, job: Job | None) -> None:
        """Read the photo of a job ahead, which `take` is asked for next."""
        if job is not None and job.stdin is None:
            is_current = partial(_is_current, job)
            self._ahead = job, self._thread.start(partial(self._read, job), is_current)

    def take(self, job: Job) -> Reading:
        """The photo of a job; what was read ahead counts only if the file is still as it was.

        Raises:
            PhotoError: it cannot be read.
        """
        ahead, self._ahead = self._ahead, None
        return ahead[1]() if ahead is not None and ahead[0] == job else self._read(job)

    def close(self) -> None:
        """End the thread."""
        self._thread.close()

    def _read(self, job: Job) -> Reading:
        began = time.perf_counter()
        given = _status(job)
        source = named_source(job) if self._hashed or self._files.recipe != "off" else None
        photo = read_photo(
            job.stdin or job.source,
            max_pixels=self._files.max_pixels,
            page=self._files.page,
            strict=self._files.strict,
            truncated=self._files.truncated,
        )
        return Reading(photo, source, given, time.perf_counter() - began)


class Thread:
    """A thread that is started for its first work."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._submitted: list[Future[Any]] = []

    def start(
        self, work: Callable[[], T], holds: Callable[[T], bool] = lambda made: True
    ) -> Callable[[], T]:
        """Do something in the thread, after what it is at.

        `holds` says whether the result still holds when it is asked for.

        Returns:
            What waits for it, logs its messages and returns what came of it. If that failed, no
            longer holds or takes very long, the work is done again by who asks for it.
        """

        def quietly() -> tuple[T, list[LogRecord]]:
            with messages_held() as messages:
                return work(), messages

        future = self._pool.submit(quietly)
        self._submitted = [f for f in self._submitted if not f.done()] + [future]

        def result() -> T:
            try:
                made, messages = future.result(_PATIENCE)
            except Exception:
                return work()
            if not holds(made):
                return work()
            log_held(messages)
            return made

        return result

    def close(self) -> None:
        """Wait for what the thread is at, and end it."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        # `wait` never counts what was cancelled before it began as done
        begun = [future for future in self._submitted if not future.cancelled()]
        if not wait(begun, _PATIENCE).not_done:
            self._pool.shutdown()  # it is idle, and ends at once


def _status(job: Job) -> os.stat_result | None:
    """Of the input, before it is read; None of a stream, or if reading it will fail."""
    if job.stdin:
        return None
    try:
        return job.source.stat()
    except (OSError, ValueError):
        return None


def _is_current(job: Job, reading: Reading) -> bool:
    """Whether a photo is what there is now of a job."""

    def state(status: os.stat_result) -> tuple[int, ...]:
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns

    now = _status(job)
    return now is not None and reading.given is not None and state(now) == state(reading.given)
