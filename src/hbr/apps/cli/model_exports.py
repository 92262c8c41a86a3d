"""`hbr models export | push | join`."""

from __future__ import annotations

import dataclasses
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from hbr.models.exporting.card import Figures

_report = partial(typer.echo, err=True)


def export_model(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A known name, a model file, or a training's output folder."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--output", "-o", help="lora: a .safetensors file; diffusers: a new folder."),
    ],
    form: Annotated[
        Literal["lora", "diffusers"],
        typer.Option("--as", help="LoRA adapters only, or the whole model with merged weights."),
    ],
    vae: Annotated[
        bool, typer.Option("--vae/--no-vae", help="lora: also write the autoencoder's adapters.")
    ] = True,
    prompt: Annotated[
        bool,
        typer.Option("--prompt", help="lora: also write the prompt extractor, next to the output."),
    ] = False,
) -> None:
    """Export a model for diffusers and peft; `hbr models import` reads it back.

    `lora` also accepts a published OSEDiff checkpoint (.pkl). Progress goes to stderr, the names of
    the written files to stdout.
    """
    if form == "diffusers":
        if prompt or not vae:
            raise typer.BadParameter("--prompt and --no-vae are only valid with --as lora")
        from hbr.models.exporting.folder import export_folder

        typer.echo(export_folder(_model_file(model), out))
        return
    if out.suffix != ".safetensors":
        raise typer.BadParameter(f"the output is {out}; its name must end in .safetensors")
    from hbr.models.exporting.loras import export_lora

    for path in export_lora(_adapted(model), out, vae=vae, prompt=prompt, report=_report):
        typer.echo(path)


def join(
    faithful: Annotated[Path, typer.Argument(metavar="FAITHFUL", help="A model file.")],
    sharp: Annotated[
        Path, typer.Argument(metavar="SHARP", help="One that was trained on from it.")
    ],
    out: Annotated[Path, typer.Option("--output", "-o", help="The .safetensors file to write.")],
    fidelity: Annotated[
        float, typer.Option(help="Default of the new file: 1 faithful, 0 sharp.")
    ] = 0.5,
) -> None:
    """Join two models into a file with two ends, for `hbr restore --fidelity`.

    The last line, on stdout, is the file.
    """
    from hbr.models.fidelity import write_two_ends

    typer.echo(write_two_ends(out, faithful, sharp, fidelity))


def push(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A known name, a model file, or a training's output folder."
        ),
    ],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="NAMESPACE/NAME on the Hub.")],
    licence: Annotated[
        str | None,
        typer.Option(help="Licence of the model, e.g. Apache-2.0. Default: the file's."),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Create a new repository as private.")
    ] = False,
    message: Annotated[str | None, typer.Option(help="Commit message.")] = None,
    base_model: Annotated[
        list[str] | None,
        typer.Option(metavar="REPO", help="Base model on the Hub; may be repeated."),
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(metavar="REPO", help="Training data set on the Hub; may be repeated."),
    ] = None,
    benchmark: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="A run of `hbr benchmark` whose results the card shows."),
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="The model's name in RUN. Default: the only hbr model there.")
    ] = None,
    dry_run: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write the model folder here without pushing it."),
    ] = None,
) -> None:
    """Push a model with its card to the Hugging Face Hub, in one commit.

    The card is made from the model file and the training's folder: licence, recipe, training data,
    sizes. The last line, on stdout, is the URL of the commit, or the folder of --dry-run.
    """
    if method is not None and benchmark is None:
        raise typer.BadParameter("--method requires --benchmark")
    from hbr.models.exporting.card import about
    from hbr.models.exporting.hub import check_repository, push_folder, write_model_folder

    if dry_run is None:
        check_repository(repo)
    file = _model_file(model)
    known = about(file)
    known = dataclasses.replace(
        known,
        name=repo.rpartition("/")[2],
        licence=licence or known.licence,
        base_models=tuple(base_model or known.base_models),
        datasets=tuple(dataset or ()),
        figures=None if benchmark is None else _figures(benchmark, method),
    )
    if dry_run is not None:
        typer.echo(write_model_folder(file, known, dry_run))
        return
    with tempfile.TemporaryDirectory(prefix="hbr-push-") as place:
        folder = write_model_folder(file, known, Path(place) / "model")
        for path in sorted(folder.iterdir()):
            _report(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")
        words = message or f"{known.name}, by hbr"
        typer.echo(push_folder(folder, repo, private=private, message=words))


def _model_file(model: str) -> Path:
    from hbr.weights import find_model

    inside = Path(model) / "model.safetensors"
    return find_model(inside if inside.is_file() else model)


def _adapted(model: str) -> Path:
    """Return the input of `export_lora`: a training folder, a `.pkl` file, or a model file."""
    path = Path(model)
    if path.suffix == ".pkl" or (path / "lora.safetensors").is_file():
        return path
    return _model_file(model)


def _figures(place: Path, method: str | None) -> Figures:
    """Return a model's results in a benchmark run."""
    from hbr.evaluation.report.tables import digits, number
    from hbr.evaluation.results import BenchmarkRun
    from hbr.models.exporting.card import Figures

    run = BenchmarkRun.load(place)
    ours = [m.name for m in run.methods if m.kind == "hbr"]
    if method is None and len(ours) == 1:
        method = ours[0]
    names = [m.name for m in run.methods if m.run]
    if method not in names:
        raise typer.BadParameter(
            f"{place} has the methods {', '.join(names)}; choose the model with --method"
        )
    rows = []
    for cell in run.cells:
        if cell.method != method or cell.mean is None:
            continue
        info, places = run.metric(cell.metric), digits(run, cell.metric)
        interval = ""
        if cell.low is not None and cell.high is not None:
            interval = f"{number(cell.low, places)} to {number(cell.high, places)}"
        mean = number(cell.mean, places)
        rows.append((cell.data_set, info.name, mean, interval, info.better, str(cell.n)))
    return Figures(
        benchmark=run.title or run.name,
        command=f"hbr benchmark run {run.name}",
        metrics=tuple(info.id for info in run.metrics),
        heads=("data", "metric", "mean", "95 % interval", "better is", "pictures"),
        rows=tuple(rows),
        notes=run.warnings,
    )
