"""Options shared by several commands, and the streams that `-` stands for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Literal

import typer

from hbr.files import STDIO

if TYPE_CHECKING:
    from hbr.restoration.batch.ray import RayActors

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
RecipeOption = Annotated[
    Literal["file", "sidecar", "both", "off"],
    typer.Option(
        help="Where the recipe goes that hbr replay makes the file from again: into its metadata, "
        "a sidecar FILE.hbr.json, both, or nowhere."
    ),
]
PeopleGrid = Annotated[
    Literal["stored", "upright"],
    typer.Option(
        help="Grid of pixels that people are annotated on in photos that EXIF turns, if the size "
        "in the annotations does not tell."
    ),
]
EngineOption = Annotated[
    Literal["local", "ray"],
    typer.Option(help="Where to run: on this machine, or on a Ray cluster (extra `ray`)."),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="auto|HOST:PORT",
        help="Address of the Ray head node. Default: start Ray on this machine.",
    ),
]
ActorsOption = Annotated[
    int | None, typer.Option(min=1, help="With ray: number of actors. Default: all that fit.")
]
ActorGpus = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="With ray: GPUs per actor; with 0.25, four actors share one. Default: 1 if the device "
        "is cuda.",
    ),
]
ActorMemory = Annotated[
    float | None, typer.Option(min=0.1, help="With ray: memory in GB to set aside per actor.")
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


def known_device(name: str) -> str:
    """The device that a name stands for; one that is not here is wrong usage of --device."""
    from hbr.devices import choose_device

    try:
        return str(choose_device(name))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--device") from None


def named_values(
    given: Sequence[str] | None, option: str, form: str = "NAME=PATH"
) -> dict[str, str]:
    """The values by name of an option of the form NAME=VALUE; a name twice is wrong usage."""
    found: dict[str, str] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not (name.strip() and equals and value):
            raise typer.BadParameter(f"{text!r} must be {form}", param_hint=option)
        if name.strip() in found:
            raise typer.BadParameter(f"{name.strip()} is given twice", param_hint=option)
        found[name.strip()] = value
    return found


def check_new(file: Path, option: str, *, replace: bool) -> None:
    """A file that is there already is wrong usage of the option, unless it may be replaced."""
    if file.exists() and not replace:
        raise typer.BadParameter(f"{file} exists; --overwrite replaces it", param_hint=option)


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
    check_new(page, option, replace=replace)
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


def actors_of(
    engine: Literal["local", "ray"],
    device: str,
    threads: int | None,
    address: str | None,
    workers: int | None,
    gpus: float | None,
    memory: float | None,
) -> RayActors | None:
    """The actors of a cluster; None for this process, whose threads are set.

    Raises:
        typer.BadParameter: an option is for the other engine.
    """
    if engine == "local":
        from hbr.processes import set_threads

        given = {"ray-address": address, "workers": workers, "gpus": gpus, "memory": memory}
        for name, value in given.items():
            if value is not None:
                raise typer.BadParameter("only valid with --engine ray.", param_hint=f"--{name}")
        set_threads(threads)
        return None
    from hbr.restoration.batch.ray import RayActors

    if device.startswith("cuda:"):
        raise typer.BadParameter(
            f"{device}: Ray gives each actor its own GPU; take cuda.", param_hint="--device"
        )
    return RayActors(
        address=address,
        workers=workers,
        threads=threads or 1,
        gpus=float(device == "cuda") if gpus is None else gpus,
        memory=None if memory is None else int(memory * 1e9),
    )
