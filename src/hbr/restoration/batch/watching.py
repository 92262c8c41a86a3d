"""Watching a folder into which photos arrive, as a scanner's.

The folder is looked at again and again: the notices of a system about changed files do not come
from the other side of a network drive, where scanners and cameras write.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hbr.config import ConfigError, check
from hbr.errors import display_name
from hbr.files import FolderWatch
from hbr.image.paths import is_thumbnail_folder, walk_files
from hbr.processes import StopSignals
from hbr.restoration.batch.contents import ByContents, ContentRecord
from hbr.restoration.batch.finding import Found, add_file, is_folder, may_be_picture, output_below
from hbr.restoration.batch.jobs import Job, forced_suffix, jobs_into, plan_jobs
from hbr.restoration.batch.outputs import Files
from hbr.restoration.batch.records import FileRecord
from hbr.restoration.batch.running import run_batch

if TYPE_CHECKING:
    from hbr.restoration.batch.work import RestorePhoto

FileState = tuple[int, int, int]
"""Size in bytes, time in nanoseconds, and number of a file."""


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A folder to watch, and what becomes of the photos in it.

    Attributes:
        folder: where photos arrive.
        out: folder of the outputs, which keep sub-folders and names.
        format: of the outputs: `keep`, or a format of `hbr.image.write_photo`.
        recursive: watch sub-folders too.
        settle: seconds for which a file must stay the same before it counts as complete.
        poll: seconds between two looks.
    """

    folder: Path
    out: Path
    format: str = "keep"
    recursive: bool = False
    settle: float = 2.0
    poll: float = 1.0

    def __post_init__(self) -> None:
        check(self.settle >= 0, "settle", self.settle, "0 seconds or more")
        check(self.poll > 0, "poll", self.poll, "above 0 seconds")
        if not is_folder(self.folder):
            raise ConfigError(f"{display_name(self.folder)} is not a folder; name one to watch")
        folder, out = (Path(os.path.realpath(path)) for path in (self.folder, self.out))
        if folder == out or (self.recursive and out in folder.parents):
            raise ConfigError("the outputs would arrive in the folder watched; choose another")
        forced_suffix(self.format)


@dataclass
class Arrivals:
    """Tells which files of a folder are complete, and hands out each of them once.

    A file is complete if it is not empty and was the same, by size, time and number, for `settle`
    seconds of this machine's clock; so is one that was renamed into place. A file that changes
    after it was handed out is handed out again.
    """

    watched: Watched
    _seen: dict[str, tuple[FileState, float]] = field(default_factory=dict)
    _given: dict[str, FileState] = field(default_factory=dict)

    def look(self, now: float) -> Found:
        """The pictures that have become complete, sorted.

        Args:
            now: seconds of a clock that never goes back.
        """
        folder = self.watched.folder
        states = dict(self._states())
        self._given = {name: at for name, at in self._given.items() if states.get(name) == at}
        self._seen = {
            name: self._seen[name] if self._seen.get(name, (None,))[0] == state else (state, now)
            for name, state in states.items()
            if name not in self._given
        }
        found = Found()
        for name, (state, since) in sorted(self._seen.items()):
            if state[0] and now - since >= self.watched.settle:
                self._given[name] = state
                add_file(found, folder / name, folder)
        return found

    def _states(self) -> Iterator[tuple[str, FileState]]:
        folder = self.watched.folder
        is_output = output_below(folder, self.watched.out)

        def enter(inner: Path) -> bool:
            left_out = is_thumbnail_folder(inner) or is_output(inner)
            return self.watched.recursive and not left_out

        # what cannot be read now may be there at the next look
        names = walk_files(folder, may_be_picture, enter=enter, on_error=lambda error: None)
        for name in names:
            try:
                status = (folder / name).stat()
            except OSError:
                continue
            yield name, (status.st_size, status.st_mtime_ns, status.st_ino)


def watch(
    watched: Watched,
    restore: RestorePhoto,
    files: Files,
    *,
    stop: StopSignals | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[FileRecord]:
    """Restore the photos of a folder, those that are there and those that arrive, without end.

    What was restored is recorded in the folder of the outputs, by contents, so that a watch that
    starts again does nothing twice, and misses nothing that arrived meanwhile. Outputs stand
    whatever they were made with and whatever was done to them since.

    `restore` has its settings; `stop` ends the watch, `sleep` waits for so many seconds.

    Yields:
        A record for each picture; the last one if nothing more can be written.

    Raises:
        OutputError: the folder, or that of the outputs, is gone.
        KeyboardInterrupt: a signal arrived; no file is half written.
    """
    arrivals, suffix = Arrivals(watched), forced_suffix(watched.format)
    record = ContentRecord(watched.out, ByContents(None))
    places = FolderWatch(watched.folder), FolderWatch(watched.out)
    sources: dict[Path, Path] = {}  # which photo has each output
    while True:
        for place in places:
            place.check()
        found = arrivals.look(time.monotonic())
        jobs = jobs_into(watched.out, found, suffix)
        clashing = [job for job in jobs if _clashes(job, sources)]
        for job in clashing:
            yield _clash(job, sources[job.target])
        jobs = [job for job in jobs if job not in clashing]
        if jobs or found.bad:
            plan = plan_jobs(jobs, found, watched.out, existing=record)
            for done in run_batch(plan, lambda: restore, files, stop=stop):
                yield done
                if done.ends_batch:
                    return
            places[1].check()  # from now on it is there
        if stop is not None:
            stop.check()
        sleep(watched.poll)


def _clashes(job: Job, sources: dict[Path, Path]) -> bool:
    """Whether the output of a job is that of another photo which is still there."""
    other = sources.setdefault(job.target, job.source)
    if other != job.source and os.path.lexists(other):
        return True
    sources[job.target] = job.source
    return False


def _clash(job: Job, other: Path) -> FileRecord:
    """The record of a job that would replace the output of another photo."""
    source, target = display_name(job.source), display_name(job.target)
    error = (
        f"{source}: would be written to {target}, as {display_name(other)}; "
        "rename one, or choose another --format"
    )
    return FileRecord(input=str(job.source), status="failed", output=str(job.target), error=error)
