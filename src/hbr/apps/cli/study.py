"""`hbr study new | serve | report`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from hbr.apps.cli.options import Recursive

app = typer.Typer(
    help="User studies: blinded, randomised and balanced, in the browser on this machine.",
    no_args_is_help=True,
)

_Folder = Annotated[Path, typer.Argument(metavar="STUDY", help="Folder of the study.")]
_report = partial(typer.echo, err=True)


@app.command("new")
def new(
    folder: _Folder,
    methods: Annotated[
        list[str],
        typer.Option(
            "--method", "-m", metavar="NAME=DIR", help="A method's restored photos; repeat it."
        ),
    ],
    kind: Annotated[
        Literal["scores", "choice"],
        typer.Option(help="0 to 5 for each photo, or the better one of two."),
    ] = "scores",
    lq: Annotated[
        Path | None, typer.Option(help="Degraded photos, to be shown beside as 'Before'.")
    ] = None,
    hq: Annotated[
        Path | None, typer.Option(help="Undamaged photos, to be shown beside as 'Reference'.")
    ] = None,
    per_rater: Annotated[
        int | None, typer.Option(min=1, help="Trials for each rater; else every one there is.")
    ] = None,
    repeats: Annotated[
        int, typer.Option(min=0, help="Trials shown twice, to see how steady a rater is.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of every random order.")] = 0,
    title: Annotated[str, typer.Option(help="Heading that raters see.")] = "Photo study",
    question: Annotated[str, typer.Option(help="What they are asked; else the usual.")] = "",
    strip: Annotated[
        list[str] | None,
        typer.Option(help="Ending to take off the names, as _out; re:… is an expression."),
    ] = None,
    recursive: Recursive = False,
    common: Annotated[
        bool, typer.Option("--common", help="Take the photos that all methods have.")
    ] = False,
) -> None:
    """Make a study of folders of restored photos, paired by stem.

    The photos are copied into STUDY without metadata, under random ids; nothing that raters get
    names a method. The last line, on stdout, is the folder.
    """
    from hbr.evaluation.pairing import StemRules
    from hbr.evaluation.study import StudyConfig, StudyPhotos, create

    photos = StudyPhotos(
        methods=_named(methods),
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
    _report(f"{len(study.stems)} photos of {len(study.methods)} methods; next: hbr study serve")
    typer.echo(folder)


@app.command("serve")
def serve(
    folder: _Folder,
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 lets other devices in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8420,
) -> None:
    """Serve a study until Ctrl-C; every confirmed answer is kept, and serving again goes on.

    The address goes to stdout.
    """
    from hbr.apps.web import study as page
    from hbr.evaluation.study import Study

    study = Study.open(folder)
    with page.listen(host, port) as sock:
        shown = f"[{host}]" if ":" in host else host
        port = sock.getsockname()[1]
        if host in ("0.0.0.0", "::"):
            _report(f"other devices: http://NAME-OF-THIS-MACHINE:{port}/")
            shown = "localhost"
        typer.echo(f"http://{shown}:{port}/")
        page.serve(study, sock)


@app.command("report")
def report(
    folder: _Folder,
    out: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Folder to write.")],
    bootstrap: Annotated[
        int, typer.Option(min=1, help="Resamples behind the 95 % intervals.")
    ] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Of the resamples.")] = 0,
    exclude: Annotated[
        list[int] | None, typer.Option(help="Number of a rater to leave out; may be repeated.")
    ] = None,
) -> None:
    """Report a study's results so far: HTML, Markdown, JSON, CSV and a box plot.

    The files go to stdout, one a line.
    """
    from hbr.evaluation.study import Study, summarise, write_report

    found = summarise(Study.open(folder), resamples=bootstrap, seed=seed, exclude=exclude or ())
    for warning in found.warnings:
        _report(f"hbr: {warning}")
    for path in write_report(found, out):
        typer.echo(path)


def _named(methods: list[str]) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for text in methods:
        name, equals, place = text.partition("=")
        if not (name.strip() and equals and place):
            raise typer.BadParameter(f"{text!r} is not NAME=DIR.", param_hint="--method")
        if name.strip() in named:
            raise typer.BadParameter(f"{name.strip()!r} is there twice.", param_hint="--method")
        named[name.strip()] = Path(place)
    return named
