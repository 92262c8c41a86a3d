"""The engine on one machine: a pool of processes of one thread each."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from hbr.config import check, check_least
from hbr.curation.config import CurationConfig
from hbr.curation.pipeline.chunk import ChunkDone, ChunkWorker
from hbr.curation.pipeline.loading import load_models, names_models
from hbr.curation.pipeline.plan import Plan
from hbr.curation.pipeline.store import Store, worker_lock
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
        check_least(self, 0, "workers")
        ok = self.memory is None or self.memory > 0
        check(ok, "memory", self.memory, "bytes, above 0")

    def check(self, config: CurationConfig) -> None:
        """Check that workers have all they need, before the sources of a new run are read.

        Raises:
            MetricError, DetectorError, ConfigError, WeightsError: as `load_models`.
            CurationError: the process that tried it was killed.
        """
        if not names_models(config):
            return
        if self.workers == 0:
            load_models(config)
            return
        for done in pool_map(partial(_open_models, config), [None], workers=1):
            if isinstance(done, WorkerDied):
                raise CurationError(f"a process that loaded the models of the run {done.ending}")

    def run(
        self, config: CurationConfig, out: Path, plan: Plan
    ) -> Generator[ChunkDone, None, None]:
        """Run chunks, in any order.

        Closing the generator before its end stops all workers; what they had begun is not done.

        Raises:
            CurationError: a worker was lost.
            OSError: a part cannot be written.
        """
        if self.workers == 0:
            worker = None
            for chunk in plan:
                worker = worker or _worker(config, out)
                yield worker(chunk)
            return
        opening = partial(_locked_worker, config, out)
        for done in pool_map(
            opening, plan, workers=self.workers, memory=self.memory, ordered=False
        ):
            if isinstance(done, WorkerDied):
                raise CurationError(
                    f"a worker {done.ending}; what is done is kept, and the same command resumes "
                    "(fewer workers need less memory)"
                )
            yield done


def _open_models(config: CurationConfig) -> Callable[[None], None]:
    load_models(config)
    return lambda _: None


def _worker(config: CurationConfig, out: Path) -> ChunkWorker:
    return ChunkWorker(config, Store(out, config), load_models(config))


def _locked_worker(config: CurationConfig, out: Path) -> ChunkWorker:
    """In a process of a pool, hold the worker lock from now on."""
    _held.enter_context(worker_lock(out))
    return _worker(config, out)


_held = ExitStack()  # until the process ends
