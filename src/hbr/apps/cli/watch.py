"""`hbr watch`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hbr.apps.cli.options import MaxPixels, RecipeOption, Recursive
from hbr.apps.cli.reporting import Reporter, as_number_or
from hbr.apps.cli.restoring import (
    Color,
    ColorOption,
    DecoderOption,
    DeviceOption,
    DtypeChoice,
    DtypeOption,
    FidelityOption,
    FormatOption,
    GateChoice,
    GateOption,
    KeepTimes,
    LogFormat,
    LogFormatOption,
    ModelOption,
    QualityOption,
    Quiet,
    ScaleOption,
    SeedOption,
    SizeOption,
    ThreadsOption,
    TileOption,
    load_restorer,
    restore_settings,
)
from hbr.errors import ExitCode
from hbr.image.limits import DEFAULT_MAX_PIXELS

if TYPE_CHECKING:
    from hbr.restoration.batch.records import FileRecord


def watch(
    folder: Annotated[Path, typer.Argument(metavar="IN", help="Folder in which photos arrive.")],
    out: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="Folder of the outputs, in which sub-folders and names are kept.",
        ),
    ],
    recursive: Recursive = False,
    settle: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="A file is complete that has not changed for this long."
        ),
    ] = 2.0,
    poll: Annotated[
        float, typer.Option(metavar="SECONDS", help="Time between two looks at the folder.")
    ] = 1.0,
    model: ModelOption = "nano",
    fidelity: FidelityOption = None,
    decoder: DecoderOption = None,
    scale: ScaleOption = 1.0,
    size: SizeOption = None,
    tile: TileOption = "auto",
    color: ColorOption = Color.auto,
    device: DeviceOption = "auto",
    dtype: DtypeChoice = DtypeOption.auto,
    threads: ThreadsOption = None,
    seed: SeedOption = 0,
    gate: GateChoice = GateOption.off,
    file_format: FormatOption = "keep",
    quality: QualityOption = 95,
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS,
    keep_times: KeepTimes = False,
    recipe: RecipeOption = "file",
    log_format: LogFormatOption = LogFormat.text,
    quiet: Quiet = False,
) -> None:
    """Restore photos as they arrive in a folder, such as a scanner's, until Ctrl-C.

    hbr watch scans/ -o restored/

    A file is restored once it is complete, those that are there at the start included. What was
    restored is recorded in OUT by contents: after a restart, nothing is done twice. Each written
    file is a line IN -> OUT on stdout, errors go to stderr. A file that failed is tried again when
    it changes, or after a restart. Exit codes: 130 stopped by Ctrl-C or SIGTERM; 1 the folder or
    that of the outputs is gone; 2 usage error; 4 missing or invalid weights.
    """
    from hbr.processes import StopSignals, set_threads
    from hbr.restoration.batch.backends import Wanted
    from hbr.restoration.batch.outputs import Files
    from hbr.restoration.batch.watching import Watched
    from hbr.restoration.batch.watching import watch as run

    set_threads(threads)
    settings = restore_settings(
        scale=scale,
        size=size,
        tile=as_number_or("auto", tile, "--tile"),
        color=color.value,
        seed=seed,
        gate=gate.value,
        max_pixels=max_pixels,
    )
    watched = Watched(
        folder=folder,
        out=out,
        format=file_format,
        recursive=recursive,
        settle=settle,
        poll=poll,
    )
    files = Files(quality=quality, max_pixels=max_pixels, keep_times=keep_times, recipe=recipe)
    reporter = Reporter(as_json=log_format is LogFormat.json, quiet=quiet)
    counts = {"restored": 0, "failed": 0}
    with (
        StopSignals() as stop,
        reporter.listening(),
        reporter.interruption(
            stop, lambda: f"stopped, {counts['restored']} restored, {counts['failed']} failed"
        ),
    ):
        wanted = Wanted(
            model=model, device=device, dtype=dtype.value, fidelity=fidelity, decoder=decoder
        )
        restorer = load_restorer(wanted, settings)
        reporter.say("info", f"watching {folder}; Ctrl-C ends it")
        for record in run(watched, partial(restorer, settings=settings), files, stop=stop):
            if record.status in counts:
                counts[record.status] += 1
            _report(record, reporter)
    raise typer.Exit(ExitCode.NOTHING)


def _report(record: FileRecord, reporter: Reporter) -> None:
    """A line for a file that was restored or has failed; none for one that was done before."""
    if record.status == "skipped":
        return
    if record.error is not None and record.output is None:  # a picture that is not read
        reporter.say("error", record.error)
    reporter.record(record, shows_input=True)
