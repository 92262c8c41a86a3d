"""Captions of the kept crops of a run, beside them, as a training reads them."""

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
from hbr.ledger import Ledger, read_rows, write_rows
from hbr.people.captions import tags_of_answer

NAME = "captions.jsonl"


@dataclass
class CaptionTotals:
    """Captions of a run.

    Attributes:
        kept: crops of the run.
        earlier: that were in the file before.
        written: with tags, now.
        refused: whose answer could not be used, now; their text is empty, and `why` gives the
            reason.
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

    A line is {"photo": the name of the crop's file, "text": TAGS, "model": the model's name},
    written as soon as it is known: what is there after a kill stays. A line that a person wrote
    needs no "model".

    `describe` answers to a crop, [h, w, 3] uint8 RGB; `tell` is called after each.

    Raises:
        CurationError: the run has not finished, a crop is not in its folder any more, or there
            are captions by another model.
    """
    manifest = run.finished()
    path, totals = run.path / NAME, CaptionTotals()
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
    return path, totals


def _whole_rows(path: Path) -> list[dict[str, Any]]:
    """The captions that are there; a line that was torn by a kill is taken out of the file."""
    rows = [row for row in read_rows(path) if {"photo", "text"} <= {*row}]
    text = path.read_bytes() if path.exists() else b""
    if len(rows) < text.count(b"\n") or text[-1:] not in (b"", b"\n"):
        write_rows(path, rows)
    return rows
