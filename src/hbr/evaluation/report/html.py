"""A run as one page that needs no network: tables, sliders, scatter, failures, provenance."""

from __future__ import annotations

import json
from typing import Any

from hbr.evaluation.report.pictures import scenes
from hbr.evaluation.report.tables import build, differences, digits, verdict_line
from hbr.evaluation.report.texts import failed
from hbr.evaluation.results import BenchmarkRun
from hbr.pages import environment, script_data

EDGE = 560
"""Longer edge of the pictures inside the page, in pixels."""
BUDGET = 24_000_000
"""Bytes of all of them; the best and worst of each metric come first, the others spread evenly."""


def as_html(run: BenchmarkRun) -> str:
    """The page."""
    data = _data(run)
    pictures = len({(row.data_set, row.stem) for row in run.rows})
    return (
        environment(__package__)
        .get_template("report.html")
        .render(
            run=run,
            table=build(run),
            verdicts=verdict_line(run),
            failures=failed(run),
            differences=list(differences(run)),
            seconds={m.name: _mean(m.seconds.values()) for m in run.methods},
            plain=_plain,
            pictures=pictures,
            inside=len(data["scenes"]),
            data=script_data(data),
        )
    )


def _data(run: BenchmarkRun) -> dict[str, Any]:
    """What the page's script works on; everything else is in the page itself."""
    methods = {m.name: i for i, m in enumerate(run.methods)}
    sets = {d.name: i for i, d in enumerate(run.data_sets)}
    stems = list(dict.fromkeys(row.stem for row in run.rows))
    place = {stem: i for i, stem in enumerate(stems)}
    used = [info for info in run.metrics if any(info.id in row.values for row in run.rows)]
    rows = [
        [
            sets[row.data_set],
            methods[row.method],
            place[row.stem],
            [float(f"{v:.6g}") if (v := row.values.get(m.id)) is not None else None for m in used],
        ]
        for row in run.rows
        if row.data_set in sets and row.method in methods
    ]
    found = scenes(run, edge=EDGE, budget=BUDGET)
    shown = [m.name for m in run.methods if m.run and m.kind != "baseline"] or list(methods)
    return {
        "methods": list(methods),
        "main": methods[shown[0]] if shown else 0,
        "ends": ["LQ", "HQ"],
        "sets": list(sets),
        "stems": stems,
        "metrics": [
            {"name": m.name, "better": m.better, "digits": digits(run, m.id)} for m in used
        ],
        "rows": rows,
        "scenes": {
            f"{sets[data_set]}/{place[stem]}": {
                "size": [scene.width, scene.height],
                "lq": scene.lq,
                "hq": scene.hq,
                "out": [scene.restored.get(name) for name in methods],
            }
            for (data_set, stem), scene in found.items()
            if data_set in sets
        },
    }


def _mean(seconds: Any) -> float | None:
    values = list(seconds)
    return sum(values) / len(values) if values else None


def _plain(value: Any) -> str:
    """A setting or a version as a reader sees it."""
    if isinstance(value, (dict, list, tuple)):
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    return str(value)
