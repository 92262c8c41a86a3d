"""The pool of worker processes: order, back-pressure, and workers that fail or die."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from hbr.processes import STOP_SIGNALS, StopSignals, WorkerDied, finishing, pool_map


def open_squares(folder: Path | None = None) -> Callable[[int], tuple[int, int]]:
    """Squares, and the process that computed them."""

    def square(n: int) -> tuple[int, int]:
        if n < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if n == 13:
            os._exit(7)
        if folder is not None:
            with finishing():
                (folder / f"{n}.begun").touch()
                time.sleep(0.5)
                (folder / f"{n}.done").touch()
            time.sleep(60)
        return n * n, os.getpid()

    return square


class TwoPartsError(Exception):
    """Cannot be unpickled."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} and {other}")


def open_failing(where: str) -> Callable[[int], int]:
    """Raises when it is opened, or when it is called."""
    if where == "open":
        raise FileNotFoundError(2, "No such file", "weights")

    def fail(n: int) -> int:
        raise TwoPartsError("one", "other")

    return fail


def test_results_come_in_the_order_of_the_items_however_many() -> None:
    found = list(pool_map(open_squares, range(12), workers=2))
    assert [square for square, _ in found] == [n * n for n in range(12)]
    assert os.getpid() not in {pid for _, pid in found}
    assert len({pid for _, pid in found}) <= 2
    free = list(pool_map(open_squares, range(12), workers=2, ordered=False))
    assert sorted(square for square, _ in free) == [n * n for n in range(12)]
    assert list(pool_map(open_squares, [], workers=2)) == []


def test_items_are_taken_no_faster_than_results() -> None:
    taken = []

    def items() -> Iterator[int]:
        for n in range(40):
            taken.append(n)
            yield n

    for done, _ in enumerate(pool_map(open_squares, items(), workers=1)):
        assert len(taken) - done <= 6
    assert len(taken) == 40


def test_a_worker_that_dies_costs_its_item_and_is_replaced() -> None:
    found = list(pool_map(open_squares, [1, -1, 2, 13, 3], workers=1))
    assert found[1] == WorkerDied(-1, "was killed (SIGKILL)")
    assert found[3] == WorkerDied(13, "ended with code 7")
    squares = [result for result in found if not isinstance(result, WorkerDied)]
    assert [square for square, _ in squares] == [1, 4, 9]
    assert len({pid for _, pid in squares}) == 3


def worker_threads(pid: int) -> int:
    """The pipe is open as long as one of them is there."""
    tasks = Path(f"/proc/{pid}/task")
    return len(list(tasks.iterdir())) if tasks.exists() else 1


def test_a_worker_that_is_killed_while_idle_is_replaced() -> None:
    results = pool_map(open_squares, iter([2, 3]), workers=1)
    square, pid = next(results)
    worker = psutil.Process(pid)
    worker.kill()
    until = time.monotonic() + 10
    while worker.status() != psutil.STATUS_ZOMBIE or worker_threads(pid) > 1:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert (square, [again for again, _ in results]) == (4, [9])


@pytest.mark.parametrize(
    ("where", "kind", "text"),
    [
        ("open", FileNotFoundError, "weights"),
        ("call", RuntimeError, "TwoPartsError: one and other"),
    ],
)
def test_what_a_worker_raises_is_raised_here(where: str, kind: type, text: str) -> None:
    with pytest.raises(kind, match=text):
        list(pool_map(partial(open_failing, where), range(3), workers=2))


def test_above_the_memory_limit_one_works_at_a_time_in_a_fresh_process() -> None:
    found = list(pool_map(open_squares, range(3), workers=2, memory=1))
    assert [square for square, _ in found] == [0, 1, 4]
    assert len({pid for _, pid in found}) == 3


def test_what_is_being_finished_is_not_cut_short(tmp_path: Path) -> None:
    def items() -> Iterator[int]:
        yield 1
        until = time.monotonic() + 60
        while not (tmp_path / "1.begun").exists():
            assert time.monotonic() < until
            time.sleep(0.01)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(pool_map(partial(open_squares, tmp_path), items(), workers=1))
    assert (tmp_path / "1.done").exists()
    assert not [p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())]


def test_stop_signals_may_only_be_noted() -> None:
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    with StopSignals(raises=False) as stop:
        stop.check()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert stop.received == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            stop.check()
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before
