"""An evaluation as JSON, CSV and Parquet; each is written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hbr.config import to_dict
from hbr.evaluation.evaluate import Evaluation
from hbr.evaluation.measuring import Measured
from hbr.evaluation.report.tables import csv_text
from hbr.files import replacing, write_text

_TEXT = ("stem", "restored", "reference", "status", "error", "notes")


def write_json(evaluation: Evaluation, path: Path, about: Mapping[str, Any]) -> None:
    """Metrics with their versions, means with their intervals, and a row for each pair.

    `about`: plain values that the numbers depend on, such as versions and settings.

    Raises:
        OSError: it cannot be written.
    """
    values = {
        "about": dict(about),
        "metrics": {
            name: {**to_dict(info), "heading": info.heading}
            for name, info in evaluation.metrics.items()
        },
        "means": {name: to_dict(summary) for name, summary in evaluation.summaries.items()},
        "warnings": list(evaluation.warnings),
        "rows": [_row(row, evaluation) for row in evaluation.rows],
    }
    text = json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def write_csv(evaluation: Evaluation, path: Path) -> None:
    """A line for each pair; the columns of metrics are their ids.

    Raises:
        OSError: it cannot be written.
    """
    columns = ["stem", *evaluation.metrics, *_TEXT[1:]]
    rows = (_row(measured, evaluation) for measured in evaluation.rows)
    write_text(path, csv_text(columns, ([row[name] for name in columns] for row in rows)))


def write_parquet(evaluation: Evaluation, path: Path, about: Mapping[str, Any]) -> None:
    """A row for each pair; the metrics' rows of the table and `about` are in the file's metadata.

    Raises:
        OSError: it cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [_row(row, evaluation) for row in evaluation.rows]
    names = [("stem", pa.string()), *((name, pa.float64()) for name in evaluation.metrics)]
    names += [(name, pa.string()) for name in _TEXT[1:]]
    columns = {name: pa.array([row[name] for row in rows], kind) for name, kind in names}
    infos = {name: to_dict(info) for name, info in evaluation.metrics.items()}
    table = pa.table(columns).replace_schema_metadata(
        {"hbr.metrics": json.dumps(infos), "hbr.about": json.dumps(dict(about))}
    )
    with replacing(path) as part:
        pq.write_table(table, part)


def _row(measured: Measured, evaluation: Evaluation) -> dict[str, Any]:
    """A pair as flat plain values."""
    reference = measured.pair.reference
    errors = [f"{name}: {line}" for name, line in measured.errors.items()]
    if measured.error is not None:
        errors.insert(0, measured.error)
    texts = {
        "stem": measured.pair.stem,
        "restored": str(measured.pair.restored),
        "reference": None if reference is None else str(reference),
        "status": "left out" if measured.skipped else "failed" if errors else "measured",
        "error": "; ".join(errors) or None,
        "notes": "; ".join(measured.notes) or None,
    }
    # names that are not UTF-8 are shown with their bytes
    shown = {
        name: text if text is None else text.encode("utf-8", "backslashreplace").decode()
        for name, text in texts.items()
    }
    return {**shown, **{name: measured.values.get(name) for name in evaluation.metrics}}
