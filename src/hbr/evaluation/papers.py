"""The numbers that papers print, and when a number of ours counts as the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hbr.config import ConfigError
from hbr.metrics.table import PRINTED
from hbr.pages import text

# Columns that hbr does not measure; they are told beside a comparison.
_NOT_MEASURED = ("HMB-R", "HyperIQA", "TRES")

# Tolerance of a mean to the printed value. The default is 1 % of the printed value:
# more than rounding and other versions of libraries make, less than methods differ by.
TOLERANCES = {"psnr-y": 0.05, "psnr-rgb": 0.05, "ssim-y": 0.002, "ssim-rgb": 0.002}
_RELATIVE = 0.01

TableRows = Literal["methods", "data sets"]


@dataclass(frozen=True)
class _Shape:
    """How a table is laid out in `paper_tables.json` and `more_paper_tables.json`.

    Attributes:
        labels: the fields that name a row; joined by commas where there are several.
        rows: what these are.
        data_set: of the whole table, where the rows do not say.
    """

    labels: tuple[str, ...]
    rows: TableRows = "methods"
    data_set: str | None = None


_SHAPES = {
    "osdhuman.table1_datasets": _Shape(("dataset",), "data sets"),
    "osdhuman.table2_methods": _Shape(("method",)),
    "osdhuman.table3_training_sets": _Shape(("training_set",)),
    "osdhuman.table4_prompt_extractors": _Shape(("prompt_extractor", "prompt_image")),
    "diffbody.table1_methods": _Shape(("method",), data_set="DiffBody-Test"),
    "haodiff.table1_persona_val": _Shape(("method",), data_set="PERSONA-Val"),
    "haodiff.table2_real_world": _Shape(("method",)),
    "lcudiff.table1_persona_val": _Shape(("method",), data_set="PERSONA-Val"),
    "lcudiff.table2_mpii_test": _Shape(("method",), data_set="MPII-Test"),
}


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """One table of a paper.

    Attributes:
        name: as in a benchmark's `paper`.
        source: the paper.
        notes: what to know before comparing.
        rows: what the rows are.
        methods: those that it has; empty where its rows are data sets.
        values: (method, data set, metric id) → number; the method is "" where rows are data sets.
        not_measured: (data set, printed column) → method → number, of metrics that hbr lacks.
    """

    name: str
    source: str
    notes: tuple[str, ...]
    rows: TableRows
    methods: tuple[str, ...]
    values: Mapping[tuple[str, str, str], float]
    not_measured: Mapping[tuple[str, str], Mapping[str, float]]

    def value(self, method: str, data_set: str, metric: str) -> float | None:
        """The printed number, beside any edition of its metric; None if there is no such cell.

        Only numbers of the edition that papers report are judged by it
        (`hbr.metrics.table.is_printed_edition`).
        """
        edition = next((ids[0] for ids in PRINTED.values() if metric in ids), metric)
        row = "" if self.rows == "data sets" else method
        return self.values.get((row, data_set, edition))


def paper_tables() -> tuple[str, ...]:
    """The names of all tables."""
    return tuple(_SHAPES)


def paper_table(name: str) -> PaperTable:
    """A table by its name.

    Raises:
        ConfigError: there is none of this name; the known ones are listed.
    """
    if name not in _SHAPES:
        raise ConfigError(f"no table of a paper is called {name!r}; known: {', '.join(_SHAPES)}")
    shape = _SHAPES[name]
    source, notes, rows = _printed(name)
    not_measured: dict[tuple[str, str], dict[str, float]] = {}
    values: dict[tuple[str, str, str], float] = {}
    methods = []
    for row in rows:
        label = ", ".join(str(row[field]) for field in shape.labels if row[field] is not None)
        if shape.rows == "data sets":
            by_data_set = {label: row}
            label = ""
        else:
            methods.append(label)
            nested = {key: cells for key, cells in row.items() if isinstance(cells, dict)}
            by_data_set = nested or {shape.data_set or "": row}
        for data_set, cells in by_data_set.items():
            # columns that are not listed, such as misprinted ones, are not compared
            for column, (edition, *_) in PRINTED.items():
                if column in cells:
                    values[label, data_set, edition] = float(cells[column])
            for column in _NOT_MEASURED:
                if column in cells:
                    not_measured.setdefault((data_set, column), {})[label] = float(cells[column])
    return PaperTable(
        name=name,
        source=source,
        notes=notes,
        rows=shape.rows,
        methods=tuple(methods),
        values=values,
        not_measured=not_measured,
    )


def tolerance_of(metric: str, printed: float, own: Mapping[str, float] | None = None) -> float:
    """How far a mean of this metric may be from the printed number.

    Args:
        metric: id.
        printed: the number.
        own: metric id → tolerance, in place of the usual ones.
    """
    chosen = {**TOLERANCES, **(own or {})}
    return chosen.get(metric, _RELATIVE * abs(printed))


def _printed(name: str) -> tuple[str, tuple[str, ...], list[dict[str, Any]]]:
    """The source, the notes and the rows of a table."""
    more = _content("more_paper_tables.json")
    if name in more:
        return more[name]["source"], tuple(more[name]["notes"]), more[name]["rows"]
    paper, table = name.split(".")
    content = _content("paper_tables.json")[paper]
    return content["source"], tuple(content["notes"]), content[table]


def _content(file: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(text("hbr.evaluation", file))
    return content
