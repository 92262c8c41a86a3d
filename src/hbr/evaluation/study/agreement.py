"""How far raters agree: Krippendorff's α, and the intraclass correlation.

Shapes: n units (things rated), m raters, k values.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

Level = Literal["nominal", "ordinal", "interval"]


def coincidences(values: np.ndarray, domain: np.ndarray) -> np.ndarray:
    """Each unit's coincidence matrix.

    Args:
        values: [m, n], NaN where a rater has not rated a unit.
        domain: [k], every value that may occur, ascending.

    Returns:
        [n, k, k]: pairs of values within a unit, each weighed by 1 / (values in the unit − 1);
        zero for units with fewer than two values.
    """
    counts = (values[:, :, None] == domain).sum(axis=0).astype(np.float64)  # [n, k]
    total = counts.sum(axis=1)
    pairs = counts[:, :, None] * counts[:, None, :]
    pairs -= counts[:, :, None] * np.eye(len(domain))
    weight = np.divide(1.0, total - 1, out=np.zeros_like(total), where=total > 1)
    return pairs * weight[:, None, None]


def alpha_of(coincidence: np.ndarray, domain: np.ndarray, level: Level) -> float:
    """Krippendorff's α of a coincidence matrix [k, k], summed over units; NaN if undefined.

    Source: Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), with its difference
    functions: nominal 0 or 1; ordinal (Σ n_g from c to k − (n_c + n_k) / 2)²; interval (c − k)².
    """
    n_c = coincidence.sum(axis=1)  # [k]
    n = n_c.sum()
    if level == "nominal":
        delta = 1 - np.eye(len(domain))
    elif level == "interval":
        delta = (domain[:, None] - domain[None, :]) ** 2
    else:
        # ranks in the middle of each value: their distance is the sum between, less half the ends
        rank = np.cumsum(n_c) - n_c / 2
        delta = (rank[:, None] - rank[None, :]) ** 2
    expected = (n_c[:, None] * n_c[None, :] * delta).sum()
    if expected <= 0:
        return float("nan")
    return float(1 - (n - 1) * (coincidence * delta).sum() / expected)


def icc(values: np.ndarray) -> tuple[float, float, int]:
    """ICC(2,1) and ICC(2,k), absolute agreement, raters and units at random.

    Of the units that every rater has rated; Shrout and Fleiss, Psychological Bulletin 86 (1979).

    Args:
        values: [m, n], NaN where there is none.

    Returns:
        of a single rater; of the mean of all m; the number of units. NaN with fewer than two
        raters or complete units, or where all values are the same.
    """
    complete = values[:, ~np.isnan(values).any(axis=0)].T  # [n, m]
    n, m = complete.shape
    if n < 2 or m < 2:
        return float("nan"), float("nan"), n
    mean = complete.mean()
    by_unit, by_rater = complete.mean(axis=1), complete.mean(axis=0)
    bms = m * ((by_unit - mean) ** 2).sum() / (n - 1)
    jms = n * ((by_rater - mean) ** 2).sum() / (m - 1)
    rest = complete - by_unit[:, None] - by_rater[None, :] + mean
    ems = (rest**2).sum() / ((n - 1) * (m - 1))
    single = bms + (m - 1) * ems + m * (jms - ems) / n
    average = bms + (jms - ems) / n
    if single <= 0 or average <= 0:
        return float("nan"), float("nan"), n
    return float((bms - ems) / single), float((bms - ems) / average), n
