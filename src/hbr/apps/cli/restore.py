"""`hbr restore`."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hbr.apps.cli.engines import (
    ActorGpus,
    ActorMemory,
    ActorsOption,
    EngineOption,
    RayAddress,
    actors_of,
)
from hbr.apps.cli.options import (
    GrainOption,
    InputOption,
    MaxPixels,
    Overwrite,
    PhotoArguments,
    RecipeOption,
    Recursive,
    ReportOption,
    SaveMapOption,
    all_inputs,
    check_page,
)
from hbr.apps.cli.people import (
    BackgroundOption,
    BoxOption,
    IdentityOption,
    OutlinesOption,
    PeopleFromOption,
    PeopleModeOption,
    PersonFidelityOption,
    PersonOption,
    people_settings,
)
from hbr.apps.cli.planned import plan_given, run_planned
from hbr.apps.cli.reporting import Reporter, as_number_or
from hbr.apps.cli.restoring import (
    BackendChoice,
    BackendOption,
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
from hbr.apps.cli.sampling import (
    AttentionOption,
    GuidanceOption,
    KeepPreviews,
    PoseOption,
    PreviewOption,
    SamplerOption,
    StepsOption,
    TextGuidanceOption,
    previews_of,
    sampling_of,
)
from hbr.files import STDIO
from hbr.image.limits import DEFAULT_MAX_PIXELS

if TYPE_CHECKING:
    from hbr.restoration.batch.backends import Wanted
    from hbr.restoration.batch.contents import ByContents
    from hbr.restoration.batch.jobs import Existing
    from hbr.restoration.batch.outputs import Files
    from hbr.restoration.settings import RestoreSettings


class TruncatedOption(StrEnum):
    """What happens to files that are cut short."""

    refuse = "refuse"
    accept = "accept"


class ResumeBy(StrEnum):
    """What tells a resumed run which outputs are finished."""

    time = "time"
    content = "content"


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
    model: ModelOption = "nano",
    fidelity: FidelityOption = None,
    decoder: DecoderOption = None,
    scale: ScaleOption = 1.0,
    reduce: Annotated[
        str | None,
        typer.Option(
            metavar="FACTOR|auto",
            help="Of a model that enlarges: make the photo smaller by 1 to 8 before; auto: by how "
            "much it was enlarged before, estimated. Default: the model's factor over --scale.",
        ),
    ] = None,
    size: SizeOption = None,
    tile: TileOption = "auto",
    color: ColorOption = Color.auto,
    temporal_color: Annotated[
        bool,
        typer.Option(
            "--temporal-color",
            help="The photos in a folder are frames of a video: with --color adain, give all of "
            "them their colours by the same statistics, not each by its own.",
        ),
    ] = False,
    grain: GrainOption = 0.0,
    device: DeviceOption = "auto",
    dtype: DtypeChoice = DtypeOption.auto,
    backend: BackendChoice = BackendOption.auto,
    threads: ThreadsOption = None,
    seed: SeedOption = 0,
    gate: GateChoice = GateOption.off,
    people: PeopleModeOption = None,
    people_from: PeopleFromOption = "auto",
    person: PersonOption = None,
    box: BoxOption = None,
    person_fidelity: PersonFidelityOption = None,
    outlines: OutlinesOption = "auto",
    background: BackgroundOption = "model",
    identity: IdentityOption = "off",
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
    pose: PoseOption = "auto",
    attention: AttentionOption = "auto",
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    text_guidance: TextGuidanceOption = None,
    sampler: SamplerOption = None,
    file_format: FormatOption = "keep",
    quality: QualityOption = 95,
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
    resume_by: Annotated[
        ResumeBy | None,
        typer.Option(
            help="content: resume, and keep outputs of the same bytes, model and settings, "
            "whatever their dates; what was done is recorded in OUT. time: --resume."
        ),
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="List of photos besides IN: a path in each line, or .parquet with a column path, "
            "file_name, file or name; relative to its folder.",
        ),
    ] = None,
    engine: EngineOption = "local",
    address: RayAddress = None,
    workers: ActorsOption = None,
    gpus: ActorGpus = None,
    memory: ActorMemory = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N", help="Restore only part I of N (from 0), as in a job array; by name."
        ),
    ] = None,
    keep_times: KeepTimes = False,
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
    save_map: SaveMapOption = None,
    preview: PreviewOption = None,
    keep_previews: KeepPreviews = False,
    log_format: LogFormatOption = LogFormat.text,
    quiet: Quiet = False,
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
    weights; 5 out of memory, none done; 130 stopped by Ctrl-C or SIGTERM. No file is half-written.
    """
    existing = _existing(overwrite, resume or resume_by is not None)
    _check_steady(temporal_color, color)
    given = all_inputs(photos, inputs) if manifest is None else [*(inputs or ()), *(photos or ())]
    _check_extras(report, save_map, out, existing, engine)
    previews = previews_of(preview, keep_previews, out, engine)
    reporter = Reporter(
        as_json=log_format is LogFormat.json, quiet=quiet, data_on_stdout=out != STDIO
    )
    actors = actors_of(engine, device, threads, address, workers, gpus, memory)
    from hbr.restoration.batch.backends import Wanted
    from hbr.restoration.batch.outputs import Files

    wanted = Wanted(model=model, device=device, dtype=dtype.value, fidelity=fidelity,
                    backend=backend.value, decoder=decoder)  # fmt: skip
    settings = restore_settings(
        scale=scale,
        size=size,
        reduce=_reduction(reduce),
        tile=as_number_or("auto", tile, "--tile"),
        color=color.value,
        seed=seed,
        gate=gate.value,
        **people_settings(people, people_from, box, person, person_fidelity, outlines, background),
        identity=identity,
        prompt=prompt,
        **{"pose": pose, "attention": attention, "grain": grain},
        sampling=sampling_of(steps, guidance, text_guidance, sampler),
        max_pixels=max_pixels,
    )
    files = Files(quality=quality, png_compression=png_compression, max_pixels=max_pixels,
                  strict=strict, truncated=truncated.value, lossless=lossless, page=page,
                  keep_times=keep_times, recipe=recipe)  # fmt: skip
    plan = partial(plan_given, given, manifest, out, file_format, recursive, existing, shard)
    if resume_by is ResumeBy.content:
        plan = partial(plan, partial(_by_contents, wanted, (temporal_color,), settings, files))
    code = run_planned(
        plan,
        partial(load_restorer, wanted, settings),
        settings,
        files,
        reporter=reporter,
        dry_run=dry_run,
        steady=temporal_color,
        actors=actors,
        hint="" if overwrite else "; run the same command with --resume to continue",
        page=report,
        maps=save_map,
        previews=previews,
    )
    raise typer.Exit(code)


def _existing(overwrite: bool, resume: bool) -> Existing:
    if overwrite and resume:
        raise typer.BadParameter("choose one of the two.", param_hint="--overwrite and --resume")
    return "overwrite" if overwrite else "resume" if resume else "refuse"


def _check_extras(
    report: Path | None, maps: Path | None, out: str, existing: Existing, engine: str
) -> None:
    """Check what is written besides the outputs."""
    for option, given in (("--report", report), ("--save-map", maps)):
        if given is not None and engine != "local":
            raise typer.BadParameter("only valid with --engine local.", param_hint=option)
    if report is not None:
        check_page(report, "--report", replace=existing != "refuse")
    if maps is not None:
        from hbr.restoration.batch.jobs import check_writable

        if maps.resolve() == Path(out).resolve():
            raise typer.BadParameter(
                f"{maps} is the folder of the outputs; name another", param_hint="--save-map"
            )
        check_writable(maps)


def _check_steady(temporal_color: bool, color: Color) -> None:
    if temporal_color and color not in (Color.auto, Color.adain):
        raise typer.BadParameter("only valid with --color adain.", param_hint="--temporal-color")


def _by_contents(
    wanted: Wanted, options: Sequence[object], settings: RestoreSettings, files: Files
) -> ByContents:
    from hbr.restoration.batch.contents import ByContents, digest_of

    model, decoder = wanted.files
    made_by = [decoder.sha256] if decoder else []
    options = (wanted.fidelity, wanted.dtype, wanted.backend, *options, *made_by)
    return ByContents(digest_of(model.sha256, options=options, settings=settings, files=files))


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
