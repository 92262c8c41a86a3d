"""`hbr evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hbr.apps.cli import options
from hbr.apps.cli.reporting import Reporter, print_table
from hbr.errors import ExitCode

if TYPE_CHECKING:
    from hbr.evaluation.evaluate import Evaluation
    from hbr.evaluation.pairing import Pairing
    from hbr.evaluation.settings import EvaluateConfig


def evaluate(
    restored: Annotated[
        Path,
        typer.Option("--restored", "-r", metavar="DIR", help="Folder of the pictures to measure."),
    ],
    reference: Annotated[
        Path | None,
        typer.Option("--reference", "-g", metavar="DIR", help="Folder of the reference pictures."),
    ] = None,
    metrics: Annotated[
        str, typer.Option("--metrics", "-m", help="Comma-separated names (see hbr metrics list).")
    ] = "psnr,ssim",
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all results as JSON.")
    ] = None,
    csv_file: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Write a CSV file with one line per pair."),
    ] = None,
    parquet_file: Annotated[
        Path | None,
        typer.Option(
            "--parquet", metavar="FILE", help="Write a Parquet file with one row per pair."
        ),
    ] = None,
    strip: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ENDING",
            help="Suffix to strip from the names of restored pictures, e.g. _out or re:_x[24]; "
            "may be repeated.",
        ),
    ] = None,
    strip_reference: Annotated[
        list[str] | None, typer.Option(metavar="ENDING", help="Like --strip, for the references.")
    ] = None,
    missing: Annotated[
        Literal["error", "skip"], typer.Option(help="How to treat a reference without a picture.")
    ] = "error",
    extra: Annotated[
        Literal["error", "skip"], typer.Option(help="How to treat a picture without a reference.")
    ] = "error",
    size: Annotated[
        Literal["error", "skip", "resize"],
        typer.Option(help="How to treat a picture whose size differs from its reference's."),
    ] = "error",
    bootstrap: Annotated[
        int, typer.Option(min=0, help="Bootstrap resamples for 95 % intervals; 0: no intervals.")
    ] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the bootstrap.")] = 0,
    people: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="COCO file with the people in the references."),
    ] = None,
    people_grid: options.PeopleGrid = "stored",
    crop_border: Annotated[
        int,
        typer.Option(min=0, help="Pixels to cut off each edge before pictures are compared."),
    ] = 0,
    pose: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="ONNX pose estimator: RTMPose or DWPose."),
    ] = None,
    workers: options.MeasuringWorkers = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="Pictures per batch; default: 1, or 8 on a GPU."),
    ] = None,
    device: Annotated[str, typer.Option(help="Device of the networks: cpu, cuda, cuda:1.")] = "cpu",
    weights: options.MetricWeights = None,
    recursive: options.Recursive = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Reuse the values that an earlier run measured.")
    ] = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Measure restored pictures, with or without references.

    Pictures are paired by file stem. The means go to stdout, everything else to stderr. During the
    run, values are saved in a .hbr-kept file next to the first output, from which --resume
    continues; values of files or metrics that have changed since are measured again. Exit codes:
    0 all measured; 3 some failed; 1 all failed; 2 usage error; 4 missing weights; 130 stopped.
    """
    outputs = [f for f in (json_file, csv_file, parquet_file) if f is not None]
    _check_outputs(outputs, resume=resume, overwrite=overwrite)
    from hbr.evaluation.evaluate import evaluate
    from hbr.evaluation.exports import write_csv, write_json, write_parquet
    from hbr.evaluation.pairing import pair
    from hbr.evaluation.settings import EvaluateConfig
    from hbr.metrics import MetricError

    try:
        config = EvaluateConfig(
            metrics=tuple(name.strip() for name in metrics.split(",") if name.strip()),
            size=size,
            resamples=bootstrap,
            seed=seed,
            workers=workers,
            batch=batch,
            device=device,
            weights=weights,
            people=people,
            pose=pose,
            crop_border=crop_border,
            people_grid=people_grid,
        )
    except MetricError as error:
        raise typer.BadParameter(str(error), param_hint="--metrics") from None
    reporter = Reporter(as_json=False)
    kept = outputs[0].with_name(f".{outputs[0].name}.hbr-kept") if outputs else None
    hint = "; run the same command with --resume to continue" if kept else ""
    with reporter.running(lambda: f"stopped{hint}"):
        pictures = _pictures(restored, strip, recursive)
        others = None
        if reference is not None:
            others = _pictures(reference, strip_reference, recursive)
        pairing = pair(pictures, others, missing=missing, extra=extra)
        with reporter.bar(len(pairing.pairs)):
            found = evaluate(
                pairing.pairs, config, kept=kept, resume=resume, progress=reporter.moved
            )
        about = _about(config, restored, reference, pairing)
        if json_file is not None:
            write_json(found, json_file, about)
        if csv_file is not None:
            write_csv(found, csv_file)
        if parquet_file is not None:
            write_parquet(found, parquet_file, about)
    _print_result(reporter, found, pairing)
    code = _exit_code(found)
    if kept is not None and code == ExitCode.OK:
        kept.unlink(missing_ok=True)
    raise typer.Exit(code)


def _check_outputs(outputs: list[Path], *, resume: bool, overwrite: bool) -> None:
    if resume and not outputs:
        raise typer.BadParameter("needs --json, --csv or --parquet", param_hint="--resume")
    if len({str(file) for file in outputs}) < len(outputs):
        raise typer.BadParameter("two outputs have the same name", param_hint=str(outputs[0]))
    existing = [file for file in outputs if file.exists()]
    if irregular := [file for file in existing if not file.is_file()]:
        raise typer.BadParameter(f"{irregular[0]} is not a regular file, and cannot be replaced")
    if existing and not (resume or overwrite):
        raise typer.BadParameter(
            f"{existing[0]} exists; use --overwrite to replace it, or --resume to continue"
        )


def _pictures(folder: Path, strip: list[str] | None, recursive: bool) -> dict[str, Path]:
    from hbr.evaluation.pairing import StemRules, find_pictures

    return find_pictures(folder, StemRules(tuple(strip or ())), recursive=recursive)


def _about(
    config: EvaluateConfig, restored: Path, reference: Path | None, pairing: Pairing
) -> dict[str, Any]:
    """Return what the results depend on, as plain data."""
    from hbr.config import to_dict
    from hbr.evaluation.provenance import machine
    from hbr.version import __version__

    settings = to_dict(config)
    settings["metrics"] = list(config.ids)
    return {
        "hbr": __version__,
        "restored": str(restored),
        "reference": None if reference is None else str(reference),
        "pairs": len(pairing.pairs),
        "missing": len(pairing.missing),
        "extra": len(pairing.extra),
        "settings": settings,
        "machine": machine(),
    }


def _print_result(reporter: Reporter, found: Evaluation, pairing: Pairing) -> None:
    """Print failed pairs and warnings to stderr, and the means to stdout."""
    for row in found.rows:
        if row.error is not None and not row.skipped:
            reporter.say("error", row.error)
        for name, line in row.errors.items():
            reporter.say("error", f"{row.pair.stem}: {name}: {line}")
    for warning in found.warnings:
        reporter.say("warning", warning)
    if pairing.missing:
        reporter.say("warning", f"{len(pairing.missing)} references have no restored picture")
    if pairing.extra:
        reporter.say("warning", f"{len(pairing.extra)} restored pictures have no reference")
    columns = ("metric", "mean", "low", "high", "n", "failed")
    lines = [
        (
            found.metrics[name].heading,
            _number(summary.mean),
            _number(summary.low),
            _number(summary.high),
            str(summary.n),
            str(summary.failed),
        )
        for name, summary in found.summaries.items()
    ]
    print_table(columns, lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"


def _exit_code(found: Evaluation) -> ExitCode:
    complete = all(summary.error is None for summary in found.summaries.values())
    if not found.failed and complete:
        return ExitCode.OK
    some = any(summary.mean is not None for summary in found.summaries.values())
    return ExitCode.SOME if some else ExitCode.NOTHING
