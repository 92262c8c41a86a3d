"""`hbr study new | serve | report`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from hbr.apps.cli.options import Recursive, named_values
from hbr.apps.cli.reporting import to_stderr

app = typer.Typer(
    help="Run blinded, randomised and balanced user studies in the browser.",
    no_args_is_help=True,
)

_Folder = Annotated[Path, typer.Argument(metavar="STUDY", help="Folder of the study.")]


@app.command("new")
def new(
    folder: _Folder,
    methods: Annotated[
        list[str],
        typer.Option(
            "--method",
            "-m",
            metavar="NAME=DIR",
            help="Folder of a method's restored photos; give it once per method.",
        ),
    ],
    kind: Annotated[
        Literal["scores", "choice"],
        typer.Option(help="Rate each photo from 0 to 5, or choose the better of two."),
    ] = "scores",
    lq: Annotated[
        Path | None, typer.Option(help="Folder of degraded photos, shown as 'Before'.")
    ] = None,
    hq: Annotated[
        Path | None, typer.Option(help="Folder of undamaged photos, shown as 'Reference'.")
    ] = None,
    per_rater: Annotated[
        int | None, typer.Option(min=1, help="Number of trials per rater. Default: all.")
    ] = None,
    repeats: Annotated[
        int, typer.Option(min=0, help="Number of trials shown twice to measure consistency.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Random seed of the orders.")] = 0,
    title: Annotated[str, typer.Option(help="Heading of the page.")] = "Photo study",
    question: Annotated[
        str, typer.Option(help="Question to the raters. Default: that of the kind.")
    ] = "",
    strip: Annotated[
        list[str] | None,
        typer.Option(help="Suffix to strip from names, e.g. _out; re:… is a regular expression."),
    ] = None,
    recursive: Recursive = False,
    common: Annotated[
        bool, typer.Option("--common", help="Use only the photos that all methods have.")
    ] = False,
) -> None:
    """Create a study from folders of restored photos, paired by file stem.

    The photos are copied into STUDY without metadata, under random ids, so that raters cannot see
    the names of the methods. The last line, on stdout, is the folder.
    """
    from hbr.evaluation.pairing import StemRules
    from hbr.evaluation.study.creation import StudyPhotos, create
    from hbr.evaluation.study.design import StudyConfig

    named = named_values(methods, "--method", "NAME=DIR")
    photos = StudyPhotos(
        methods={name: Path(place) for name, place in named.items()},
        lq=lq,
        hq=hq,
        in_common=common,
        rules=StemRules(tuple(strip or ())),
        recursive=recursive,
    )
    config = StudyConfig(
        kind=kind, seed=seed, per_rater=per_rater, repeats=repeats, title=title, question=question
    )
    with typer.progressbar(length=1, file=sys.stderr) as bar:

        def move(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        study = create(folder, photos, config, report=move)
    to_stderr(f"{len(study.stems)} photos of {len(study.methods)} methods; next: hbr study serve")
    typer.echo(folder)


@app.command("serve")
def serve(
    folder: _Folder,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 also serves other devices.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any free port.")] = 8420,
) -> None:
    """Serve a study until Ctrl-C; answers are saved at once, and serving again continues the study.

    The address goes to stdout.
    """
    from hbr.apps.web import study as page
    from hbr.evaluation.study.store import Study
    from hbr.service.listening import listen

    study = Study.open(folder)
    with listen(host, port) as sock:
        shown = f"[{host}]" if ":" in host else host
        port = sock.getsockname()[1]
        if host in ("0.0.0.0", "::"):
            to_stderr(f"other devices: http://NAME-OF-THIS-MACHINE:{port}/")
            shown = "localhost"
        typer.echo(f"http://{shown}:{port}/")
        page.serve(study, sock)


@app.command("report")
def report(
    folder: _Folder,
    out: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Folder to write.")],
    bootstrap: Annotated[
        int, typer.Option(min=1, help="Bootstrap resamples for 95 % intervals.")
    ] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the bootstrap.")] = 0,
    exclude: Annotated[
        list[int] | None, typer.Option(help="Number of a rater to exclude; may be repeated.")
    ] = None,
) -> None:
    """Report a study's results so far: HTML, Markdown, JSON, CSV and a box plot.

    The names of the files go to stdout, one per line.
    """
    from hbr.evaluation.study.analysis import summarise
    from hbr.evaluation.study.store import Study
    from hbr.evaluation.study.writing import write_report

    found = summarise(Study.open(folder), resamples=bootstrap, seed=seed, exclude=exclude or ())
    for warning in found.warnings:
        to_stderr(f"hbr: {warning}")
    for path in write_report(found, out):
        typer.echo(path)
