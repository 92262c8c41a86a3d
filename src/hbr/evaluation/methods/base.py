"""What a method is to the rest of the evaluation: photos in, a folder of photos out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

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


class Method(Protocol):
    """A way to restore photos, of hbr or a peer.

    All methods see the same pixels (8 bits, RGB in sRGB, upright, without alpha) and leave the same
    kind of file: `out/{stem}.png`, 8 bits, RGB, of the input's size times the method's `scale`.
    """

    def run(
        self,
        inputs: Mapping[str, Path],
        out: Path,
        *,
        resume: bool = True,
        report: Report = lambda line: None,
    ) -> MethodOutcome:
        """Restore every input that has no result yet; a failure affects only its own input.

        Args:
            inputs: stem → photo. A stem may have `/` in it, for sub-folders.
            out: the folder of the results, made if it is not there. Beside the photos it holds
                `ledger.jsonl`, from which a later run knows what is done, and a folder `.work`.
            resume: keep what an earlier run of the same method made of the same inputs; else all
                is made anew.
            report: called with lines about the progress.

        Raises:
            MethodError: the method cannot run at all, or `out` holds another method's results.
            KeyboardInterrupt: re-raised; finished work is kept.
        """
