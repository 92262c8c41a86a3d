"""The curves of a training, in a file that outlives a kill."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import Any

from hbr.ledger import Ledger, read_rows, write_rows


class Curves:
    """Numbers by step: a line of JSON each, and TensorBoard where it is installed."""

    def __init__(self, out: Path, step: int) -> None:
        file = out / "curves.jsonl"
        # what was written after the state that the training resumes from will be written again
        write_rows(file, [row for row in read_rows(file) if row.get("step", math.inf) <= step])
        self._ledger = Ledger(file)
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
        self._ledger.append({"step": step, **values})
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def __enter__(self) -> Curves:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the files."""
        self._ledger.close()
        if self._board is not None:
            with suppress(OSError):
                self._board.close()
