"""`hbr curate review | captions`: what a person and a language model add to a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hbr.apps.cli.curate_results import HERE, RunArgument
from hbr.errors import ExitCode

if TYPE_CHECKING:
    from hbr.curation.runs.captions import CaptionTotals


def captions(
    run: RunArgument = HERE,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            help="Vision-language model: a name of hbr models list, or its folder.",
        ),
    ] = "smolvlm-256m",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or mps.")] = "cpu",
) -> None:
    """Describe the people in the kept crops by tags, in captions.jsonl of RUN.

    The same command resumes; another model needs a new file. Answers that are no tags are kept as
    empty texts, with the reason.
    """
    from hbr.curation.runs.captions import write_captions
    from hbr.curation.runs.run_folder import RunFolder
    from hbr.models.captioner import load_captioner
    from hbr.processes import StopSignals

    def tell(totals: CaptionTotals) -> None:
        if (totals.written + totals.refused) % 100 == 0:
            typer.echo(f"{totals.written:,} captions, {totals.refused:,} refused", err=True)

    opened, folder = RunFolder(run), Path(model)
    name = str(folder.resolve()) if folder.is_dir() else model
    with StopSignals():
        path, totals = write_captions(opened, load_captioner(model, device), name, tell=tell)
    parts = [f"{totals.written:,} captions", f"{totals.earlier:,} were there"]
    parts += [f"{totals.refused:,} answers were no tags"] if totals.refused else []
    typer.echo(", ".join(parts), err=True)
    typer.echo(path)
    raise typer.Exit(ExitCode.of(done=totals.written + totals.earlier, failed=totals.refused))


def review(
    run: RunArgument = HERE,
    apply: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE.json", help="Choices saved on a page, to apply; may be repeated."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE.html", help="Default: review.html in RUN."),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Number of crops on the page.")] = 400,
) -> None:
    """Write a page on which a person unticks crops; --apply drops what was unticked.

    Each page shows kept crops that nobody has seen yet. The choices are kept in review.json of RUN,
    and the crops, the manifest and the card are written again without what is left out.
    """
    from hbr.curation.runs.review import apply_choices, write_page
    from hbr.curation.runs.run import curate
    from hbr.curation.runs.run_folder import RunFolder
    from hbr.processes import StopSignals

    opened = RunFolder(run)
    if apply:
        if opened.config is None:
            raise typer.BadParameter(f"{run} has no work folder to write the data set from.")
        made = apply_choices(opened, apply)
        with StopSignals():
            summary = curate(opened.config, run)
        seen, left = len(made.seen), len(made.left_out)
        typer.echo(f"{seen:,} seen, {left:,} left out; {summary.kept:,} kept", err=True)
        typer.echo(run / "manifest.parquet")
        return
    page = run / "review.html" if out is None else out
    shown, left = write_page(opened, page, count=count)
    if not shown:
        typer.echo("every kept crop has been reviewed", err=True)
        return
    typer.echo(f"{shown:,} crops on the page, {left:,} left for the next", err=True)
    typer.echo(page)
