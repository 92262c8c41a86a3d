"""`hbr methods list | show | run | retrain`."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hbr.apps.cli.options import AsJson, Recursive
from hbr.apps.cli.recipes import Settings
from hbr.apps.cli.reporting import Reporter, print_json, print_table
from hbr.errors import ExitCode

if TYPE_CHECKING:
    from hbr.evaluation.methods.config import ProgramConfig, ProgramSpec

app = typer.Typer(
    help="Methods to compare with: list them, show how they are run, run them, train them anew.",
    no_args_is_help=True,
)


# Kinds of methods that are not programs.
_BUILT_IN = {
    "hbr": ("models of hbr", "see hbr models list"),
    "spandrel": (
        "model files of Real-ESRGAN, BSRGAN, SwinIR and about forty other architectures",
        "that of the weights; spandrel is MIT (pip install 'hbr[spandrel]')",
    ),
    "folder": ("existing results", "that of their author"),
    "baseline": ("input, bicubic, nlm (non-local means), median", "Apache-2.0"),
}


@app.command("list")
def list_methods(as_json: AsJson = False) -> None:
    """List all kinds of methods and all known programs, with their licences."""
    from hbr.config import to_dict
    from hbr.evaluation.methods.programs import known_programs

    programs = known_programs()
    if as_json:
        rows = [{"id": name, "kind": "program", **to_dict(s)} for name, s in programs.items()]
        print_json(rows)
        return
    columns = ("id", "kind", "summary", "upscale", "licence")
    lines = [("", kind, what, "", licence) for kind, (what, licence) in _BUILT_IN.items()]
    lines += [
        (name, "program", s.name, f"×{s.factor}" if s.factor else "configurable", s.licence)
        for name, s in programs.items()
    ]
    print_table(columns, lines)


@app.command("show")
def show(
    program: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE",
            help="A program (see hbr methods list), or the YAML file of a program or method.",
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Show a program: licence, requirements, command, and a configuration to start from.

    The command is shown as run in the folder of the repository. For a method file (see `hbr methods
    run`), it uses the configuration in the file.
    """
    from hbr.config import to_dict
    from hbr.evaluation.methods.base import MethodError
    from hbr.evaluation.methods.config import ProgramConfig
    from hbr.evaluation.methods.programs import find_program

    config = _program_of(program)
    if config is None:
        spec = find_program(program)
        needed = [n for n, v in spec.values.items() if not v and n not in spec.optional]
        given = {name: f"PATH_OF_{name.upper()}" for name in needed}
        config = ProgramConfig(program=program, python="PYTHON", repo=Path("REPO"), values=given)
    elif not isinstance(config, ProgramConfig):
        raise MethodError(f"{program}: is not a program; see hbr methods list")
    else:
        spec = find_program(config.program)
    if as_json:
        print_json({"id": program, **to_dict(spec), "shown": _command(spec, config)})
        return
    for name, value in _card(spec, config):
        typer.echo(f"{name}: {value}")
    if config.python == "PYTHON":
        typer.echo("\nexample of a method file:\n")
        typer.echo(_example(program, config), nl=False)


@app.command("run")
def run(
    method: Annotated[
        Path, typer.Argument(metavar="METHOD.yaml", help="A YAML file with the key `method`.")
    ],
    lq: Annotated[Path, typer.Option("--input", "-i", metavar="DIR", help="Folder of the photos.")],
    out: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the results.")
    ],
    recursive: Recursive = False,
    restart: Annotated[
        bool, typer.Option("--anew", help="Restore all photos again, not only missing results.")
    ] = False,
) -> None:
    """Restore a folder with any method, as a benchmark does.

    The same command resumes an interrupted run. The results are written as STEM.png; their names go
    to stdout, everything else to stderr. Exit codes: 0 all done; 3 some failed; 1 all failed;
    2 usage error; 130 stopped.
    """
    from hbr.evaluation.methods import build_method, read_method
    from hbr.evaluation.pairing import find_pictures

    if out.resolve() == lq.resolve() or (recursive and lq.resolve() in out.resolve().parents):
        raise typer.BadParameter(
            "the results would be among the inputs of the next run; choose another folder.",
            param_hint="--output",
        )
    built = build_method(read_method(method))
    photos = find_pictures(lq, recursive=recursive)
    reporter = Reporter(as_json=False)
    with reporter.running(lambda: "stopped; run the same command to continue"):
        outcome = built.run(photos, out, resume=not restart, report=partial(reporter.say, "info"))
        for stem, line in outcome.failed.items():
            reporter.say("error", f"{stem}: {line}")
        for path in outcome.restored.values():
            typer.echo(path)
        reporter.say("info", f"{len(outcome.restored)} of {len(photos)} restored")
    raise typer.Exit(ExitCode.of(done=len(outcome.restored), failed=len(outcome.failed)))


@app.command("retrain")
def retrain(
    name: Annotated[str, typer.Argument(metavar="METHOD", help="resshift or sinsr.")],
    photos: Annotated[
        Path,
        typer.Argument(metavar="PHOTOS", help="A folder, or a data set of hbr curate (its train)."),
    ],
    out: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the retraining.")
    ],
    repo: Annotated[Path, typer.Option(metavar="DIR", help="The method's cloned repository.")],
    python: Annotated[
        str,
        typer.Option(help="Its interpreter: a path, an environment's folder, or conda:NAME."),
    ] = "python3",
    gpus: Annotated[int, typer.Option(min=1, help="How many GPUs share a batch.")] = 1,
    settings: Settings = None,
    write_only: Annotated[
        bool,
        typer.Option("--write-only", help="Write the files and print the command; do not start."),
    ] = False,
) -> None:
    """Train a method on photos of your own by its own public code.

    Writes the list of photos and the configuration that the code takes, starts it in its own
    environment, and writes method.yaml, with which hbr benchmark and hbr methods run use the
    result. --set changes a value of the method's configuration, such as train.iterations. The same
    command resumes a stopped training.
    """
    from hbr.evaluation.methods.retraining import retrain as train_anew
    from hbr.evaluation.methods.retraining import write_plan

    files = _photo_files(photos)
    plan = write_plan(
        name, files, out, repo=repo, python=python, gpus=gpus, settings=settings or ()
    )
    if write_only:
        typer.echo(plan.shell)
        return
    reporter = Reporter(as_json=False)
    with reporter.running(lambda: "stopped; run the same command to continue"):
        typer.echo(train_anew(plan, report=partial(reporter.say, "info")))


def _photo_files(place: Path) -> list[Path]:
    """The photos of a folder, or the crops of a curated data set's training split."""
    from hbr.evaluation.methods.base import MethodError
    from hbr.training.config import PhotoSourceConfig
    from hbr.training.photos import open_photos

    is_curated = place.is_file() or (place / "manifest.parquet").is_file()
    source = PhotoSourceConfig(manifest=place) if is_curated else PhotoSourceConfig(photos=place)
    photos = open_photos(source)
    files = [photos.open(index) for index in range(len(photos))]
    paths = [file for file in files if isinstance(file, Path)]
    if len(paths) < len(files):
        raise MethodError(
            f"{place}: its crops lie in tars or tables, the method's code reads files; "
            "`hbr curate export` writes them as a folder"
        )
    return paths


def _program_of(text: str) -> ProgramConfig | object | None:
    """Return the configuration in a method file, or None if `text` is anything else."""
    if not text.endswith((".yaml", ".yml")) or not Path(text).is_file():
        return None
    from hbr.config import ConfigError, read_yaml
    from hbr.evaluation.methods import read_method

    try:
        values = read_yaml(text)
    except ConfigError:
        return None  # reading it as a program reports the error
    is_method = isinstance(values, dict) and "method" in values
    return read_method(text) if is_method else None


def _command(spec: ProgramSpec, config: ProgramConfig) -> str:
    from hbr.evaluation.methods.programs import command_line

    folders = {"repo": config.repo, "input": Path("INPUT"), "output": Path("OUTPUT")}
    return shlex.join(command_line(spec, config, [config.python], folders))


def _card(spec: ProgramSpec, config: ProgramConfig) -> list[tuple[str, str]]:
    lines = [
        ("name", spec.name),
        ("paper", spec.paper),
        ("home", spec.url),
        ("commit", spec.commit),
        ("licence", spec.licence),
        ("install", spec.install),
        ("needs", ", ".join(spec.needs)),
        ("upscale", f"always ×{spec.factor}" if spec.factor else "configurable"),
        ("command", _command(spec, config)),
        ("runs in", "the repository" if spec.workdir == "repo" else "a temporary folder"),
        ("results", ", ".join(spec.outputs)),
        ("notes", spec.notes),
    ]
    return [(name, value) for name, value in lines if value]


def _example(program: str, config: ProgramConfig) -> str:
    lines = ["method:", "  kind: program", f"  program: {program}"]
    lines += ["  python: conda:NAME    # or the path of an interpreter or virtual environment"]
    lines += ["  repo: FOLDER          # the cloned repository"]
    if config.values:
        lines += ["  values:"] + [f"    {name}: PATH" for name in config.values]
    return "\n".join(lines) + "\n"
