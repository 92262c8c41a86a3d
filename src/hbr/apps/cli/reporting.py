"""Output of the commands: data to stdout, logs and a progress bar (on a terminal) to stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hbr.errors import ExitCode, display_name
from hbr.streams import stderr_to

if TYPE_CHECKING:
    from rich.progress import Progress

    from hbr.processes import StopSignals
    from hbr.restoration.batch.finding import BadInput
    from hbr.restoration.batch.jobs import Job
    from hbr.restoration.batch.records import BatchTally, FileRecord


_MOST_SHOWN = 12

to_stderr = partial(typer.echo, err=True)
"""Print a line to stderr as it is."""


class Reporter(logging.Handler):
    """A log handler that prints text, or one JSON object per line."""

    def __init__(self, *, as_json: bool, quiet: bool = False, data_on_stdout: bool = True) -> None:
        """Report as text, or as JSON.

        Args:
            as_json: one object a line, for each record and each message.
            quiet: report only warnings, errors and JSON records.
            data_on_stdout: records go to stdout; else names are not reported, and JSON records go
                to stderr.
        """
        super().__init__()
        self._as_json = as_json
        self._quiet = quiet
        self._data_on_stdout = data_on_stdout
        self._bar: Progress | None = None
        self._stop: StopSignals | None = None
        self._files = 0
        self._started = False
        self._stdout = sys.stdout  # whatever is redirected meanwhile

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle hbr's log records; file names go to stdout byte for byte."""
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(
                encoding=sys.getfilesystemencoding(), errors=sys.getfilesystemencodeerrors()
            )
        logger = logging.getLogger("hbr")
        debug = os.environ.get("HBR_DEBUG", "0") not in ("", "0")
        logger.setLevel(logging.DEBUG if debug else logging.WARNING)
        logger.addHandler(self)
        try:
            # JSON is read by programs, which a stray line of a C library would break
            with stderr_to(partial(self.say, "warning")) if self._as_json else nullcontext():
                yield
        finally:
            logger.removeHandler(self)

    @contextmanager
    def bar(self, files: int) -> Iterator[None]:
        """Show a progress bar with the remaining time, if stderr is a terminal."""
        if self._quiet or not sys.stderr.isatty():
            yield
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.table import Column

        name = TextColumn(
            "{task.description}",
            markup=False,
            table_column=Column(max_width=30, no_wrap=True, overflow="ellipsis"),
        )
        columns = (name, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        # If only stderr is a terminal, redirecting would send stdout to stderr.
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

    @contextmanager
    def running(self, stopped: Callable[[], str]) -> Iterator[StopSignals]:
        """Run a command, with hbr's log records; see `listening`.

        The first stop signal ends it with the line of `stopped` and `ExitCode.INTERRUPTED`.
        """
        from hbr.processes import StopSignals

        with StopSignals() as self._stop, self.listening():
            try:
                yield self._stop
            except BaseException:
                # An interrupted import can end in any error.
                if self._stop.received is None:
                    raise
                self.say("error", stopped())
                raise typer.Exit(ExitCode.INTERRUPTED) from None

    def found(self, bad: Sequence[BadInput], thumbnails: Sequence[Path]) -> list[str]:
        """Report what of the inputs is not processed, and return the errors."""
        from hbr.restoration.batch.finding import lines_of

        lines = lines_of(bad)
        for line in lines:
            self.say("error", line)
        if thumbnails:
            several = f" and {len(thumbnails) - 1} more" if len(thumbnails) > 1 else ""
            self.say("info", f"{display_name(thumbnails[0])}{several}: thumbnails, skipped")
        return lines

    def start(self, job: Job) -> None:
        """Name the file that is worked on; from the first one on, records advance the bar."""
        self._started = True
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], description=display_name(job.source.name))

    def tiles(self, done: int, total: int) -> None:
        """Advance the bar within a photo."""
        self._move(self._files + done / total)

    def moved(self, done: int, total: int) -> None:
        """Set the bar to `done` of its `total` steps.

        Raises:
            KeyboardInterrupt: a stop signal was received, which a library may have swallowed.
        """
        if self._stop is not None:
            self._stop.check()
        self._files = done
        self._move(done)

    def record(self, record: FileRecord, tail: str = "", *, shows_input: bool = False) -> None:
        """Report the result for one input; errors of `found` are not repeated.

        `tail` follows its error; `shows_input` names the input of a restored file too.
        """
        if self._started:
            self._files += 1
            self._move(self._files)
        if record.error is not None and record.output is not None:
            self.say("error", record.error + tail)
        self._gate(record)
        self._people(record)
        if self._as_json:
            line = json.dumps(record.as_json())
            typer.echo(line, self._stdout if self._data_on_stdout else sys.stderr)
        elif self._quiet or not self._data_on_stdout:
            return
        elif record.status == "planned" or (record.status == "restored" and shows_input):
            typer.echo(f"{record.input} -> {record.output}", self._stdout)
        elif record.status == "restored":
            typer.echo(record.output, self._stdout)

    def summary(self, tally: BatchTally) -> None:
        """Report the totals of a batch with more than one file."""
        if tally.done + tally.failed > 1:
            failed = f", {tally.failed} failed" if tally.failed else ""
            self.say("info", f"{tally.done} done{failed}")

    def say(self, level: str, message: str) -> None:
        """Print a line to stderr."""
        if self._quiet and level in ("info", "debug"):
            return
        if self._as_json:
            line = json.dumps({"level": level, "message": message})
        else:
            line = f"hbr: {message}"
        if self._bar is None:
            typer.echo(line, err=True)
        else:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def emit(self, record: logging.LogRecord) -> None:
        """Print a log record of hbr; called by `logging`."""
        message = self.format(record)
        if record.exc_info is None:
            message = " ".join(message.split())
        self.say(record.levelname.lower(), message)

    def _gate(self, record: FileRecord) -> None:
        """What `hbr restore --gate auto` has to say of a photo."""
        verdict = record.provenance.get("gate")
        name = display_name(record.input)
        if verdict == "nothing to restore":
            self.say("info", f"{name}: nothing to restore; its pixels are left as they are")
        elif verdict == "beyond the model":
            reasons = " and ".join(record.provenance["gate_reasons"])
            self.say("warning", f"{name}: beyond the model, restored all the same: {reasons}")

    def _people(self, record: FileRecord) -> None:
        """Who was found, by number, and whom the gate warns of."""
        if record.people is None:
            return
        name = display_name(record.input)
        shown = "; ".join(_person_line(person) for person in record.people[:_MOST_SHOWN])
        more = len(record.people) - _MOST_SHOWN
        rest = f"; and {more} more" if more > 0 else ""
        self.say("info", f"{name}: {shown}{rest}" if shown else f"{name}: nobody was found")
        for person in record.people:
            if person["gate"] == "beyond the model":
                who, reasons = f"person {person['number']}", " and ".join(person["gate_reasons"])
                line = f"{name}: {who} is beyond the model, restored all the same: {reasons}"
                self.say("warning", line)

    def _move(self, files: float) -> None:
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=files)


def _person_line(person: Mapping[str, Any]) -> str:
    """As in `person 1 at 10,20,100,300: crop`."""
    place = ",".join(f"{round(value)}" for value in person["box"])
    return f"person {person['number']} at {place}: {person['done']}"


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table to stdout; tab-separated lines if stdout is not a terminal."""
    if not sys.stdout.isatty():
        for row in (columns, *rows):
            typer.echo("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*row)
    # names may contain rich markup
    Console(markup=False, highlight=False).print(table)


def print_json(value: object) -> None:
    """Print plain values to stdout as JSON."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def as_number_or(word: str, text: str, option: str) -> Any:
    """Parse a non-negative integer, or return `word` if the text is that word."""
    if text == word:
        return text
    if not text.isascii() or not text.isdigit():
        raise typer.BadParameter(
            f"{text!r} must be {word} or an integer of at least 0.", param_hint=option
        )
    return int(text)
