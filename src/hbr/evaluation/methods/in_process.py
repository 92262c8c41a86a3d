"""Methods that restore in this process, one picture after the other."""

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


@dataclass(frozen=True, kw_only=True)
class PictureSteps:
    """What a method does with each picture.

    Attributes:
        identity: see `hbr.evaluation.methods.result_folder.identity`.
        load: gives what the results depend on beside that (versions, device), and what restores;
            called once, if anything is left to do.
        read: stem and photo → the pixels.
        key: stem and photo → what a result depends on; if it changes, the result is made again.
    """

    identity: Mapping[str, Any]
    load: Callable[[], tuple[Mapping[str, Any], RestorePixels]]
    read: Callable[[str, Path], Pixels] = lambda stem, path: read_pixels(path)
    key: Callable[[str, Path], str] = lambda stem, path: sha256(path)


@dataclass(frozen=True)
class InProcessMethod:
    """A `hbr.evaluation.methods.base.Method` of such steps.

    Attributes:
        prepare: the folder of the results → the steps, or a `MethodError`.
    """

    prepare: Callable[[Path], PictureSteps]

    def run(
        self,
        inputs: Mapping[str, Path],
        out: Path,
        *,
        resume: bool = True,
        report: Report = lambda line: None,
    ) -> MethodOutcome:
        """See `hbr.evaluation.methods.base.Method`."""
        steps = self.prepare(out)
        with ResultFolder(out, steps.identity, inputs, resume=resume) as results:
            todo, failed = results.to_do(inputs, steps.key)
            if todo:
                made_with, restore = steps.load()
                results.note(made_with)
            for number, (stem, path) in enumerate(todo.items(), 1):
                began = time.perf_counter()
                try:
                    result = restore(steps.read(stem, path))
                    results.add(stem, result, time.perf_counter() - began)
                except Exception as error:
                    failed[stem] = reason(error)
                report(f"{number} of {len(todo)}: {failed.get(stem, stem)}")
            return results.outcome(inputs, failed)
