"""Warnings about one file, and what happens to it if it is damaged."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from hbr.errors import PhotoError

log = logging.getLogger("hbr.image")

Truncated = Literal["refuse", "accept"]


@contextlib.contextmanager
def warnings_kept() -> Iterator[list[str]]:
    """Collect the warnings that hbr logs while the block runs; they are still logged."""
    kept: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: kept.append(" ".join(record.getMessage().split()))  # type: ignore[method-assign]
    logger = logging.getLogger("hbr")
    logger.addHandler(handler)
    try:
        yield kept
    finally:
        logger.removeHandler(handler)


_held: ContextVar[list[logging.LogRecord] | None] = ContextVar("_held", default=None)


@contextlib.contextmanager
def messages_held() -> Iterator[list[logging.LogRecord]]:
    """Hold back what this thread logs by hbr's loggers while the block runs, for `log_held`."""
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if name.partition(".")[0] == "hbr" and isinstance(logger, logging.Logger):
            logger.addFilter(_passes)
    kept: list[logging.LogRecord] = []
    token = _held.set(kept)
    try:
        yield kept
    finally:
        _held.reset(token)


def log_held(messages: Iterable[logging.LogRecord]) -> None:
    """Log what was held back."""
    for record in messages:
        logging.getLogger(record.name).handle(record)


def _passes(record: logging.LogRecord) -> bool:
    """Whether a message is logged now; a filter of loggers."""
    kept = _held.get()
    if kept is not None:
        kept.append(record)
    return kept is None


_PILLOW = r"PIL\."
_quiet_lock = threading.Lock()
_quiet = 0


@contextlib.contextmanager
def pillow_quiet() -> Iterator[None]:
    """Ignore Pillow's warnings, as of broken EXIF, while the block runs in any thread.

    `warnings.catch_warnings` is not thread-safe: the one that ends last restores the filters that
    another had set. Here the first to begin adds one filter, and the last to end removes it.
    """
    global _quiet
    with _quiet_lock:
        _quiet += 1
        if _quiet == 1:
            warnings.filterwarnings("ignore", module=_PILLOW)
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet -= 1
            if not _quiet:
                added = ("ignore", None, Warning, re.compile(_PILLOW), 0)
                with contextlib.suppress(ValueError):  # somebody reset the filters meanwhile
                    cast(list[Any], warnings.filters).remove(added)


@dataclass(frozen=True)
class Notes:
    """Collects the warnings about one file while it is read or written.

    Attributes:
        name: of the file, for messages.
        strict: whether a warning makes the file unreadable.
        truncated: `accept` reads what is there of a file that is cut short, and takes damage as a
            warning even if `strict`.
        warnings: so far, without the name.
    """

    name: str
    strict: bool = False
    truncated: Truncated = "refuse"
    warnings: list[str] = field(default_factory=list)

    def warn(self, text: str) -> None:
        """Log a guess or a loss.

        Raises:
            PhotoError: `strict`.
        """
        if self.strict:
            raise PhotoError(f"{self.name}: {text}; without --strict this is a warning")
        self._log(text)

    def damaged(self, text: str) -> None:
        """Log that the data are corrupt, although a picture comes out.

        Raises:
            PhotoError: `strict`, and damage is not accepted.
        """
        if self.truncated == "accept":
            self._log(text)
        else:
            self.warn(text)

    def cut_short(self, text: str) -> None:
        """Log that a part of the picture is missing.

        Raises:
            PhotoError: damage is not accepted.
        """
        if self.truncated == "refuse":
            raise PhotoError(
                f"{self.name}: {text}; get an undamaged copy, or read what is there with "
                "--truncated accept"
            )
        self._log(text)

    def _log(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)
            log.warning("%s: %s", self.name, text)
