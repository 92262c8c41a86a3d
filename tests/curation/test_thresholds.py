"""Thresholds against brute force, and sorting on disk."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbr.curation.config import MetricConfig, QualityConfig
from hbr.curation.engines.local import LocalEngine
from hbr.curation.pipeline import sorting
from hbr.curation.pipeline.stages.zscores import best, quota, z_means
from hbr.curation.pipeline.store import TaskSet
from hbr.curation.record import CurationError
from hbr.curation.runs.run import curate
from hbr.curation.runs.run_folder import RunFolder
from hbr.curation.runs.thresholds import (
    distribution,
    for_count,
    for_mean,
    for_reference,
    scores_of,
    together,
)

values = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=12).map(np.array)
sides = st.sampled_from(["higher", "lower"])


def passes(x, better, threshold):
    return x >= threshold if better == "higher" else x <= threshold


@given(values, sides, st.data())
@settings(max_examples=300, deadline=None)
def test_a_threshold_for_a_count(x, better, data) -> None:
    count = data.draw(st.integers(1, len(x)))
    found = for_count(x, better, count)
    strictness = sorted(set(x), reverse=better == "higher")
    expected = next(t for t in strictness if passes(x, better, t).sum() >= count)
    assert found == expected


@given(values, sides, st.floats(-5, 5))
@settings(max_examples=300, deadline=None)
def test_a_threshold_for_a_mean(x, better, mean) -> None:
    reached = [
        t
        for t in set(x)
        if (
            x[passes(x, better, t)].mean() >= mean
            if better == "higher"
            else x[passes(x, better, t)].mean() <= mean
        )
    ]
    if not reached:
        with pytest.raises(CurationError, match="no threshold gives a mean"):
            for_mean(x, better, mean)
    else:
        mildest = min(reached) if better == "higher" else max(reached)
        assert for_mean(x, better, mean) == mildest


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=200, deadline=None)
def test_thresholds_together_keep_the_wanted_count(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 15))
    scores = {"a": rng.integers(0, 6, n).astype(float), "b": rng.normal(size=n)}
    better = {"a": "higher", "b": "lower"}
    top = float(rng.choice([1.0, 0.5]))
    in_top = best(np.arange(n), z_means(scores, better), quota(top, n))
    count = int(rng.integers(1, n + 2))
    if count > in_top.sum():
        with pytest.raises(CurationError, match="cannot be kept"):
            together(scores, better, count, top)
        return
    limits, passed, share = together(scores, better, count, top)

    def kept(limits):
        return (in_top & np.all([passes(scores[m], better[m], limits[m]) for m in scores], 0)).sum()

    assert kept(limits) == passed >= count
    stricter = [
        {m: for_count(scores[m], better[m], k) for m in scores} for k in range(1, round(share * n))
    ]
    assert all(kept(limits) < count for limits in stricter)


def test_distributions_and_references() -> None:
    x = np.array([1.0, 2.0, 3.0, 4.0, np.nan])
    found = distribution(x, bins=3)
    assert (found.n, found.missing, found.mean, found.least, found.most) == (4, 1, 2.5, 1, 4)
    assert found.counts.sum() == 4
    assert found.quantiles[0.5] == 2.5
    assert for_reference(np.arange(100.0), "higher", 0.95) == 5
    assert for_reference(np.arange(100.0), "lower", 0.95) == 94
    with pytest.raises(CurationError, match="no row has a value"):
        distribution(np.array([np.nan]))


def test_found_thresholds_keep_that_many_in_a_run(photos, settings, listed, tmp_path) -> None:
    source = [listed("coco", photos[:30])]
    free = dataclasses.replace(
        settings,
        quality=QualityConfig(
            metrics=(MetricConfig("detail"), MetricConfig("noise")), all_scores=True
        ),
        duplicates=dataclasses.replace(settings.duplicates, radius=-1),
    )
    here = LocalEngine(0)
    curate(free, tmp_path / "free", engine=here, sources=source)
    scores = scores_of(RunFolder(tmp_path / "free"), ("detail", "noise"))
    limits, passed, _ = together(scores, {"detail": "higher", "noise": "lower"}, 8, top=0.7)
    metrics = tuple(MetricConfig(name, t) for name, t in limits.items())
    strict = dataclasses.replace(
        free, quality=QualityConfig(metrics=metrics, all_scores=True, top=0.7)
    )
    summary = curate(strict, tmp_path / "strict", engine=here, sources=source)
    assert summary.kept == passed >= 8
    with pytest.raises(CurationError, match="no scores called niqe; it has detail, noise"):
        scores_of(RunFolder(tmp_path / "free"), ("niqe",))


@pytest.mark.parametrize("limit", [7, 64, 10_000])
def test_sorting_on_disk_and_in_memory(limit: int, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sorting, "IN_MEMORY", limit)
    rng = np.random.default_rng(limit)
    ids = [f"{i:016x}" for i in rng.integers(0, 2**64, 500, np.uint64).tolist()]
    tables = [
        pa.table({"id": ids[i : i + 11], "n": list(range(i, min(i + 11, 500)))})
        for i in range(0, 500, 11)
    ]
    out = pa.concat_tables(sorting.by_id(iter(tables), tmp_path / "sort")).to_pylist()
    assert [row["id"] for row in out] == sorted(ids)
    assert all(ids[row["n"]] == row["id"] for row in out)
    assert not (tmp_path / "sort").exists()
    assert list(sorting.by_id(iter([]), tmp_path / "sort")) == []


def test_a_set_of_tasks(monkeypatch) -> None:
    monkeypatch.setattr(TaskSet, "_FRESH", 10)
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 2**64, 200, np.uint64)
    tasks = TaskSet()
    for number in [*numbers[:100].tolist(), *numbers[:50].tolist()]:
        tasks.add(number)
    assert len(tasks) == 100
    assert tasks.holds(numbers).tolist() == [True] * 100 + [False] * 100
    assert [int(n) in tasks for n in numbers] == [True] * 100 + [False] * 100
    assert not TaskSet().holds(numbers).any()
