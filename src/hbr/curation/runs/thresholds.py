"""Finding thresholds, which the paper does not give: by a wanted count, a reference set, or means.

All work on the scores that a run holds (`scores_of`), so that no metric runs again. Where `better`
is "higher", a value passes from the threshold on; where it is "lower", up to it. What is found is
written as the part of a recipe that it belongs to (`as_yaml`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hbr.curation.config import QualityConfig, SharpnessConfig
from hbr.curation.manifest import NAME
from hbr.curation.pipeline.decoding import decode
from hbr.curation.pipeline.stages.quality import load_scorer
from hbr.curation.pipeline.stages.sharpness import laplacian_variance
from hbr.curation.pipeline.stages.zscores import ExactMoments, best, quota, z_means
from hbr.curation.record import CurationError
from hbr.curation.runs.run_folder import RunFolder, score_column, side
from hbr.errors import one_line
from hbr.image import PhotoError
from hbr.image.search import find_photos
from hbr.metrics.base import Better

_BOXES = ("sharpness", "box_edge")
_MAX_PIXELS = 200_000_000

QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """The distribution of a column.

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
    """The distribution of [n] values; NaN counts as missing.

    Raises:
        CurationError: there is no value at all.
    """
    there = _there(values)
    moments = ExactMoments()
    moments.add(there)
    counts, edges = np.histogram(there, bins)
    quantiles = np.quantile(there, QUANTILES).tolist()
    return Distribution(
        n=len(there),
        missing=len(values) - len(there),
        mean=moments.mean,
        deviation=moments.deviation,
        least=float(there.min()),
        most=float(there.max()),
        quantiles=dict(zip(QUANTILES, quantiles, strict=True)),
        edges=edges,
        counts=counts,
    )


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

    Published tables give means: this finds the threshold that the published set must have had.

    Raises:
        CurationError: even the best value alone is worse.
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


def together(
    scores: Mapping[str, np.ndarray], better: Mapping[str, Better], count: int, top: float = 1.0
) -> tuple[dict[str, float], int, float]:
    """The strictest thresholds, each letting the same share through, that keep a wanted count.

    Args:
        scores: metric → [n], all of the same crops; crops without all of them do not count.
        better: metric → which end of its scale is the good one.
        count: how many crops are to pass all thresholds and be in Eq. 1's top.
        top: Eq. 1's share.

    Returns:
        metric → threshold, the number of crops that pass them all and Eq. 1, and the part of the
        crops that each threshold lets through by itself.

    Raises:
        CurationError: not that many can be kept, whatever the thresholds.
    """
    names = sorted(scores)
    stacked = np.stack([np.asarray(scores[name], np.float64) for name in names])
    stacked = stacked[:, ~np.isnan(stacked).any(axis=0)]
    n = stacked.shape[1]
    z_mean = z_means(dict(zip(names, stacked, strict=True)), better)
    in_top = best(np.arange(n), z_mean, quota(top, n))
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
    return limits, int((worst <= k).sum()), (k + 1) / n


def _places(values: np.ndarray, better: Better) -> np.ndarray:
    """[n] how many values are better than each."""
    signed = -values if better == "higher" else values
    return np.searchsorted(np.sort(signed), signed)


def _there(values: np.ndarray) -> np.ndarray:
    there = np.asarray(values, np.float64)
    there = there[~np.isnan(there)]
    if not len(there):
        raise CurationError("no row has a value; run the metric first")
    return there


@dataclass(frozen=True)
class Thresholds:
    """What was found.

    Attributes:
        values: column → threshold.
        kept: crops of the run that pass them all, and Eq. 1's share.
        of: crops that have all the scores.
        description: one line on how they were found.
    """

    values: Mapping[str, float]
    kept: int
    of: int
    description: str


def scores_of(run: RunFolder, names: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Values of all crops that came to stage f, NaN where there is none.

    Without those of sources that have thresholds of their own, and of test sets.

    `names` are metrics, `sharpness` or `box_edge`; none stands for all metrics.

    Raises:
        CurationError: the run has no such column, or no crop.
    """
    names = tuple(names) or tuple(run.metrics)
    if unknown := [n for n in names if n not in (*run.metrics, *_BOXES)]:
        known = ", ".join([*run.metrics, *_BOXES])
        raise CurationError(f"{run.path} has no scores called {unknown[0]}; it has {known}")
    found = _columns(run, names, lambda table: table.filter(table["phash"].is_valid()))
    if not names or not len(found[names[0]]):
        raise CurationError(f"{run.path} has no crop with a score")
    return found


def _columns(
    run: RunFolder, names: Sequence[str], keep: Callable[[Any], Any]
) -> dict[str, np.ndarray]:
    import pyarrow as pa
    import pyarrow.compute as pc

    parts: dict[str, list[np.ndarray]] = {name: [np.empty(0)] for name in names}
    apart = pa.array(sorted(run.judged_apart), pa.string())
    for table in run.tables(["phash", "reason", "source", *map(score_column, names)]):
        table = keep(table)
        table = table.filter(pc.invert(pc.is_in(table["source"], apart)))
        for name in names:
            parts[name].append(table[score_column(name)].to_numpy().astype(np.float64))
    return {name: np.concatenate(values) for name, values in parts.items()}


def for_wanted(scores: Mapping[str, np.ndarray], count: int, top: float) -> Thresholds:
    """Thresholds of all columns together that keep a wanted count.

    Raises:
        CurationError: so many cannot be kept.
    """
    metrics = {n: v for n, v in scores.items() if n not in _BOXES}
    if not metrics:
        if len(scores) != 1:
            raise CurationError("a count needs a metric; name one")
        (name,) = scores
        value = for_count(scores[name], side(name), count)
        return _found(scores, {name: value}, f"that {count:,} crops pass")
    limits, kept, share = together(metrics, {n: side(n) for n in metrics}, count, top)
    description = f"that {count:,} crops pass; each lets {share:.1%} through by itself"
    values = {n: round_towards(v, side(n)) for n, v in limits.items()}
    return dataclasses.replace(_found(metrics, values, description), kept=kept)


def for_set(
    scores: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray], share: float, name: str
) -> Thresholds:
    """Thresholds that a share of a reference set passes, column by column."""
    values = {
        n: round_towards(for_reference(reference[n], side(n), share), side(n))
        for n in scores
        if n in reference
    }
    n = len(next(iter(reference.values())))
    return _found(scores, values, f"that {share:.1%} of the {n:,} of {name} pass, each by itself")


def for_means(scores: Mapping[str, np.ndarray], means: Mapping[str, float]) -> Thresholds:
    """The mildest thresholds at which each column has a wanted mean, as published tables give."""
    if unknown := [n for n in means if n not in scores]:
        raise CurationError(f"there is no score {unknown[0]}; there are {', '.join(scores)}")
    values = {
        n: round_towards(for_mean(scores[n], side(n), mean), side(n)) for n, mean in means.items()
    }
    wanted = ", ".join(f"{n} {mean:g}" for n, mean in means.items())
    return _found(scores, values, f"at which the means are {wanted}, each by itself")


def _found(
    scores: Mapping[str, np.ndarray], values: Mapping[str, float], description: str
) -> Thresholds:
    stacked = {n: scores[n] for n in values}
    there = ~np.isnan(np.stack(list(stacked.values()))).any(axis=0)
    passed = there.copy()
    for n, column in stacked.items():
        passed &= column >= values[n] if side(n) == "higher" else column <= values[n]
    return Thresholds(values, int(passed.sum()), int(there.sum()), description)


def round_towards(value: float, better_side: Better) -> float:
    """Six digits of a number, on the milder side, so that whatever passed still passes."""
    if value == 0:
        return 0.0
    size = 10.0 ** (5 - int(np.floor(np.log10(abs(value)))))
    whole = np.floor(value * size) if better_side == "higher" else np.ceil(value * size)
    return float(f"{whole / size:.8g}")


def read_reference(
    path: Path,
    names: Sequence[str],
    tell: Callable[[str], None] = lambda _: None,
    *,
    edge: int = SharpnessConfig.edge,
) -> dict[str, np.ndarray]:
    """Scores of a reference set: the kept crops of a run, or a folder of finished crops.

    Args:
        path: OUT, a manifest, or a folder of pictures, which are scored now.
        names: columns.
        tell: called with a line for each step, and for each picture that cannot be read.
        edge: longer edge that pictures are shrunk to before their sharpness is measured; take the
            run's (`RunFolder.sharpness_edge`).

    Raises:
        CurationError: it has none; `box_edge` is only in runs.
    """
    if path.is_file() or (path / NAME).exists() or (path / "work").is_dir():
        return _of_run(RunFolder(path), names)
    if not path.is_dir():
        raise CurationError(f"{path}: no such file or folder")
    files = find_photos(path)
    if not files:
        raise CurationError(f"{path} holds no pictures, nor a run of hbr curate")
    if {*names} <= {"box_edge"}:
        raise CurationError(f"{path} holds finished crops, which have no box_edge; name a run")
    tell(f"scoring {len(files)} pictures of {path}")
    scorers = [load_scorer(n, QualityConfig()) for n in names if n not in _BOXES]
    values: dict[str, list[float]] = {n: [] for n in names if n != "box_edge"}
    for file in files:
        try:
            pixels = decode(file.read_bytes(), file.name, rotation=0, max_pixels=_MAX_PIXELS).pixels
        except (PhotoError, OSError) as error:
            tell(f"{file}: left out: {one_line(error)}")
            continue
        for scorer in scorers:
            values[scorer.name] += scorer.score([pixels])
        if "sharpness" in values:
            grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
            values["sharpness"].append(laplacian_variance(grey, edge))
    return {n: np.array(v, np.float64) for n, v in values.items()}


def _of_run(run: RunFolder, names: Sequence[str]) -> dict[str, np.ndarray]:
    names = [n for n in names if n in (*run.metrics, *_BOXES)]
    if not names:
        raise CurationError(f"{run.path} has none of the scores; it has {', '.join(run.metrics)}")
    return _columns(run, names, lambda table: table.filter(table["reason"].is_null()))


def as_yaml(found: Thresholds) -> str:
    """The part of a recipe that has these thresholds."""
    lines = [f"# {found.description}: {found.kept:,} of {found.of:,} crops"]
    if "sharpness" in found.values:
        lines.append(f"sharpness: {{threshold: {_plain(found.values['sharpness'])}}}")
    if "box_edge" in found.values:
        lines.append(f"size: {{longer: {int(np.floor(found.values['box_edge']))}}}")
    metrics = {n: v for n, v in found.values.items() if n not in _BOXES}
    if metrics:
        lines += ["quality:", "  metrics:"]
        lines += [f"    - {{name: {n}, threshold: {_plain(v)}}}" for n, v in metrics.items()]
    return "\n".join(lines) + "\n"


def _plain(value: float) -> str:
    """A number that YAML reads as one: 1e-05 would be text."""
    return np.format_float_positional(value, trim="-")
