"""The engine on many machines: Ray Data, with one actor for each core or each part of a GPU.

    read_parquet(plan) → map_batches(Worker, ActorPoolStrategy) → driver

Chunks, not pixels, travel: an actor gets a row of the plan, does all stages of its images with its
own detector and metrics, and writes its part into the run's folder, which all machines share. What
comes back is what it counted. Ray Data limits how much of the plan is read ahead, and repeats a
chunk that was lost with a worker or a machine as often as necessary. Two things it cannot know are
files in the run's folder: a part that is there already is not computed again, and a chunk whose
workers died `_LIVES` times (`Store.begin`) is an error instead of another attempt.
"""

from __future__ import annotations

import contextlib
import logging
import pickle
import socket
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hbr.clusters import ClusterError, check_options, connected, last_line, room_for, settle_in
from hbr.curation.config import CurationConfig
from hbr.curation.pipeline.chunk import Chunk, ChunkDone, ChunkWorker
from hbr.curation.pipeline.loading import load_models
from hbr.curation.pipeline.plan import Plan, read_chunk
from hbr.curation.pipeline.store import Store, worker_lock
from hbr.curation.record import ERRORS, CurationError
from hbr.processes import portable

_IN_FLIGHT = 2  # chunks queued at an actor: the current one and the next
_LIVES = 3  # workers that may die on one chunk


@dataclass(frozen=True)
class RayEngine:
    """Actors on a cluster of Ray, or on this machine alone.

    The photos and the run's folder are at the same paths on all machines, and so is `hbr`.

    Attributes:
        address: `auto` for the cluster that this machine belongs to, or `HOST:PORT` of its head.
            None takes the variable RAY_ADDRESS, or starts Ray on this machine for this run.
        workers: number of actors; None takes as many as the cluster has room for at the start.
        gpus: GPUs for each actor; parts of one let several share it. None takes one where the
            configuration puts the detector or the metrics on `cuda`, and none elsewhere.
        memory: bytes that Ray sets aside for each actor: no machine gets more than fit. None sets
            nothing aside.
    """

    address: str | None = None
    workers: int | None = None
    gpus: float | None = None
    memory: int | None = None

    def __post_init__(self) -> None:
        check_options(self.address, self.workers, self.gpus, self.memory)

    def check(self, config: CurationConfig) -> None:
        """Check the devices; the weights lie on the machines of the workers.

        Raises:
            CurationError: a device names one of several GPUs.
        """
        self._needs(config)

    def run(
        self, config: CurationConfig, out: Path, plan: Plan
    ) -> Generator[ChunkDone, None, None]:
        """Run chunks, as `LocalEngine.run`.

        Raises:
            CurationError: Ray is not installed, no cluster answers, it has no room for one actor,
                or one chunk took one worker after the other down.
        """
        needs = self._needs(config)
        if not len(plan):
            return
        try:
            with connected(self.address, self.workers) as ray:
                size = room_for(ray, needs, self.workers)
                try:
                    work = (config, out.absolute())
                    for answer in _answers(ray, work, plan, needs, size):
                        if isinstance(answer, BaseException):
                            raise answer
                        yield answer
                except ray.exceptions.RayError as error:
                    raise CurationError(
                        f"Ray repeatedly lost a worker, or lost its cluster ({last_line(error)}); "
                        "what is done is kept, and the same command resumes"
                    ) from None
        except ClusterError as error:
            raise CurationError(error.line) from None

    def _needs(self, config: CurationConfig) -> dict[str, float]:
        """The resources of one actor, as Ray names them."""
        detector = config.boxes.detector
        devices = {config.quality.device if config.quality.metrics else "cpu"}
        devices.add(detector.device if detector else "cpu")
        devices.add(getattr(config.tagger, "device", "cpu"))
        if numbered := sorted(device for device in devices if device.startswith("cuda:")):
            raise CurationError(
                f"the device {numbered[0]}: Ray gives each worker its own GPU; take cuda"
            )
        gpus = float("cuda" in devices) if self.gpus is None else self.gpus
        return {"CPU": 1.0, "GPU": gpus, "memory": float(self.memory or 0)}


def _answers(
    ray: Any, work: tuple[CurationConfig, Path], plan: Plan, needs: dict[str, float], size: int
) -> Iterator[ChunkDone | Exception]:
    """What came of each chunk, as it gets done; closing the iterator ends the actors."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # each row is a block of its own, passed on at once
    context.execution_options.preserve_order = False
    # the newer reader lists files in tasks of one core, for which actors on all cores leave no room
    context.use_datasource_v2 = False
    # the plan is read beside the driver, on no core: there it cannot be lost without the driver
    here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
    with ray.data.DataContext.current(context):
        chunks = ray.data.read_parquet(str(plan.path), num_cpus=0, label_selector=here)
        answers = chunks.map_batches(
            Worker,
            fn_constructor_args=(*work, Path.cwd(), sys.path),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(
                min_size=1,
                max_size=size,
                initial_size=size,
                max_tasks_in_flight_per_actor=_IN_FLIGHT,
            ),
            num_cpus=needs["CPU"],
            num_gpus=needs["GPU"] or None,
            memory=needs["memory"] or None,
        )
        batches = answers.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    with contextlib.closing(iter(batches)) as results:
        for batch in results:
            yield from map(pickle.loads, batch["answer"].to_pylist())


class Worker:
    """An actor that does chunks; it has its own detector and metrics."""

    def __init__(self, config: CurationConfig, out: Path, folder: Path, modules: list[str]) -> None:
        settle_in(folder, modules, threads=1)
        self._config, self._out = config, out
        self._store = Store(out, config)
        self._lock = contextlib.ExitStack()
        self._do: ChunkWorker | None = None

    def __call__(self, batch: Any) -> Any:
        """A row of the plan → a row with what came of it: a `ChunkDone`, or an exception."""
        import pyarrow as pa

        (row,) = batch.to_pylist()
        try:
            answer: ChunkDone | Exception = self._done(read_chunk(row["id"], row["tasks"]))
        except Exception as error:
            answer = portable(error)
        return pa.table({"answer": pa.array([pickle.dumps(answer)], pa.binary())})

    def _done(self, chunk: Chunk) -> ChunkDone:
        if self._do is None:
            self._check_folder()
            self._lock.enter_context(worker_lock(self._out))
        if self._store.begin(chunk.id) > _LIVES:
            raise CurationError(
                f"{_LIVES} workers were lost over the images from {chunk.tasks[0].image.id} to "
                f"{chunk.tasks[-1].image.id}; what is done is kept, and the same command resumes "
                "(fewer workers need less memory)"
            )
        if self._do is None:
            self._do = ChunkWorker(self._config, self._store, load_models(self._config))
        done = _read_done(self._store, chunk) or self._do(chunk)
        self._store.end(chunk.id)
        return done

    def _check_folder(self) -> None:
        if not (self._store.folder / "settings.json").exists():
            raise CurationError(
                f"{socket.gethostname()} does not see the run in {self._out}; the folder must "
                "be shared, at the same path, by all machines of the cluster"
            )


def _read_done(store: Store, chunk: Chunk) -> ChunkDone | None:
    """What a chunk came to whose worker was lost between its part and the answer."""
    counts = store.counts(chunk.id)
    if counts is None:
        return None
    errors = sum(n for (_, reason), n in counts.items() if reason in ERRORS)
    return ChunkDone(id=chunk.id, images=len(chunk.tasks), errors=errors, counts=counts)
