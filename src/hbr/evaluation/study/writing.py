"""The report of a study as files: JSON, CSV, Markdown, one HTML page, and its picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hbr.config import to_dict
from hbr.evaluation.report.tables import NONE, csv_text, number
from hbr.evaluation.study.analysis import Estimate, StudyReport
from hbr.evaluation.study.plot import draw, inline_svg, png, ranked, svg
from hbr.files import write_bytes, write_text
from hbr.pages import environment, markdown_table, markdown_text


def write_report(report: StudyReport, out: Path) -> list[Path]:
    """Write the report as a page, Markdown, JSON and CSV, and the plot as SVG and PNG.

    Each is whole or not there; the same report gives the same bytes.

    Returns:
        the files, the page first.
    """
    figure = draw(report)
    drawn = svg(figure)
    texts = {
        "report.html": as_html(report, inline_svg(drawn)),
        "report.md": as_markdown(report),
        "report.json": as_json(report),
        "methods.csv": _methods_csv(report),
        "answers.csv": _answers_csv(report),
        "plot.svg": drawn,
    }
    for name, content in texts.items():
        write_text(out / name, content)
    write_bytes(out / "plot.png", png(figure))
    return [out / name for name in (*texts, "plot.png")]


def as_json(report: StudyReport) -> str:
    """Everything but the single answers, which are in the CSV."""
    values = to_dict(report)
    del values["answers"]
    return json.dumps(values, ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def as_html(report: StudyReport, picture: str) -> str:
    """One page that needs no other file; `picture` is an `<svg>` element of ours."""
    from markupsafe import Markup

    page = environment(__package__).get_template("report.html")
    tables = _tables(report)
    return page.render(report=report, tables=tables, notes=_notes(report), picture=Markup(picture))


def as_markdown(report: StudyReport) -> str:
    """Headings, tables and notes; the plot is a separate file."""
    parts = [
        f"# {markdown_text(report.title)}",
        f"“{markdown_text(report.question)}”",
        *_notes(report),
    ]
    parts += [f"**{markdown_text(warning)}**" for warning in report.warnings]
    parts.append("![Every method's results](plot.svg)")
    for heading, columns, rows in _tables(report):
        cells = [list(map(markdown_text, row)) for row in rows]
        parts += [f"## {heading}", markdown_table(columns, cells, numbers=True)]
    return "\n\n".join(parts) + "\n"


ReportTable = tuple[str, list[str], list[list[str]]]


def _tables(report: StudyReport) -> list[ReportTable]:
    """(heading, columns, rows) of every table, in words and digits."""
    methods = ranked(report)
    if report.kind == "scores":
        columns = ["method", "mean score", "95 % interval", "median", "quartiles", "answers"]
        rows = [[m.name, *_both(m.score), *_quartiles(m.quartiles), str(m.n)] for m in methods]
        difference = ["method", "against", "difference of means", "95 % interval", "answers"]
    else:
        columns = [
            "method",
            "win rate",
            "95 % interval",
            "strength",
            "95 % interval",
            "comparisons",
        ]
        rows = [[m.name, *_both(m.win_rate), *_both(m.strength), str(m.n)] for m in methods]
        difference = ["method", "against", "chosen over it", "95 % interval", "comparisons"]
    pairs = [[p.first, p.second, *_both(p.value), str(p.n)] for p in report.pairs]
    return [
        ("Methods", columns, rows),
        ("Pairs", difference, pairs),
        ("Agreement between raters", ["measure", "value", "95 % interval"], _agreement(report)),
        _raters(report),
    ]


def _agreement(report: StudyReport) -> list[list[str]]:
    a = report.agreement
    rows = [[f"Krippendorff’s α ({a.level}, {a.units} units)", *_both(a.alpha)]]
    if report.kind == "scores":
        of = f"{a.icc_units} units that all scored"
        rows.append([f"ICC(2,1), one rater ({of})", number(a.icc_single, 3), NONE])
        rows.append([f"ICC(2,k), mean of all ({of})", number(a.icc_mean, 3), NONE])
    return rows


def _raters(report: StudyReport) -> ReportTable:
    scores = report.kind == "scores"
    steadiness = "repeats: mean difference" if scores else "repeats: same choice"
    columns = ["rater", "answered", "of", "repeats", steadiness, "seconds, median"]
    columns += [] if scores else ["left side"]
    rows = []
    for r in report.raters:
        name = f"{r.number} (excluded)" if r.excluded else str(r.number)
        row = [name, str(r.answered), str(r.total), str(r.repeats), number(r.steadiness, 3)]
        rows.append([*row, number(r.seconds, 1), *([] if scores else [number(r.left, 3)])])
    return "Raters", columns, rows


def _notes(report: StudyReport) -> list[str]:
    raters = len({a.rater for a in report.answers})
    notes = [
        f"{_many(len(report.answers), 'answer')} of {_many(raters, 'rater')} about "
        f"{_many(report.images, 'image')}, blinded and in random order. Repeated trials count "
        "only as repeats.",
        f"Intervals: 95 %, percentiles of {report.resamples} resamples of raters and images "
        f"(seed {report.seed}); that of α of images only.",
    ]
    if any(p.n and p.value.low == p.value.high for p in report.pairs):
        notes.append(
            "Where an interval ends where it begins, all answers were alike, and resampling them "
            "cannot tell how sure that is."
        )
    return notes


def _many(n: int, thing: str) -> str:
    return f"{n} {thing}{'' if n == 1 else 's'}"


def _methods_csv(report: StudyReport) -> str:
    names = ("score", "win_rate", "strength")
    used = [name for name in names if any(getattr(m, name) for m in report.methods)]
    columns = ["method", "n"] + [f"{n}{end}" for n in used for end in ("", "_low", "_high")]
    rows: list[list[Any]] = []
    for m in ranked(report):
        estimates = [getattr(m, name) for name in used]
        rows.append([m.name, m.n, *(v for e in estimates for v in (e.value, e.low, e.high))])
    return csv_text(columns, rows)


def _answers_csv(report: StudyReport) -> str:
    columns = ["rater", "position", "image", "left_or_only", "right", "value", "chosen", "ms"]
    rows: list[list[Any]] = []
    for a in report.answers:
        pair = len(a.methods) == 2
        right, chosen = (a.methods[1], a.methods[a.value]) if pair else ("", "")
        rows.append([a.rater, a.position, a.stem, a.methods[0], right, a.value, chosen, a.ms])
    return csv_text(columns, rows)


def _both(estimate: Estimate | None) -> list[str]:
    if estimate is None or estimate.value is None:
        return [NONE, NONE]
    interval = f"{number(estimate.low, 3)} to {number(estimate.high, 3)}"
    return [number(estimate.value, 3), interval if estimate.low is not None else NONE]


def _quartiles(quartiles: tuple[float, ...]) -> list[str]:
    if not quartiles:
        return [NONE, NONE]
    low, median, high = (f"{q:g}" for q in quartiles)
    return [median, f"{low} to {high}"]
