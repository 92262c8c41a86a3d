"""The training curves, in a file that survives a kill."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from hbr.ledger import Ledger, read_rows, write_rows

AddRow = Callable[[int, dict[str, float]], None]
"""Writes the values of a step; OSError if the file cannot be written, e.g. on a full disk."""


@contextmanager
def open_curves(out: Path, step: int) -> Iterator[AddRow]:
    """Open the curves: JSON lines and, if TensorBoard is installed, its event files."""
    file = out / "curves.jsonl"
    # rows after the saved state will be written again
    write_rows(file, [row for row in read_rows(file) if row.get("step", math.inf) <= step])
    board: Any = None
    with closing(Ledger(file)) as ledger:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            pass
        else:
            board = SummaryWriter(str(out / "tensorboard"), purge_step=step + 1)

        def add(step: int, values: dict[str, float]) -> None:
            ledger.append({"step": step, **values})
            if board is not None:
                for name, value in values.items():
                    board.add_scalar(name, value, step)

        try:
            yield add
        finally:
            if board is not None:
                with suppress(OSError):
                    board.close()
