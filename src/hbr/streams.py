"""What C libraries write to stderr, caught before it reaches the terminal."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import TextIO

_LOCK = threading.RLock()


@contextlib.contextmanager
def native_stderr(is_ours: Callable[[str], bool]) -> Iterator[list[str]]:
    """Catch lines that C code writes to stderr within the block.

    The file descriptor belongs to the whole process: what is not recognised, as a line of another
    thread, is passed on after the block. Blocks of several threads wait for each other, so they
    should be short.

    Args:
        is_ours: whether a line is one of those expected.

    Yields:
        A list that holds the lines after the block.
    """
    lines: list[str] = []
    with _LOCK, contextlib.ExitStack() as undo:
        try:
            saved = os.dup(2)
            undo.callback(os.close, saved)
            caught = undo.enter_context(tempfile.TemporaryFile())
        except OSError:  # stderr is closed, or the disk is full
            yield lines
            return
        _flush()
        os.dup2(caught.fileno(), 2)
        try:
            yield lines
        finally:
            _flush()
            os.dup2(saved, 2)
            caught.seek(0)
            others = b""
            for raw in caught.read().splitlines(keepends=True):
                line = raw.decode("utf-8", "replace").strip()
                if is_ours(line):
                    lines.append(line)
                else:
                    others += raw
            if others:
                os.write(2, others)


@contextlib.contextmanager
def stderr_to(report: Callable[[str], None]) -> Iterator[None]:
    """Hand each line that is written to the file descriptor of stderr to `report`.

    Python's own `sys.stderr` goes on to where stderr led before. For the time of a whole command
    whose stderr is read by a program.
    """
    try:
        saved = os.dup(2)
        reading, writing = os.pipe()
    except OSError:
        yield
        return
    _flush()
    before = sys.stderr
    os.dup2(writing, 2)
    os.close(writing)
    ours = os.fdopen(saved, "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    if _is_descriptor_2(before):
        sys.stderr = ours

    def drain() -> None:
        with os.fdopen(reading, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.strip():
                    report(line.strip())

    thread = threading.Thread(target=drain, daemon=True)
    thread.start()
    try:
        yield
    finally:
        # The last writer is closed by this, and the thread sees the end.
        os.dup2(saved, 2)
        thread.join(timeout=5)
        sys.stderr = before
        ours.close()


def _is_descriptor_2(stream: TextIO) -> bool:
    """Whether a stream writes to the stderr of the process, and is not replaced by another."""
    try:
        return stream.fileno() == 2
    except (AttributeError, OSError, ValueError):
        return False


def _flush() -> None:
    with contextlib.suppress(Exception):
        sys.stderr.flush()
