"""The engine on one machine: a pool of processes of one thread each."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

from hbr.config import check
from hbr.curation.config import CurationConfig
from hbr.curation.pipeline.chunk import Chunk, ChunkDone, ChunkWork
from hbr.curation.pipeline.loading import load_models, names_models
from hbr.curation.pipeline.plan import Plan
from hbr.curation.pipeline.store import worker_lock
from hbr.curation.record import CurationError
from hbr.processes import WorkerDied, cores, pool_map


@dataclass(frozen=True)
class LocalEngine:
    """Processes on this machine.

    A script that uses it starts its work under `if __name__ == "__main__":`, as everything does
    that starts processes in Python.

    Attributes:
        workers: number of processes; 0 works in this process.
        memory: bytes that all of them together should stay below. Above it, no worker gets a new
            chunk while another works, and idle ones are replaced. None sets no limit.
    """

    workers: int = field(default_factory=cores)
    memory: int | None = None

    def __post_init__(self) -> None:
        check(self.workers >= 0, "workers", self.workers, "0 or more")
        ok = self.memory is None or self.memory > 0
        check(ok, "memory", self.memory, "bytes, above 0")

    def check(self, work: ChunkWork) -> None:
        """See `hbr.curation.engines.base.Engine`; models are loaded as a worker would, if any."""
        if not names_models(work.config):
            return
        if self.workers == 0:
            load_models(work.config)
            return
        for done in pool_map(partial(_open_models, work.config), [None], workers=1):
            if isinstance(done, WorkerDied):
                raise CurationError(f"a process that loaded the models of the run {done.ending}")

    def run(self, work: ChunkWork, plan: Plan) -> Generator[ChunkDone, None, None]:
        """See `hbr.curation.engines.base.Engine`."""
        if self.workers == 0:
            worker = None
            for chunk in plan:
                worker = worker or work.open()
                yield worker(chunk)
            return
        results = pool_map(
            partial(_open, work), plan, workers=self.workers, memory=self.memory, ordered=False
        )
        for done in results:
            if isinstance(done, WorkerDied):
                raise CurationError(
                    f"a worker {done.ending}; what is done is kept, and the same command resumes "
                    "(fewer workers need less memory)"
                )
            yield done


def _open_models(config: CurationConfig) -> Callable[[None], None]:
    load_models(config)
    return lambda _: None


def _open(work: ChunkWork) -> Callable[[Chunk], ChunkDone]:
    """In a worker, load what works on chunks, and hold the worker lock from now on."""
    _held.enter_context(worker_lock(work.out))
    return work.open()


_held = ExitStack()  # until the process ends
