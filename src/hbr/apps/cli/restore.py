"""`hbr restore`."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hbr.apps.cli.options import (
    InputOption,
    MaxPixels,
    Overwrite,
    PhotoArguments,
    RecipeOption,
    Recursive,
    ReportOption,
    all_inputs,
    check_page,
)
from hbr.apps.cli.planned import plan_given, run_planned
from hbr.apps.cli.reporting import Reporter, as_number_or
from hbr.files import STDIO
from hbr.image.limits import DEFAULT_MAX_PIXELS

if TYPE_CHECKING:
    from hbr.models.protocol import Sampling
    from hbr.restoration import Restorer
    from hbr.restoration.jobs import Existing
    from hbr.restoration.settings import RestoreSettings


class Color(StrEnum):
    """Colour correction method."""

    auto = "auto"
    wavelet = "wavelet"
    adain = "adain"
    none = "none"


class GateOption(StrEnum):
    """Whether photos that need nothing are left as they are."""

    auto = "auto"
    off = "off"


class DtypeOption(StrEnum):
    """Precision of the computation."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class TruncatedOption(StrEnum):
    """What happens to files that are cut short."""

    refuse = "refuse"
    accept = "accept"


class LogFormat(StrEnum):
    """Format of records and logs."""

    text = "text"
    json = "json"


def restore(
    out: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="A file, if IN is one file and OUT has the extension of a photo; otherwise a "
            "folder, in which sub-folders and names are kept. - stands for stdout, and as the only "
            "IN for stdin.",
        ),
    ],
    photos: PhotoArguments = None,
    inputs: InputOption = None,
    model: Annotated[
        str,
        typer.Option(
            help="A known model (hbr models list), a .safetensors file, or with the extra spandrel "
            "a .pth file of another project."
        ),
    ] = "nano",
    fidelity: Annotated[
        float | None,
        typer.Option(
            help="1 faithful, 0 sharp with invented texture, or between; for models with two ends."
        ),
    ] = None,
    scale: Annotated[
        float, typer.Option(help="Resize by this factor before restoring, 0.25 to 8.")
    ] = 1.0,
    reduce: Annotated[
        str | None,
        typer.Option(
            metavar="FACTOR|auto",
            help="Of a model that enlarges: make the photo smaller by 1 to 8 before; auto: by how "
            "much it was enlarged before, estimated. Default: the model's factor over --scale.",
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS", help="Resize to this longer edge before restoring, not with --scale."
        ),
    ] = None,
    tile: Annotated[
        str, typer.Option(help="Tile size in pixels; 0 restores the whole photo at once.")
    ] = "auto",
    color: Annotated[
        Color, typer.Option(help="Colour correction towards the input; auto: the model's default.")
    ] = Color.auto,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    dtype: Annotated[
        DtypeOption, typer.Option(help="Precision of the computation.")
    ] = DtypeOption.auto,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of the CPU. Default: one per core.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Random seed, for models that use one.")
    ] = 0,
    gate: Annotated[
        GateOption,
        typer.Option(
            help="auto: leave a photo as it is that needs nothing, and warn of one that is damaged "
            "beyond what the model knows; off: restore every photo."
        ),
    ] = GateOption.off,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt",
            "--text",
            help="Prompt to use instead of image tags, for models with a text encoder; for a model "
            "guided by pose, tags of the person: who, face, upper body, hands, lower body, shoes, "
            "things carried.",
        ),
    ] = None,
    pose: Annotated[
        str,
        typer.Option(
            metavar="auto|none|FILE",
            help="Pose, for models guided by it: found, blank, a drawn picture, or key points as "
            ".npy.",
        ),
    ] = "auto",
    attention: Annotated[
        str,
        typer.Option(
            metavar="auto|none|FILE",
            help="Map of the bodies, for models guided by it: found, blank, a grey picture, or "
            "values in [0, 1] as .npy.",
        ),
    ] = "auto",
    steps: Annotated[
        int | None,
        typer.Option(help="Steps of a sampling, 1 to 1000. Default: 50."),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(help="Strength of the guidance by body parts; 0: none. Default: 1."),
    ] = None,
    text_guidance: Annotated[
        float | None,
        typer.Option(help="Strength of the guidance by the text; 1: none. Default: 4."),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(help="guided, ddpm, ddim or unipc; all but guided ignore --guidance."),
    ] = None,
    file_format: Annotated[
        str, typer.Option("--format", help="Output format: keep, jpg, png, tif, webp, avif, bmp.")
    ] = "keep",
    quality: Annotated[
        int, typer.Option(min=1, max=100, help="Quality of JPEG, WebP and AVIF outputs.")
    ] = 95,
    png_compression: Annotated[
        int,
        typer.Option(min=0, max=9, help="PNG compression; 0 is fast and large, 9 slow and small."),
    ] = 6,
    lossless: Annotated[
        bool,
        typer.Option("--lossless", help="Write WebP without loss, and refuse JPEG and AVIF."),
    ] = False,
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS,
    page: Annotated[
        int | None, typer.Option(min=1, help="Page of TIFF files that hold several, from 1.")
    ] = None,
    recursive: Recursive = False,
    overwrite: Overwrite = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Keep existing outputs that are not older than their input, regardless of the "
            "settings they were made with, and restore the rest.",
        ),
    ] = False,
    keep_times: Annotated[
        bool, typer.Option("--keep-times", help="Give outputs the dates of their inputs.")
    ] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Stop at the first bad file, or the first about which there is a warning: corrupt "
            "data, a guess, a loss.",
        ),
    ] = False,
    truncated: Annotated[
        TruncatedOption,
        typer.Option(
            help="accept: restore what is there of a photo that is cut short, even with --strict."
        ),
    ] = TruncatedOption.refuse,
    recipe: RecipeOption = "file",
    report: ReportOption = None,
    log_format: Annotated[
        LogFormat,
        typer.Option(help="json: one record per line, with timings and provenance."),
    ] = LogFormat.text,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print nothing but warnings and errors.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Show what would be done and, by the speed of one tile, how long it would take, "
            "without doing it.",
        ),
    ] = False,
) -> None:
    """Restore photographs of people.

    hbr restore *.jpg -o restored/

    The name of each written file goes to stdout, everything else to stderr. An unreadable file
    does not stop the others; what all of them would meet, as a full disk, does. Exit codes: 0 all
    done; 3 some failed; 1 all failed; 2 usage error, nothing was done; 4 missing or invalid
    weights; 5 out of memory and none done; 130 stopped by Ctrl-C or SIGTERM. No file is left
    half-written.
    """
    if overwrite and resume:
        raise typer.BadParameter("choose one of the two.", param_hint="--overwrite and --resume")
    given = all_inputs(photos, inputs)
    if report is not None:
        check_page(report, "--report", replace=overwrite or resume)
    existing: Existing = "overwrite" if overwrite else "resume" if resume else "refuse"
    reporter = Reporter(
        as_json=log_format is LogFormat.json, quiet=quiet, data_on_stdout=out != STDIO
    )
    from hbr.processes import set_threads

    set_threads(threads)
    from hbr.restoration.outputs import Files

    settings = restore_settings(
        scale=scale,
        size=size,
        reduce=_reduction(reduce),
        tile=as_number_or("auto", tile, "--tile"),
        color=color.value,
        seed=seed,
        gate=gate.value,
        prompt=prompt,
        pose=pose,
        attention=attention,
        sampling=_sampling(
            steps=steps, guidance=guidance, text_guidance=text_guidance, sampler=sampler
        ),
        max_pixels=max_pixels,
    )

    files = Files(
        *(quality, png_compression, max_pixels, strict, truncated.value, lossless, page),
        keep_times=keep_times,
        recipe=recipe,
    )
    code = run_planned(
        partial(plan_given, given, out, file_format, recursive, existing),
        partial(_load, model, device, dtype.value, fidelity, settings),
        settings,
        files,
        reporter=reporter,
        dry_run=dry_run,
        strict=strict,
        hint="" if overwrite else "; run the same command with --resume to continue",
        page=report,
    )
    raise typer.Exit(code)


def _sampling(**given: Any) -> Sampling | None:
    """How a model of many steps samples; None if no option says so."""
    from hbr.config import ConfigError
    from hbr.models.protocol import Sampling

    values = {name: value for name, value in given.items() if value is not None}
    try:
        return Sampling(**values) if values else None
    except ConfigError as error:
        raise _wrong_option(error) from None


def restore_settings(**values: Any) -> RestoreSettings:
    """The settings; a wrong one is wrong usage of the option of its name."""
    from hbr.config import ConfigError
    from hbr.restoration.settings import RestoreSettings

    try:
        return RestoreSettings(**values)
    except ConfigError as error:
        raise _wrong_option(error) from None


def _wrong_option(error: ValueError) -> typer.BadParameter:
    field = str(error).partition(" ")[0].replace("_", "-")  # the message begins with its name
    return typer.BadParameter(str(error), param_hint=f"--{field}")


def _reduction(text: str | None) -> float | str | None:
    """Parse `--reduce`."""
    if text is None or text == "auto":
        return text
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} must be auto or a factor.", param_hint="--reduce"
        ) from None


def _load(
    model: str,
    device: str,
    dtype: str,
    fidelity: float | None,
    settings: RestoreSettings,
) -> Restorer:
    """Load the model and check the settings against it, before the first photo is read."""
    from hbr.config import ConfigError
    from hbr.devices import choose_device
    from hbr.models import WeightsError
    from hbr.restoration import Restorer
    from hbr.restoration.tiling import plan_tiles

    option = "--device"
    try:
        choose_device(device)
        option = "--dtype"
        restorer = Restorer.from_pretrained(model, device=device, dtype=dtype, fidelity=fidelity)
        option = "--tile"
        plan_tiles(1, 1, restorer.capabilities, settings.tile)
        option = "--reduce"
        restorer.check_reduction(settings)
        option = "--prompt, --pose, --attention or the options of a sampling"
        restorer.conditions(settings)
    except (WeightsError, ConfigError):
        raise
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None
    return restorer
