"""The curves of a training, in a file that outlives a kill."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

from hbr.files import write_text


class Curves:
    """Numbers by step: a line of JSON each, and TensorBoard where it is installed."""

    def __init__(self, out: Path, step: int) -> None:
        file = out / "curves.jsonl"
        # what was written after the state that is gone on from will be written again
        lines = file.read_text().splitlines() if file.exists() else []
        kept = [line for line in lines if _step_of(line) <= step]
        write_text(file, "".join(line + "\n" for line in kept))
        self._file = file.open("a")
        self._board: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._board = SummaryWriter(str(out / "tensorboard"), purge_step=step + 1)

    def add(self, step: int, values: dict[str, float]) -> None:
        """Write the numbers of a step.

        Raises:
            OSError: the file cannot be written, as on a full disk; it is named.
        """
        try:
            self._file.write(json.dumps({"step": step, **values}) + "\n")
            self._file.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._file.name) from None
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def __enter__(self) -> Curves:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the files."""
        with suppress(OSError):  # on a full disk; `add` has said so
            self._file.close()
        if self._board is not None:
            with suppress(OSError):
                self._board.close()


def _step_of(line: str) -> float:
    """The step of a line of the curves; a line that a kill cut short belongs to none."""
    try:
        return float(json.loads(line)["step"])
    except ValueError:
        return math.inf
