"""The training curves, in a file that survives a kill."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import Any

from hbr.ledger import Ledger, read_rows, write_rows


class Curves:
    """Values by step, as JSON lines and, if TensorBoard is installed, as its event files."""

    def __init__(self, out: Path, step: int) -> None:
        file = out / "curves.jsonl"
        # rows after the saved state will be written again
        write_rows(file, [row for row in read_rows(file) if row.get("step", math.inf) <= step])
        self._ledger = Ledger(file)
        self._board: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._board = SummaryWriter(str(out / "tensorboard"), purge_step=step + 1)

    def add(self, step: int, values: dict[str, float]) -> None:
        """Write the values of a step.

        Raises:
            OSError: the file cannot be written, e.g. because the disk is full.
        """
        self._ledger.append({"step": step, **values})
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def __enter__(self) -> Curves:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the files."""
        self._ledger.close()
        if self._board is not None:
            with suppress(OSError):
                self._board.close()
