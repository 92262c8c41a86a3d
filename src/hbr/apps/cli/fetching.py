"""Downloads on the command line: a bar where a person looks on, else a line a file."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from hbr.download import KnownFile, Progress


def fetch_files(files: Iterable[KnownFile], folder: Path) -> None:
    """Bring the files into `folder`, one after the other; those that are there are checked.

    Raises:
        DownloadError: see `hbr.download.fetch`.
    """
    from hbr.download import fetch

    for known in files:
        with _bar(known.path) as progress:
            path = fetch(known, folder, progress=progress)
        typer.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB", err=True)


@contextmanager
def _bar(name: str) -> Iterator[Progress]:
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
