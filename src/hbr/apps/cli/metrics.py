"""`hbr metrics list | show | fetch | fit-niqe`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hbr.apps.cli import fetching
from hbr.apps.cli.options import AsJson, Overwrite
from hbr.apps.cli.reporting import Reporter, print_json, print_table
from hbr.errors import ExitCode

if TYPE_CHECKING:
    from torch import Tensor

app = typer.Typer(
    help="What can be measured, and how each number comes about.", no_args_is_help=True
)


@app.command("list")
def list_metrics(
    as_json: AsJson = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="As it stands in docs/metrics.md.")
    ] = False,
) -> None:
    """List every metric: version, direction, colour space, crop, what it needs, its licence."""
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
    name: Annotated[str, typer.Argument(metavar="ID", help="An id of `hbr metrics list`.")],
    as_json: AsJson = False,
) -> None:
    """Show how a metric comes about, and whether its weights are on this machine."""
    from hbr.metrics.table import find_metric
    from hbr.weights import entries

    info = find_metric(name)
    told = {
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
        print_json({**told, "weights": weights})
        return
    for key, value in told.items():
        typer.echo(f"{key.replace('_', ' ')}: {value}")
    for row in weights:
        where = row["file"] or f"not on this machine; {row['obtain']}"
        typer.echo(f"weights {row['name']}: {row['summary']}; {row['licence']}; {where}")


app.command("fetch", help="The same as `hbr fetch`.")(fetching.fetch)


@app.command("fit-niqe")
def fit_niqe(
    photos: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="Sharp photographs.", exists=True, file_okay=False),
    ],
    out: Annotated[Path, typer.Option("--output", "-o", help="The .npz file to write.")],
    overwrite: Overwrite = False,
) -> None:
    """Fit NIQE's model of natural photographs to a folder of sharp ones.

    Values of NIQE compare only under one model. Photos that cannot be read are left out and
    counted: exit code 3.
    """
    if out.suffix.lower() != ".npz":
        raise typer.BadParameter("the model is an .npz file", param_hint="--output")
    if out.exists() and not overwrite:
        raise typer.BadParameter(f"{out} exists; --overwrite replaces it", param_hint="--output")
    from hbr.files import sha256
    from hbr.image.paths import find_photos
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
    """The photos [1, 3, h, w] that NIQE can be fitted to; the others are reported and listed."""
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
