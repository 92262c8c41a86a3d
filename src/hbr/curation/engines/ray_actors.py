"""What `engine_ray` runs on a cluster: the desk that holds chunks, and the workers that do them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hbr.curation.pipeline.chunk import Chunk, ChunkDone, ChunkWork
from hbr.curation.pipeline.store import Store, read_records, working
from hbr.curation.record import ERRORS, CurationError, count
from hbr.processes import THREADS, portable

_LIVES = 3  # how many workers may be lost over one chunk
_ASK = 1.0  # seconds after which a worker asks again whether somebody waits


class Desk:
    """An actor beside the driver: the chunks that are not done yet, by number."""

    def __init__(self) -> None:
        self._chunks: dict[int, bytes] = {}
        self._begun = Counter[int]()
        self._done: set[int] = set()
        self._end: int | None = None
        self._news = asyncio.Condition()

    async def put(self, number: int, chunk: bytes) -> None:
        """Take in a chunk."""
        async with self._news:
            self._chunks[number] = chunk
            self._news.notify_all()

    async def end(self, number: int) -> None:
        """There are no chunks from this number on."""
        async with self._news:
            self._end = number
            self._news.notify_all()

    async def done(self, number: int) -> None:
        """Forget a chunk."""
        self._done.add(number)
        self._chunks.pop(number, None)

    async def take(self, number: int) -> bytes | None:
        """A chunk, once it is there; b"" if it is done already, None behind the last one."""

        def known() -> bool:
            return number in self._chunks or number in self._done or number == self._end

        async with self._news:
            await self._news.wait_for(known)
            return None if number == self._end else self._chunks.get(number, b"")

    async def begin(self, number: int) -> int:
        """How many workers have begun with a chunk, this one included."""
        self._begun[number] += 1
        return self._begun[number]

    async def here(self) -> bool:
        """Whether somebody still waits: an answer says so."""
        return True


def hand_out(_: Any, desk: Any) -> Iterator[Any]:
    """Chunks as rows, as they come; begun anew after a loss, it gives the same numbers again."""
    import pyarrow as pa
    import ray

    number = 0
    while (chunk := ray.get(desk.take.remote(number))) is not None:
        yield pa.table({"number": [number], "chunk": pa.array([chunk], pa.binary())})
        number += 1


class Worker:
    """An actor that does chunks; it has its own detector and metrics."""

    def __init__(self, work: ChunkWork, desk: Any, folder: Path, modules: list[str]) -> None:
        os.environ.update(dict.fromkeys(THREADS, "1"))
        sys.path += [path for path in modules if path not in sys.path]  # a tagger's, say
        with contextlib.suppress(OSError):
            os.chdir(folder)  # paths of the configuration count from there
        self._work = work
        self._desk = desk
        self._asked = time.monotonic()
        self._lock = contextlib.ExitStack()
        self._do: Any = None

    def __call__(self, batch: Any) -> Any:
        """A row with a chunk → a row with what came of it."""
        import pyarrow as pa

        number, chunk = (batch[name][0].as_py() for name in ("number", "chunk"))
        answer = pickle.dumps(self._answer(number, pickle.loads(chunk))) if chunk else b""
        return pa.table({"number": batch["number"], "answer": pa.array([answer], pa.binary())})

    def _answer(self, number: int, chunk: Chunk) -> ChunkDone | Exception:
        import ray

        try:
            if ray.get(self._desk.begin.remote(number)) > _LIVES:
                raise CurationError(
                    f"{_LIVES} workers were lost over the images from {chunk.tasks[0].image.id} to "
                    f"{chunk.tasks[-1].image.id}; what is done is kept, and the same command goes "
                    "on (fewer workers need less memory)"
                )
            if self._do is None:
                self._check_folder()
                self._lock.enter_context(working(self._work.out))
                self._do = self._work.open()
            return _read_done(self._work, chunk) or self._do(chunk, go_on=self._go_on)
        except InterruptedError:
            raise
        except Exception as error:
            return portable(error)

    def _check_folder(self) -> None:
        if not (Store(self._work.out, self._work.config).folder / "settings.json").exists():
            raise CurationError(
                f"{socket.gethostname()} does not see the run in {self._work.out}; the folder must "
                "be shared, at the same path, by all machines of the cluster"
            )

    def _go_on(self) -> bool:
        """Whether the driver is there; a machine that has lost it must not write."""
        import ray

        if time.monotonic() - self._asked > _ASK:
            try:
                ray.get(self._desk.here.remote(), timeout=60)
            except ray.exceptions.RayError:
                return False
            self._asked = time.monotonic()
        return True


def _read_done(work: ChunkWork, chunk: Chunk) -> ChunkDone | None:
    """What a chunk came to whose worker was lost between its part and the answer."""
    import pyarrow.parquet as pq

    part = Store(work.out, work.config).folder / "parts" / f"{chunk.id}.parquet"
    if not part.exists():
        return None
    records = list(read_records(pq.read_table(part, memory_map=False)))
    errors = sum(record.reason in ERRORS for record in records)
    return ChunkDone(chunk.id, len(chunk.tasks), errors, count(records))
