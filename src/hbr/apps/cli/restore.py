"""`hbr restore`."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hbr.apps.cli.options import MaxPixels, Overwrite, Recursive
from hbr.apps.cli.reporting import Reporter, as_number_or
from hbr.errors import ExitCode
from hbr.image.limits import DEFAULT_MAX_PIXELS

if TYPE_CHECKING:
    from hbr.models.protocol import Sampling
    from hbr.restoration.batch import BatchTally, FileRecord, RestorePhoto
    from hbr.restoration.inference import TileProgress
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
    inputs: Annotated[
        list[str],
        typer.Option("--input", "-i", metavar="IN", help="Photo, folder or glob; may be repeated."),
    ],
    out: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="A file, if IN is one file and OUT has the extension of a photo; otherwise a "
            "folder, in which sub-folders and names are kept.",
        ),
    ],
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
    log_format: Annotated[
        LogFormat,
        typer.Option(help="json: one record per line, with timings and provenance."),
    ] = LogFormat.text,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done without doing it.")
    ] = False,
) -> None:
    """Restore photographs of people.

    The name of each written file goes to stdout, everything else to stderr. An unreadable file
    does not stop the others. Exit codes: 0 all done; 3 some failed; 1 all failed; 2 usage error,
    nothing was done; 4 missing or invalid weights; 5 out of memory and none done; 130 stopped by
    Ctrl-C or SIGTERM. No file is left half-written.
    """
    if overwrite and resume:
        raise typer.BadParameter("choose one of the two.", param_hint="--overwrite and --resume")
    edge = as_number_or("auto", tile, "--tile")

    existing: Existing = "overwrite" if overwrite else "resume" if resume else "refuse"
    reporter = Reporter(as_json=log_format is LogFormat.json)

    from hbr.processes import StopSignals
    from hbr.restoration.batch import BatchTally, Files, look_at, run_batch
    from hbr.restoration.jobs import plan_batch

    settings = restore_settings(
        scale=scale,
        reduce=_reduction(reduce),
        tile=edge,
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

    with StopSignals() as stop, reporter.listening():
        records: list[FileRecord] = []
        total = 0
        hint = "" if overwrite else "; run the same command with --resume to continue"
        with reporter.interruption(
            stop, lambda: f"stopped, {BatchTally.of(records).done} of {total} done{hint}"
        ):
            plan = plan_batch(
                inputs, out, format=file_format, recursive=recursive, existing=existing
            )
            total = plan.total
            reporter.found(plan.bad, plan.thumbnails)
            load = partial(_load, model, device, dtype.value, fidelity, settings, reporter.tiles)
            files = Files(quality, png_compression, max_pixels, strict, truncated.value, lossless)
            batch = run_batch(plan, load, files, strict=strict, stop=stop)
            with reporter.bar(len(plan.jobs)):
                for record in look_at(plan) if dry_run else batch:
                    records.append(record)
                    reporter.record(record)
    tally = BatchTally.of(records)
    reporter.summary(tally)
    raise typer.Exit(_exit_code(tally))


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
    progress: TileProgress,
) -> RestorePhoto:
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
    return partial(restorer, settings=settings, progress=progress)


def _exit_code(tally: BatchTally) -> ExitCode:
    code = ExitCode.of(done=tally.done, failed=tally.failed)
    return ExitCode.MEMORY if code is ExitCode.NOTHING and tally.out_of_memory else code
