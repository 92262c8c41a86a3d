"""Strengths from choices between two: Bradley and Terry, Biometrika 39 (1952)."""

from __future__ import annotations

import numpy as np


def fit(wins: np.ndarray) -> np.ndarray:
    """Log-strengths λ of maximum likelihood, P(i is chosen over j) = 1 / (1 + exp(λ_j − λ_i)).

    Newton's method on the log-likelihood, which is concave.

    Args:
        wins: [m, m], how often the row was chosen over the column; need not be whole numbers.

    Returns:
        [m], of mean 0. All NaN if the methods fall into two groups of which one never lost to the
        other: there is no finite maximum then (Ford 1957); see `regularized`.
    """
    m = len(wins)
    if not has_maximum(wins):
        return np.full(m, np.nan)
    games = wins + wins.T
    strength = np.zeros(m)
    for _ in range(200):
        p = 1 / (1 + np.exp(strength[None, :] - strength[:, None]))
        gradient = wins.sum(axis=1) - (games * p).sum(axis=1)
        weight = games * p * (1 - p)
        hessian = np.diag(weight.sum(axis=1)) - weight
        # the sum of strengths is free; adding to every entry fixes it at 0
        step = np.linalg.solve(hessian + 1 / m, gradient)
        step *= min(1.0, 2.0 / max(np.abs(step).max(), 1e-300))
        strength += step
        if np.abs(step).max() < 1e-10:
            break
    return strength - strength.mean()


def regularized(wins: np.ndarray) -> np.ndarray:
    """`wins` with half a choice added both ways to every pair, which makes all strengths finite."""
    m = len(wins)
    return wins + 0.5 * (1 - np.eye(m))


def has_maximum(wins: np.ndarray) -> bool:
    """Whether everyone can be reached from everyone along choices (Ford 1957)."""
    m = len(wins)
    reach = (wins > 0) | np.eye(m, dtype=bool)
    for _ in range(max(1, int(np.ceil(np.log2(max(m, 2)))))):
        reach = (reach.astype(np.int64) @ reach.astype(np.int64)) > 0
    return bool(reach.all())
