"""`hbr restore`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hbr.apps.cli import options, restore_options, restoring
from hbr.apps.cli.planned import plan_given, run_planned
from hbr.apps.cli.reporting import Reporter, as_number_or
from hbr.files import STDIO
from hbr.image.limits import DEFAULT_MAX_PIXELS

if TYPE_CHECKING:
    from hbr.restoration.batch.backends import Wanted
    from hbr.restoration.batch.contents import ByContents
    from hbr.restoration.batch.jobs import Existing
    from hbr.restoration.batch.outputs import Files
    from hbr.restoration.settings import RestoreSettings


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
    photos: options.PhotoArguments = None,
    inputs: options.InputOption = None,
    model: restoring.ModelOption = "nano",
    fidelity: restoring.FidelityOption = None,
    decoder: restoring.DecoderOption = None,
    scale: restoring.ScaleOption = 1.0,
    reduce: Annotated[
        str | None,
        typer.Option(
            metavar="FACTOR|auto",
            help="Of a model that enlarges: make the photo smaller by 1 to 8 before; auto: by how "
            "much it was enlarged before, estimated. Default: the model's factor over --scale.",
        ),
    ] = None,
    size: restoring.SizeOption = None,
    tile: restoring.TileOption = "auto",
    color: restoring.ColorOption = "auto",
    temporal_color: Annotated[
        bool,
        typer.Option(
            "--temporal-color",
            help="The photos in a folder are frames of a video: with --color adain, give all of "
            "them their colours by the same statistics, not each by its own.",
        ),
    ] = False,
    grain: restore_options.GrainOption = 0.0,
    device: restoring.DeviceOption = "auto",
    dtype: restoring.DtypeOption = "auto",
    backend: restoring.BackendOption = "auto",
    threads: restoring.ThreadsOption = None,
    seed: restoring.SeedOption = 0,
    gate: restoring.GateOption = "off",
    people: restore_options.PeopleModeOption = None,
    people_from: restore_options.PeopleFromOption = "auto",
    person: restore_options.PersonOption = None,
    box: restore_options.BoxOption = None,
    person_fidelity: restore_options.PersonFidelityOption = None,
    outlines: restore_options.OutlinesOption = "auto",
    background: restore_options.BackgroundOption = "model",
    identity: restore_options.IdentityOption = "off",
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
    pose: restore_options.PoseOption = "auto",
    attention: restore_options.AttentionOption = "auto",
    steps: restore_options.StepsOption = None,
    guidance: restore_options.GuidanceOption = None,
    text_guidance: restore_options.TextGuidanceOption = None,
    sampler: restore_options.SamplerOption = None,
    file_format: restoring.FormatOption = "keep",
    quality: restoring.QualityOption = 95,
    png_compression: Annotated[
        int,
        typer.Option(min=0, max=9, help="PNG compression; 0 is fast and large, 9 slow and small."),
    ] = 4,
    lossless: Annotated[
        bool,
        typer.Option("--lossless", help="Write WebP without loss, and refuse JPEG and AVIF."),
    ] = False,
    max_pixels: options.MaxPixels = DEFAULT_MAX_PIXELS,
    page: Annotated[
        int | None, typer.Option(min=1, help="Page of TIFF files that hold several, from 1.")
    ] = None,
    recursive: options.Recursive = False,
    overwrite: options.Overwrite = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Keep existing outputs that are not older than their input, regardless of the "
            "settings they were made with, and restore the rest.",
        ),
    ] = False,
    resume_by: Annotated[
        Literal["time", "content"] | None,
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
    engine: options.EngineOption = "local",
    address: options.RayAddress = None,
    workers: options.ActorsOption = None,
    gpus: options.ActorGpus = None,
    memory: options.ActorMemory = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N", help="Restore only part I of N (from 0), as in a job array; by name."
        ),
    ] = None,
    keep_times: restoring.KeepTimes = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Stop at the first bad file, or the first about which there is a warning: corrupt "
            "data, a guess, a loss.",
        ),
    ] = False,
    truncated: Annotated[
        Literal["refuse", "accept"],
        typer.Option(
            help="accept: restore what is there of a photo that is cut short, even with --strict."
        ),
    ] = "refuse",
    recipe: options.RecipeOption = "file",
    report: restore_options.ReportOption = None,
    save_map: restore_options.SaveMapOption = None,
    preview: restore_options.PreviewOption = None,
    keep_previews: restore_options.KeepPreviews = False,
    log_format: restoring.LogFormatOption = "text",
    quiet: restoring.Quiet = False,
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
    if temporal_color and color not in ("auto", "adain"):
        raise typer.BadParameter("only valid with --color adain.", param_hint="--temporal-color")
    given = options.all_inputs(photos, inputs, needed=manifest is None)
    _check_extras(report, save_map, out, existing, engine)
    previews = restore_options.previews_of(preview, keep_previews, out, engine)
    reporter = Reporter(as_json=log_format == "json", quiet=quiet, data_on_stdout=out != STDIO)
    actors = options.actors_of(engine, device, threads, address, workers, gpus, memory)
    from hbr.restoration.batch.backends import Wanted
    from hbr.restoration.batch.outputs import Files

    wanted = Wanted(model=model, device=device, dtype=dtype, fidelity=fidelity,
                    backend=backend, decoder=decoder)  # fmt: skip
    settings = restoring.restore_settings(
        scale=scale,
        size=size,
        reduce=_reduction(reduce),
        tile=as_number_or("auto", tile, "--tile"),
        color=color,
        seed=seed,
        gate=gate,
        **restore_options.people_settings(
            people, people_from, box, person, person_fidelity, outlines, background
        ),
        identity=identity,
        prompt=prompt,
        **{"pose": pose, "attention": attention, "grain": grain},
        sampling=restore_options.sampling_of(steps, guidance, text_guidance, sampler),
        max_pixels=max_pixels,
    )
    files = Files(quality=quality, png_compression=png_compression, max_pixels=max_pixels,
                  strict=strict, truncated=truncated, lossless=lossless, page=page,
                  keep_times=keep_times, recipe=recipe)  # fmt: skip
    plan = partial(plan_given, given, manifest, out, file_format, recursive, existing, shard)
    if resume_by == "content":
        plan = partial(plan, partial(_by_contents, wanted, temporal_color, settings, files))
    code = run_planned(
        plan,
        partial(restoring.load_restorer, wanted, settings),
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
        options.check_page(report, "--report", replace=existing != "refuse")
    if maps is not None:
        from hbr.restoration.batch.jobs import check_writable

        if maps.resolve() == Path(out).resolve():
            raise typer.BadParameter(
                f"{maps} is the folder of the outputs; name another", param_hint="--save-map"
            )
        check_writable(maps)


def _by_contents(
    wanted: Wanted, temporal_color: bool, settings: RestoreSettings, files: Files
) -> ByContents:
    from hbr.restoration.batch.contents import ByContents, digest_of

    model, decoder = wanted.files
    made_by = [decoder.sha256] if decoder else []
    given = (wanted.fidelity, wanted.dtype, wanted.backend, temporal_color, *made_by)
    return ByContents(digest_of(model.sha256, options=given, settings=settings, files=files))


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
