"""`hbr curate status | explain | diff | report | export | thresholds`: what looks at runs."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hbr.apps.cli.options import AsJson
from hbr.apps.cli.reporting import print_json

if TYPE_CHECKING:
    from hbr.curation.record import Counts
    from hbr.curation.runs.run_folder import RunFolder

RunArgument = Annotated[
    Path, typer.Argument(metavar="[RUN]", help="What `hbr curate run -o` made; finished or not.")
]
HERE = Path("curated")


def status(run: RunArgument = HERE, as_json: AsJson = False) -> None:
    """Say where a run is: images done, rows, kept so far, errors, pace."""
    from hbr.curation.record import ERRORS, funnel

    opened = _open(run)
    counts, latest = opened.counts(), opened.status()
    errors = sum(n for (_, reason), n in counts.items() if reason in ERRORS)
    alive = sum(n for (_, reason), n in counts.items() if reason is None)
    values: dict[str, Any] = {"run": str(run), "name": opened.name, "state": _state(opened)}
    if opened.store is not None:
        values["chunks"] = len(opened.store.parts())
    if latest is not None:
        values["images"] = latest.images + latest.earlier
        values["doing"] = latest.doing
        values["pace"] = latest.pace
        values["seconds"] = latest.at - latest.began
        values["why"] = latest.why
    values |= {"rows": sum(counts.values()), "alive": alive, "errors": errors}
    if as_json:
        values["funnel"] = [vars(step) for step in funnel(counts)]
        print_json(values)
        return
    typer.echo(f"{opened.name}: {values['state']}")
    if latest is not None:
        after = f", {latest.pace:.1f} images/s" if latest.pace and latest.alive else ""
        typer.echo(f"images done  {latest.images + latest.earlier:,}{after}")
    if "chunks" in values:
        typer.echo(f"chunks done  {values['chunks']:,}")
    typer.echo(f"rows         {values['rows']:,}")
    typer.echo(f"{'kept' if opened.manifest else 'kept so far':<13}{alive:,}")
    typer.echo(f"errors       {errors:,}")
    for line in _stopped(counts):
        typer.echo(line)


def _state(run: RunFolder) -> str:
    latest = run.status()
    again = "the command that began it resumes it"
    if latest is not None and latest.alive:
        return f"at work ({latest.doing}), process {latest.pid} on {latest.host}"
    if latest is not None and latest.state == "failed":
        return f"failed: {latest.why}"
    if run.manifest is not None:
        return "finished"
    if latest is not None and latest.state == "stopped":
        return f"stopped; {again}"
    return f"not at work, not finished; {again}"


def _stopped(counts: Counts) -> list[str]:
    reasons = [(n, stage, reason) for (stage, reason), n in counts.items() if reason is not None]
    return [f"  {stage}: {reason} {n:,}" for n, stage, reason in sorted(reasons, reverse=True)]


def explain(
    asked: Annotated[
        str, typer.Argument(metavar="ID", help="Of a row, or its start; or an image's key.")
    ],
    run: RunArgument = HERE,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", "-p", metavar="FILE.png", help="Default: ID.png in RUN/work."),
    ] = None,
    without: Annotated[
        bool, typer.Option("--no-picture", help="Only words; no source is looked through.")
    ] = False,
) -> None:
    """Explain a crop: its photo, every stage's value and threshold, and the reason.

    The picture shows the photo with boxes and square, the crop, and the scores; its path is the
    last line. Where several rows are meant, they are listed.
    """
    from hbr.curation.runs.explanation import draw, find_rows, verdict
    from hbr.curation.runs.explanation import explain as explain_row
    from hbr.curation.runs.photos import photos_of

    opened = _open(run)
    found = find_rows(opened, asked)
    if len(found) > 1:
        for record in found:
            result = verdict(record, finished=opened.manifest is not None)
            typer.echo(f"{record.id}  {record.source}/{record.key}  {result}")
        return
    (record,) = found
    for line in explain_row(opened, record):
        typer.echo(line)
    if without:
        return
    others = opened.chosen("image_id", [record.image_id])
    ((_, photo),) = photos_of(opened.config, [record])
    if picture is None:
        folder = opened.path if opened.path.is_dir() else opened.path.parent
        picture = folder / "work" / "explained" / f"{record.id}.png"
    if photo.pixels is None:
        typer.echo(f"hbr: the photo is not in the picture: {photo.why}", err=True)
    typer.echo(draw(opened, record, others, photo, picture))


def diff(
    one: Annotated[Path, typer.Argument(metavar="A", help="A run or a manifest.")],
    other: Annotated[Path, typer.Argument(metavar="B", help="Another one.")],
    most: Annotated[
        int, typer.Option("--list", min=0, help="Show so many crops of each kind.")
    ] = 5,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line: settings, every row, totals.")
    ] = False,
) -> None:
    """Say what is different between two runs: settings, and crops gained, lost and changed."""
    import dataclasses
    from collections import Counter

    from hbr.curation.runs.difference import DiffTotals, compare_rows, compare_settings

    a, b = _open(one), _open(other)
    for opened in (a, b):
        if opened.manifest is None:
            text = f"{opened.path} has not finished: what no stage stopped so far counts as kept"
            typer.echo(text, err=True)
    settings, totals = compare_settings(a, b), DiffTotals()
    if as_json:
        typer.echo(json.dumps({"settings": settings}, ensure_ascii=False))
        for change in compare_rows(a, b, totals):
            typer.echo(json.dumps(dataclasses.asdict(change), ensure_ascii=False))
        ways = [[*way, n] for way, n in totals.ways.most_common()]
        values = {"rows": totals.rows, "kept": totals.kept, "kept_by_both": totals.kept_by_both}
        typer.echo(json.dumps({"totals": {**values, "kinds": totals.kinds, "ways": ways}}))
        return
    for name, (before, after) in settings.items():
        typer.echo(f"{name}: {_plain(before)} → {_plain(after)}")
    shown: Counter[str] = Counter()
    examples = []
    for change in compare_rows(a, b, totals):
        if shown[change.kind] < most and change.kind != "other-reason":
            shown[change.kind] += 1
            way = f"{change.before} → {change.after}"
            if change.kind == "changed":
                way = "kept by both"
            text = f"  {change.kind:<8}{change.id}  {change.source}/{change.key}  {way}"
            examples.append(f"{text}: {change.detail}" if change.detail else text)
    typer.echo(f"rows {totals.rows[0]:,} → {totals.rows[1]:,}")
    typer.echo(
        f"kept {totals.kept[0]:,} → {totals.kept[1]:,}: {totals.kinds['gained']:,} gained, "
        f"{totals.kinds['lost']:,} lost, {totals.kinds['changed']:,} changed, "
        f"{totals.kept_by_both - totals.kinds['changed']:,} the same"
    )
    for (before, after), n in totals.ways.most_common():
        typer.echo(f"  {n:>9,}  {before} → {after}")
    for line in sorted(examples):
        typer.echo(line)


def report(
    run: RunArgument = HERE,
    out: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE.html", help="Default: report.html in RUN."),
    ] = None,
    kept: Annotated[int, typer.Option(min=0, help="Kept crops to show.")] = 48,
    rejected: Annotated[int, typer.Option(min=0, help="Crops to show for each reason.")] = 12,
    photos: Annotated[
        bool,
        typer.Option(help="Look through the sources for photos of what never came to a crop."),
    ] = True,
) -> None:
    """Write one HTML page: funnel, histograms, kept and rejected crops, licences, errors."""
    from hbr.curation.runs.report import write_report

    opened = _open(run)
    if out is None:
        out = (opened.path if opened.path.is_dir() else opened.path.parent) / "report.html"
    if out.is_dir():
        raise typer.BadParameter(f"{out} is a folder; name a file.", param_hint="--output")
    written = write_report(
        opened,
        out,
        kept=kept,
        rejected=rejected,
        photos=photos,
        tell=lambda text: typer.echo(text, err=True),
    )
    typer.echo(written)


def export(
    run: RunArgument = HERE,
    out: Annotated[Path, typer.Option("--output", "-o", help="Folder of the data set.")] = Path(
        "dataset"
    ),
    kind: Annotated[
        Literal["folder", "webdataset", "parquet"],
        typer.Option(help="A file a crop, tars, or tables with the bytes."),
    ] = "folder",
    shard: Annotated[int, typer.Option(min=1, help="Crops in a tar or a table.")] = 1000,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier export.")
    ] = False,
) -> None:
    """Write what a finished run kept as a data set: crops, manifest and card."""
    from hbr.curation.runs.exporting import export as write

    last = 0

    def tell(n: int) -> None:
        nonlocal last
        if n - last >= 1000:
            last = n
            typer.echo(f"{n:,} crops", err=True)

    typer.echo(write(_open(run), out, kind, shard=shard, overwrite=overwrite, report=tell))


def thresholds(
    run: RunArgument = HERE,
    names: Annotated[
        list[str] | None,
        typer.Option("--metric", "-m", help="Or sharpness, box_edge; repeated. Default: metrics."),
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=1, help="Find thresholds that keep so many crops.")
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="Find thresholds that this set passes: a run, or a folder of crops."),
    ] = None,
    share: Annotated[
        float, typer.Option(min=0.01, max=1, help="Part of the reference set that is to pass.")
    ] = 0.95,
    means: Annotated[
        list[str] | None,
        typer.Option("--mean", metavar="METRIC=VALUE", help="Find the threshold of this mean."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE.yaml", help="Write what is found here."),
    ] = None,
) -> None:
    """Show how scores lie, and find thresholds: by a count, a reference set, or published means.

    What is found is part of a recipe, on stdout or in FILE.yaml. It is found over the crops that
    have all the scores: a run with `all_scores: true` and no thresholds gives the whole picture.
    """
    from hbr.curation.runs import thresholds as finding
    from hbr.files import write_text

    if sum(given is not None for given in (count, reference, means or None)) > 1:
        raise typer.BadParameter("--count, --reference and --mean exclude each other.")
    at = dict(map(_mean, means or ()))
    opened = _open(run)
    # of the means alone where no names are given, all metrics else
    wanted = [*(names or ()), *at]
    scores = finding.scores_of(opened, tuple(dict.fromkeys(wanted)))
    found = None
    if count is not None:
        found = finding.for_wanted(scores, count, opened.top)
    elif reference is not None:
        there = finding.read_reference(
            reference, list(scores), lambda text: typer.echo(text, err=True)
        )
        found = finding.for_set(scores, there, share, reference.name)
    elif at:
        found = finding.for_means(scores, at)
    # what was asked for goes to stdout: the distributions, or what is found
    typer.echo(f"{'':<12}{'n':>9}" + "".join(f"{q:>10}" for q in _HEADS) + "  now", err=bool(found))
    for name, values in scores.items():
        lies = finding.distribution(values)
        numbers = [lies.least, *(lies.quantiles[q] for q in _QUANTILES), lies.most]
        line = opened.thresholds.get(name)
        text = "".join(f"{value:>10.4g}" for value in numbers)
        now = "none" if line is None else f"{line:g}"
        typer.echo(f"{name:<12}{lies.n:>9,}{text}  {now}", err=bool(found))
    if found is None:
        return
    text = finding.as_yaml(found)
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_text(out, text)
        typer.echo(out)


_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_HEADS = ("least", "5 %", "25 %", "50 %", "75 %", "95 %", "most")


def _mean(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    with contextlib.suppress(ValueError):
        return name, float(value)
    raise typer.BadParameter(f"{text!r} must be METRIC=VALUE.", param_hint="--mean")


def _plain(value: Any) -> str:
    return "not set" if value is None else json.dumps(value, ensure_ascii=False)


def _open(path: Path) -> RunFolder:
    from hbr.curation.runs.run_folder import RunFolder

    return RunFolder(path)
