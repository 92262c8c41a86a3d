"""Turning and scaling a picture so that known points land at given positions."""

from __future__ import annotations

import cv2
import numpy as np


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The similarity transform source → target, [k, 2] each → [2, 3], by least squares."""
    rows, wanted = [], []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [(x, -y, 1, 0), (y, x, 0, 1)]
        wanted += [u, v]
    (a, b, right, down), *_ = np.linalg.lstsq(np.array(rows), np.array(wanted), rcond=None)
    return np.array([(a, -b, right), (b, a, down)])


def aligned(picture: np.ndarray, turn: np.ndarray, side: int) -> np.ndarray:
    """A square of a picture, [h, w, 3] → [side, side, 3]; black where there is no picture.

    `turn` is [2, 3], from `similarity`; `side` is in pixels.
    """
    shrink = float(np.hypot(turn[0, 0], turn[1, 0]))
    if shrink < 0.5:
        # a warp interpolates four pixels at any scale: blur first to avoid aliasing
        picture = cv2.GaussianBlur(picture, (0, 0), 0.4 / shrink)
    return np.asarray(cv2.warpAffine(picture, turn, (side, side), flags=cv2.INTER_LINEAR))
