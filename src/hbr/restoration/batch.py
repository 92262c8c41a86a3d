"""Restoring many photos: a bad one does not stop the others, an interruption loses no result.

`run_batch` executes a `BatchPlan` (`hbr.restoration.jobs`) and yields a record for each input.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hbr.devices import is_out_of_memory
from hbr.errors import display_name, one_line, with_type
from hbr.image import DEFAULT_MAX_PIXELS, Photo, PhotoError, read_photo, write_photo
from hbr.image.notes import Truncated
from hbr.processes import StopSignals
from hbr.restoration.jobs import BatchPlan, Job

if TYPE_CHECKING:
    from hbr.restoration.restorer import Restored

    RestorePhoto = Callable[[Photo], Restored]
    """`hbr.Restorer` with its settings, for one photo."""

log = logging.getLogger(__name__)

Status = Literal["restored", "skipped", "failed", "planned"]


@dataclass(frozen=True)
class Files:
    """How files are read and written.

    Attributes:
        quality: 1 to 100, of JPEG, WebP and AVIF.
        png_compression: 0 to 9.
        max_pixels: larger photos are refused.
        strict: photos about which there is a warning are refused.
        truncated: `accept` reads what is there of a photo that is cut short.
        lossless: outputs are written without loss, or refused.
    """

    quality: int = 95
    png_compression: int = 6
    max_pixels: int = DEFAULT_MAX_PIXELS
    strict: bool = False
    truncated: Truncated = "refuse"
    lossless: bool = False


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """The outcome of one input.

    Attributes:
        input: the file, or the folder or glob that matched none.
        status: `restored`, `skipped` (done by an earlier run), `failed`, or `planned`.
        output: the file that was written, or will be.
        error: one line, if it failed.
        out_of_memory: whether it failed because memory ran out.
        size: (width, height) of the output in pixels.
        timings: seconds of each part of the work.
        provenance: what is needed to reproduce the same bytes.
    """

    input: str
    status: Status
    output: str | None = None
    error: str | None = None
    out_of_memory: bool = False
    size: tuple[int, int] | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def was_tried(self) -> bool:
        """Whether the file was processed, successfully or not."""
        return self.status == "restored" or (self.status == "failed" and self.output is not None)

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
            "timings": {name: round(s, 4) for name, s in self.timings.items()},
            "provenance": dict(self.provenance),
        }
        return {name: value for name, value in values.items() if value not in (None, {})}


@dataclass(frozen=True)
class BatchTally:
    """The number of inputs by outcome.

    Attributes:
        done: restored now or by an earlier run, or planned.
        failed: not restored.
        out_of_memory: failed because memory ran out.
    """

    done: int
    failed: int
    out_of_memory: int

    @classmethod
    def of(cls, records: Sequence[FileRecord]) -> BatchTally:
        """Count the records of a batch."""
        failed = [record for record in records if record.status == "failed"]
        short = sum(record.out_of_memory for record in failed)
        return cls(len(records) - len(failed), len(failed), short)


def run_batch(
    plan: BatchPlan,
    load: Callable[[], RestorePhoto],
    files: Files,
    *,
    strict: bool = False,
    stop: StopSignals | None = None,
) -> Iterator[FileRecord]:
    """Execute a plan; a record is yielded as soon as its file is written or has failed.

    Args:
        plan: what to do (`plan_batch`).
        load: loads the model; called once, if there is anything to do.
        files: how files are read and written.
        strict: stop at the first input that fails.
        stop: signals that end the batch.

    Raises:
        KeyboardInterrupt: a signal arrived; no file is half written.
        Exception: whatever `load` raises.
    """
    for record in settled(plan):
        yield record
        if strict and record.status == "failed":
            return
    if not plan.jobs:
        return
    restore = load()
    written: set[tuple[int, int]] = set()
    for job in plan.jobs:
        if stop:
            stop.check()
        try:
            record = _restore_file(job, restore, files, written)
        except Exception as error:
            if stop:  # a library can turn an interruption into another error
                stop.check()
            record = _failed(job, error)
        yield record
        if strict and record.status == "failed":
            return


def settled(plan: BatchPlan) -> Iterator[FileRecord]:
    """The records that need no work: bad inputs, and results of an earlier run."""
    for bad in plan.bad:
        yield FileRecord(input=bad.source, status="failed", error=bad.error)
    for job in plan.finished:
        yield FileRecord(input=str(job.source), status="skipped", output=str(job.target))


def look_at(plan: BatchPlan) -> Iterator[FileRecord]:
    """The records of a plan that is not executed."""
    yield from settled(plan)
    for job in plan.jobs:
        yield FileRecord(input=str(job.source), status="planned", output=str(job.target))


def _restore_file(
    job: Job, restore: RestorePhoto, files: Files, written: set[tuple[int, int]]
) -> FileRecord:
    began = time.perf_counter()
    photo = read_photo(
        job.source, max_pixels=files.max_pixels, strict=files.strict, truncated=files.truncated
    )
    read = time.perf_counter()
    result = restore(photo)
    restored = time.perf_counter()
    _check_free(job, written)
    write_photo(
        result.photo,
        job.target,
        quality=files.quality,
        png_compression=files.png_compression,
        lossless=files.lossless,
        strict=files.strict,
    )
    status = job.target.stat()
    written.add((status.st_dev, status.st_ino))
    done = time.perf_counter()
    timings = {
        **result.timings,
        "read": result.timings.get("read", 0.0) + read - began,
        "write": done - restored,
        "total": done - began,
    }
    height, width = result.photo.size
    return FileRecord(
        input=str(job.source),
        status="restored",
        output=str(job.target),
        size=(width, height),
        timings=timings,
        provenance=result.provenance,
    )


def _check_free(job: Job, written: set[tuple[int, int]]) -> None:
    """Refuse a target that did not exist when the batch was planned.

    On a case-insensitive file system, different names can be the same file.
    """
    name = display_name(job.target)
    try:
        status = job.target.stat()
    except OSError:
        return
    if (status.st_dev, status.st_ino) in written:
        raise PhotoError(f"{name}: was just written from another input; rename one")
    if not job.may_replace:
        raise PhotoError(f"{name}: was created since the start; --overwrite replaces it")


def _failed(job: Job, error: Exception) -> FileRecord:
    log.debug("%s", job.source, exc_info=error)
    line, short = describe_failure(error, job.source)
    return FileRecord(
        input=str(job.source),
        status="failed",
        output=str(job.target),
        error=line,
        out_of_memory=short,
    )


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
