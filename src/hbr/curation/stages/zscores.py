"""Stage g: Eq. 1 of the paper, the mean of a crop's z-scores over the whole set.

    z̄_i = 1/M Σ_m s_m (x_im − μ_m) / σ_m,   s_m = −1 for metrics that are better lower (NIQE)

Mean and deviation are over all crops, and exact: sums of whole numbers, rounded once at the end, so
that they depend neither on the order of the crops nor on how the work was divided.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Literal

import numpy as np

# A float is a whole number of 53 bits times 2^(exponent − 53); the least exponent is −1073.
_BITS = 53
_LEAST = 1073


class ExactMoments:
    """Mean and population deviation of numbers that come in parts, without any rounding on the way.

    Attributes:
        n: how many numbers there were.
    """

    def __init__(self) -> None:
        self.n = 0
        self._sum = 0  # in units of 2^-(53 + 1073)
        self._squares = 0  # in units of that, squared

    def add(self, values: np.ndarray) -> None:
        """Add [n] finite float64.

        Raises:
            ValueError: a value that is not a finite number.
        """
        values = np.asarray(values, np.float64)
        if not np.isfinite(values).all():
            raise ValueError("moments are of finite numbers only")
        self.n += values.size
        mantissas, exponents = np.frexp(values)
        whole = np.ldexp(mantissas, _BITS).astype(np.int64)
        for exponent in np.unique(exponents).tolist():
            part = whole[exponents == exponent]
            total, squares = _sums(part)
            shift = exponent + _LEAST
            self._sum += total << shift
            self._squares += squares << (2 * shift)

    def merge(self, other: ExactMoments) -> None:
        """Add the numbers of another one."""
        self.n += other.n
        self._sum += other._sum
        self._squares += other._squares

    @property
    def mean(self) -> float:
        """The mean, rounded once; 0 of no numbers."""
        return float(self._mean()) if self.n else 0.0

    @property
    def deviation(self) -> float:
        """The population standard deviation; 0 of no numbers."""
        if not self.n:
            return 0.0
        variance = Fraction(self._squares, self.n << (2 * (_BITS + _LEAST))) - self._mean() ** 2
        return math.sqrt(variance)

    def _mean(self) -> Fraction:
        return Fraction(self._sum, self.n << (_BITS + _LEAST))


def _sums(whole: np.ndarray) -> tuple[int, int]:
    """The sum and the sum of squares of int64 below 2^53, in halves that cannot overflow."""
    high, low = whole >> 27, whole & ((1 << 27) - 1)  # 27 signed bits, 27 bits
    total = (int(high.sum()) << 27) + int(low.sum())
    squares = (_wide_sum(high * high) << 54) + (_wide_sum(high * low) << 28) + _wide_sum(low * low)
    return total, squares


def _wide_sum(values: np.ndarray) -> int:
    """The sum of int64 of up to 54 bits."""
    return (int((values >> 32).sum()) << 32) + int((values & 0xFFFFFFFF).sum())


def z_means(
    scores: Mapping[str, np.ndarray],
    moments: Mapping[str, ExactMoments],
    better: Mapping[str, Literal["higher", "lower"]],
) -> np.ndarray:
    """Eq. 1: the mean over the metrics of the z-scores, where better is always higher.

    Args:
        scores: metric → [n]; all of one length.
        moments: metric → its mean and deviation over the whole set. A metric without any spread
            tells nothing, and its z-score is 0.
        better: metric → which end of its scale is the good one.

    Returns:
        [n] float64; NaN where a score is NaN.
    """
    names = sorted(scores)
    total = np.zeros(len(scores[names[0]]))
    for name in names:
        values = np.asarray(scores[name], np.float64)
        mean, deviation = moments[name].mean, moments[name].deviation
        z = (values - mean) / deviation if deviation > 0 else values * 0
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
