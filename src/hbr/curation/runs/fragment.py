"""Thresholds found for a run, as the part of a recipe that they belong into."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from hbr.curation.config import MetricConfig, QualityConfig
from hbr.curation.manifest import NAME
from hbr.curation.pipeline.decoding import PhotoError, decode
from hbr.curation.pipeline.stages.quality import better, load_scorers
from hbr.curation.pipeline.stages.sharpness import laplacian_variance
from hbr.curation.record import CurationError
from hbr.curation.runs.run_folder import RunFolder, score_column
from hbr.curation.runs.thresholds import for_count, for_mean, for_reference, together
from hbr.errors import one_line
from hbr.image.paths import find_photos
from hbr.metrics.base import Better

_BOXES = ("sharpness", "box_edge")
_MAX_PIXELS = 200_000_000


@dataclass(frozen=True)
class Thresholds:
    """What was found.

    Attributes:
        values: column → threshold.
        kept: crops of the run that pass them all, and Eq. 1's share.
        of: crops that have all the scores.
        told: one line on how they were found.
    """

    values: Mapping[str, float]
    kept: int
    of: int
    told: str


def side(name: str) -> Better:
    """Which end of a column's scale is the good one."""
    return "higher" if name in _BOXES else better(name)


def scores_of(run: RunFolder, names: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Values of all crops that came to stage f, NaN where there is none.

    Args:
        run: finished or not.
        names: metrics, `sharpness`, `box_edge`; none takes all metrics.

    Raises:
        CurationError: the run has no such column, or no crop.
    """
    names = tuple(names) or tuple(run.metrics)
    if unknown := [n for n in names if n not in (*run.metrics, *_BOXES)]:
        known = ", ".join([*run.metrics, *_BOXES])
        raise CurationError(f"{run.path} has no scores called {unknown[0]}; it has {known}")
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for table in run.tables(["phash", *map(score_column, names)]):
        table = table.filter(table["phash"].is_valid())
        for name in names:
            parts[name].append(table[score_column(name)].to_numpy().astype(np.float64))
    found = {name: np.concatenate(p) if p else np.empty(0) for name, p in parts.items()}
    if not names or not len(found[names[0]]):
        raise CurationError(f"{run.path} has no crop with a score")
    return found


def for_wanted(scores: Mapping[str, np.ndarray], count: int, top: float) -> Thresholds:
    """Thresholds of all columns together that keep a wanted count.

    Raises:
        CurationError: so many cannot be kept.
    """
    metrics = {n: v for n, v in scores.items() if n not in _BOXES}
    if not metrics:
        (name,) = scores if len(scores) == 1 else (None,)
        if name is None:
            raise CurationError("a count needs a metric; name one")
        value = for_count(scores[name], side(name), count)
        return _found(scores, {name: value}, f"that {count:,} crops pass")
    found = together(metrics, {n: side(n) for n in metrics}, count, top)
    told = f"that {count:,} crops pass; each lets {found.share:.1%} through by itself"
    values = {n: round_towards(v, side(n)) for n, v in found.thresholds.items()}
    return dataclasses.replace(_found(metrics, values, told), kept=found.kept)


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
    """The mildest thresholds at which each column has a wanted mean, as published tables tell."""
    if unknown := [n for n in means if n not in scores]:
        raise CurationError(f"there is no score {unknown[0]}; there are {', '.join(scores)}")
    values = {
        n: round_towards(for_mean(scores[n], side(n), mean), side(n)) for n, mean in means.items()
    }
    wanted = ", ".join(f"{n} {mean:g}" for n, mean in means.items())
    return _found(scores, values, f"at which the means are {wanted}, each by itself")


def _found(scores: Mapping[str, np.ndarray], values: Mapping[str, float], told: str) -> Thresholds:
    stacked = {n: scores[n] for n in values}
    there = ~np.isnan(np.stack(list(stacked.values()))).any(axis=0)
    passed = there.copy()
    for n, column in stacked.items():
        good = column >= values[n] if side(n) == "higher" else column <= values[n]
        passed &= good
    return Thresholds(values, int(passed.sum()), int(there.sum()), told)


def round_towards(value: float, better_side: Better, digits: int = 6) -> float:
    """A shorter number on the milder side, so that whatever passed still passes."""
    if value == 0:
        return 0.0
    size = 10.0 ** (digits - 1 - int(np.floor(np.log10(abs(value)))))
    whole = np.floor(value * size) if better_side == "higher" else np.ceil(value * size)
    return float(f"{whole / size:.{digits + 2}g}")


def read_reference(
    path: Path, names: Sequence[str], tell: Callable[[str], None] = lambda _: None
) -> dict[str, np.ndarray]:
    """Scores of a reference set: the kept crops of a run, or a folder of finished crops.

    Args:
        path: OUT, a manifest, or a folder of pictures, which are scored now.
        names: columns.
        tell: told what is being done, and which pictures cannot be read.

    Raises:
        CurationError: it has none.
    """
    if path.is_file() or (path / NAME).exists() or (path / "work").is_dir():
        return _of_run(RunFolder(path), names)
    if not path.is_dir():
        raise CurationError(f"{path}: no such file or folder")
    files = find_photos(path)
    if not files:
        raise CurationError(f"{path} holds no pictures, nor a run of hbr curate")
    tell(f"scoring {len(files)} pictures of {path}")
    metrics = tuple(MetricConfig(n) for n in names if n not in _BOXES)
    scorers = load_scorers(QualityConfig(metrics))
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
            grey = np.asarray(Image.fromarray(pixels).convert("L"))
            values["sharpness"].append(laplacian_variance(grey, 512))
    return {n: np.array(v, np.float64) for n, v in values.items()}


def _of_run(run: RunFolder, names: Sequence[str]) -> dict[str, np.ndarray]:
    names = [n for n in names if n in (*run.metrics, *_BOXES)]
    if not names:
        raise CurationError(f"{run.path} has none of the scores; it has {', '.join(run.metrics)}")
    parts: dict[str, list[np.ndarray]] = {n: [] for n in names}
    for table in run.tables(["reason", *map(score_column, names)]):
        table = table.filter(table["reason"].is_null())
        for n in names:
            parts[n].append(table[score_column(n)].to_numpy().astype(np.float64))
    return {n: np.concatenate(p) for n, p in parts.items()}


def as_yaml(found: Thresholds) -> str:
    """The part of a recipe that has these thresholds."""
    lines = [f"# {found.told}: {found.kept:,} of {found.of:,} crops"]
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
    """A number that YAML reads as one: it takes 1e-05 for text."""
    return np.format_float_positional(value, trim="-")
