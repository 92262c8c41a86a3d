"""Natural scene statistics for NIQE and BRISQUE: MSCN coefficients and their fits.

Shapes: h w pixels; n blocks, p values of one. Planes are float64 [h, w] in levels of 8 bits.
"""

from functools import cache

import cv2
import numpy as np
from scipy.special import gamma
from torch import Tensor

from hbr.metrics.planes import Plane, gaussian, grey

# Neighbours of the pairwise products: right, below, and the two diagonals
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))


def grey_levels(image: Tensor) -> list[Plane]:
    """Grey (0.299, 0.587, 0.114) in whole levels, as in the authors' code: [b, 3, h, w] → b."""
    return [np.rint(plane) for plane in grey(image)]


def mscn(plane: Plane, window: np.ndarray | None = None) -> tuple[Plane, Plane]:
    """Mean-subtracted, contrast-normalised values, and the local deviation: [h, w] → two [h, w].

    Mittal et al. 2012, Eq. 1 to 3: Gaussian window of 7 pixels and σ 7/6, C = 1 level; the edge is
    repeated beyond the border. Rounding residue in flat areas is set to 0.

    Args:
        plane: the levels.
        window: another window, [7, 7]; what it leaves in flat areas is kept.
    """
    taps = gaussian(7, 7 / 6)

    def blur(values: Plane) -> Plane:
        if window is not None:
            return cv2.filter2D(values, -1, window, borderType=cv2.BORDER_REPLICATE)
        return cv2.sepFilter2D(values, -1, taps, taps, borderType=cv2.BORDER_REPLICATE)

    mean = blur(plane)
    deviation = np.sqrt(np.abs(blur(plane * plane) - mean * mean))
    away = plane - mean
    if window is None:
        away = np.where(np.abs(away) < 1e-9, 0, away)
    return away / (deviation + 1), deviation


def fit_aggd(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shape, left and right deviation of asymmetric generalised Gaussians: [n, p] → three [n].

    Lasmar et al. 2009, by moments, as Mittal et al. 2013 use it in their Eq. 7 to 10; the shape is
    the nearest of 0.2, 0.201, …, 10. NaN where all values have one sign.
    """
    negative, positive = np.minimum(values, 0), np.maximum(values, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.sqrt((negative**2).sum(axis=1) / (negative < 0).sum(axis=1))
        right = np.sqrt((positive**2).sum(axis=1) / (positive > 0).sum(axis=1))
        ratio = left / right
        moments = np.abs(values).mean(axis=1) ** 2 / (values**2).mean(axis=1)
        moments *= (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shapes, curve = _curve()
    above = np.clip(np.searchsorted(curve, moments), 1, len(curve) - 1)
    nearest = np.where(moments - curve[above - 1] <= curve[above] - moments, above - 1, above)
    return np.where(np.isnan(moments), np.nan, shapes[nearest]), left, right


@cache
def _curve() -> tuple[np.ndarray, np.ndarray]:
    """Γ(2/a)² / (Γ(1/a) Γ(3/a)) over the shapes a; increasing."""
    shapes = np.arange(200, 10001) / 1000
    return shapes, gamma(2 / shapes) ** 2 / (gamma(1 / shapes) * gamma(3 / shapes))
