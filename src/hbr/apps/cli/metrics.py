"""`hbr metrics list | show | fetch | fit-niqe`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hbr.apps.cli import fetching
from hbr.apps.cli.options import AsJson, Overwrite, check_new
from hbr.apps.cli.reporting import Reporter, print_json, print_table
from hbr.errors import ExitCode

if TYPE_CHECKING:
    from torch import Tensor

app = typer.Typer(help="List and show the metrics, and get what they need.", no_args_is_help=True)


@app.command("list")
def list_metrics(
    as_json: AsJson = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the table of docs/metrics.md.")
    ] = False,
) -> None:
    """List the metrics: version, direction, kind, colour space, crop, weights, licence."""
    from hbr.metrics.table import METRICS, table_as_markdown

    if markdown:
        typer.echo(table_as_markdown(), nl=False)
        return
    if as_json:
        rows = [dataclasses.asdict(info) for info in METRICS.values()]
        print_json(rows)
        return
    columns = ("id", "version", "better", "kind", "colour", "crop", "weights", "licence")
    lines = [
        (
            info.id,
            f"{info.implementation} {info.version}",
            info.better,
            info.kind,
            info.colour,
            str(info.crop),
            ", ".join(info.weights) or "none",
            info.licence,
        )
        for info in METRICS.values()
    ]
    print_table(columns, lines)


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(metavar="ID", help="A metric id (see hbr metrics list).")],
    as_json: AsJson = False,
) -> None:
    """Show how a metric is computed, and whether its weights are on this machine."""
    from hbr.metrics.table import find_metric
    from hbr.weights import entries

    info = find_metric(name)
    details = {
        key: ", ".join(value) if isinstance(value, tuple) else value
        for key, value in dataclasses.asdict(info).items()
        if key not in ("function", "factory", "weights") and value not in (None, "", ())
    }
    weights = [
        {
            "name": known.name,
            "summary": known.summary,
            "source": known.source,
            "licence": known.licence,
            "file": str(file) if (file := known.find()) else None,
            "obtain": known.obtain,
        }
        for known in map(entries().__getitem__, info.weights)
    ]
    if as_json:
        print_json({**details, "weights": weights})
        return
    for key, value in details.items():
        typer.echo(f"{key.replace('_', ' ')}: {value}")
    for row in weights:
        where = row["file"] or f"not on this machine; {row['obtain']}"
        typer.echo(f"weights {row['name']}: {row['summary']}; {row['licence']}; {where}")


app.command("fetch", help="Alias of `hbr fetch`.")(fetching.fetch)


@app.command("fit-niqe")
def fit_niqe(
    photos: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="Folder of sharp photos.", exists=True, file_okay=False
        ),
    ],
    out: Annotated[Path, typer.Option("--output", "-o", help="The .npz file to write.")],
    overwrite: Overwrite = False,
) -> None:
    """Fit NIQE's model of natural photographs to a folder of sharp photos.

    NIQE values are comparable only under the same model. Unreadable photos are skipped, and the
    exit code is then 3.
    """
    if out.suffix.lower() != ".npz":
        raise typer.BadParameter("the model is an .npz file", param_hint="--output")
    check_new(out, "--output", replace=overwrite)
    from hbr.files import sha256
    from hbr.image.search import find_photos
    from hbr.metrics import MetricError
    from hbr.metrics.niqe import fit_niqe as fit

    files = find_photos(photos)
    reporter = Reporter(as_json=False)
    left_out: list[Path] = []
    name = photos.resolve().name
    with reporter.listening(), reporter.bar(len(files)):
        try:
            model = fit(_readable(files, left_out, reporter), name)
        except MetricError as error:
            raise typer.BadParameter(str(error), param_hint="FOLDER") from None
    fitted_on = f"{len(files) - len(left_out)} photos of {name}"
    dataclasses.replace(model, fitted_on=fitted_on).save(out)
    reporter.say("info", f"fitted on {fitted_on}; SHA-256 {sha256(out)[:16]}")
    typer.echo(out)
    if left_out:
        raise typer.Exit(ExitCode.SOME)


def _readable(files: Sequence[Path], left_out: list[Path], reporter: Reporter) -> Iterator[Tensor]:
    """Yield the photos [1, 3, h, w] large enough for NIQE; add the others to `left_out`."""
    from hbr.image import PhotoError, read_photo
    from hbr.metrics.niqe import BLOCK

    for number, file in enumerate(files, 1):
        try:
            photo = read_photo(file)
            if min(photo.size) < BLOCK:
                raise PhotoError(f"{file} is smaller than a block of {BLOCK}x{BLOCK}")
            yield photo.tensor()
        except PhotoError as error:
            left_out.append(file)
            reporter.say("error", str(error))
        reporter.moved(number, len(files))
