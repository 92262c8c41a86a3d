"""The outcome of each input of a batch, and their number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hbr.devices import is_out_of_memory
from hbr.errors import display_name, one_line, with_type
from hbr.image import PhotoError

Status = Literal["restored", "skipped", "failed", "planned"]


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """The outcome of one input.

    Attributes:
        input: the file, or the folder or glob that matched none.
        status: `restored`, `skipped` (done by an earlier run), `failed`, or `planned`.
        output: the file that was written, or will be.
        error: one line, if it failed.
        out_of_memory: whether it failed because memory ran out.
        ends_batch: whether it failed in a way that every further input would fail in.
        size: (width, height) of the output in pixels.
        timings: seconds of each part of the work.
        provenance: what is needed to reproduce the same bytes.
        warnings: what was said of it while it was worked on, a line each.
    """

    input: str
    status: Status
    output: str | None = None
    error: str | None = None
    out_of_memory: bool = False
    ends_batch: bool = False
    size: tuple[int, int] | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()

    @property
    def people(self) -> Sequence[Mapping[str, Any]] | None:
        """Those who were found, by number; None if nobody was looked for."""
        about = self.provenance.get("people")
        return None if about is None else about["found"]

    def as_json(self) -> dict[str, Any]:
        """Plain values, without empty ones."""
        width, height = self.size or (None, None)
        values = {
            "input": self.input,
            "status": self.status,
            "output": self.output,
            "error": self.error,
            "width": width,
            "height": height,
            "people": self.people,
            "timings": {name: round(s, 4) for name, s in self.timings.items()},
            "provenance": dict(self.provenance),
            "warnings": list(self.warnings),
        }
        return {name: value for name, value in values.items() if value not in (None, {}, [])}


@dataclass
class BatchTally:
    """The number of inputs by outcome, so far.

    Attributes:
        done: restored now or by an earlier run, or planned.
        failed: not restored.
        out_of_memory: failed because memory ran out.
        ended: an input failed in a way that every further one would fail in.
    """

    done: int = 0
    failed: int = 0
    out_of_memory: int = 0
    ended: bool = False

    def add(self, record: FileRecord) -> None:
        """Count a record."""
        self.ended |= record.ends_batch
        if record.status == "failed":
            self.failed += 1
            self.out_of_memory += record.out_of_memory
        else:
            self.done += 1


def describe_failure(error: Exception, source: Path) -> tuple[str, bool]:
    """The error in one line that names the file, and whether memory ran out."""
    name = display_name(source)
    text = one_line(error)
    if isinstance(error, PhotoError):
        return text, isinstance(error.__cause__, MemoryError)
    if isinstance(error, MemoryError):
        words = text if str(error) else "out of memory; use smaller tiles (--tile)"
        return f"{name}: {words}", True
    if isinstance(error, ValueError | FloatingPointError):
        return f"{name}: {text}", False
    if isinstance(error, OSError) and error.strerror:
        return f"{name}: {error.strerror}", False
    if is_out_of_memory(error):
        return f"{name}: out of memory; use smaller tiles (--tile) or --device cpu", True
    return (
        f"{name}: unexpected error: {with_type(error)} (set HBR_DEBUG=1 for the traceback)",
        False,
    )
