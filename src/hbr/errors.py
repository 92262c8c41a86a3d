"""Errors: the base class of all of hbr's own, exit codes, and how an error becomes one line.

Every error class of hbr derives from `HbrError` and carries what the command line and a web service
need: the exit code, the HTTP status, and the message on one line. It also derives from the built-in
exception that a caller may expect (`ValueError`, `MemoryError`, …).

HTTP statuses:

* 409: the request does not fit the state of a study.
* 422: the input or the settings cannot be processed (photos, configurations, annotations).
* 500: the work failed for a reason that the request does not decide.
* 502: another service, as a model hub, cannot be reached or refuses.
* 503: weights, or a package that they need, are missing or damaged on this machine.
* 507: memory ran out; a smaller request may succeed.
"""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path
from typing import Any, ClassVar


class ExitCode(IntEnum):
    """What the exit code of a command means."""

    OK = 0
    """Everything was done."""
    NOTHING = 1
    """None of the inputs was done, or an error that no other code stands for."""
    USAGE = 2
    """The command or its configuration is wrong."""
    SOME = 3
    """Some inputs were done, some failed."""
    WEIGHTS = 4
    """Weights are missing or wrong."""
    MEMORY = 5
    """Out of memory."""
    INTERRUPTED = 130
    """Interrupted by Ctrl-C."""
    BROKEN_PIPE = 141
    """The reader of the output has closed it."""


class HbrError(Exception):
    """The base of every error class of hbr: its message says what is wrong and what to do.

    Attributes:
        exit_code: the exit code of a command that ends with it.
        http_status: the status of a response that reports it.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.NOTHING
    http_status: ClassVar[int] = 500

    @property
    def line(self) -> str:
        """The message on one line."""
        return one_line(self)


class OutOfMemoryError(HbrError, MemoryError):
    """Memory ran out, also with the least that could be tried; the message says what needs less."""

    exit_code = ExitCode.MEMORY
    http_status = 507


class PhotoError(HbrError, ValueError):
    """A photograph that cannot be read or written: "PATH: what is wrong; what to do"."""

    http_status = 422


def one_line(error: BaseException, limit: int | None = None) -> str:
    """The message of an error on one line; the name of its class if it has none.

    Args:
        error: any exception.
        limit: the number of characters after which the message is cut.
    """
    return " ".join(str(error).split())[:limit] or type(error).__name__


def with_type(error: BaseException, limit: int | None = None) -> str:
    """The class and the message of an error, as `ValueError: message`, on one line."""
    line, name = one_line(error, limit), type(error).__name__
    return line if line == name else f"{name}: {line}"


def reason(error: BaseException) -> str:
    """Why something failed, on one line, for a table or a log.

    Messages of hbr's own errors, and of `ValueError` and `MemoryError`, speak for themselves; of an
    `OSError` the file and the system's words are given; any other has its class before it.
    """
    if isinstance(error, OSError) and error.strerror and not isinstance(error, HbrError):
        names = [display_name(n) for n in (error.filename, error.filename2) if n is not None]
        return ": ".join([*names, error.strerror])
    if isinstance(error, HbrError | ValueError | MemoryError):
        return one_line(error)
    return with_type(error)


def display_name(source: Any) -> str:
    """The name of a path or file for a message: one line, printable in any terminal."""
    name = source if isinstance(source, str | bytes | Path) else getattr(source, "name", "input")
    name = name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else str(name)
    name = name.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in name)
