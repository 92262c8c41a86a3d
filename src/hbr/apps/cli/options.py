"""Options shared by several commands, and the streams that `-` stands for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO, Annotated, Literal

import typer

from hbr.files import STDIO

PhotoArguments = Annotated[
    list[str] | None,
    typer.Argument(metavar="IN", show_default=False, help="Photos, folders or globs."),
]
InputOption = Annotated[
    list[str] | None,
    typer.Option("--input", "-i", metavar="IN", help="Another way to give IN; may be repeated."),
]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
MaxPixels = Annotated[
    int, typer.Option(min=1, help="Refuse photos with more pixels (width x height).")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.")]
Recursive = Annotated[bool, typer.Option("--recursive", help="Include photos in sub-folders.")]
MeasuringWorkers = Annotated[
    int | None,
    typer.Option(min=0, help="Measuring processes; 0: only this one; default: one per core."),
]
MetricWeights = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder of metric weights. Default: hbr's own.")
]
GrainOption = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        help="How much of the photo's own grain is put back, from 0 to 1: noise of its strength "
        "and look, measured where the photo is flat.",
    ),
]
RecipeOption = Annotated[
    Literal["file", "sidecar", "both", "off"],
    typer.Option(
        help="Where the recipe goes that hbr replay makes the file from again: into its metadata, "
        "a sidecar FILE.hbr.json, both, or nowhere."
    ),
]
ReportOption = Annotated[
    Path | None,
    typer.Option(
        metavar="PAGE.html",
        help="Write one HTML page about the batch: before and after, people, times, warnings, "
        "failures. It works offline.",
    ),
]
SaveMapOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Write a grey picture for each output there, brighter where it shows detail that the "
        "photo does not.",
    ),
]
PeopleGrid = Annotated[
    Literal["stored", "upright"],
    typer.Option(
        help="Grid of pixels that people are annotated on in photos that EXIF turns, if the size "
        "in the annotations does not tell."
    ),
]


def all_inputs(
    photos: list[str] | None, inputs: list[str] | None, *, needed: bool = True
) -> list[str]:
    """The inputs of both spellings.

    Raises:
        typer.BadParameter: there are none, and some are needed.
    """
    given = [*(inputs or ()), *(photos or ())]
    if needed and not given:
        raise typer.BadParameter(
            "name at least one photo, folder or glob.", param_hint="IN or --input"
        )
    return given


def check_page(page: Path, option: str, *, replace: bool) -> None:
    """Check before the work that an HTML page can be written.

    Raises:
        typer.BadParameter: the name does not end in .html, or something is there.
        hbr.image.PhotoError: its folder cannot be written to.
    """
    from hbr.restoration.batch.jobs import check_writable

    if page.suffix.lower() not in (".html", ".htm"):
        raise typer.BadParameter(f"{page} must end in .html", param_hint=option)
    if page.exists() and not page.is_file():
        raise typer.BadParameter(f"{page} is not a regular file", param_hint=option)
    if page.exists() and not replace:
        raise typer.BadParameter(f"{page} exists; --overwrite replaces it", param_hint=option)
    check_writable(page.parent)


def read_stdin(given: list[str]) -> IO[bytes] | None:
    """All of stdin, as a file in memory, if `-` is the input; None if it is not among the inputs.

    Raises:
        typer.BadParameter: there are other inputs, or stdin is a terminal.
    """
    from hbr.image.reading import named_bytes

    if STDIO not in given:
        return None
    if len(given) > 1:
        raise typer.BadParameter(
            "- stands for one photo from stdin; give it as the only input.", param_hint="IN"
        )
    if sys.stdin.isatty():
        raise typer.BadParameter("stdin is a terminal; pipe a photo into it.", param_hint="IN")
    return named_bytes(sys.stdin.buffer.read(), "stdin")


def open_stdout(out: str) -> IO[bytes] | None:
    """Stdout, as a binary file, if the output is `-`; else None.

    Raises:
        typer.BadParameter: stdout is a terminal.
    """
    if out != STDIO:
        return None
    if sys.stdout.isatty():
        raise typer.BadParameter(
            "stdout is a terminal; redirect it into a file or a pipe.", param_hint="--output"
        )
    return sys.stdout.buffer
