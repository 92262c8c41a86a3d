"""The results of `inference.py` as one page that stands alone: tables and plots in SVG."""

import html
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem .7rem;text-align:right;
border-bottom:1px solid #ccc}td:first-child,th:first-child{text-align:left}svg{max-width:100%}
figure{display:inline-block;margin:0 1rem 1rem 0}figcaption{font-weight:600}"""

WIDTH, HEIGHT, LEFT, BOTTOM = 420, 260, 56, 34


def write_page(folder: Path) -> Path:
    """Write index.html beside the JSON files of a folder, one section for each."""
    results = [json.loads(file.read_text()) for file in sorted(folder.glob("inference-*.json"))]
    body = "".join(section(result) for result in results)
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Speed of inference</title>'
        f"<style>{STYLE}</style><h1>Speed of inference</h1><p>Written by "
        "<code>benchmarks/inference.py</code>. Plain: diffusers and peft, float32, separate "
        "adapters, with the same weights, in turns in one process. Floor: the multiplications of "
        "hbr's model at the machine's measured peak in any precision.</p>"
        f"{body}</html>\n"
    )
    target = folder / "index.html"
    target.write_text(page)
    return target


def section(result: dict[str, Any]) -> str:
    """Everything about one model."""
    compared, on = result["compared"], result["machine"]
    rows = [
        [key, *(f"{row[name]:g}" for name in COLUMNS)] for key, row in compared["parts"].items()
    ]
    parts = table(["", *COLUMNS.values()], rows)
    plots = [
        ("Seconds by edge in pixels", points(result["sizes"], "size", "seconds")),
        ("Peak memory in GiB by edge", points(result["sizes"], "size", "peak_gib")),
        ("Images a second by batch", points(result["batches"], "batch", "images_per_second")),
        ("Seconds by threads", points(result["threads"], "threads", "seconds")),
    ]
    processes = "".join(
        f" hbr restore of {row['size'][1]}×{row['size'][0]} pixels as a process: "
        f"{row['seconds']} s, {row['peak_gib']} GiB."
        for row in result.get("processes", ())
    )
    processes += "".join(
        f" Backend {row['backend']} in {row['dtype']}: {row['seconds']} s."
        for row in result.get("backends", ())
    )
    thousand = ", ".join(
        f"{value:g} {key.replace('_', ' ')}" for key, value in result["thousand_images"].items()
    )
    peaks = ", ".join(f"{key} {value:g}" for key, value in compared["peaks"].items())
    saved = ", ".join(f"{s['rewrite']} {s['parameters']:,}" for s in compared["savings"])
    return (
        f"<h2>{html.escape(result['model'])}</h2>"
        f"<p>{html.escape(on['cpu'])}, {on['cores']} cores, torch {on['torch']}, commit "
        f"{result['commit']}. Measured peaks: {peaks}. PSNR to the plain path: "
        f"{compared['psnr_to_plain_of_its_spread']} dB of its own spread. A thousand images of "
        f"512×512: {thousand}. Parameters saved by rewrites: {saved}.{processes}</p>{parts}"
        + "".join(plot(title, xy) for title, xy in plots)
    )


COLUMNS = {
    "seconds": "seconds",
    "plain_seconds": "plain",
    "speedup": "times faster",
    "gflop": "GFLOP",
    "plain_gflop": "plain GFLOP",
    "floor_seconds": "floor",
    "times_floor": "of the floor",
}


def points(rows: Sequence[dict[str, float]], x: str, y: str) -> list[tuple[float, float]]:
    """Pairs out of rows."""
    return [(row[x], row[y]) for row in rows]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table."""
    lines = [("th", head), *(("td", row) for row in rows)]
    return (
        "<table>"
        + "".join(
            "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>"
            for tag, row in lines
        )
        + "</table>"
    )


def plot(title: str, xy: Sequence[tuple[float, float]]) -> str:
    """A line through points; both axes are logarithmic."""
    xs, ys = [math.log(x) for x, _ in xy], [math.log(y) for _, y in xy]
    low, high = min(ys) - 0.1, max(ys) + 0.1
    span = max(xs) - min(xs) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        right = LEFT + (x - min(xs)) / span * (WIDTH - LEFT - 20)
        return right, (high - y) / (high - low) * (HEIGHT - BOTTOM - 10) + 10

    places = [place(x, y) for x, y in zip(xs, ys, strict=True)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    marks = "".join(
        f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3"/>'
        f'<text x="{px:.1f}" y="{HEIGHT - 12}" text-anchor="middle">{x:g}</text>'
        f'<text x="{LEFT - 8}" y="{py + 4:.1f}" text-anchor="end">{y:g}</text>'
        for (px, py), (x, y) in zip(places, xy, strict=True)
    )
    return (
        f'<figure><figcaption>{html.escape(title)}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" role="img" aria-label="{html.escape(title)}" font-size="11">'
        f'<polyline points="{line}" fill="none" stroke="#06c" stroke-width="2"/>{marks}'
        "</svg></figure>"
    )
