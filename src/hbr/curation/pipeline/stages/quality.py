"""Stage f: metrics of the crops, cheapest first."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hbr.curation.config import CurationConfig, MetricConfig, QualityConfig, limits_of
from hbr.curation.pipeline.stages.measures import MEASURES
from hbr.curation.record import Record
from hbr.devices import exact_inference

STAGE = "quality"

Batch = Sequence[np.ndarray]
"""Crops [h, w, 3] uint8 of one size."""

# Milliseconds of one CPU core for a crop of 512x512, as benchmarks/curation.py finds them, to two
# digits at most: only their order matters. What is missing here counts as expensive.
COSTS: Mapping[str, float] = {
    "clipping": 0.1,
    "contrast": 0.2,
    "detail": 0.3,
    "noise": 1.0,
    "brisque": 10.0,
    "niqe": 20.0,
    "clipiqa": 200.0,
    "nima": 300.0,
    "musiq": 500.0,
    "maniqa": 3000.0,
}
_DEAR = 1e6


def better(name: str) -> Literal["higher", "lower"]:
    """Which end of a metric's scale is the good one.

    Raises:
        MetricError: no metric is called so.
    """
    if name in MEASURES:
        return MEASURES[name].better
    from hbr.metrics.table import find_metric

    return find_metric(name).better


def version_of(name: str) -> str:
    """The version of a metric, which changes whenever its values change.

    Raises:
        MetricError: no metric is called so.
    """
    if name in MEASURES:
        return "1"
    from hbr.metrics.table import find_metric

    return find_metric(name).version


def cheapest_first(metrics: Sequence[MetricConfig]) -> list[MetricConfig]:
    """The metrics in the order that they run in."""
    return sorted(metrics, key=lambda metric: (cost_of(metric.name) or _DEAR, metric.name))


def cost_of(name: str) -> float | None:
    """The assumed cost of a metric, from `COSTS`; None if it is not known."""
    return COSTS.get(name.removeprefix("pyiqa-").split("-")[0])


@dataclass(frozen=True)
class Scorer:
    """A metric, ready to run.

    Attributes:
        name: its name.
        better: which end of its scale is the good one.
        score: crops → their scores.
    """

    name: str
    better: Literal["higher", "lower"]
    score: Callable[[Batch], list[float]]


def load_scorer(name: str, config: QualityConfig) -> Scorer:
    """One metric of a configuration.

    Raises:
        MetricError: it is not known, or its weights are missing.
    """
    if measure := MEASURES.get(name):
        return Scorer(name, measure.better, lambda crops: [measure.of(crop) for crop in crops])
    import torch

    from hbr.metrics import load_metric

    metric = load_metric(name, device=config.device)

    def score(crops: Batch) -> list[float]:
        # filled up to the batch's size: a kernel chosen by size must not change a score
        filled = [*crops, *[crops[-1]] * (config.batch - len(crops))]
        images = torch.from_numpy(np.stack(filled))
        with exact_inference():
            scores = metric(images.permute(0, 3, 1, 2).float() / 255)
        return scores.double().cpu().tolist()[: len(crops)]

    return Scorer(name, better(name), score)


def judge_quality(
    rows: Sequence[Record],
    crops: Sequence[np.ndarray],
    scorers: Sequence[Scorer],
    config: CurationConfig,
    costs: Callable[[str, int, float], None],
) -> list[Record]:
    """Score crops, and stop those that a threshold or a ceiling of their source stops.

    Args:
        rows: candidates that no stage has stopped.
        crops: the crop of each, [edge, edge, 3] uint8.
        scorers: cheapest first.
        config: the thresholds, whether stopped crops get the other scores too, and the batch.
        costs: called with a metric's name, the number of its crops, and CPU seconds.
    """
    out = [row.passed(STAGE) for row in rows]
    quality = config.quality
    limits = {
        source: {metric.name: metric for metric in limits_of(config, source).metrics or ()}
        for source in {row.source for row in rows}
    }
    for scorer in scorers:
        wanted = [i for i, row in enumerate(out) if row.alive or quality.all_scores]
        began = time.process_time()
        for start in range(0, len(wanted), quality.batch):
            part = wanted[start : start + quality.batch]
            values = scorer.score([crops[i] for i in part])
            for i, value in zip(part, values, strict=True):
                out[i] = _judge(out[i], scorer, value, limits[out[i].source].get(scorer.name))
        costs(scorer.name, len(wanted), time.process_time() - began)
    return out


def _judge(row: Record, scorer: Scorer, value: float, limit: MetricConfig | None) -> Record:
    """A second failure leaves the reason of the first."""
    if not math.isfinite(value):
        detail = f"{scorer.name} gave no number"
        return row.stopped(STAGE, "below-threshold", detail) if row.alive else row
    scores = {**row.scores, scorer.name: value}
    sign = 1 if scorer.better == "higher" else -1
    limit = limit or MetricConfig(scorer.name)
    for reason, line, over in (
        ("below-threshold", limit.threshold, -sign),
        ("above-ceiling", limit.ceiling, sign),
    ):
        if row.alive and line is not None and over * (value - line) > 0:
            detail = f"{scorer.name} {value:.4g} {'above' if over > 0 else 'below'} {line:g}"
            return row.stopped(STAGE, reason, detail, scores=scores)
    return row.passed(row.stage, scores=scores)
