"""What comes of a method, and how it says that it cannot run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hbr.errors import HbrError

Report = Callable[[str], None]


class MethodError(HbrError, ValueError):
    """A method that cannot run at all; the message says what is missing and what to do."""

    http_status = 503


@dataclass(frozen=True)
class MethodOutcome:
    """What came of a method's run over some inputs; each of them is in one of the two mappings.

    Attributes:
        restored: stem → its file in the output folder, this run's and those of earlier ones.
        failed: stem → one line.
        seconds: wall time that making the restored took, over all runs: of what runs inside hbr,
            reading to writing of each photo, without loading; of a program, the share of each
            photo in its time from start to end.
        provenance: what it takes to make the same again: versions, files and their SHA-256,
            settings; plain values.
    """

    restored: Mapping[str, Path]
    failed: Mapping[str, str]
    seconds: float
    provenance: Mapping[str, Any] = field(default_factory=dict)
