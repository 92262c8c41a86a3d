"""A benchmark run as a reader sees it: Markdown, LaTeX, CSV, and one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from hbr.config import check
from hbr.evaluation.results import BenchmarkRun
from hbr.files import write_text

FORMATS = ("html", "md", "tex", "csv")


def render(run: BenchmarkRun, out: str | Path, formats: Collection[str] = FORMATS) -> list[Path]:
    """Write `report.html`, `report.md`, `report.tex` and `report.csv` into a folder.

    Each is whole or not there; the same run gives the same bytes.

    Args:
        run: what was found.
        out: folder; made if missing.
        formats: some of `html`, `md`, `tex`, `csv`.

    Returns:
        the files, in the order of `FORMATS`.

    Raises:
        ConfigError: a format that is not one of these.
    """
    for name in formats:
        check(name in FORMATS, "formats", name, f"one of {', '.join(FORMATS)}")
    from hbr.evaluation.report.html import as_html
    from hbr.evaluation.report.texts import as_csv, as_latex, as_markdown

    makers = {"html": as_html, "md": as_markdown, "tex": as_latex, "csv": as_csv}
    files = {name: Path(out) / f"report.{name}" for name in FORMATS if name in formats}
    for name, path in files.items():
        write_text(path, makers[name](run))
    return list(files.values())
