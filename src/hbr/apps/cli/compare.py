"""`hbr compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hbr.apps.cli import restoring
from hbr.apps.cli.options import MaxPixels, Overwrite, Recursive, check_page, known_device
from hbr.apps.cli.reporting import Reporter, as_number_or
from hbr.errors import ExitCode
from hbr.image.limits import DEFAULT_MAX_PIXELS

if TYPE_CHECKING:
    from hbr.evaluation.side_by_side import ComparedPhoto, SideBySide


def compare(
    inputs: Annotated[list[str], typer.Argument(metavar="IN...", help="Photos, folders or globs.")],
    out: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE", help="The HTML page to write; ends in .html."
        ),
    ],
    models: Annotated[
        str, typer.Option(help="Known models and .safetensors files, separated by commas.")
    ] = "nano",
    reference: Annotated[
        Path | None,
        typer.Option(
            "--reference",
            "-g",
            metavar="FOLDER|FILE",
            help="Reference photos, matched by file stem; adds PSNR, SSIM, and LPIPS if its "
            "weights are installed.",
        ),
    ] = None,
    fidelity: Annotated[
        list[float] | None,
        typer.Option(
            min=0,
            max=1,
            help="Fidelity of models with two ends, 0 to 1; may be repeated.",
        ),
    ] = None,
    scale: restoring.ScaleOption = 1.0,
    tile: restoring.TileOption = "auto",
    device: restoring.DeviceOption = "auto",
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS,
    recursive: Recursive = False,
    overwrite: Overwrite = False,
) -> None:
    """Restore photos with several models and compare the results on one HTML page.

    The page works offline: a slider compares any two of the input, the models' results and the
    reference, with the time of each model. Models restore the whole photo; the page shows the
    central 1024×1024 pixels of larger photos, and at most 24 MB of pictures.

    The name of the page goes to stdout, everything else to stderr. A bad photo or model does not
    stop the others. Exit code: 0 all done, 3 some; without a page: 1 none, 2 wrong usage,
    4 weights missing or invalid, 5 out of memory, 130 stopped by Ctrl-C or SIGTERM.
    """
    settings = restoring.restore_settings(
        scale=scale, tile=as_number_or("auto", tile, "--tile"), max_pixels=max_pixels
    )
    check_page(out, "--output", replace=overwrite)
    known_device(device)
    reporter = Reporter(as_json=False)
    from hbr.evaluation.side_by_side import compare, name_models
    from hbr.evaluation.side_by_side_page import as_html
    from hbr.files import write_text

    with reporter.running(lambda: "stopped, no page was written"):
        entrants = name_models(models.split(","), tuple(dict.fromkeys(fidelity or ())))
        photos, bad = _photos(inputs, out, reference, recursive, reporter)
        with reporter.bar(len(photos) * (1 + len(entrants))):
            found = compare(
                photos, entrants, settings, device=device, say=reporter.say, progress=reporter.moved
            )
        found.problems[:0] = bad
        if found.restored:
            write_text(out, as_html(found, settings))
    if found.restored:
        typer.echo(str(out))
    raise typer.Exit(_exit_code(found))


def _photos(
    inputs: list[str], out: Path, reference: Path | None, recursive: bool, reporter: Reporter
) -> tuple[list[ComparedPhoto], list[str]]:
    """The photos, and a line for each input without one."""
    from hbr.evaluation.side_by_side import name_photos
    from hbr.restoration.batch.finding import find_inputs

    found = find_inputs(inputs, str(out), recursive=recursive)
    bad = reporter.found(found.bad, found.thumbnails)
    photos = name_photos(found.photos, reference, recursive=recursive)
    lacking = sum(photo.reference is None for photo in photos)
    if reference is not None and lacking:
        reporter.say("warning", f"{lacking} of {len(photos)} photos have no reference")
    return photos, bad


def _exit_code(found: SideBySide) -> ExitCode:
    if found.restored:
        return ExitCode.SOME if found.problems else ExitCode.OK
    if found.out_of_memory:
        return ExitCode.MEMORY
    return ExitCode.WEIGHTS if found.weights_missing else ExitCode.NOTHING
