"""Measures of a crop that need no weights, for a first curation without any download.

Each takes [h, w, 3] uint8 RGB and gives a number; they run on the finished crop, so that all are
taken at one size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from hbr.curation.pipeline.stages.sharpness import laplacian_variance

_NOISE_MASK = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
_BLOCK = 16


def detail(crop: np.ndarray) -> float:
    """log10 of 1 + the variance of the Laplacian: what an enlarged or blurred crop lacks."""
    return math.log10(1 + laplacian_variance(_grey(crop)))


def noise(crop: np.ndarray) -> float:
    """The standard deviation of the noise in grey levels (0 to 255), from the smoothest places.

    Immerkær's mask, which leaves lines and slopes at zero, in blocks of 16x16 pixels; of these
    the value that a tenth lies below, so that texture does not count as noise.

    Source: J. Immerkær, "Fast noise variance estimation", CVIU 64(2), 1996.
    """
    grey = _grey(crop)
    response = np.abs(cv2.filter2D(grey, cv2.CV_32F, _NOISE_MASK))
    height, width = (n // _BLOCK * _BLOCK for n in grey.shape)
    if not height or not width:
        return float(response.mean()) * math.sqrt(math.pi / 2) / 6
    means = cv2.resize(
        response[:height, :width], (width // _BLOCK, height // _BLOCK), interpolation=cv2.INTER_AREA
    )
    return float(np.quantile(means, 0.1)) * math.sqrt(math.pi / 2) / 6


def contrast(crop: np.ndarray) -> float:
    """The standard deviation of the grey levels (0 to 255)."""
    return float(np.ravel(cv2.meanStdDev(_grey(crop))[1])[0])


def clipping(crop: np.ndarray) -> float:
    """The share of pixels that are practically black or white: luma up to 2 or from 253."""
    histogram = cv2.calcHist([_grey(crop)], [0], None, [256], [0, 256]).ravel()
    return float(histogram[:3].sum() + histogram[253:].sum()) / (crop.shape[0] * crop.shape[1])


@dataclass(frozen=True)
class Measure:
    """A measure as a metric.

    Attributes:
        better: which end of its scale is the good one.
        of: [h, w, 3] uint8 → the number.
    """

    better: Literal["higher", "lower"]
    of: Callable[[np.ndarray], float]


MEASURES: Mapping[str, Measure] = {
    "detail": Measure("higher", detail),
    "noise": Measure("lower", noise),
    "contrast": Measure("higher", contrast),
    "clipping": Measure("lower", clipping),
}


def _grey(crop: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
