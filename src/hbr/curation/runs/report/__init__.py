"""A run as one page: the funnel, its scores, and pictures of kept and rejected crops."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hbr.config import check
from hbr.curation.runs.run_folder import RunFolder
from hbr.files import write_text


def write_report(
    run: RunFolder,
    path: str | Path,
    *,
    kept: int = 48,
    rejected: int = 12,
    edge: int = 176,
    photos: bool = True,
    tell: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write the page of a run, finished or not; one file that needs no network.

    Args:
        run: the run.
        path: the file.
        kept: how many kept crops are shown.
        rejected: how many candidates are shown for each reason.
        edge: longer edge of the pictures, in pixels.
        photos: also show those that were rejected before they had a crop; for that, their photos
            are looked for in the sources.
        tell: called with a line for each step.

    Raises:
        ConfigError: a number that makes no sense.
        OSError: no space, no permission.
    """
    check(kept >= 0, "kept", kept, "0 or more")
    check(rejected >= 0, "rejected", rejected, "0 or more")
    check(16 <= edge <= 1024, "edge", edge, "16 to 1024")
    from hbr.curation.runs.report.contents import collect
    from hbr.curation.runs.report.html import as_html
    from hbr.curation.runs.report.sheets import draw_sheets

    tell("counting")
    contents = collect(run, kept=kept, rejected=rejected)
    tell("drawing")
    pictures = draw_sheets(run, contents.sheets, edge=edge, photos=photos)
    write_text(path, as_html(contents, pictures))
    return Path(path)
