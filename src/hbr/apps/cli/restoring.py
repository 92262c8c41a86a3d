"""What `hbr restore` and `hbr watch` share: options, settings, and loading the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from hbr.restoration import Restorer
    from hbr.restoration.batch.backends import Wanted
    from hbr.restoration.batch.jobs import BatchPlan
    from hbr.restoration.settings import RestoreSettings


ModelOption = Annotated[
    str,
    typer.Option(
        help="A known model (hbr models list), a .safetensors file, or with the extra spandrel "
        "a .pth file of another project."
    ),
]
FidelityOption = Annotated[
    float | None,
    typer.Option(
        help="1 faithful, 0 sharp with invented texture, or between; for models with two ends."
    ),
]
DecoderOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        help="Decoder in place of the model's own, for the same latents: taesd or sd21-lwdecoder "
        "for models on Stable Diffusion, or a file.",
    ),
]
ScaleOption = Annotated[
    float, typer.Option(help="Resize by this factor before restoring, 0.25 to 8.")
]
SizeOption = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS", help="Resize to this longer edge before restoring, not with --scale."
    ),
]
TileOption = Annotated[
    str, typer.Option(help="Tile size in pixels; 0 restores the whole photo at once.")
]
ColorOption = Annotated[
    Literal["auto", "wavelet", "adain", "none"],
    typer.Option(help="Colour correction towards the input; auto: the model's default."),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
DtypeOption = Annotated[
    Literal["auto", "float32", "bfloat16", "float16", "int8"],
    typer.Option(
        help="Precision of the computation. int8: with OpenVINO, after hbr warmup --calibrate."
    ),
]
BackendOption = Annotated[
    Literal["auto", "eager", "compiled", "openvino", "onnx"],
    typer.Option(
        help="eager: torch; compiled: torch with kernels compiled for the model, which takes "
        "minutes the first time; onnx, openvino: a graph on the CPU, which starts faster; auto: "
        "what takes the least time by what hbr warmup has measured here, or eager."
    ),
]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, help="Threads of the CPU. Default: one per core.")
]
SeedOption = Annotated[
    int, typer.Option(min=0, max=2**63 - 1, help="Random seed, for models that use one.")
]
GateOption = Annotated[
    Literal["auto", "off"],
    typer.Option(
        help="auto: leave a photo as it is that needs nothing, and warn of one that is damaged "
        "beyond what the model knows; off: restore every photo."
    ),
]
FormatOption = Annotated[
    str, typer.Option("--format", help="Output format: keep, jpg, png, tif, webp, avif, bmp.")
]
QualityOption = Annotated[
    int, typer.Option(min=1, max=100, help="Quality of JPEG, WebP and AVIF outputs.")
]
KeepTimes = Annotated[
    bool, typer.Option("--keep-times", help="Give outputs the dates of their inputs.")
]
LogFormatOption = Annotated[
    Literal["text", "json"],
    typer.Option(help="json: one record per line, with timings and provenance."),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print nothing but warnings and errors.")
]


def restore_settings(**values: Any) -> RestoreSettings:
    """The settings; a wrong one is wrong usage of the option of its name."""
    from hbr.config import ConfigError
    from hbr.restoration.settings import RestoreSettings

    try:
        return RestoreSettings(**values)
    except ConfigError as error:
        raise wrong_option(error) from None


def wrong_option(error: ValueError, option: str = "") -> typer.BadParameter:
    """The usage error of a setting, for the option of its name or another one."""
    field = str(error).partition(" ")[0].replace("_", "-")  # the message begins with its name
    return typer.BadParameter(str(error), param_hint=option or f"--{field}")


def load_restorer(
    wanted: Wanted, settings: RestoreSettings, plan: BatchPlan | None = None
) -> Restorer:
    """Load the model and check the settings against it, before the first photo is read.

    `plan` is the job, by which the backend "auto" is chosen.
    """
    from hbr.errors import HbrError
    from hbr.restoration.batch.backends import restorer_for
    from hbr.restoration.passes.tiling import plan_tiles

    option = ""  # of device and dtype, the message begins with the name
    try:
        restorer = restorer_for(wanted, settings, plan)
        option = "--tile"
        plan_tiles(1, 1, restorer.capabilities, settings.tile)
        option = "--reduce"
        restorer.check_reduction(settings)
        option = "--people and what goes with it"
        if settings.people != "off":
            from hbr.restoration.people.restoring import check_people

            check_people(restorer, restorer.locator, settings)
        if settings.identity != "off":
            from hbr.restoration.people.guarding import load_guard

            load_guard(restorer, settings)
        option = "--prompt, --pose, --attention or the options of a sampling"
        restorer.conditions(settings)
    except HbrError:
        raise
    except ValueError as error:
        raise wrong_option(error, option) from None
    return restorer
