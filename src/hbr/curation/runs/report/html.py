"""The page itself: one file of HTML, without scripts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from hbr.curation.record import REASONS, Record
from hbr.curation.runs.report.contents import Contents, Histogram, Sheet
from hbr.curation.runs.report.figures import histogram_svg
from hbr.pages import environment
from hbr.version import __version__

STAGE_NAMES: Mapping[str, str] = {
    "read": "images read",
    "boxes": "boxes of people",
    "sharpness": "sharpness",
    "size": "size of the person",
    "crop": "square crop, crowds, overlaps",
    "resize": "resize",
    "quality": "image quality",
    "eq1": "mean of z-scores (Eq. 1)",
    "duplicates": "near-duplicates",
    "splits": "splits",
}
_WHOLE_SET = ("eq1", "duplicates", "splits")
COLUMN_NAMES: Mapping[str, str] = {
    "sharpness": "sharpness (variance of the Laplacian)",
    "box_edge": "longer edge of the box, px",
    "z_mean": "mean z-score (Eq. 1)",
}


def as_html(contents: Contents, pictures: Mapping[str, str]) -> str:
    """The page.

    `pictures`: id → `data:` address.
    """
    from markupsafe import Markup

    histograms = [
        {
            "name": COLUMN_NAMES.get(h.column, h.column),
            "svg": Markup(histogram_svg(h, _spoken(h))),
            "note": _note(h),
        }
        for h in contents.histograms
    ]
    sheets = [_sheet(sheet, pictures) for sheet in contents.sheets]
    return (
        environment(__package__)
        .get_template("report.html")
        .render(
            c=contents,
            summary=contents.summary,
            licences=contents.totals.licences.most_common(),
            persons=contents.totals.persons.mean,
            tags=contents.totals.tags.most_common(40),
            version=__version__,
            steps=list(_steps(contents)),
            histograms=histograms,
            quality=list(_quality(contents)),
            kept=[s for s in sheets if s["reason"] is None and s["shown"]],
            rejected=[s for s in sheets if s["reason"] is not None and s["shown"]],
            missing=sum(s["missing"] for s in sheets),
            costs=list(_costs(contents)),
            settings=dict(_settings(contents.settings)),
            state=_state(contents),
        )
    )


def _steps(contents: Contents) -> Iterator[dict[str, Any]]:
    for step in contents.summary.funnel:
        most_first = sorted(step.stopped.items(), key=lambda item: -item[1])
        yield {
            "name": STAGE_NAMES[step.stage],
            "entered": step.entered,
            "passed": step.passed,
            "stopped": [(n, REASONS[step.stage][reason]) for reason, n in most_first],
            "width": 100 * step.passed / max(contents.summary.rows, 1),  # percent
            "pending": not contents.finished and step.stage in _WHOLE_SET,
        }


def _sheet(sheet: Sheet, pictures: Mapping[str, str]) -> dict[str, Any]:
    why = REASONS[sheet.stage][sheet.reason] if sheet.reason else ""
    if sheet.metric:
        above = sheet.reason == "above-ceiling"
        line = "better than its ceiling" if above else "on the wrong side of its threshold"
        why = f"{sheet.metric} is {line}"
    shown = [
        {"uri": pictures[r.id], "id": r.id, "text": _caption(r), "title": _title(r)}
        for r in sheet.records
        if r.id in pictures
    ]
    return {
        "reason": sheet.reason,
        "anchor": f"{sheet.stage}-{sheet.reason}" + (f"-{sheet.metric}" if sheet.metric else ""),
        "stage": sheet.stage,
        "why": why,
        "count": sheet.count,
        "shown": shown,
        "missing": len(sheet.records) - len(shown),
    }


def _caption(record: Record) -> str:
    """The caption of a picture: the number that stopped it, or its score."""
    if record.reason == "below-threshold" and record.detail:
        text = " ".join(record.detail.split()[:2])
    elif record.reason == "blurred" and record.sharpness is not None:
        text = f"variance {record.sharpness:.1f}"
    elif record.reason in (None, "not-in-top") and record.z_mean is not None:
        text = f"z̄ {record.z_mean:+.2f}"
    elif record.detail:
        text = record.detail
    else:
        text = f"variance {record.sharpness:.0f}" if record.sharpness is not None else ""
    return text.replace(" -", " −")


def _title(record: Record) -> str:
    scores = ", ".join(f"{name} {value:.4g}" for name, value in record.scores.items())
    lines = [
        f"{record.source}/{record.key}",
        f"licence: {record.licence or 'not stated'}",
        *([record.attribution] if record.attribution else []),
        *([scores] if scores else []),
        *([f"split: {record.split}"] if record.split else []),
    ]
    return "\n".join(lines)


def _spoken(h: Histogram) -> str:
    line = "" if h.threshold is None else f", threshold {h.threshold:g}"
    return f"{COLUMN_NAMES.get(h.column, h.column)}: {h.n:,} values{line}"


def _note(h: Histogram) -> str:
    said = [f"{h.n:,} values"]
    if h.threshold is not None:
        said.append(f"{h.passed:,} ({h.passed / max(h.n, 1):.0%}) on the good side")
    if h.below or h.above:
        said.append(f"{h.below + h.above:,} beyond the ends are in the outermost bars")
    if h.logarithmic:
        said.append("logarithmic scale")
    return "; ".join(said)


def _quality(contents: Contents) -> Iterator[dict[str, str]]:
    for h in contents.histograms:
        yield {
            "name": COLUMN_NAMES.get(h.column, h.column),
            "better": "↑" if h.better == "higher" else "↓",
            "line": "none" if h.threshold is None else f"{h.threshold:g}",
            "all": _mean_text(h.total, h.n),
            "kept": _mean_text(h.total_kept, h.n_kept),
            "share": "" if h.threshold is None else f"{h.passed / max(h.n, 1):.1%}",
        }


def _mean_text(total: float, n: int) -> str:
    return f"{total / n:.4g}".replace("-", "−") if n else "–"


def _costs(contents: Contents) -> Iterator[tuple[str, int, float, float]]:
    for stage, (n, seconds) in contents.summary.costs.items():
        if n:
            yield stage, n, seconds, 1e3 * seconds / n


def _settings(about: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, str]]:
    for key, value in about.items():
        name = f"{where}{key}"
        if isinstance(value, dict) and value:
            yield from _settings(value, f"{name}.")
        elif not name.startswith("quality.metrics"):
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield name, text


def _state(contents: Contents) -> str:
    """One sentence, if the run has not finished."""
    if contents.finished:
        return ""
    status = contents.status
    where = "This run has not finished: what follows is what is done so far, before the stages "
    where += "over the whole set (Eq. 1, near-duplicates, splits)."
    if status is None:
        return where
    word = {"failed": f" It failed: {status.why}", "stopped": " It was stopped."}.get(status.state)
    return where + (word or (" It is at work." if status.alive else " It is not at work."))
