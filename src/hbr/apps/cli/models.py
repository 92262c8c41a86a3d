"""`hbr models`: list, show, verify, import, join, blend and extract; fetch, export and push."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hbr.apps.cli import exporting, fetching
from hbr.apps.cli.options import AsJson
from hbr.apps.cli.reporting import print_json, print_table, to_stderr
from hbr.errors import ExitCode

if TYPE_CHECKING:
    from hbr.models.inspection import Description

app = typer.Typer(
    help="List, show, verify, import, export and push model weights.",
    no_args_is_help=True,
)

_Model = Annotated[str, typer.Argument(metavar="NAME|FILE", help="A known name or a file.")]


@app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List the known weights: kind, size, licence and source."""
    from hbr.models.inspection import overview

    found = overview()
    if as_json:
        print_json([dataclasses.asdict(d) for d in found])
        return
    columns = ("name", "kind", "here", "size", "licence", "source")
    rows = [
        (d.name, d.kind, "yes" if d.file else "no", _size(d.size), d.licence, d.source)
        for d in found
    ]
    print_table(columns, rows)


@app.command("show")
def show(model: _Model, as_json: AsJson = False) -> None:
    """Show a model's card: source, licence, sizes, capabilities, configuration."""
    from hbr.models.inspection import describe

    described = describe(model)
    if as_json:
        print_json(dataclasses.asdict(described))
        return
    for name, value in _card(described):
        typer.echo(f"{name}: {value}")


@app.command("verify")
def verify(
    model: Annotated[
        str | None,
        typer.Argument(metavar="[NAME|FILE]", help="Default: all installed weights."),
    ] = None,
    place: Annotated[
        Path | None,
        typer.Option("--in", help="File or folder that should hold the weights NAME.", exists=True),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Verify SHA-256 checksums and check for NaN; the exit code is 4 if a file is invalid."""
    from hbr.models import WeightsError
    from hbr.models.inspection import verify
    from hbr.weights import entries

    if place is not None and model is None:
        raise typer.BadParameter("--in requires NAME")
    here = [entry.name for entry in entries().values() if entry.installed]
    names = here if model is None else [model]
    if not names:
        raise WeightsError("no weights are on this machine; give a file")
    rows = [row for name in names for row in verify(name, place)]
    if as_json:
        print_json([{**dataclasses.asdict(row), "ok": row.ok} for row in rows])
    else:
        for row in rows:
            typer.echo(f"{row.sha256}  {row.file}  {row.verdict}")
    if not all(row.ok for row in rows):
        raise typer.Exit(ExitCode.WEIGHTS)


@app.command("import")
def import_model(
    source: Annotated[
        Path, typer.Argument(metavar="FILE", help="File of the weights; diffusers: a folder.")
    ],
    out: Annotated[Path, typer.Option("--output", "-o", help="The .safetensors file to write.")],
    kind: Annotated[
        Literal["auto", "osediff", "ram", "tagger", "lora", "diffusers", "unet", "vae", "swinir"],
        typer.Option(help="Format of FILE; auto: detected from tensor names and shapes."),
    ] = "auto",
    base: Annotated[
        Path | None,
        typer.Option(help="Base model of FILE: a diffusers folder or an hbr model file."),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(help="Text of the fixed prompt of a diffusers folder. Default: empty."),
    ] = None,
    prompt_file: Annotated[
        Path | None,
        typer.Option(help="An exported prompt.safetensors to use instead of the base's prompt."),
    ] = None,
    dape: Annotated[
        Path | None, typer.Option(help="LoRA file of SeeSR's DAPE to merge into the tagger.")
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(help="α of a LoRA, instead of what the file or its folder states."),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(help="Text around the {tags} of an image. Default for OSEDiff: '{tags}, ,'."),
    ] = None,
    timestep: Annotated[
        int | None,
        typer.Option(help="Timestep at which the one step starts. Default: that of the base."),
    ] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"],
        typer.Option(help="Precision of the written weights."),
    ] = "float32",
) -> None:
    """Convert weights in another format to a model file, without running code from them.

    Progress goes to stderr; the last line, on stdout, is the file.
    """
    import torch

    from hbr.models.importing import ArgumentError, import_weights

    try:
        path = import_weights(
            source,
            kind,
            out,
            base=base,
            prompt=prompt,
            prompt_file=prompt_file,
            dape=dape,
            alpha=alpha,
            template=template,
            timestep=timestep,
            dtype=getattr(torch, dtype),
            report=to_stderr,
        )
    except ArgumentError as error:
        raise typer.BadParameter(str(error)) from None
    typer.echo(path)


app.command("fetch", help="Alias of `hbr fetch`.")(fetching.fetch)


app.command("export")(exporting.export_model)
app.command("push")(exporting.push)


@app.command("join")
def join(
    faithful: Annotated[Path, typer.Argument(metavar="FAITHFUL", help="A model file.")],
    sharp: Annotated[
        Path, typer.Argument(metavar="SHARP", help="One that was trained on from it.")
    ],
    out: Annotated[Path, typer.Option("--output", "-o", help="The .safetensors file to write.")],
    fidelity: Annotated[
        float, typer.Option(help="Default of the new file: 1 faithful, 0 sharp.")
    ] = 0.5,
    color: Annotated[
        Literal["wavelet", "adain", "none"] | None,
        typer.Option(help="Colour correction that suits it, if not that of the two models."),
    ] = None,
) -> None:
    """Join two models into a file with two ends, for `hbr restore --fidelity`.

    The last line, on stdout, is the file.
    """
    from hbr.models.fidelity import write_two_ends

    typer.echo(write_two_ends(out, faithful, sharp, fidelity, color))


@app.command("blend")
def blend(
    first: Annotated[Path, typer.Argument(metavar="FIRST", help="A model file.")],
    second: Annotated[
        Path, typer.Argument(metavar="SECOND", help="One that was trained on from it.")
    ],
    out: Annotated[Path, typer.Option("--output", "-o", help="The .safetensors file to write.")],
    share: Annotated[float, typer.Option(help="Share of SECOND, from 0 to 1.")] = 0.5,
) -> None:
    """Blend two models into one that lies between, by interpolating their weights.

    The last line, on stdout, is the file.
    """
    from hbr.models.fidelity import write_blend

    typer.echo(write_blend(out, first, second, share))


@app.command("extract")
def extract(
    model: _Model,
    out: Annotated[Path, typer.Option("--output", "-o", help="The .safetensors file to write.")],
    fidelity: Annotated[float, typer.Option(help="Which model: 1 faithful, 0 sharp.")],
) -> None:
    """Extract the model at a fidelity from a file with two ends.

    `join`, `blend` and trainings take the result. The last line, on stdout, is the file.
    """
    from hbr.models.fidelity import write_extract
    from hbr.weights import find_model

    typer.echo(write_extract(out, find_model(model), fidelity))


def _card(d: Description) -> list[tuple[str, Any]]:
    lines: list[tuple[str, Any]] = [
        ("name", d.name),
        ("kind", d.kind),
        ("summary", d.summary),
        ("source", d.source),
        ("licence", d.licence or "unknown"),
        ("file", d.file or "not on this machine"),
        ("size", _size(d.size)),
        ("import with", d.import_with),
        ("assembled from", ", ".join(d.assembled_from)),
    ]
    lines += [(f"sha256 {f.path}", f.sha256 or "not pinned") for f in d.files]
    lines += [(f"card {name}", value) for name, value in sorted(d.card.items())]
    lines += [(f"parameters {part}", f"{count:,}") for part, count in d.parameters.items()]
    lines += [(name.replace("_", " "), _plain(v)) for name, v in d.capabilities.items()]
    lines += [(f"config {name}", value) for name, value in _flat(d.config)]
    return [(name, value) for name, value in lines if value != ""]


def _flat(values: Any, prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", _plain(value)))
    return rows


def _plain(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value


def _size(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 1e6:.1f} MB"
