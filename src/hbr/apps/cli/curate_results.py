"""`hbr curate status | explain | diff | report | export | thresholds`: commands to inspect runs."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hbr.apps.cli.options import AsJson
from hbr.apps.cli.reporting import print_json, to_stderr

if TYPE_CHECKING:
    from hbr.curation.runs.run_folder import RunFolder

RunArgument = Annotated[
    Path, typer.Argument(metavar="[RUN]", help="Folder of a run, finished or not.")
]
HERE = Path("curated")


def status(run: RunArgument = HERE, as_json: AsJson = False) -> None:
    """Show the progress of a run: images done, rows, kept so far, errors, speed."""
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
    stopped = [(n, stage, reason) for (stage, reason), n in counts.items() if reason is not None]
    for n, stage, reason in sorted(stopped, reverse=True):
        typer.echo(f"  {stage}: {reason} {n:,}")


def _state(run: RunFolder) -> str:
    latest = run.status()
    again = "run its command again to resume"
    if latest is not None and latest.alive:
        return f"running ({latest.doing}), process {latest.pid} on {latest.host}"
    if latest is not None and latest.state == "failed":
        return f"failed: {latest.why}"
    if run.manifest is not None:
        return "finished"
    if latest is not None and latest.state == "stopped":
        return f"stopped; {again}"
    return f"not running, not finished; {again}"


def explain(
    asked: Annotated[
        str, typer.Argument(metavar="ID", help="A row id or a prefix of it, or an image's key.")
    ],
    run: RunArgument = HERE,
    picture: Annotated[
        Path | None,
        typer.Option(
            "--picture",
            "-p",
            metavar="FILE.png",
            help="Output picture. Default: ID.png in RUN/work/explained.",
        ),
    ] = None,
    without: Annotated[
        bool, typer.Option("--no-picture", help="Print text only; sources are not read.")
    ] = False,
) -> None:
    """Explain why a crop was kept or rejected: each stage's value, threshold and reason.

    The picture shows the photo with its boxes and the cropped square, the crop, and the scores; its
    path is the last line. If ID matches several rows, they are listed instead.
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
        to_stderr(f"hbr: the picture lacks the photo: {photo.why}")
    typer.echo(draw(opened, record, others, photo, picture))


def diff(
    one: Annotated[Path, typer.Argument(metavar="A", help="A run or a manifest.")],
    other: Annotated[
        Path, typer.Argument(metavar="B", help="The run or manifest to compare with.")
    ],
    limit: Annotated[
        int, typer.Option("--list", min=0, help="Number of crops to list of each kind.")
    ] = 5,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON lines: settings, every row, totals.")
    ] = False,
) -> None:
    """Compare two runs: settings, and crops gained, lost and changed."""
    from hbr.curation.runs.difference import DiffTotals, compare_rows, compare_settings

    a, b = _open(one), _open(other)
    for opened in (a, b):
        if opened.manifest is None:
            text = f"{opened.path} has not finished: crops not rejected so far count as kept"
            to_stderr(text)
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
        if shown[change.kind] < limit and change.kind != "other-reason":
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
        f"{totals.kept_by_both - totals.kinds['changed']:,} unchanged"
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
    kept: Annotated[int, typer.Option(min=0, help="Number of kept crops to show.")] = 48,
    rejected: Annotated[
        int, typer.Option(min=0, help="Number of rejected crops to show for each reason.")
    ] = 12,
    photos: Annotated[
        bool,
        typer.Option(help="Read the sources to show photos that were rejected before cropping."),
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
        tell=to_stderr,
    )
    typer.echo(written)


def export(
    run: RunArgument = HERE,
    out: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")] = Path("dataset"),
    kind: Annotated[
        Literal["folder", "webdataset", "parquet"],
        typer.Option(help="One file per crop, tar shards, or Parquet tables with the images."),
    ] = "folder",
    shard: Annotated[int, typer.Option(min=1, help="Crops per tar or table.")] = 1000,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier export.")
    ] = False,
) -> None:
    """Export the kept crops of a finished run as a data set: crops, manifest and card."""
    from hbr.curation.runs.exporting import export as write

    last = 0

    def progress(n: int) -> None:
        nonlocal last
        if n - last >= 1000:
            last = n
            to_stderr(f"{n:,} crops")

    typer.echo(write(_open(run), out, kind, shard=shard, overwrite=overwrite, report=progress))


def thresholds(
    run: RunArgument = HERE,
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            "-m",
            help="A metric, sharpness or box_edge; may be repeated. Default: all metrics.",
        ),
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=1, help="Find thresholds that keep this many crops.")
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="Find thresholds that a reference set passes: a run or a crop folder."),
    ] = None,
    share: Annotated[
        float, typer.Option(min=0.01, max=1, help="Fraction of the reference set that has to pass.")
    ] = 0.95,
    means: Annotated[
        list[str] | None,
        typer.Option(
            "--mean", metavar="METRIC=VALUE", help="Find the threshold that gives this mean."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE.yaml", help="Write the thresholds found to this file."
        ),
    ] = None,
) -> None:
    """Show score distributions; find thresholds from a count, a reference set or published means.

    The thresholds found are written as part of a recipe, to stdout or to FILE.yaml. They are
    computed over the crops that have all scores: use a run with `all_scores: true` and without
    thresholds to include every crop.
    """
    from hbr.curation.runs import thresholds as finding
    from hbr.files import write_text

    if sum(given is not None for given in (count, reference, means or None)) > 1:
        raise typer.BadParameter("--count, --reference and --mean are mutually exclusive.")
    at = dict(map(_mean, means or ()))
    opened = _open(run)
    # without names: the metrics of the means if there are any, else all
    wanted = [*(names or ()), *at]
    scores = finding.scores_of(opened, tuple(dict.fromkeys(wanted)))
    found = None
    if count is not None:
        found = finding.for_wanted(scores, count, opened.top)
    elif reference is not None:
        reference_scores = finding.read_reference(
            reference,
            list(scores),
            to_stderr,
            edge=opened.sharpness_edge,
        )
        found = finding.for_set(scores, reference_scores, share, reference.name)
    elif at:
        found = finding.for_means(scores, at)
    # stdout gets the main result: the thresholds found, else the distributions
    typer.echo(f"{'':<12}{'n':>9}" + "".join(f"{q:>10}" for q in _HEADS) + "  now", err=bool(found))
    for name, values in scores.items():
        stats = finding.distribution(values)
        numbers = [stats.least, *(stats.quantiles[q] for q in _QUANTILES), stats.most]
        threshold = opened.thresholds().get(name)
        text = "".join(f"{value:>10.4g}" for value in numbers)
        now = "none" if threshold is None else f"{threshold:g}"
        typer.echo(f"{name:<12}{stats.n:>9,}{text}  {now}", err=bool(found))
    if found is None:
        return
    text = finding.as_yaml(found)
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_text(out, text)
        typer.echo(out)


_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_HEADS = ("min", "5 %", "25 %", "50 %", "75 %", "95 %", "max")


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
