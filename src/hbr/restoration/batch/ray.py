"""A batch on many machines: actors on a cluster of Ray, each with a model of its own.

The driver gives each actor one job at a time and gets its record. The files of inputs and outputs
are at the same paths on all machines. A job whose actor dies is given to another one, `_LIVES`
times, and has failed then.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbr.clusters import ClusterError, check_options, connected, last_line, room_for, settle_in
from hbr.config import check_least
from hbr.errors import display_name
from hbr.processes import StopSignals, portable
from hbr.restoration.batch.jobs import BatchPlan, Job
from hbr.restoration.batch.outputs import Files
from hbr.restoration.batch.records import FileRecord
from hbr.restoration.batch.running import beginning
from hbr.restoration.batch.work import BatchWork

if TYPE_CHECKING:
    from hbr.restoration.batch.work import RestorePhoto

_LIVES = 3  # actors that may die on one photo
_PATIENCE = 1.0  # seconds between looks for a stop signal


@dataclass(frozen=True, kw_only=True)
class RayActors:
    """How a cluster of Ray is used.

    Attributes:
        address: `auto` for the cluster that this machine belongs to, or `HOST:PORT` of its head.
            None takes the variable RAY_ADDRESS, or starts Ray on this machine for this batch.
        workers: how many actors; None takes as many as the cluster has room for at the start.
        threads: cores for each actor, and threads of the libraries in it.
        gpus: GPUs for each actor; parts of one let several share it.
        memory: bytes that Ray sets aside for each actor; None sets nothing aside.
    """

    address: str | None = None
    workers: int | None = None
    threads: int = 1
    gpus: float = 0.0
    memory: int | None = None

    def __post_init__(self) -> None:
        check_options(self.address, self.workers, self.gpus, self.memory)
        check_least(self, 1, "threads")

    @property
    def needs(self) -> dict[str, float]:
        """What one actor takes of a machine, in the words of Ray's resources."""
        return {"CPU": self.threads, "GPU": self.gpus, "memory": float(self.memory or 0)}

    def cores(self) -> int | None:
        """The cores of a Ray that is started for these actors alone; None takes all."""
        return None if self.workers is None else self.workers * self.threads


def run_on_cluster(
    plan: BatchPlan,
    load: Callable[[], RestorePhoto],
    files: Files,
    actors: RayActors,
    *,
    strict: bool = False,
    stop: StopSignals | None = None,
    starting: Callable[[Job], None] = lambda job: None,
) -> Iterator[FileRecord]:
    """Execute a plan as `batch.running.run_batch`, but for the order of the records.

    The plan is of files, not of streams; `load` loads the model in each actor, and can be pickled.
    `strict` stops at the first input that fails; `starting` is called with each job that an actor
    gets.

    Raises:
        ClusterError: Ray is not installed, no cluster answers, or it has no room for one actor.
        KeyboardInterrupt: a signal arrived; no file is half written.
        Exception: whatever `load` raises.
    """
    if not (yield from beginning(plan, strict=strict)):
        return
    with connected(actors.address, actors.cores()) as ray:
        size = min(room_for(ray, actors.needs, actors.workers), len(plan.jobs))
        rest = replace(plan, jobs=(), finished=(), bad=())
        crew = _Crew(ray, actors, (rest, load, files, Path.cwd(), sys.path, actors.threads), size)
        try:
            for record in crew.records(plan.jobs, stop, starting):
                yield record
                if record.ends_batch or (strict and record.status == "failed"):
                    return
        except ray.exceptions.RayError as error:
            raise ClusterError(f"Ray lost its cluster ({last_line(error)})") from None
        finally:
            crew.end()


class _Crew:
    """The actors, and what each of them is at."""

    def __init__(self, ray: Any, actors: RayActors, given: tuple[Any, ...], size: int) -> None:
        needs = actors.needs
        self._ray = ray
        self._kind = ray.remote(
            num_cpus=needs["CPU"], num_gpus=needs["GPU"], memory=needs["memory"] or None
        )(BatchActor)
        self._given = given
        self._idle = [self._kind.remote(*given) for _ in range(size)]
        self._busy: dict[Any, tuple[Any, Job, bool]] = {}

    def records(
        self, jobs: Sequence[Job], stop: StopSignals | None, starting: Callable[[Job], None]
    ) -> Iterator[FileRecord]:
        """Get jobs done; those that other runs were at come last."""
        waiting = deque((job, False) for job in jobs)
        deaths: Counter[Path] = Counter()
        while waiting or self._busy:
            while waiting and self._idle:
                job, again = waiting.popleft()
                starting(job)
                actor = self._idle.pop()
                self._busy[actor.attempt.remote(job, again)] = actor, job, again
            if stop is not None:
                stop.check()
            done, _ = self._ray.wait(list(self._busy), num_returns=1, timeout=_PATIENCE)
            for reference in done:
                actor, job, again = self._busy.pop(reference)
                try:
                    answer = self._answer(reference)
                    self._idle.append(actor)
                except self._ray.exceptions.RayActorError:
                    self._idle.append(self._kind.remote(*self._given))
                    deaths[job.target] += 1
                    if deaths[job.target] < _LIVES:
                        # it may have written the output before it died
                        waiting.append((replace(job, may_replace=True), again))
                        continue
                    answer = _lost(job)
                if answer is None:
                    waiting.append((job, True))
                else:
                    yield answer

    def _answer(self, reference: Any) -> FileRecord | None:
        answer, messages = self._ray.get(reference)
        for name, level, message in messages:
            logging.getLogger(name).log(level, "%s", message)
        if isinstance(answer, Exception):
            raise answer
        record: FileRecord | None = answer
        return record

    def end(self) -> None:
        """End all actors; what they were at is not done."""
        for actor in (*self._idle, *(actor for actor, _, _ in self._busy.values())):
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.kill(actor)


def _lost(job: Job) -> FileRecord:
    """The record of a photo on which one actor died after the other."""
    error = (
        f"{display_name(job.source)}: {_LIVES} workers were lost over it, most likely because "
        "memory ran out; fewer --workers or --memory need less"
    )
    return FileRecord(input=job.input, status="failed", output=job.output, error=error)


class BatchActor:
    """An actor that restores photos; it loads the model for the first one."""

    def __init__(
        self,
        plan: BatchPlan,
        load: Callable[[], RestorePhoto],
        files: Files,
        folder: Path,
        modules: list[str],
        threads: int,
    ) -> None:
        settle_in(folder, modules, threads=threads)
        self._plan, self._load, self._files = plan, load, files
        self._work: BatchWork | None = None

    def attempt(
        self, job: Job, again: bool
    ) -> tuple[FileRecord | Exception | None, list[tuple[str, int, str]]]:
        """Do a job, as `BatchWork.attempt`.

        Returns:
            What came of it, an error of `load` among that, and the logger, level and text of each
            message.
        """
        messages: list[tuple[str, int, str]] = []
        handler = logging.Handler()
        handler.emit = lambda record: messages.append(  # type: ignore[method-assign]
            (record.name, record.levelno, record.getMessage())
        )
        logger = logging.getLogger("hbr")
        logger.addHandler(handler)
        try:
            self._work = self._work or BatchWork(self._plan, self._load(), self._files)
            return self._work.attempt(job, again=again), messages
        except Exception as error:
            return portable(error), messages
        finally:
            logger.removeHandler(handler)
