"""Worker processes: their number, the process pool, and the signals that stop them.

`pool_map` is the only process pool. It is built on `multiprocessing` rather than
`concurrent.futures`, whose pool breaks as a whole when one worker dies, and does not report which
item the worker was processing or how it ended.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from types import FrameType
from typing import Any, Generic, TypeVar

from hbr.errors import with_type

Item = TypeVar("Item")
Result = TypeVar("Result")

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables that set the number of threads of libraries when they are loaded."""

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_AHEAD = 4  # results per worker that may wait for an earlier one
_GRACE = 10.0  # seconds that a worker has to finish writing


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads() -> int:
    """Return the number of threads that `set_threads` or the environment set, else `cores`."""
    given = os.environ.get(THREADS[0], "")
    return int(given) if given.isdecimal() and int(given) > 0 else cores()


def set_threads(number: int | None) -> None:
    """Set the number of threads of libraries, loaded or not; None leaves it to them."""
    if number is None:
        return
    os.environ.update(dict.fromkeys(THREADS, str(number)))
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(number)


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """Make processes that are started in this block use one thread each."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def block_sigint() -> Iterator[None]:
    """Block Ctrl-C in this block: child processes never get it, this process gets it afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class StopSignals:
    """Turns Ctrl-C and SIGTERM into one `KeyboardInterrupt` while the context is active.

    The first signal raises; later ones are ignored, so that an impatient second Ctrl-C does not
    interrupt the clean-up. If a library swallows the exception (as Python itself does in a
    destructor), `check` raises it again.

    Args:
        raises: raise at the first signal; if false, only `received` and `check` report it.
    """

    def __init__(self, *, raises: bool = True) -> None:
        self.received: int | None = None
        self._raises = raises
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        for number in STOP_SIGNALS:
            # a background job of a shell keeps ignoring Ctrl-C
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise if a signal was received.

        Raises:
            KeyboardInterrupt: a signal was received.
        """
        if self.received is not None:
            raise KeyboardInterrupt

    def _stop(self, number: int, _: FrameType | None) -> None:
        if self.received is None:
            self.received = number
            if self._raises:
                raise KeyboardInterrupt


@dataclass(frozen=True)
class WorkerDied(Generic[Item]):
    """What `pool_map` yields in place of a result if the worker process died.

    Attributes:
        item: the item that the worker was processing.
        ending: how the process ended: `was killed (SIGKILL)`, `ended with code 1`.
    """

    item: Item
    ending: str


def pool_map(
    open_worker: Callable[[], Callable[[Item], Result]],
    items: Iterable[Item],
    *,
    workers: int,
    ordered: bool = True,
    memory: int | None = None,
    preload: Sequence[str] = (),
) -> Generator[Result | WorkerDied[Item], None, None]:
    """Map a function over items in worker processes of one thread each.

    Items are taken from the iterable as workers become free, so it may be long. A worker that dies
    is replaced, and the result of its item is a `WorkerDied`. Only this process receives Ctrl-C:
    closing the generator, by an exception or before its end, stops all workers immediately, except
    in a `finishing` block. Workers also stop when this process dies.

    Args:
        open_worker: called once in each worker; returns the function. Must be picklable.
        items: arguments of the function, picklable.
        workers: number of processes, 1 or more.
        ordered: yield results in the order of the items; otherwise as they are ready.
        memory: limit in bytes for this process and its workers. Above it, workers get no new items
            while another is busy, and idle ones are replaced. None sets no limit.
        preload: modules to load once and share between the workers, if the system supports it.

    Raises:
        Exception: raised by the function or by `open_worker`.
    """
    pool = _Pool(open_worker, workers, memory, preload)
    waiting = enumerate(items)
    finished: dict[int, Any] = {}
    turn = 0
    try:
        upcoming = next(waiting, None)
        while upcoming is not None or pool.busy:
            while upcoming is not None and upcoming[0] < turn + _AHEAD * workers:
                if not pool.give(*upcoming):
                    break
                upcoming = next(waiting, None)  # read one item ahead while they work
            finished.update(pool.collect())
            while finished and (turn in finished or not ordered):
                result = finished.pop(turn if ordered else next(iter(finished)))
                turn += 1
                if isinstance(result, _Raised):
                    raise result.error
                yield result
    finally:
        pool.stop()


@contextlib.contextmanager
def finishing() -> Iterator[None]:
    """In a worker of a pool, delay termination until the block, such as writing a file, ends."""
    if not _is_worker:
        yield
        return
    received: list[int] = []
    with _finishing:
        signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            if received:
                os._exit(1)


def portable(error: Exception) -> Exception:
    """Return the exception, or a `RuntimeError` with its message if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(with_type(error))
    return error


@dataclass(frozen=True)
class _Raised:
    error: Exception


class _Pool:
    """The worker processes of one `pool_map`."""

    def __init__(
        self, open_worker: Callable[[], Any], workers: int, memory: int | None, preload: Any
    ) -> None:
        self.busy: dict[Connection, tuple[_Process, int, Any]] = {}
        self._idle: list[_Process] = []
        self._open_worker, self._workers, self._memory = open_worker, workers, memory
        self._context = worker_context(preload)

    def give(self, number: int, item: Any) -> bool:
        """Send an item to a worker; return False if none is free or memory is short."""
        if self._memory is not None and self._in_use() > self._memory:
            self._stop(self._idle)
            if self.busy:
                return False
        while self._idle or len(self.busy) < self._workers:
            process = self._idle.pop() if self._idle else _Process(self._context, self._open_worker)
            self.busy[process.pipe] = process, number, item
            try:
                process.pipe.send(item)
                return True
            except ConnectionError:  # it died while it was idle
                del self.busy[process.pipe]
                self._stop([process])
        return False

    def collect(self) -> Iterator[tuple[int, Any]]:
        """Wait for results; yield the number of each item and its result."""
        for pipe in wait(list(self.busy)):
            assert isinstance(pipe, Connection)
            process, number, item = self.busy[pipe]
            try:
                result = pipe.recv()
                self._idle.append(process)
            except (EOFError, ConnectionError):
                process.end.join()
                result = WorkerDied(item, _ending(process.end.exitcode))
                pipe.close()
            del self.busy[pipe]
            yield number, result

    def stop(self) -> None:
        """Stop all workers."""
        self._stop([*self._idle, *(process for process, _, _ in self.busy.values())])

    @staticmethod
    def _stop(processes: list[_Process]) -> None:
        for process in processes:
            process.end.terminate()
        for process in processes:
            process.end.join(_GRACE)
            if process.end.is_alive():
                process.end.kill()
                process.end.join()
            process.pipe.close()
        processes.clear()

    def _in_use(self) -> int:
        import psutil

        processes = [*self._idle, *(process for process, _, _ in self.busy.values())]
        total = 0
        for pid in (os.getpid(), *(process.end.pid for process in processes)):
            with contextlib.suppress(psutil.Error):
                total += psutil.Process(pid).memory_info().rss
        return total


class _Process:
    """A worker's process and the pipe to it."""

    def __init__(self, context: Any, open_worker: Callable[[], Any]) -> None:
        self.pipe, theirs = context.Pipe()
        self.end = context.Process(target=_serve, args=(open_worker, theirs), daemon=True)
        with one_thread_each(), block_sigint():
            self.end.start()
        theirs.close()


def worker_context(preload: Sequence[str]) -> BaseContext:
    """Return a start method with fresh interpreters, which inherit no threads or held locks.

    The modules of `preload` are loaded once and shared, if the system supports it. Otherwise each
    process imports for itself before it reads what it is given, and those started after it wait.
    """
    if not preload or sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    return context


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"was killed ({signal.Signals(-code).name})"
    return f"ended with code {code}"


# in a worker process: that it is one, and a lock that delays its exit
_is_worker = False
_finishing = threading.Lock()


def _serve(open_worker: Callable[[], Callable[[Any], Any]], pipe: Connection) -> None:
    """Run a worker: receive items and send results until the pipe is closed."""
    global _is_worker
    _is_worker = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    work: Callable[[Any], Any] | None = None
    while True:
        try:
            item = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            work = work or open_worker()
            result = work(item)
        except Exception as error:
            result = _Raised(portable(error))
        with contextlib.suppress(OSError):  # the parent has closed the pipe
            pipe.send(result)


def _end_with_parent() -> None:
    """Exit when the parent dies; after a kill, workers would otherwise wait for items forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    with _finishing:
        os._exit(1)
