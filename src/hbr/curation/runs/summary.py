"""The result of a run: the counts of its manifest, by stage, split, source and licence."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hbr.config import from_dict, to_dict
from hbr.curation.config import CurationConfig, SplitsConfig
from hbr.curation.manifest import Manifest
from hbr.curation.pipeline.passes import ManifestTotals
from hbr.curation.record import ERRORS, REASONS, FunnelStep, funnel


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """The result of a run.

    Attributes:
        name: of the data set.
        images: how many the sources named.
        rows: rows of the manifest.
        kept: crops of the data set.
        errors: images that could not be used.
        funnel: what each stage did; each gets what passed the one before.
        splits: split → kept crops.
        sources: source → `images`, `rows`, `kept`.
        licences: licence → kept crops.
        means: metric → mean over the kept crops that are not of a test set.
        costs: stage → (things, CPU seconds) of what this run did, not of what it took over.
    """

    name: str
    images: int
    rows: int
    kept: int
    errors: int
    funnel: tuple[FunnelStep, ...]
    splits: Mapping[str, int]
    sources: Mapping[str, Mapping[str, int]]
    licences: Mapping[str, int]
    means: Mapping[str, float]
    costs: Mapping[str, tuple[int, float]] = field(default_factory=dict)

    @property
    def entries(self) -> int:
        """Entries of annotations that could not be used."""
        return self.funnel[0].stopped.get("entry", 0)

    def as_json(self) -> str:
        """The summary without `costs`, which no two runs share."""
        values = to_dict(self)
        del values["costs"]
        return json.dumps(values, indent=1, ensure_ascii=False) + "\n"


def summarize(
    name: str,
    totals: ManifestTotals,
    *,
    splits: Iterable[str],
    costs: Mapping[str, tuple[int, float]] | None = None,
) -> RunSummary:
    """Sum up a manifest.

    `splits`: names in the order of the table, to which those of kept crops are added; `costs`:
    stage → (number of items, CPU seconds).
    """
    steps = funnel(totals.counts)
    images = {source: len(seen) for source, seen in sorted(totals.images.items())}
    by_split, by_source = Counter[str](), Counter[str]()
    for (source, split), n in totals.kept.items():
        by_split[split] += n
        by_source[source] += n
    return RunSummary(
        name=name,
        images=sum(images.values()),
        rows=totals.rows.total(),
        kept=steps[-1].passed,
        errors=sum(n for (_, reason), n in totals.counts.items() if reason in ERRORS),
        funnel=steps,
        splits={split: by_split[split] for split in dict.fromkeys([*splits, *sorted(by_split)])},
        sources={
            source: {"images": n, "rows": totals.rows[source], "kept": by_source[source]}
            for source, n in images.items()
        },
        licences=dict(sorted(totals.licences.items())),
        means={name: moments.mean for name, moments in sorted(totals.scores.items())},
        costs=dict(costs or {}),
    )


def split_names(about: Mapping[str, Any]) -> list[str]:
    """Return the splits in the order of the configuration, by the metadata of a manifest."""
    return from_dict(SplitsConfig, about["splits"]).names if "splits" in about else []


def named_sources(config: CurationConfig) -> dict[str, str]:
    """Return source → a setting that names it, for sources in the run and others."""
    return {
        **dict.fromkeys(config.crop.partial, "crop.partial"),
        **dict.fromkeys(config.splits.fixed, "splits.fixed"),
        **dict.fromkeys(config.limits, "limits"),
    }


def why_nothing(summary: RunSummary, manifest: Manifest) -> str:
    """Return one line on why a run kept nothing: the most frequent reasons, and sources' errors."""
    if not summary.images:
        return "nothing was kept: the sources name no images"
    stopped = Counter(
        {
            REASONS[step.stage][reason]: n
            for step in summary.funnel
            for reason, n in step.stopped.items()
            if reason != "entry"
        }
    )
    reasons = [f"{reason} ({n:,})" for reason, n in stopped.most_common(3)]
    entries = [record for record in manifest if record.reason == "entry"]
    # what is wrong with all labels comes first
    entries.sort(key=lambda record: not record.key.endswith(("labels", ":categories")))
    said = [record.detail or "" for record in entries[:3]]
    return f"nothing was kept of {summary.images:,} images: {'; '.join([*reasons, *said])}"
