"""Stage g: Eq. 1 of the paper, the mean of a crop's z-scores over the whole set.

    z̄_i = 1/M Σ_m s_m (x_im − μ_m) / σ_m,   s_m = −1 for metrics that are better lower (NIQE)

Mean and deviation are over all crops, and exact: sums of integers, rounded once at the end, so that
they depend neither on the order of the crops nor on how the work was divided.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from fractions import Fraction
from typing import Literal

import numpy as np


class ExactMoments:
    """Mean and population deviation of numbers that come in parts, without intermediate rounding.

    A float is an integer over a power of two: the numerators are summed as integers, for each
    denominator. (`math.fsum` rounds once for each call, so its results would depend on the parts.)

    Attributes:
        n: how many numbers there were.
    """

    def __init__(self) -> None:
        self.n = 0
        self._sums: Counter[int] = Counter()  # denominator → sum of the numerators
        self._squares: Counter[int] = Counter()  # denominator → sum of their squares

    def add(self, values: np.ndarray) -> None:
        """Add [n] finite float64.

        Raises:
            ValueError: a value that is not a finite number.
        """
        values = np.asarray(values, np.float64)
        if not np.isfinite(values).all():
            raise ValueError("moments are of finite numbers only")
        self.n += values.size
        for value in values.tolist():
            numerator, denominator = value.as_integer_ratio()
            self._sums[denominator] += numerator
            self._squares[denominator] += numerator * numerator

    @property
    def mean(self) -> float:
        """The mean, rounded once; 0 of no numbers."""
        return float(self._mean())

    @property
    def deviation(self) -> float:
        """The population standard deviation; 0 of no numbers."""
        squares = sum(Fraction(total, d * d) for d, total in self._squares.items())
        return math.sqrt(squares / max(self.n, 1) - self._mean() ** 2)

    def _mean(self) -> Fraction:
        return Fraction(sum(Fraction(total, d) for d, total in self._sums.items())) / max(self.n, 1)


def z_means(
    scores: Mapping[str, np.ndarray], better: Mapping[str, Literal["higher", "lower"]]
) -> np.ndarray:
    """Eq. 1: the mean over the metrics of the z-scores, where better is always higher.

    A metric without any spread carries no information, and its z-score is 0.

    Args:
        scores: metric → [n], NaN where there is none; all of one length, the whole set.
        better: metric → which end of its scale is the good one.

    Returns:
        [n] float64; NaN where a score is NaN.
    """
    names = sorted(scores)
    total = np.zeros(len(scores[names[0]]))
    for name in names:
        values = np.asarray(scores[name], np.float64)
        moments = ExactMoments()
        moments.add(values[~np.isnan(values)])
        deviation = moments.deviation
        z = (values - moments.mean) / deviation if deviation > 0 else values * 0
        total += z if better[name] == "higher" else -z
    return total / len(names)


def quota(top: float, n: int) -> int:
    """How many of n crops the part `top` is: rounded up."""
    return math.ceil(top * n - 1e-9)


def best(ids: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """[n] bool: the `count` highest values; of equal ones those with the lower id.

    Args:
        ids: [n], all different.
        values: [n].
        count: how many.
    """
    keep = np.zeros(len(values), bool)
    keep[np.lexsort((ids, -values))[:count]] = True
    return keep
