"""The status of a run, written to a file beside it every few seconds."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hbr.config import from_dict, to_dict
from hbr.curation.runs.run import RunProgress
from hbr.errors import one_line
from hbr.files import write_text

State = Literal["running", "done", "stopped", "failed"]

_EVERY = 2.0  # seconds between two writings
_RECENT = 120.0  # seconds that the pace is over
_SILENT = 900.0  # seconds after which a run on another machine counts as gone


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """The status of a run.

    Attributes:
        state: as written by the run; a killed run leaves `running`.
        host, pid, born: the process, and when it began (seconds of the epoch).
        began, at: when the run began, and when this was written.
        doing, done, total: see `hbr.curation.runs.run.RunProgress`.
        images, earlier, errors: likewise.
        pace: images a second, over the last two minutes; None where none was finished in them.
        why: why a failed run failed.
    """

    state: State
    host: str
    pid: int
    born: float
    began: float
    at: float
    doing: str = ""
    done: int = 0
    total: int | None = None
    images: int = 0
    earlier: int = 0
    errors: int = 0
    pace: float | None = None
    why: str | None = None

    @property
    def alive(self) -> bool:
        """Whether the run is still at work."""
        if self.state != "running":
            return False
        if self.host != socket.gethostname():
            return time.time() - self.at < _SILENT
        return abs(_born(self.pid) - self.born) < 1


class StatusFile:
    """Keeps `OUT/work/progress.json`; give it to `curate` as its `report`.

    `then` is called with the same progress.
    """

    def __init__(
        self, out: str | Path, then: Callable[[RunProgress], None] = lambda _: None
    ) -> None:
        self._path = _place(Path(out))
        self._then = then
        self._began = time.time()
        self._born = _born(os.getpid())
        self._recent: deque[tuple[float, int]] = deque()
        self._last = RunProgress(doing="crops", done=0)
        self._next = 0.0

    def __call__(self, progress: RunProgress) -> None:
        """Record the progress, and write the file if it is due."""
        now = time.time()
        if progress.images != self._last.images or not self._recent:
            self._recent.append((now, progress.images))
        while len(self._recent) > 2 and now - self._recent[0][0] > _RECENT:
            self._recent.popleft()
        new = progress.doing != self._last.doing
        self._last = progress
        if new or now >= self._next:
            self._next = now + _EVERY
            self._write("running")
        self._then(progress)

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Around a run: record how it ended."""
        try:
            yield
        except KeyboardInterrupt:
            self._end("stopped")
            raise
        except Exception as error:
            self._end("failed", one_line(error))
            raise
        self._end("done")

    def _end(self, state: State, why: str | None = None) -> None:
        # a run that was refused, as another works here, never reported, and writes nothing
        if self._next or state == "done":
            self._write(state, why)

    def _write(self, state: State, why: str | None = None) -> None:
        progress = {name: value for name, value in vars(self._last).items() if name != "counts"}
        status = RunStatus(
            state=state,
            host=socket.gethostname(),
            pid=os.getpid(),
            born=self._born,
            began=self._began,
            at=time.time(),
            **progress,
            pace=self._pace(),
            why=why,
        )
        # a full disk stops the run where it loses something, not here
        with contextlib.suppress(OSError):
            write_text(self._path, json.dumps(to_dict(status), indent=1) + "\n")

    def _pace(self) -> float | None:
        if not self._recent:
            return None
        # before the first chunk is done, the time since the beginning counts too
        start, before = self._recent[0]
        if before == self._recent[-1][1]:
            start, before = self._began, 0
        end, after = self._recent[-1]
        return (after - before) / (end - start) if after > before and end > start else None


def read_status(out: str | Path) -> RunStatus | None:
    """The status of the latest run in a folder; None if there is no status file."""
    try:
        return from_dict(RunStatus, json.loads(_place(Path(out)).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def _place(out: Path) -> Path:
    return out / "work" / "progress.json"


def _born(pid: int) -> float:
    """When a process began, in seconds of the epoch; 0 if there is none."""
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return 0.0
