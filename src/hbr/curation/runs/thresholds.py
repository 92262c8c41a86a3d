"""Finding thresholds, which the paper does not give: by a wanted count, or by a reference set.

All work on the scores that a manifest holds (`read_scores`), so that no metric runs again. Where
`better` is "higher", a value passes from the threshold on; where it is "lower", up to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hbr.curation.manifest import Manifest
from hbr.curation.pipeline.stages.zscores import ExactMoments, best, quota, z_means
from hbr.curation.record import SCORE, CurationError
from hbr.metrics.base import Better

QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Distribution:
    """How the values of a column lie.

    Attributes:
        n: values there are.
        missing: rows without one.
        mean, deviation: of the values; population deviation.
        least, most: of the values.
        quantiles: share → value, for `QUANTILES`.
        edges: [bins + 1] of a histogram over all values.
        counts: [bins] values in each bin.
    """

    n: int
    missing: int
    mean: float
    deviation: float
    least: float
    most: float
    quantiles: Mapping[float, float]
    edges: np.ndarray
    counts: np.ndarray


def distribution(values: np.ndarray, bins: int = 40) -> Distribution:
    """How [n] values lie; NaN counts as missing.

    Raises:
        CurationError: there is no value at all.
    """
    there = _there(values)
    moments = ExactMoments()
    moments.add(there)
    counts, edges = np.histogram(there, bins)
    quantiles = np.quantile(there, QUANTILES).tolist()
    return Distribution(
        len(there),
        len(values) - len(there),
        moments.mean,
        moments.deviation,
        float(there.min()),
        float(there.max()),
        dict(zip(QUANTILES, quantiles, strict=True)),
        edges,
        counts,
    )


def read_scores(manifest: Manifest, *columns: str) -> dict[str, np.ndarray]:
    """Values of all crops that came to stage f, NaN where there is none.

    Args:
        manifest: of a run.
        *columns: `sharpness`, `box_edge`, …, or names of metrics; none takes all metrics.

    Returns:
        column → [n] float64; all in the order of the rows' ids.

    Raises:
        CurationError: the manifest has no such column.
    """
    metrics = manifest.metrics
    asked = columns or tuple(metrics)
    inside = {name: SCORE + name if name in metrics else name for name in asked}
    if unknown := [name for name in asked if inside[name] not in manifest.names]:
        known = ", ".join([*metrics, "sharpness", "box_edge"])
        raise CurationError(f"the manifest has no {unknown[0]}; it has {known}")
    table = manifest.columns("phash", *inside.values())
    table = table.filter(table["phash"].is_valid())
    return {name: table[column].to_numpy().astype(np.float64) for name, column in inside.items()}


def for_count(values: np.ndarray, better: Better, count: int) -> float:
    """The strictest threshold that at least `count` of [n] values pass.

    Raises:
        CurationError: there are not so many values.
    """
    there = np.sort(_there(values))
    if not 1 <= count <= len(there):
        raise CurationError(f"{count} of {len(there)} values cannot be kept")
    return float(there[-count] if better == "higher" else there[count - 1])


def for_reference(reference: np.ndarray, better: Better, share: float = 0.95) -> float:
    """The strictest threshold that at least `share` of a reference set's values pass."""
    there = _there(reference)
    return for_count(there, better, max(1, quota(share, len(there))))


def for_mean(values: np.ndarray, better: Better, mean: float) -> float:
    """The mildest threshold at which those that pass are `mean` on average, or better.

    Published tables give means: this finds what the published set must have asked for.

    Raises:
        CurationError: not even the best value alone is as good.
    """
    there = np.sort(_there(values))
    there = there[::-1] if better == "higher" else there  # the best first
    running = np.cumsum(there) / np.arange(1, len(there) + 1)
    ends = np.append(there[1:] != there[:-1], True)  # equal values pass together
    there, running = there[ends], running[ends]
    reached = running >= mean if better == "higher" else running <= mean
    if not reached[0]:
        raise CurationError(f"no threshold gives a mean of {mean:g}; the best is {there[0]:g}")
    return float(there[np.flatnonzero(reached)[-1]])


@dataclass(frozen=True)
class Found:
    """Thresholds for several metrics together.

    Attributes:
        thresholds: metric → value.
        kept: crops that pass them all, and Eq. 1.
        share: the part of the crops that each threshold lets through by itself.
    """

    thresholds: Mapping[str, float]
    kept: int
    share: float


def together(
    scores: Mapping[str, np.ndarray],
    better: Mapping[str, Better],
    count: int,
    top: float = 1.0,
) -> Found:
    """The strictest thresholds, each letting the same share through, that keep a wanted count.

    Args:
        scores: metric → [n], all of the same crops; crops without all of them do not count.
        better: metric → which end of its scale is the good one.
        count: how many crops are to pass all thresholds and be in Eq. 1's top.
        top: Eq. 1's share.

    Raises:
        CurationError: so many cannot be kept, whatever the thresholds.
    """
    names = sorted(scores)
    stacked = np.stack([np.asarray(scores[name], np.float64) for name in names])
    stacked = stacked[:, ~np.isnan(stacked).any(axis=0)]
    n = stacked.shape[1]
    in_top = _in_top(dict(zip(names, stacked, strict=True)), better, top)
    if not 1 <= count <= int(in_top.sum()):
        raise CurationError(
            f"{count} cannot be kept: {int(in_top.sum())} of {n} crops are in Eq. 1's top"
        )
    # place of each value by each metric, 0 the best, equal values the same place
    places = np.stack([_places(v, better[m]) for m, v in zip(names, stacked, strict=True)])
    worst = np.sort(places.max(axis=0)[in_top])
    k = int(worst[count - 1])  # whoever is among the best k + 1 everywhere passes
    limits = {
        name: for_count(values, better[name], k + 1)
        for name, values in zip(names, stacked, strict=True)
    }
    return Found(limits, int((worst <= k).sum()), (k + 1) / n)


def _places(values: np.ndarray, better: Better) -> np.ndarray:
    """[n] how many values are better than each."""
    signed = -values if better == "higher" else values
    return np.searchsorted(np.sort(signed), signed)


def _in_top(
    scores: Mapping[str, np.ndarray], better: Mapping[str, Better], top: float
) -> np.ndarray:
    n = len(next(iter(scores.values())))
    moments = {name: ExactMoments() for name in scores}
    for name, values in scores.items():
        moments[name].add(values)
    return best(np.arange(n), z_means(scores, moments, better), quota(top, n))


def _there(values: np.ndarray) -> np.ndarray:
    there = np.asarray(values, np.float64)
    there = there[~np.isnan(there)]
    if not len(there):
        raise CurationError("no row has a value; run the metric first")
    return there
