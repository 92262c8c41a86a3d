"""The bootstrap against what is known of it, and against an independent one."""

import numpy as np
import pytest
import scipy.stats

from hbr.config import ConfigError
from hbr.evaluation.statistics import bootstrap_mean, paired_difference


def test_interval_agrees_with_scipy() -> None:
    values = np.random.default_rng(1).gamma(2.0, 3.0, 400)
    ours = bootstrap_mean(values.tolist(), resamples=20_000)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.mean == pytest.approx(values.mean(), rel=1e-12)
    # two draws of 20,000 differ by about 2 % of the width
    assert ours.low == pytest.approx(theirs.low, abs=0.05 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.05 * width)


def test_the_seed_decides() -> None:
    values = [x**2 for x in range(50)]
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3)
    assert bootstrap_mean(values, seed=3) != bootstrap_mean(values, seed=4)


def test_many_numbers_go_in_blocks() -> None:
    found = bootstrap_mean(np.linspace(0, 1, 9_999).tolist(), resamples=300)
    # the standard error of the mean of a uniform distribution
    error = 1 / np.sqrt(12 * 9_999)
    assert found.low is not None
    assert found.high is not None
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_what_has_no_interval() -> None:
    assert bootstrap_mean([2.0]).low is None
    assert bootstrap_mean([2.0, 3.0], resamples=0).high is None
    for values in ([], [1.0, float("nan")], [float("inf")]):
        with pytest.raises(ConfigError, match="values"):
            bootstrap_mean(values)


def test_pairs_show_what_means_hide() -> None:
    generator = np.random.default_rng(0)
    hard, gains = generator.normal(25, 5, 100), generator.normal(0.2, 0.3, 100)
    one = {str(i): x for i, x in enumerate(hard)}
    other = {str(i): x + d for i, (x, d) in enumerate(zip(hard, gains, strict=True))}
    other["of this one only"] = 1000.0
    low, high = bootstrap_mean(list(one.values())), bootstrap_mean(list(other.values())[:100])
    assert low.high is not None
    assert high.low is not None
    assert low.high > high.low  # the intervals overlap
    difference = paired_difference(other, one)
    assert difference is not None
    assert difference.low is not None
    assert difference.n == 100
    assert 0.1 < difference.low < difference.mean < 0.3
    assert paired_difference({"a": 1.0}, {"b": 1.0}) is None
