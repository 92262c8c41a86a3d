"""The engine on many machines: Ray Data, with one actor for each core or each part of a GPU.

Chunks, not pixels, travel: an actor gets the description of a chunk, does all its stages with its
own detector and metrics, and writes its part into the run's folder, which all machines share. What
comes back is what it counted.

    sources → desk (an actor beside the driver) → hand_out → workers (actor pool) → driver

The desk holds a chunk from when the source gave it until it is done, so that a chunk that was lost
with a machine is handed out again, and nothing but those few chunks ever lies in memory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import pickle
import signal
import socket
import sys
import threading
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hbr.config import check
from hbr.curation.config import CurationConfig
from hbr.curation.engines.ray_actors import Desk, Worker, hand_out
from hbr.curation.pipeline.chunk import Chunk, ChunkDone, ChunkWork
from hbr.curation.record import CurationError

_IN_FLIGHT = 2  # chunks an actor has: the one it does and the next
_OBJECTS = 128 << 20  # bytes of a store of objects that is started here; chunks are small


@dataclass(frozen=True)
class RayEngine:
    """Actors on a cluster of Ray, or on this machine alone.

    The photos and the run's folder are at the same paths on all machines, and so is `hbr`.

    Attributes:
        address: `auto` for the cluster that this machine belongs to, or `HOST:PORT` of its head.
            None takes the variable RAY_ADDRESS, or starts Ray on this machine for this run.
        workers: how many actors; None takes as many as the cluster has room for at the start.
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
        """Check every field."""
        ok = not (self.address or "").startswith("ray://")
        check(ok, "address", self.address, "auto or HOST:PORT, on a machine of the cluster")
        check(self.workers is None or self.workers >= 1, "workers", self.workers, "1 or more")
        ok = self.gpus is None or 0 <= self.gpus < 1 or self.gpus == int(self.gpus)
        check(ok, "gpus", self.gpus, "a part of one, or whole ones")
        check(self.memory is None or self.memory > 0, "memory", self.memory, "bytes, above 0")

    def run(self, work: ChunkWork, chunks: Iterable[Chunk]) -> Iterator[ChunkDone]:
        """See `hbr.curation.engines.base.Engine`.

        Raises:
            CurationError: Ray is not installed, no cluster answers, it has no room for one actor,
                or one chunk took one worker after the other down.
        """
        needs = self._needs(work.config)
        waiting = iter(chunks)
        first = next(waiting, None)
        if first is None:
            return
        work = dataclasses.replace(work, out=work.out.absolute())
        with _connected(self) as ray:
            try:
                yield from self._flow(ray, work, needs, first, waiting)
            except ray.exceptions.RayError as error:
                raise CurationError(
                    f"Ray lost a worker again and again, or its cluster ({_last_line(error)}); "
                    "what is done is kept, and the same command goes on"
                ) from None

    def _needs(self, config: CurationConfig) -> dict[str, float]:
        """What one actor takes of a machine, in the words of Ray's resources."""
        detector = config.boxes.detector
        devices = {config.quality.device if config.quality.metrics else "cpu"}
        devices.add(detector.device if detector else "cpu")
        if numbered := sorted(device for device in devices if device.startswith("cuda:")):
            raise CurationError(
                f"the device {numbered[0]}: Ray gives each worker its own GPU; take cuda"
            )
        gpus = float("cuda" in devices) if self.gpus is None else self.gpus
        return {"CPU": 1.0, "GPU": gpus, "memory": float(self.memory or 0)}

    def _flow(
        self,
        ray: Any,
        work: ChunkWork,
        needs: dict[str, float],
        first: Chunk,
        rest: Iterator[Chunk],
    ) -> Iterator[ChunkDone]:
        """Feed the cluster, one chunk for each that is done."""
        size = self._size(ray, needs)
        ahead = (_IN_FLIGHT + 1) * size + 2
        desk = _open_desk(ray)
        results = _results(ray, desk, work, needs, size)
        try:
            given = done = 0
            chunk: Chunk | None = first
            while True:
                while chunk is not None and given - done < ahead:
                    desk.put.remote(given, pickle.dumps(chunk))
                    given += 1
                    chunk = next(rest, None)
                    if chunk is None:
                        desk.end.remote(given)
                result = next(results, None)
                if result is None:
                    return
                number, answer = result
                desk.done.remote(number)
                done += 1
                if isinstance(answer, BaseException):
                    raise answer
                yield answer
        finally:
            results.close()
            ray.kill(desk)  # workers that still have a chunk notice, and leave

    def _size(self, ray: Any, needs: dict[str, float]) -> int:
        """How many actors; there is room for them, at least for one."""
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        room = sum(
            min(int(has.get(name, 0) / n + 1e-6) for name, n in needs.items() if n)
            for has in machines
        )
        if not room:
            wanted = ", ".join(f"{n:g} {name}" for name, n in needs.items() if n)
            raise CurationError(
                f"no machine of the {len(machines)} of the cluster has room for one worker, which "
                f"needs {wanted}"
            )
        return room if self.workers is None else min(self.workers, room)


@contextlib.contextmanager
def _connected(engine: RayEngine) -> Iterator[Any]:
    """Ray, running; what was started here ends with the block."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing is told to anybody
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # the rest is in Ray's own files
    try:
        import ray
        import ray.data
    except ImportError:
        raise CurationError(
            "--engine ray needs the extra `ray`: pip install 'hbr[ray]' brings Ray Data"
        ) from None
    if ray.is_initialized():
        yield ray
        return
    address = engine.address or os.environ.get("RAY_ADDRESS") or "local"
    options: dict[str, Any] = {"address": address}
    if address == "local":
        options |= {"include_dashboard": False, "object_store_memory": _OBJECTS}
        options["num_cpus"] = engine.workers
    with _signals_kept():
        try:
            _knock(address)
            ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError) as error:
            ray.shutdown()
            raise CurationError(
                f"no cluster of Ray can be reached at {address} ({_last_line(error)})"
            ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Look for somebody at HOST:PORT; Ray itself would go on looking for minutes.

    Raises:
        OSError: nobody is there.
        ValueError: it is no such address.
    """
    if address in ("auto", "local"):
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError("it is not of the form HOST:PORT, nor auto")
    socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray puts its own answer to SIGTERM in place of the program's."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _open_desk(ray: Any) -> Any:
    """The desk, on the machine of the driver: they end together anyway."""
    return ray.remote(Desk).options(num_cpus=0, label_selector=_here(ray)).remote()


def _here(ray: Any) -> dict[str, str]:
    return {"ray.io/node-id": ray.get_runtime_context().get_node_id()}


def _results(
    ray: Any, desk: Any, work: ChunkWork, needs: dict[str, float], size: int
) -> Generator[tuple[int, Any], None, None]:
    """Number of a chunk and what came of it: a `ChunkDone`, or an exception."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # each row is a block of its own, and goes on at once
    context.execution_options.preserve_order = False
    with ray.data.DataContext.current(context):
        chunks = ray.data.from_items([0], override_num_blocks=1).map_batches(
            hand_out,
            fn_kwargs={"desk": desk},
            batch_size=None,
            num_cpus=0,
            label_selector=_here(ray),
        )
        answers = chunks.map_batches(
            Worker,
            fn_constructor_args=(work, desk, Path.cwd(), sys.path),
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
    for batch in batches:
        for row in batch.to_pylist():
            if row["answer"]:
                yield row["number"], pickle.loads(row["answer"])


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
