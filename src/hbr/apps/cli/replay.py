"""`hbr replay`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hbr.apps.cli.options import MaxPixels, Overwrite, check_new
from hbr.apps.cli.reporting import Reporter, print_json
from hbr.errors import ExitCode, display_name
from hbr.image.limits import DEFAULT_MAX_PIXELS

if TYPE_CHECKING:
    from hbr.restoration.replay import RecordedFile


def replay(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A restored photo, or its .hbr.json sidecar.")
    ],
    source: Annotated[
        Path | None,
        typer.Option(
            metavar="PHOTO|FOLDER",
            help="The photo that it was made from, or a folder to search. Default: the photo of "
            "that name beside FILE, one folder up, or here.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="OUT", help="Write the file. Default: only compare."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model file, if it is not a known model.")
    ] = None,
    decoder: Annotated[
        str | None, typer.Option(help="The decoder's file, if it is not a known decoder.")
    ] = None,
    show: Annotated[
        bool, typer.Option("--show", help="Print the recipe as JSON, and make nothing.")
    ] = False,
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS,
    overwrite: Overwrite = False,
) -> None:
    """Make a restored photo again from the recipe that it carries, and compare the bytes.

    hbr replay restored/old.jpg

    The photo is recognised by its SHA-256, the model by the hash of its file. If the bytes are not
    the same, the last line says what differs: pixels or metadata, versions, threads, processor.
    Exit codes: 0 the same bytes; 3 made, with other bytes; 1 no recipe or no photo; 4 the model is
    missing or another.
    """
    reporter = Reporter(as_json=False)
    with reporter.listening():
        from hbr.restoration.replay import read_recorded

        record = read_recorded(file, max_pixels=max_pixels)
        if show:
            from hbr.restoration.recipe import as_json

            print_json(as_json(record.recipe))
            return
        if out is not None:
            from hbr.restoration.batch.jobs import check_writable

            if out.is_dir():
                why = f"{out} is a folder; name a file"
                raise typer.BadParameter(why, param_hint="--output")
            check_new(out, "--output", replace=overwrite)
            check_writable(out.parent)
        raise typer.Exit(_replay(record, source, out, (model, decoder), max_pixels, reporter))


def _replay(
    record: RecordedFile,
    source: Path | None,
    out: Path | None,
    named: tuple[str | None, str | None],
    max_pixels: int,
    reporter: Reporter,
) -> ExitCode:
    """Make it again; `named` are the model and the decoder where the recipe's are not known."""
    from hbr.processes import set_threads
    from hbr.restoration.replay import compared, differences, find_source, load_restorer, replay

    found = find_source(record.recipe, record.file, source)
    set_threads(record.recipe.threads)
    restorer = load_restorer(record.recipe, *named)
    made = replay(record, found, restorer)
    if out is not None:
        from hbr.files import write_bytes

        write_bytes(out, made)
        typer.echo(str(out))
    name = display_name(record.file)
    difference = compared(record, made, max_pixels=max_pixels)
    if difference is None:
        reporter.say("info", f"{name}: the same bytes")
        return ExitCode.OK
    since = ", ".join(differences(record.recipe, restorer))
    why = f"made with {since}" if since else "made with the same versions, threads and processor"
    reporter.say("warning", f"{name}: other bytes: {difference}; {why}")
    return ExitCode.SOME
