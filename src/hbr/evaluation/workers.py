"""Pairs to worker processes and back: in order, with little in memory, and past a worker's death.

The process that runs this loads no torch; the workers (`hbr.evaluation.measuring`) do.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
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

Result = tuple[list[Measured], Availability]
Chunk = tuple[Pair, ...]

# libraries choose their number of threads when they are loaded
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
                    with _ctrl_c_waits():
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
                with _ctrl_c_waits():
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
    with _one_thread_each():
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


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _ctrl_c_waits() -> Iterator[None]:
    """Processes that are started meanwhile never see Ctrl-C; this one sees it afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
