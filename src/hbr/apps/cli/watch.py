"""`hbr watch`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from hbr.apps.cli import options, restoring
from hbr.apps.cli.reporting import Reporter, as_number_or
from hbr.errors import ExitCode
from hbr.image.limits import DEFAULT_MAX_PIXELS


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
    recursive: options.Recursive = False,
    settle: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="A file is complete that has not changed for this long."
        ),
    ] = 2.0,
    poll: Annotated[
        float, typer.Option(metavar="SECONDS", help="Time between two looks at the folder.")
    ] = 1.0,
    model: restoring.ModelOption = "nano",
    fidelity: restoring.FidelityOption = None,
    decoder: restoring.DecoderOption = None,
    scale: restoring.ScaleOption = 1.0,
    size: restoring.SizeOption = None,
    tile: restoring.TileOption = "auto",
    color: restoring.ColorOption = "auto",
    device: restoring.DeviceOption = "auto",
    dtype: restoring.DtypeOption = "auto",
    threads: restoring.ThreadsOption = None,
    seed: restoring.SeedOption = 0,
    gate: restoring.GateOption = "off",
    file_format: restoring.FormatOption = "keep",
    quality: restoring.QualityOption = 95,
    max_pixels: options.MaxPixels = DEFAULT_MAX_PIXELS,
    keep_times: restoring.KeepTimes = False,
    recipe: options.RecipeOption = "file",
    log_format: restoring.LogFormatOption = "text",
    quiet: restoring.Quiet = False,
) -> None:
    """Restore photos as they arrive in a folder, such as a scanner's, until Ctrl-C.

    hbr watch scans/ -o restored/

    A file is restored once it is complete, those that are there at the start included. What was
    restored is recorded in OUT by contents: after a restart, nothing is done twice. Each written
    file is a line IN -> OUT on stdout, errors go to stderr. A file that failed is tried again when
    it changes, or after a restart. Exit codes: 130 stopped by Ctrl-C or SIGTERM; 1 the folder or
    that of the outputs is gone; 2 usage error; 4 missing or invalid weights.
    """
    from hbr.processes import set_threads
    from hbr.restoration.batch.backends import Wanted
    from hbr.restoration.batch.outputs import Files
    from hbr.restoration.batch.watching import Watched
    from hbr.restoration.batch.watching import watch as run

    set_threads(threads)
    settings = restoring.restore_settings(
        scale=scale,
        size=size,
        tile=as_number_or("auto", tile, "--tile"),
        color=color,
        seed=seed,
        gate=gate,
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
    reporter = Reporter(as_json=log_format == "json", quiet=quiet)
    counts = {"restored": 0, "failed": 0}
    with reporter.running(
        lambda: f"stopped, {counts['restored']} restored, {counts['failed']} failed"
    ) as stop:
        wanted = Wanted(model=model, device=device, dtype=dtype, fidelity=fidelity, decoder=decoder)
        restorer = restoring.load_restorer(wanted, settings)
        reporter.say("info", f"watching {folder}; Ctrl-C ends it")
        for record in run(watched, partial(restorer, settings=settings), files, stop=stop):
            if record.status in counts:
                counts[record.status] += 1
            if record.status == "skipped":  # it was done before
                continue
            if record.error is not None and record.output is None:  # a picture that is not read
                reporter.say("error", record.error)
            reporter.record(record, shows_input=True)
    raise typer.Exit(ExitCode.NOTHING)
