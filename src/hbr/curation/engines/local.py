"""The engine on one machine: a few processes of one thread each, fed one chunk at a time."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from hbr.config import check
from hbr.curation.pipeline.chunk import Chunk, ChunkDone, ChunkWork
from hbr.curation.pipeline.store import working
from hbr.curation.record import CurationError
from hbr.errors import with_type
from hbr.processes import cores, one_thread_each


@dataclass(frozen=True)
class LocalEngine:
    """Processes on this machine.

    A script that uses it starts its work under `if __name__ == "__main__":`, as everything does
    that starts processes in Python.

    Attributes:
        workers: how many processes; 0 works in this one.
        memory: bytes that all of them together should stay below. Above it, no worker gets a new
            chunk while another works, and idle ones start afresh. None sets no limit.
    """

    workers: int = field(default_factory=cores)
    memory: int | None = None

    def __post_init__(self) -> None:
        """Check every field."""
        check(self.workers >= 0, "workers", self.workers, "0 or more")
        ok = self.memory is None or self.memory > 0
        check(ok, "memory", self.memory, "bytes, above 0")

    def run(self, work: ChunkWork, chunks: Iterable[Chunk]) -> Iterator[ChunkDone]:
        """See `hbr.curation.engines.base.Engine`."""
        if self.workers == 0:
            worker = None
            for chunk in chunks:
                worker = worker or work.open()
                yield worker(chunk)
            return
        crew = _Crew(work, self.memory)
        try:
            yield from crew.run(iter(chunks), self.workers)
        finally:
            crew.dismiss()


class _Crew:
    """The processes of one run."""

    def __init__(self, work: ChunkWork, memory: int | None) -> None:
        self._work = work
        self._memory = memory
        self._idle: list[_Process] = []
        self._busy: dict[Connection, _Process] = {}

    def run(self, chunks: Iterator[Chunk], workers: int) -> Iterator[ChunkDone]:
        """Hand out chunks and hand back what is done."""
        ready = next(chunks, None)
        while ready is not None or self._busy:
            while ready is not None and (process := self._free(workers)) is not None:
                process.pipe.send(ready)
                self._busy[process.pipe] = process
                ready = next(chunks, None)  # read ahead by one while they work
            done = [self._receive(pipe) for pipe in self._wait()]
            yield from done

    def dismiss(self) -> None:
        """End all processes now; what they were writing is not there."""
        for process in [*self._idle, *self._busy.values()]:
            process.kill()
        self._idle.clear()
        self._busy.clear()

    def _free(self, workers: int) -> _Process | None:
        """A process for the next chunk, if there is one and memory allows it."""
        if self._memory is not None and self._in_use() > self._memory:
            while self._idle:
                self._idle.pop().kill()
            if self._busy:
                return None
        if self._idle:
            return self._idle.pop()
        return _Process(self._work) if len(self._busy) < workers else None

    def _wait(self) -> list[Connection]:
        return [pipe for pipe in wait(list(self._busy)) if isinstance(pipe, Connection)]

    def _receive(self, pipe: Connection) -> ChunkDone:
        process = self._busy[pipe]
        try:
            answer = pipe.recv()
        except (EOFError, ConnectionError):
            process.end.join()
            raise CurationError(
                f"a worker {_ending(process.end.exitcode)}; what is done is kept, and the same "
                "command goes on (fewer workers need less memory)"
            ) from None
        del self._busy[pipe]
        self._idle.append(process)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _in_use(self) -> int:
        import psutil

        pids = [os.getpid()] + [p.end.pid for p in [*self._idle, *self._busy.values()]]
        total = 0
        for pid in pids:
            with contextlib.suppress(psutil.Error):
                total += psutil.Process(pid).memory_info().rss
        return total


class _Process:
    """A worker's process and the pipe to it."""

    def __init__(self, work: ChunkWork) -> None:
        # a fresh interpreter: threads and locks of this one cannot be inherited half way
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.end = context.Process(
            target=_serve, args=(work, theirs, os.getpid()), name="hbr-curate", daemon=True
        )
        with one_thread_each():
            self.end.start()
        theirs.close()

    def kill(self) -> None:
        """End it now."""
        self.end.kill()
        self.end.join()
        self.pipe.close()


def _serve(work: ChunkWork, pipe: Connection, parent: int) -> None:
    """A worker's life: chunks come, what is done goes back, until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent decides

    def go_on() -> bool:
        return os.getppid() == parent

    worker: Any = None
    with working(work.out):
        while True:
            try:
                chunk = pipe.recv()
            except (EOFError, OSError):
                return
            try:
                worker = worker or work.open()
                answer: object = worker(chunk, go_on=go_on)
            except InterruptedError:
                return
            except Exception as error:
                answer = portable(error)
            try:
                pipe.send(answer)
            except OSError:  # nobody is there any more
                return


def portable(error: Exception) -> Exception:
    """An exception that survives the way to the parent."""
    import pickle

    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(with_type(error))
    return error


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"was killed ({signal.Signals(-code).name})"
    return f"ended with code {code}"
