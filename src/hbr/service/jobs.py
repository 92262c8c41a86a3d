"""The queue of a service: photos wait, one at a time is restored, results are kept for a while.

One thread restores, so that a device never has two photos at once. Everything else is called from
the threads of the web server. A photo and its result are files in a folder of their own, named by
the job's random id; the name that a client gives a file never becomes a path.
"""

from __future__ import annotations

import logging
import secrets
import shutil
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hbr.config import check, check_least
from hbr.errors import HbrError, reason
from hbr.files import write_bytes
from hbr.image import DEFAULT_MAX_PIXELS, output_suffix, read_photo
from hbr.image.reading import named_bytes
from hbr.restoration import Restorer
from hbr.restoration.batch.outputs import Files, encode_restored
from hbr.restoration.recipe import NamedFile
from hbr.restoration.settings import RestoreSettings

JobState = Literal["queued", "running", "done", "failed", "cancelled"]

Load = Callable[[str, float | None, str | None], Restorer]
"""From the names of a model and of a decoder, and the fidelity, to what restores."""

logger = logging.getLogger(__name__)

# models in memory at a time; the one that was used longest ago is dropped
_MODELS = 2


@dataclass(frozen=True, kw_only=True)
class ServiceLimits:
    """What a service accepts, and how long it keeps it.

    Attributes:
        max_bytes: size of an upload.
        max_pixels: of a photo, and of a result that is enlarged.
        waiting: photos in the queue; further ones are refused.
        held: photos whose results are kept; further ones are refused until some have expired.
        seconds: time to restore one photo, from its start.
        upload_seconds: time for an upload.
        keep: seconds that a finished photo and its result are kept.
        small: photos up to this many pixels are answered at once if `mode` is "auto".
    """

    max_bytes: int = 100_000_000
    max_pixels: int = DEFAULT_MAX_PIXELS
    waiting: int = 32
    held: int = 1000
    seconds: float = 1800.0
    upload_seconds: float = 300.0
    keep: float = 3600.0
    small: int = 2_000_000

    def __post_init__(self) -> None:
        check_least(self, 1, "max_bytes", "max_pixels", "waiting", "held")
        for name in ("seconds", "upload_seconds", "keep"):
            check(getattr(self, name) > 0, name, getattr(self, name), "above 0")
        check_least(self, 0, "small")


class ServiceBusyError(HbrError):
    """The queue is full; a later request may succeed."""

    http_status = 503


class TooLongError(HbrError):
    """A photo takes longer than the limit."""

    http_status = 503


class NoSuchJobError(HbrError):
    """There is no job with this id; it may have expired."""

    http_status = 404


class _Cancelled(Exception):  # noqa: N818
    """Ends a run from within its progress."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a client asks for.

    Attributes:
        model: name of the model.
        fidelity: as `hbr.Restorer.from_pretrained` takes it.
        decoder: name of a decoder in place of the model's own.
        settings: how to restore.
        suffix: of the result; None keeps the format of the photo.
        quality: of JPEG, WebP and AVIF.
    """

    model: str = "nano"
    fidelity: float | None = None
    decoder: str | None = None
    settings: RestoreSettings = field(default_factory=RestoreSettings)
    suffix: str | None = None
    quality: int = 95


@dataclass(eq=False, kw_only=True)
class PhotoJob:
    """A photo and what became of it.

    Attributes:
        id: random, unguessable.
        name: the stem of the client's file name, for the name of the result.
        order: what is asked for.
        folder: holds the photo as `source` and the result.
        state: of the job.
        done, total: tiles of the photo.
        error: one line, if it failed; `status` is the HTTP status that fits.
        result, size: the file and its (height, width), when done.
        photo_size: (height, width) of the upright photo, when done.
        provenance, timings: of the result.
        ended: by the monotonic clock; None before.
        finished: resolves when the state no longer changes.
    """

    id: str
    name: str
    order: Order
    folder: Path
    state: JobState = "queued"
    done: int = 0
    total: int = 0
    error: str | None = None
    status: int = 200
    result: Path | None = None
    size: tuple[int, int] | None = None
    photo_size: tuple[int, int] | None = None
    provenance: Mapping[str, Any] | None = None
    timings: Mapping[str, float] | None = None
    ended: float | None = None
    finished: Future[None] = field(default_factory=Future)
    cancel: threading.Event = field(default_factory=threading.Event)

    @property
    def source(self) -> Path:
        """The photo as it was uploaded."""
        return self.folder / "source"


class JobQueue:
    """Takes photos, restores them one after another, and forgets them.

    Args:
        folder: an empty folder for photos and results; everything in it is deleted at the end.
        limits: what is accepted.
        load: the model of an order.
        observe: called with each job that has ended.
    """

    def __init__(
        self,
        folder: Path,
        limits: ServiceLimits,
        load: Load,
        observe: Callable[[PhotoJob], None] = lambda job: None,
    ) -> None:
        self.folder, self.limits = folder, limits
        self._load, self._observe = load, observe
        self._models: OrderedDict[tuple[str, float | None, str | None], Restorer] = OrderedDict()
        self._jobs: dict[str, PhotoJob] = {}
        self._waiting: deque[PhotoJob] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="restorer", daemon=True)
        self._thread.start()

    def warm(self, model: str, decoder: str | None = None) -> None:
        """Load a model, so that a missing one shows before the first photo.

        Raises:
            WeightsError: it is missing or damaged.
        """
        self._restorer(Order(model=model, decoder=decoder))

    def new_folder(self) -> Path:
        """Make the folder of a job, into which its photo is written as `source`.

        Raises:
            ServiceBusyError: too many photos wait, or too many results are held.
        """
        self.purge()
        with self._changed:
            self._check_room()
        made = self.folder / secrets.token_urlsafe(16)
        made.mkdir(mode=0o700)
        return made

    def submit(self, folder: Path, name: str, order: Order) -> PhotoJob:
        """Queue the photo in `folder`.

        Raises:
            ServiceBusyError: too many photos wait, or too many results are held; the folder is
                deleted.
        """
        job = PhotoJob(id=folder.name, name=name, order=order, folder=folder)
        with self._changed:
            try:
                self._check_room()
            except ServiceBusyError:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            self._jobs[job.id] = job
            self._waiting.append(job)
            self._changed.notify()
        return job

    def get(self, id: str) -> PhotoJob:
        """Return a job.

        Raises:
            NoSuchJobError: there is none, or it has expired.
        """
        with self._changed:
            job = self._jobs.get(id)
        if job is None:
            raise NoSuchJobError("there is no such job; results are deleted after a while")
        return job

    def forget(self, job: PhotoJob) -> None:
        """Stop a job, at the latest after its present tile, and delete its photo and result."""
        with self._changed:
            job.cancel.set()
            if job in self._waiting:
                self._waiting.remove(job)
                self._end(job, "cancelled")
            self._jobs.pop(job.id, None)
        job.finished.add_done_callback(lambda _: shutil.rmtree(job.folder, ignore_errors=True))

    def purge(self) -> None:
        """Delete what has expired."""
        now = time.monotonic()
        with self._changed:
            old = [
                job
                for job in self._jobs.values()
                if job.ended is not None and now - job.ended > self.limits.keep
            ]
        for job in old:
            self.forget(job)

    def position(self, job: PhotoJob) -> int:
        """How many photos are restored before this one."""
        with self._changed:
            return self._waiting.index(job) + 1 if job in self._waiting else 0

    @property
    def waiting(self) -> int:
        """Number of photos that wait."""
        return len(self._waiting)

    @property
    def held(self) -> int:
        """Number of jobs that are known."""
        return len(self._jobs)

    def close(self) -> None:
        """Stop all jobs, and wait for the one that runs."""
        with self._changed:
            self._closing = True
            for job in self._jobs.values():
                job.cancel.set()
            self._changed.notify()
        self._thread.join()

    def _check_room(self) -> None:
        if len(self._waiting) >= self.limits.waiting:
            raise ServiceBusyError(f"{len(self._waiting)} photos wait already; try again later")
        if len(self._jobs) >= self.limits.held:
            raise ServiceBusyError(f"{len(self._jobs)} results are held; fetch and delete some")

    def _work(self) -> None:
        while not self._closing:
            self.purge()
            if job := self._next():
                self._run(job)
        with self._changed:
            while self._waiting:
                self._end(self._waiting.popleft(), "cancelled")

    def _next(self) -> PhotoJob | None:
        """The next photo; None if there is none for a while, or at the end."""
        with self._changed:
            if not self._waiting and not self._closing:
                self._changed.wait(timeout=30)
            if not self._waiting or self._closing:
                return None
            job = self._waiting.popleft()
            job.state = "running"
            return job

    def _run(self, job: PhotoJob) -> None:
        began = time.monotonic()

        def progress(done: int, total: int) -> None:
            job.done, job.total = done, total
            if job.cancel.is_set():
                raise _Cancelled
            if time.monotonic() - began > self.limits.seconds:
                raise TooLongError(f"it takes longer than {self.limits.seconds:g} s")

        try:
            progress(0, 0)
            data = job.source.read_bytes()
            # messages name the photo as the client does
            named = named_bytes(data, job.name or "the photo")
            photo = read_photo(named, max_pixels=self.limits.max_pixels)
            restorer = self._restorer(job.order)
            restored = restorer(photo, job.order.settings, progress=progress)
            suffix = job.order.suffix or output_suffix(photo.format)
            target = job.folder / f"result{suffix}"
            files = Files(quality=job.order.quality, recipe="file")
            encoded, _ = encode_restored(restored, target, NamedFile.of_bytes(data), files)
            write_bytes(target, encoded)
        except _Cancelled:
            self._end(job, "cancelled")
        except Exception as error:
            job.status = error.http_status if isinstance(error, HbrError) else 500
            if isinstance(error, ValueError) and not isinstance(error, HbrError):
                job.status = 422
            elif job.status == 500:
                logger.exception("job %s failed", job.id)
            self._end(job, "failed", reason(error))
        else:
            job.provenance, job.timings = dict(restored.provenance), dict(restored.timings)
            job.result, job.size, job.photo_size = target, restored.photo.size, photo.size
            self._end(job, "done")

    def _end(self, job: PhotoJob, state: JobState, error: str | None = None) -> None:
        job.error, job.ended, job.state = error, time.monotonic(), state
        self._observe(job)
        job.finished.set_result(None)

    def _restorer(self, order: Order) -> Restorer:
        key = (order.model, order.fidelity, order.decoder)
        if key not in self._models:
            while len(self._models) >= _MODELS:
                self._models.popitem(last=False)
            self._models[key] = self._load(*key)
        self._models.move_to_end(key)
        return self._models[key]
