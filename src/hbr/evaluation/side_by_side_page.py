"""The page of a comparison of models: means, the viewer, provenance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hbr.evaluation.provenance import machine
from hbr.evaluation.report.tables import number
from hbr.evaluation.side_by_side import EDGE, SideBySide
from hbr.pages import environment, script_data
from hbr.restoration.settings import RestoreSettings
from hbr.version import __version__

_DECIMALS = {"seconds": 2, "psnr-y": 2}


def as_html(found: SideBySide, settings: RestoreSettings) -> str:
    """The page of a comparison."""
    headings = (f"{info.name} {info.arrow}" for info in found.metrics.values())
    cropped = [p.name for p in found.photos if found.sizes[p.name] != found.shown[p.name]]
    return (
        environment("hbr.evaluation.report")
        .get_template("side_by_side.html")
        .render(
            found=found,
            heads=["model", "s per photo", *headings],
            lines=list(_lines(found)),
            about={"hbr": __version__, "scale": f"{settings.scale:g}", **machine()},
            cropped=bool(set(cropped) & found.pictures.keys()),
            edge=EDGE,
            data=script_data(_data(found)),
        )
    )


def _lines(found: SideBySide) -> Iterator[tuple[str, list[tuple[str, bool]], str]]:
    """A line of the table for each column: its label, means, whether best, and a note."""
    names = ["seconds", *found.metrics]
    means: dict[tuple[str, str], float] = {}
    counts = {}
    for label in found.columns:
        rows = [found.values[key] for p in found.photos if (key := (p.name, label)) in found.values]
        counts[label] = len(rows)
        for name in names:
            if values := [row[name] for row in rows if name in row]:
                means[label, name] = sum(values) / len(values)
    best = {}
    for name, info in found.metrics.items():
        values = [means[label, name] for label in found.columns if (label, name) in means]
        if len(set(values)) > 1:
            best[name] = max(values) if info.better == "higher" else min(values)
    for label in found.columns:
        cells = [
            (number(mean, _decimals(name)), mean is not None and mean == best.get(name))
            for name in names
            for mean in [means.get((label, name))]
        ]
        failed = len(found.photos) - counts[label]
        yield label, cells, f"{failed} of {len(found.photos)} failed" if failed else ""


def _decimals(name: str) -> int:
    return _DECIMALS.get(name, 4)


def _data(found: SideBySide) -> dict[str, Any]:
    """What the script of the viewer (report.js) works on; photos without pictures are left out."""
    labels = list(found.columns)
    inside = [photo.name for photo in found.photos if photo.name in found.pictures]
    names = ["seconds", *found.metrics]
    return {
        "methods": labels,
        "main": min(1, len(labels) - 1),
        "ends": ["", "reference"],
        "sets": [""],
        "stems": inside,
        "metrics": [{"name": "seconds", "better": "lower", "digits": 2}]
        + [
            {"name": info.name, "better": info.better, "digits": _decimals(info.id)}
            for info in found.metrics.values()
        ],
        "rows": [
            [0, column, place, [values.get(name) for name in names]]
            for place, photo in enumerate(inside)
            for column, label in enumerate(labels)
            if (values := found.values.get((photo, label))) is not None
        ],
        "scenes": {
            f"0/{place}": {
                "size": found.shown[photo],
                "lq": None,
                "hq": found.pictures[photo].get("reference"),
                "out": [found.pictures[photo].get(label) for label in labels],
            }
            for place, photo in enumerate(inside)
        },
    }
