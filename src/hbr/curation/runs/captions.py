"""Captions of a run's kept crops by a vision-language model, in the file that trainings read."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hbr.curation.manifest import crop_suffix
from hbr.curation.record import CurationError
from hbr.curation.runs.run_folder import RunFolder
from hbr.files import file_lock
from hbr.ledger import Ledger, read_rows, write_rows
from hbr.people.captions import tags_of_answer

NAME = "captions.jsonl"


@dataclass
class CaptionTotals:
    """The number of captions of a run.

    Attributes:
        kept: kept crops of the run.
        earlier: captions that were in the file already.
        written: captions that were written now.
        refused: answers that could not be used, now; the text of their lines is empty, and `why`
            is the reason.
    """

    kept: int = 0
    earlier: int = 0
    written: int = 0
    refused: int = 0


def write_captions(
    run: RunFolder,
    describe: Callable[[np.ndarray], str],
    model: str,
    *,
    tell: Callable[[CaptionTotals], None] = lambda _: None,
) -> tuple[Path, CaptionTotals]:
    """Describe each kept crop that has no line yet in `captions.jsonl` of the run's folder.

    A line is {"photo": the name of the crop's file, "text": TAGS, "model": the model's name}. Each
    is written at once, so finished captions survive a kill. Lines written by hand need no "model".

    `describe` returns the model's answer to a crop, [h, w, 3] uint8 RGB; `tell` is called after
    each crop.

    Raises:
        CurationError: the run has not finished, a crop is not in its folder any more, there are
            captions by another model, or another process writes captions of the run.
    """
    run.finished()
    path = run.path / NAME
    busy = CurationError(f"{path}: another process writes captions into it; wait for it")
    with file_lock(path.with_name(f".{NAME}.lock"), busy, remove=True):
        return path, _write(run, describe, model, tell)


def _write(
    run: RunFolder,
    describe: Callable[[np.ndarray], str],
    model: str,
    tell: Callable[[CaptionTotals], None],
) -> CaptionTotals:
    manifest, path, totals = run.finished(), run.path / NAME, CaptionTotals()
    rows = _whole_rows(path)
    others = {str(row["model"]) for row in rows if row.get("model")} - {model}
    if others:
        raise CurationError(f"{path} is by {min(others)}; remove it, or take --model {min(others)}")
    done = {str(row["photo"]) for row in rows}
    suffix, read = crop_suffix(manifest.about), run.crop_reader()
    with Ledger(path) as ledger:
        for record in manifest.kept():
            totals.kept += 1
            name = record.id + suffix
            if name in done:
                totals.earlier += 1
                continue
            with Image.open(io.BytesIO(read(record))) as image:
                answer = describe(np.asarray(image.convert("RGB")))
            text, why = tags_of_answer(answer)
            row = {"photo": name, "text": text, "model": model}
            ledger.append({**row, "why": why} if why else row)
            totals.written += not why
            totals.refused += bool(why)
            tell(totals)
    return totals


def _whole_rows(path: Path) -> list[dict[str, Any]]:
    """Return the existing captions; a line that was torn by a kill is removed from the file."""
    rows = [row for row in read_rows(path) if {"photo", "text"} <= {*row}]
    text = path.read_bytes() if path.exists() else b""
    if len(rows) < text.count(b"\n") or text[-1:] not in (b"", b"\n"):
        write_rows(path, rows)
    return rows
