"""What `hbr restore` says: data to stdout, logs to stderr, and a bar where a person looks on."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.progress import Progress

    from hbr.restoration.batch import BatchTally, FileRecord


class Reporter(logging.Handler):
    """Lines for people, or one JSON object a line for programs."""

    def __init__(self, *, as_json: bool) -> None:
        """Say it as text, or as JSON."""
        super().__init__()
        self._as_json = as_json
        self._bar: Progress | None = None
        self._files = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take over what hbr logs; names of files go to stdout byte for byte."""
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(
                encoding=sys.getfilesystemencoding(), errors=sys.getfilesystemencodeerrors()
            )
        logger = logging.getLogger("hbr")
        debug = os.environ.get("HBR_DEBUG", "0") not in ("", "0")
        logger.setLevel(logging.DEBUG if debug else logging.WARNING)
        logger.addHandler(self)
        try:
            yield
        finally:
            logger.removeHandler(self)

    @contextmanager
    def bar(self, files: int) -> Iterator[None]:
        """Show a progress bar with the time that is left, if stderr is a terminal."""
        if not sys.stderr.isatty():
            yield
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        # Redirecting would send stdout to stderr where only that is a terminal.
        with Progress(
            *columns,
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=False,
        ) as self._bar:
            self._bar.add_task("", total=files)
            try:
                yield
            finally:
                self._bar = None

    def tiles(self, done: int, total: int) -> None:
        """Move the bar within a photo."""
        self._move(self._files + done / total)

    def moved(self, done: int, total: int) -> None:
        """Move the bar, which has `total` steps."""
        self._files = done
        self._move(done)

    def record(self, record: FileRecord) -> None:
        """What became of an input."""
        if record.was_tried:
            self._files += 1
            self._move(self._files)
        if record.error is not None:
            self.say("error", record.error)
        if self._as_json:
            typer.echo(json.dumps(record.as_json()))
        elif record.status == "planned":
            typer.echo(f"{record.input} -> {record.output}")
        elif record.status == "restored":
            typer.echo(record.output)

    def summary(self, tally: BatchTally) -> None:
        """The end of a batch of several."""
        if tally.done + tally.failed > 1:
            failed = f", {tally.failed} failed" if tally.failed else ""
            self.say("info", f"{tally.done} done{failed}")

    def say(self, level: str, message: str) -> None:
        """A line to stderr."""
        if self._as_json:
            line = json.dumps({"level": level, "message": message})
        else:
            line = f"hbr: {message}"
        if self._bar is None:
            typer.echo(line, err=True)
        else:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def emit(self, record: logging.LogRecord) -> None:
        """What hbr logs, as `logging` calls it."""
        message = self.format(record)
        if record.exc_info is None:
            message = " ".join(message.split())
        self.say(record.levelname.lower(), message)

    def _move(self, files: float) -> None:
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=files)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table to stdout; lines with tabs between where it is no terminal."""
    if not sys.stdout.isatty():
        for row in (columns, *rows):
            typer.echo("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*row)
    # names may look like rich's markup
    Console(markup=False, highlight=False).print(table)


def print_json(value: object) -> None:
    """Plain values to stdout, for programs."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def as_number_or(word: str, text: str, option: str) -> Any:
    """A whole number from 0, or the one word that may stand instead."""
    if text == word:
        return text
    if not text.isascii() or not text.isdigit():
        raise typer.BadParameter(
            f"{text!r} must be {word} or a whole number from 0.", param_hint=option
        )
    return int(text)
