"""The data set card: contents, licences, and the paper's Table 1 for this data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hbr.curation.pipeline.passes import ManifestTotals
from hbr.curation.pipeline.stages.measures import MEASURES
from hbr.curation.pipeline.stages.zscores import ExactMoments
from hbr.curation.record import REASONS, FunnelStep
from hbr.curation.runs.summary import RunSummary
from hbr.curation.tagging import shares
from hbr.metrics.table import PRINTED, find_metric
from hbr.pages import markdown_table

# The row of PERSONA in Table 1 of OSDHuman, for comparison.
PERSONA = {
    "BRISQUE": 10.3758,
    "NIQE": 2.8659,
    "CLIPIQA": 0.7632,
    "MANIQA": 0.7198,
    "MUSIQ": 74.7808,
}
# From Fig. 7 and the text: distinct tags, all tags, tags per image; people per image.
TAGS = (3365, 1_452_088, 13.32)
PEOPLE = 3.4154


def card(
    summary: RunSummary,
    totals: ManifestTotals,
    size: tuple[int, int],
    categories: Mapping[str, str] | None = None,
) -> str:
    """Return the card in Markdown, with the front matter that dataset hubs read.

    `size` is the width and height of the crops in pixels, `categories` maps tags to categories.
    """
    shape = "square " if size[0] == size[1] else ""
    name, kept, tags = summary.name, summary.kept, totals.tags
    parts = [
        "---\n"
        f"pretty_name: {name}\n"
        "task_categories: [image-to-image]\n"
        "tags: [image-restoration, people]\n"
        f"size_categories: [{_size(kept)}]\n"
        "---",
        f"# {name}",
        f"{kept:,} {shape}crops of people, {size[0]}x{size[1]} pixels, "
        "cut from photographs and filtered by `hbr curate` (HQ-ACF). "
        "`manifest.parquet` has a row for every candidate, with what decided it.",
        "## Splits",
        markdown_table(["split", "crops"], [[s, f"{n:,}"] for s, n in summary.splits.items()]),
        "No image and no near-duplicate is shared between splits.",
        "## Quality",
        _quality(name, totals.scores),
        f"Means over all {'sources but those of a test set' if totals.held_out else 'splits'}, "
        "in the columns of Table 1 of arXiv 2502.01411. "
        "A dash says that the metric was not run.",
        "## People" + (" and tags" if tags else ""),
        f"{totals.persons.mean:.2f} people in a crop on average (PERSONA: {PEOPLE:.2f})."
        + (f"\n\n{_tags(name, tags, kept, categories or {})}" if tags else ""),
        "## From photos to crops",
        _funnel(summary.funnel),
        "## Sources",
        markdown_table(
            ["source", "images", "candidates", "kept"],
            [
                [s, *(f"{c[k]:,}" for k in ("images", "rows", "kept"))]
                for s, c in summary.sources.items()
            ],
        ),
        "## Licences",
        markdown_table(
            ["licence", "crops"],
            [[licence or "not stated", f"{n:,}"] for licence, n in summary.licences.items()],
        ),
        "Each crop is under the licence of its photo; the manifest names it, with the attribution.",
    ]
    return "\n\n".join(parts) + "\n"


def _quality(name: str, scores: Mapping[str, ExactMoments]) -> str:
    """Table 1, with the editions of metrics that it reports; others get columns of their own."""
    by_id = {n if n in MEASURES else find_metric(n).id: scores[n].mean for n in sorted(scores)}
    shown = {heading: by_id.pop(PRINTED[heading][0], None) for heading in PERSONA}
    ours = [name, *map(_number, shown.values()), *map(_number, by_id.values())]
    theirs = ["PERSONA, as published", *map(_number, PERSONA.values()), *["–"] * len(by_id)]
    return markdown_table(["set", *shown, *by_id], [ours, theirs])


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _tags(name: str, tags: Mapping[str, int], kept: int, categories: Mapping[str, str]) -> str:
    total = sum(tags.values())
    rows = [
        [of, f"{different:,}", f"{all_:,}", f"{mean:.2f}"]
        for of, (different, all_, mean) in (
            (name, (len(tags), total, total / max(kept, 1))),
            ("PERSONA, as published", TAGS),
        )
    ]
    most = ", ".join(sorted(tags, key=lambda tag: (-tags[tag], tag))[:20])
    parts = [
        markdown_table(["set", "different tags", "tags in all", "tags in an image"], rows),
        f"The most frequent: {most}.",
    ]
    if categories:
        found = shares(tags, categories).items()
        table = [[category, f"{share:.1%}"] for category, share in found]
        parts.append(markdown_table(["category", "share of the tags"], table))
    return "\n\n".join(parts)


def _funnel(funnel: Sequence[FunnelStep]) -> str:
    rows: list[list[Any]] = []
    for step in funnel:
        rows.append([f"**{step.stage}**", f"{step.entered:,}", f"{step.passed:,}", ""])
        for reason, n in step.stopped.items():
            rows.append(["", "", f"−{n:,}", REASONS[step.stage][reason]])
    return markdown_table(["stage", "came", "went on", "why not"], rows)


def _size(n: int) -> str:
    """The size category of dataset hubs."""
    if n < 1000:
        return "n<1K"
    steps = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")
    at = min(len(str(n)) - 4, len(steps) - 2)
    return f"{steps[at]}<n<{steps[at + 1]}"
