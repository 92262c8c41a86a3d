"""Pairs to worker processes and back: in order, with little in memory, and past a worker's death.

The process that runs this loads no torch; the workers (`hbr.evaluation.measuring`) do.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from pathlib import Path

from hbr.evaluation.measuring import (
    Availability,
    MeasureConfig,
    Measured,
    Measurer,
    begin,
    work,
)
from hbr.evaluation.pairing import Pair
from hbr.processes import ctrl_c_waits, one_thread_each

Result = tuple[list[Measured], Availability]
Chunk = tuple[Pair, ...]


def measure_all(
    pairs: Sequence[Pair],
    config: MeasureConfig,
    *,
    workers: int,
    batch: int,
    known: Path | None = None,
) -> Iterator[Result]:
    """Measure every pair; results come in the order of the pairs, a batch at a time.

    Args:
        pairs: what to measure.
        config: what is computed.
        workers: processes of one thread each; 0 works in this one.
        batch: pairs that are read, and given to a metric, at once.
        known: a file of values of an earlier run.

    Yields:
        the pairs of a batch, and which metrics could be loaded.
    """
    chunks = [tuple(pairs[i : i + batch]) for i in range(0, len(pairs), batch)]
    if workers == 0:
        measurer = Measurer(config, known)
        for chunk in chunks:
            yield measurer(chunk), measurer.available
        return
    done = 0
    while done < len(chunks):
        for result in _until_broken(chunks[done:], config, workers, known):
            done += 1
            yield result
        if done < len(chunks):
            # one of those that were under way ended its process; which one shows one by one
            suspects = chunks[done : done + 2 * workers]
            done += len(suspects)
            for chunk in suspects:
                yield _one_by_one(chunk, config, known)


def _until_broken(
    chunks: Sequence[Chunk], config: MeasureConfig, workers: int, known: Path | None
) -> Iterator[Result]:
    """Results in order; ends early where a worker has died."""
    with _pool(min(workers, len(chunks)), config, known) as pool:
        waiting: deque[Future[Result]] = deque()
        rest = iter(chunks)
        try:
            while True:
                while len(waiting) < 2 * workers and (chunk := next(rest, None)) is not None:
                    with ctrl_c_waits():
                        waiting.append(pool.submit(work, chunk))
                if not waiting:
                    return
                yield waiting.popleft().result()
        except BrokenProcessPool:
            return
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _one_by_one(chunk: Chunk, config: MeasureConfig, known: Path | None) -> Result:
    """Each pair in a process that nothing else is in, so that only a guilty one is lost."""
    found: list[Measured] = []
    available = Availability()
    for pair in chunk:
        try:
            with _pool(1, config, known) as pool:
                with ctrl_c_waits():
                    future = pool.submit(work, (pair,))
                measured, available = future.result()
            found += measured
        except BrokenProcessPool:
            line = (
                f"{pair.restored.name}: the process that measured it was ended, by want of memory?"
            )
            found.append(Measured(pair, error=line))
    return found, available


@contextlib.contextmanager
def _pool(workers: int, config: MeasureConfig, known: Path | None) -> Iterator[ProcessPoolExecutor]:
    with one_thread_each():
        pool = ProcessPoolExecutor(
            workers, mp_context=_context(), initializer=begin, initargs=(config, known)
        )
        try:
            yield pool
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _context() -> BaseContext:
    """Processes that share what is loaded once, where the system has them."""
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "cv2", "hbr.evaluation.measuring"])
    return context
