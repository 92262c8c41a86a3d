"""Warnings about one file, and what happens to it if it is damaged."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from hbr.errors import PhotoError

log = logging.getLogger("hbr.image")

Truncated = Literal["refuse", "accept"]


@contextlib.contextmanager
def warnings_kept() -> Iterator[list[str]]:
    """Keep the warnings that hbr logs while the block runs, besides what else becomes of them."""
    kept: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: kept.append(" ".join(record.getMessage().split()))  # type: ignore[method-assign]
    logger = logging.getLogger("hbr")
    logger.addHandler(handler)
    try:
        yield kept
    finally:
        logger.removeHandler(handler)


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
