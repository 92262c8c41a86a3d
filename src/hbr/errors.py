"""The base class of hbr's errors, exit codes, and formatting errors as one line.

Every error class of hbr derives from `HbrError`, which provides the exit code, the HTTP status, and
the message on one line, and from the built-in exception that a caller may expect (`ValueError`,
`MemoryError`, …).

HTTP statuses:

* 409: the request does not fit the state of a study.
* 422: the input or the settings cannot be processed (photos, configurations, annotations).
* 500: the work failed for a reason unrelated to the request.
* 502: another service, such as a model hub, cannot be reached or refuses.
* 503: weights, or a package that they need, are missing or damaged on this machine.
* 507: memory ran out; a smaller request may succeed.
"""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path
from typing import Any, ClassVar


class ExitCode(IntEnum):
    """Exit codes of the commands."""

    OK = 0
    """Everything was done."""
    NOTHING = 1
    """None of the inputs was done, or another error."""
    USAGE = 2
    """The usage or the configuration is invalid."""
    SOME = 3
    """Some inputs were done, some failed."""
    WEIGHTS = 4
    """Weights are missing or invalid."""
    MEMORY = 5
    """Out of memory."""
    INTERRUPTED = 130
    """Interrupted by Ctrl-C."""
    BROKEN_PIPE = 141
    """The reader of the output closed the pipe."""

    @classmethod
    def of(cls, *, done: int, failed: int) -> ExitCode:
        """Return `OK`, `SOME` or `NOTHING`, by the number of inputs that were done and failed."""
        if not failed:
            return cls.OK
        return cls.SOME if done else cls.NOTHING


class HbrError(Exception):
    """The base class of hbr's errors; the message says what is wrong and what to do.

    Attributes:
        exit_code: exit code of a command that fails with the error.
        http_status: status of a response that reports the error.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.NOTHING
    http_status: ClassVar[int] = 500

    @property
    def line(self) -> str:
        """The message on one line."""
        return one_line(self)


class OutOfMemoryError(HbrError, MemoryError):
    """Out of memory, even with the smallest size tried; the message says what needs less."""

    exit_code = ExitCode.MEMORY
    http_status = 507


class PhotoError(HbrError, ValueError):
    """A photo cannot be read or written; the message is "PATH: what is wrong; what to do"."""

    http_status = 422


class OutputError(PhotoError):
    """The place of the outputs takes no more: it is full, read-only or gone.

    Whatever else is written there fails too, so a batch ends with this error.
    """


def one_line(error: BaseException, limit: int | None = None) -> str:
    """Return the message of an error on one line, or the name of its class if it is empty.

    The line is cut after `limit` characters.
    """
    return " ".join(str(error).split())[:limit] or type(error).__name__


def with_type(error: BaseException, limit: int | None = None) -> str:
    """Return the class and message of an error on one line, as in `ValueError: message`."""
    line, name = one_line(error, limit), type(error).__name__
    return line if line == name else f"{name}: {line}"


def reason(error: BaseException) -> str:
    """Return the reason of an error on one line, for a table or a log.

    This is the message for hbr's own errors, `ValueError` and `MemoryError`; the file and the
    system's message for an `OSError`; and otherwise the message preceded by the class.
    """
    if isinstance(error, OSError) and error.strerror and not isinstance(error, HbrError):
        names = [display_name(n) for n in (error.filename, error.filename2) if n is not None]
        return ": ".join([*names, error.strerror])
    if isinstance(error, HbrError | ValueError | MemoryError):
        return one_line(error)
    return with_type(error)


def display_name(source: Any) -> str:
    """Return the name of a path or file for a message: on one line, printable in any terminal."""
    name = source if isinstance(source, str | bytes | Path) else getattr(source, "name", "input")
    name = name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else str(name)
    name = name.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in name)
