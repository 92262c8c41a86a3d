"""`hbr models export | push`."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hbr.apps.cli.reporting import to_stderr

if TYPE_CHECKING:
    from hbr.models.exporting.card import Figures
    from hbr.weights import FoundFile

# How the names of the files end that `hbr models export` writes.
_ENDINGS = {"lora": (".safetensors",), "onnx": (".onnx",), "tensorrt": (".engine", ".plan")}
_Trained = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A known name, a model file, or a training's output folder."
    ),
]


def export_model(
    model: _Trained,
    out: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="lora: a .safetensors file; diffusers: a new folder; onnx: an .onnx file; "
            "tensorrt: an .engine or .plan file.",
        ),
    ],
    form: Annotated[
        Literal["lora", "diffusers", "onnx", "tensorrt"],
        typer.Option(
            "--as",
            help="LoRA adapters only, the whole model with merged weights, a graph that needs no "
            "torch (extra onnx), or a TensorRT engine for this GPU (extra tensorrt).",
        ),
    ],
    vae: Annotated[
        bool, typer.Option("--vae/--no-vae", help="lora: also write the autoencoder's adapters.")
    ] = True,
    prompt: Annotated[
        bool,
        typer.Option("--prompt", help="lora: also write the prompt extractor, next to the output."),
    ] = False,
    fidelity: Annotated[
        float | None,
        typer.Option(help="onnx, tensorrt: of a model with two ends, as for hbr restore."),
    ] = None,
    decoder: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="onnx, tensorrt: as for hbr restore."),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS", help="tensorrt: edge of the tiles. Default: the model's own size."
        ),
    ] = None,
    batch: Annotated[int, typer.Option(help="tensorrt: number of tiles.")] = 1,
    dtype: Annotated[
        Literal["auto", "float32", "float16"],
        typer.Option(help="tensorrt: precision of the weights; auto: float16 if the model has it."),
    ] = "auto",
) -> None:
    """Export a model for other programs.

    `hbr models import` reads what `lora` and `diffusers` wrote. `lora` also accepts a published
    OSEDiff checkpoint (.pkl). Progress goes to stderr, the names of the written files to stdout.
    """
    graphs, engines = ("onnx", "tensorrt"), ("tensorrt",)
    options = {
        "--no-vae": (not vae, ("lora",)),
        "--prompt": (prompt, ("lora",)),
        "--fidelity": (fidelity is not None, graphs),
        "--decoder": (decoder is not None, graphs),
        "--size": (size is not None, engines),
        "--batch": (batch != 1, engines),
        "--dtype": (dtype != "auto", engines),
    }
    for option, (given, forms) in options.items():
        if given and form not in forms:
            raise typer.BadParameter(f"{option} is only valid with --as {' or '.join(forms)}")
    if out.suffix not in _ENDINGS.get(form, (out.suffix,)):
        wanted = " or ".join(_ENDINGS[form])
        raise typer.BadParameter(f"the output is {out}; its name must end in {wanted}")
    if form == "lora":
        from hbr.models.exporting.loras import export_lora

        written = export_lora(_adapted(model), out, vae=vae, prompt=prompt, report=to_stderr)
    elif form == "diffusers":
        from hbr.models.exporting.folder import export_folder

        written = [export_folder(_model_file(model), out)]
    elif form == "onnx":
        from hbr.models.exporting.graph import export_graph

        written = [export_graph(_model_file(model), out, fidelity, _decoder(decoder))]
    else:
        from hbr.models.exporting.tensorrt import EngineConfig, export_engine

        file, config = _model_file(model), EngineConfig(size=size, batch=batch, dtype=dtype)
        other = _decoder(decoder)
        written = [export_engine(file, out, config, fidelity, other, report=to_stderr)]
    for path in written:
        typer.echo(path)


def push(
    model: _Trained,
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
            to_stderr(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")
        words = message or f"{known.name}, by hbr"
        typer.echo(push_folder(folder, repo, private=private, message=words))


def _decoder(name: str | None) -> FoundFile | None:
    from hbr.weights import find_decoder

    return None if name is None else find_decoder(name)


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
