"""What a method is to the rest of the evaluation: photos in, a folder of photos out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hbr.errors import reason
from hbr.evaluation.methods.base import MethodOutcome, Report
from hbr.evaluation.methods.resizing import Pixels, read_pixels
from hbr.evaluation.methods.result_folder import ResultFolder
from hbr.files import sha256

RestorePixels = Callable[[Pixels], Pixels]
RestoreFiles = Callable[[dict[str, Path], ResultFolder, Report], dict[str, str]]
"""Restores photos by stem into a folder of results; what failed: stem → one line."""


@dataclass(frozen=True, kw_only=True)
class MethodSteps:
    """How a method restores.

    Attributes:
        identity: see `hbr.evaluation.methods.result_folder.identity`.
        restore: restores the photos that have no result.
        key: stem and photo → what a result depends on; if it changes, the result is made again.
    """

    identity: Mapping[str, Any]
    restore: RestoreFiles
    key: Callable[[str, Path], str] = lambda stem, path: sha256(path)


@dataclass(frozen=True)
class Method:
    """A way to restore photos, of hbr or a peer.

    All methods see the same pixels (8 bits, RGB in sRGB, upright, without alpha) and leave the same
    kind of file: `out/{stem}.png`, 8 bits, RGB, of the input's size times the method's `scale`.

    Attributes:
        prepare: the folder of the results → how it restores, or a `MethodError`.
    """

    prepare: Callable[[Path], MethodSteps]

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
        steps = self.prepare(out)
        with ResultFolder(out, steps.identity, inputs, resume=resume) as results:
            todo, failed = results.to_do(inputs, steps.key)
            failed |= steps.restore(todo, results, report)
            return results.outcome(inputs, failed)


def one_by_one(
    load: Callable[[], tuple[Mapping[str, Any], RestorePixels]],
    read: Callable[[str, Path], Pixels] = lambda stem, path: read_pixels(path),
) -> RestoreFiles:
    """Restoring in this process, one picture after the other.

    Args:
        load: gives what the results depend on beside the method's identity (versions, device), and
            what restores; called once, if anything is left to do.
        read: stem and photo → the pixels.
    """

    def restore(todo: dict[str, Path], results: ResultFolder, report: Report) -> dict[str, str]:
        failed: dict[str, str] = {}
        if not todo:
            return failed
        made_with, restore_pixels = load()
        results.note(made_with)
        for number, (stem, path) in enumerate(todo.items(), 1):
            began = time.perf_counter()
            try:
                result = restore_pixels(read(stem, path))
                results.add(stem, result, time.perf_counter() - began)
            except Exception as error:
                failed[stem] = reason(error)
            report(f"{number} of {len(todo)}: {failed.get(stem, stem)}")
        return failed

    return restore
