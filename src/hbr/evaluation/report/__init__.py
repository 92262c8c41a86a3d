"""A benchmark run as a reader sees it: Markdown, LaTeX, CSV, and one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from hbr.config import check
from hbr.evaluation.results import BenchmarkRun
from hbr.files import write_text

FORMATS = ("html", "md", "tex", "csv")


def render(
    run: BenchmarkRun,
    out: str | Path,
    formats: Collection[str] = FORMATS,
    *,
    picture_edge: int = 560,
    picture_bytes: int = 24_000_000,
) -> list[Path]:
    """Write `report.html`, `report.md`, `report.tex` and `report.csv` into a folder.

    Each is whole or not there; the same run gives the same bytes.

    Args:
        run: what was found.
        out: folder; made if missing.
        formats: some of `html`, `md`, `tex`, `csv`.
        picture_edge: longer edge of the pictures inside the page, in pixels.
        picture_bytes: how large they may be altogether. The best and worst of each metric come
            first, then others, spread evenly.

    Returns:
        the files, in the order of `FORMATS`.

    Raises:
        ConfigError: a format that is not one of these.
    """
    for name in formats:
        check(name in FORMATS, "formats", name, f"one of {', '.join(FORMATS)}")
    check(picture_edge >= 16, "picture_edge", picture_edge, "16 or more")
    check(picture_bytes >= 0, "picture_bytes", picture_bytes, "0 or more")
    from hbr.evaluation.report.html import as_html
    from hbr.evaluation.report.texts import as_csv, as_latex, as_markdown

    written = []
    for name in FORMATS:
        if name not in formats:
            continue
        if name == "html":
            text = as_html(run, edge=picture_edge, budget=picture_bytes)
        else:
            text = {"md": as_markdown, "tex": as_latex, "csv": as_csv}[name](run)
        path = Path(out) / f"report.{name}"
        write_text(path, text)
        written.append(path)
    return written
