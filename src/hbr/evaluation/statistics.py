"""Confidence intervals of means and differences: the seeded percentile bootstrap (Efron 1979)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hbr.config import check

CONFIDENCE = 0.95

# resampled numbers held at once; a thousand resamples of 10,000 would be 80 MB
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Mean:
    """A mean and its 95 % confidence interval.

    Attributes:
        mean: of the numbers.
        low, high: ends of the interval; None where there are fewer than two numbers, or no
            resamples were asked for.
        n: how many numbers.
    """

    mean: float
    low: float | None
    high: float | None
    n: int


def bootstrap_mean(values: Sequence[float], *, resamples: int = 1000, seed: int = 0) -> Mean:
    """The mean of one number a picture, with its bootstrap interval.

    Args:
        values: at least one, all finite.
        resamples: how many samples of the same size are drawn with replacement; 0 gives no
            interval.
        seed: the same numbers in the same order and seed give the same interval.

    Raises:
        ConfigError: no values, values that are not finite, or a negative number of resamples.
    """
    numbers = np.asarray(values, np.float64)
    check(numbers.size > 0, "values", [], "one number or more")
    check(bool(np.isfinite(numbers).all()), "values", "not finite", "finite numbers")
    check(resamples >= 0, "resamples", resamples, "0 or more")
    mean, n = float(numbers.mean()), len(numbers)
    if n < 2 or resamples == 0:
        return Mean(mean, None, None, n)
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    step = max(1, _BLOCK // n)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        means[start : start + count] = numbers[generator.integers(n, size=(count, n))].mean(axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Mean(mean, float(low), float(high), n)


def paired_difference(
    values: Mapping[str, float],
    others: Mapping[str, float],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Mean | None:
    """The mean of `values` − `others` over the pictures in both; None if there are none.

    Pictures differ much more than methods do, so the intervals of two means may overlap although
    the difference on the same pictures is significant.

    Args:
        values, others: stem → number.
        resamples, seed: as in `bootstrap_mean`.
    """
    both = sorted(values.keys() & others.keys())
    if not both:
        return None
    differences = [values[stem] - others[stem] for stem in both]
    return bootstrap_mean(differences, resamples=resamples, seed=seed)
