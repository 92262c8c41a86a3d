"""Captions of the kept crops of a run, beside them, as a training reads them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hbr.curation.record import CurationError
from hbr.curation.runs.run_folder import RunFolder
from hbr.files import write_text
from hbr.ledger import Ledger
from hbr.people.captions import tags_of_answer

NAME = "captions.jsonl"


@dataclass
class CaptionTotals:
    """Captions of a run.

    Attributes:
        kept: crops of the run.
        earlier: that were in the file before.
        written: with tags, now.
        refused: whose answer could not be used, now; their text is empty, and `why` tells.
    """

    kept: int = 0
    earlier: int = 0
    written: int = 0
    refused: int = 0


def write_captions(
    run: RunFolder,
    describe: Callable[[np.ndarray], str],
    *,
    tell: Callable[[CaptionTotals], None] = lambda _: None,
) -> tuple[Path, CaptionTotals]:
    """Describe each kept crop that has no line yet in `captions.jsonl` of the run's folder.

    A line is {"photo": the name of the crop's file, "text": TAGS}, written as soon as it is known:
    what is there after a kill stays.

    Args:
        run: a finished run.
        describe: what a model answers to a crop, [h, w, 3] uint8 RGB.
        tell: called after each crop.

    Raises:
        CurationError: the run has not finished, or a crop is not in its folder any more.
    """
    if run.manifest is None or not run.path.is_dir():
        raise CurationError(f"{run.path} is not the folder of a finished run of hbr curate")
    suffix = ".png" if run.config is None else run.config.output.suffix
    path, totals = run.path / NAME, CaptionTotals()
    done = {str(row["photo"]) for row in _whole_rows(path)}
    with Ledger(path) as ledger:
        for record in run.manifest.kept():
            totals.kept += 1
            name = record.id + suffix
            if name in done:
                totals.earlier += 1
                continue
            file = run.crop_files([record]).get(record.id)
            if file is None:
                raise CurationError(f"the crop of {record.id} is not in {run.path} any more")
            with Image.open(io.BytesIO(file)) as image:
                answer = describe(np.asarray(image.convert("RGB")))
            text, why = tags_of_answer(answer)
            ledger.append({"photo": name, "text": text, **({"why": why} if why else {})})
            totals.written += not why
            totals.refused += bool(why)
            tell(totals)
    return path, totals


def _whole_rows(path: Path) -> list[dict[str, Any]]:
    """The captions that are there; a line that was torn by a kill is taken out of the file."""
    if not path.is_file():
        return []
    with Ledger(path, read_only=True) as ledger:
        rows = [row for _, row in ledger.rows() if {"photo", "text"} <= {*row}]
    if len(rows) < path.read_bytes().count(b"\n") or not path.read_bytes().endswith(b"\n"):
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return rows
