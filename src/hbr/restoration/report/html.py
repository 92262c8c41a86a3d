"""The page of a batch: totals, sliders, every photo with its outcome, and how it was done."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import quote

from hbr.errors import display_name
from hbr.pages import environment, script_data
from hbr.restoration.batch.records import FileRecord
from hbr.restoration.report.collecting import EDGE, BatchReport

_STATES = {
    "restored": "restored",
    "skipped": "restored before",
    "failed": "failed",
    "planned": "not done",
}
_LEFT = "left as it is: nothing to restore"
_STAGES = {"read": "reading", "model": "model", "color": "colours", "write": "writing"}
_HOW = {
    "model": "model",
    "sha256": "SHA-256 of it",
    "fidelity": "fidelity",
    "device": "device",
    "dtype": "precision",
    "scale": "scale",
    "size": "longer edge",
    "color": "colour fix",
    "seed": "seed",
    "prompt": "prompt",
}


def as_html(report: BatchReport, page: Path, *, total: int, ended: str, seconds: float) -> str:
    """The page.

    Links to the outputs are relative to `page`, where the page will lie.
    """
    records = report.records
    provenance = next((r.provenance for r in records if r.provenance), {})
    rows = [_row(record, report, page) for record in records]
    return (
        environment(__package__)
        .get_template("report.html")
        .render(
            title=_title(records, total),
            version=provenance.get("hbr", ""),
            ended=ended,
            took=duration(seconds),
            facts=_facts(records, total),
            how={
                name: _shown(provenance[key])
                for key, name in _HOW.items()
                if provenance.get(key) is not None
            },
            bad=[(row["name"], row["error"]) for row in rows if "error" in row],
            edge=EDGE,
            inside=len(report.pairs),
            data=script_data({"rows": rows, "people": any("people" in row for row in rows)}),
        )
    )


def duration(seconds: float) -> str:
    """A time for people, such as "3 min 20 s"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _title(records: Sequence[FileRecord], total: int) -> str:
    count = Counter(_state(record) for record in records)
    done = count["restored"]
    parts = [f"{done} {'photo' if done == 1 else 'photos'} restored"]
    if count[_LEFT]:
        parts.append(f"{count[_LEFT]} left as {'it is' if count[_LEFT] == 1 else 'they are'}")
    if count["failed"]:
        parts.append(f"{count['failed']} failed")
    if total > len(records):
        parts.append(f"{total - len(records)} not done")
    return ", ".join(parts)


def _facts(records: Sequence[FileRecord], total: int) -> dict[str, str]:
    """The totals, by what they count."""
    done = [record for record in records if record.status == "restored"]
    facts = {"inputs": f"{total}"}
    if before := sum(record.status == "skipped" for record in records):
        facts["restored before"] = f"{before}"
    if warned := sum(bool(record.warnings) for record in records):
        facts["with warnings"] = f"{warned}"
    known = [record.people for record in done if record.people is not None]
    if known:
        facts["people"] = f"{sum(map(len, known))} in {sum(map(bool, known))} photos"
    if times := [record.timings["total"] for record in done if "total" in record.timings]:
        facts["a photo takes"] = f"{median(times):.2f} s (median), {max(times):.2f} s at most"
        facts["of that"] = ", ".join(_shares(done, sum(times)))
    return facts


def _shares(done: Sequence[FileRecord], total: float) -> Iterator[str]:
    for stage, name in _STAGES.items():
        share = sum(record.timings.get(stage, 0.0) for record in done) / max(total, 1e-9)
        yield f"{name} {share:.0%}"


def _row(record: FileRecord, report: BatchReport, page: Path) -> dict[str, Any]:
    """A photo, as the script of the page shows it; without what it does not have."""
    output = record.output or ""
    source = display_name(record.input)
    names = (f"{source}: ", f"{display_name(output)}: ")
    said = [line.removeprefix(names[0]).removeprefix(names[1]) for line in _said(record)]
    width, height = record.size or (0, 0)
    row: dict[str, Any] = {
        "name": display_name(Path(output or record.input).name),
        "state": _state(record),
        "error": (record.error or "").removeprefix(names[0]).removeprefix(names[1]),
        "notes": said,
        "size": f"{width}×{height}" if record.size else "",
        "seconds": round(record.timings.get("total", 0.0), 2),
        "link": _link(output, page) if record.status in ("restored", "skipped") else "",
        "thumbnail": report.thumbnails.get(output, ""),
    }
    if record.people is not None:
        row["people"] = len(record.people)
    if pair := report.pairs.get(output):
        row["pair"] = {"before": pair.before, "after": pair.after, "width": width or 1}
        row["pair"]["ratio"] = width / height if height else 1
        row["pair"]["boxes"] = list(_boxes(record.people or (), pair.size))
    return {k: v for k, v in row.items() if v not in ("", [], 0.0) or k == "people"}


def _state(record: FileRecord) -> str:
    untouched = record.provenance.get("gate") == "nothing to restore"
    return _LEFT if untouched else _STATES[record.status]


def _said(record: FileRecord) -> list[str]:
    """What there is to know of a photo besides its error."""
    said = list(record.warnings)
    if record.provenance.get("gate") == "beyond the model":
        reasons = " and ".join(record.provenance.get("gate_reasons", ()))
        said.append(f"beyond the model: {reasons}")
    return said


def _boxes(
    people: Sequence[Mapping[str, Any]], size: tuple[int, int]
) -> Iterator[tuple[float, float, float, float]]:
    """Left, top, width and height in percent of the photo."""
    for person in people:
        x, y, w, h = person["box"]
        shares = (x / size[0], y / size[1], w / size[0], h / size[1])
        left, top, width, height = (round(100 * share, 2) for share in shares)
        yield left, top, width, height


def _link(output: str, page: Path) -> str:
    """The address of an output as seen from the page; empty where there is none."""
    try:
        return quote(Path(os.path.relpath(output, page.parent)).as_posix())
    except ValueError:  # on another drive
        return ""


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
