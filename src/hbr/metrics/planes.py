"""Images as planes of float64, and filters over them.

Shapes: b batch, h w pixels. Pictures come as RGB tensors [b, 3, h, w] in [0, 1]; planes are
float64 arrays [h, w] in levels of 8 bits. Float64 because metrics take differences of
squares, and OpenCV because it filters a plane several times faster than torch's convolutions do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor

Plane = np.ndarray

# BT.601 as MATLAB's rgb2ycbcr writes it, for R, G, B in [0, 1]
_LUMA = (65.481, 128.553, 24.966)
_YIQ = np.array([(0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)])


def levels(image: Tensor) -> np.ndarray:
    """[b, 3, h, w] in [0, 1] → float64 [b, 3, h, w], 0–255.

    Rounded to a millionth of the range, which restores the whole levels of an 8-bit file that
    float32 does not hold exactly.
    """
    array = image.detach().to("cpu", torch.float64).numpy() * 255
    return np.round(array, 4)


def luma(image: Tensor) -> Iterator[Plane]:
    """Y of YCbCr (BT.601), 16–235, not rounded: one plane [h, w] for each picture."""
    r, g, b = (weight / 255 for weight in _LUMA)
    for picture in levels(image):
        yield 16 + r * picture[0] + g * picture[1] + b * picture[2]


def grey(image: Tensor) -> Iterator[Plane]:
    """0.299 R + 0.587 G + 0.114 B, 0–255, not rounded: one plane [h, w] for each picture."""
    for picture in levels(image):
        yield np.tensordot(_YIQ[0], picture, 1)


def yiq(image: Tensor) -> Iterator[np.ndarray]:
    """Y, I and Q of NTSC, in levels: [3, h, w] for each picture."""
    for picture in levels(image):
        yield np.tensordot(_YIQ, picture, 1)


def for_each(
    function: Callable[[Plane, Plane], float], images: Iterator[Plane], references: Iterator[Plane]
) -> Tensor:
    """What a function gives for the planes of each picture and its reference, float64 [b]."""
    scores = [function(x, y) for x, y in zip(images, references, strict=True)]
    return torch.tensor(scores, dtype=torch.float64)


def gaussian(size: int, sigma: float) -> np.ndarray:
    """The one-dimensional Gaussian of `size` taps, of sum 1."""
    axis = np.arange(size) - (size - 1) / 2
    taps = np.exp(-(axis**2) / (2 * sigma**2))
    return np.asarray(taps / taps.sum())


def valid(plane: Plane, taps: np.ndarray) -> Plane:
    """Filter along both axes, without padding: [h, w] → [h - n + 1, w - n + 1]."""
    half = len(taps) // 2
    h, w = plane.shape
    whole = cv2.sepFilter2D(plane, -1, taps, taps, borderType=cv2.BORDER_REFLECT_101)
    return whole[half : h - half, half : w - half]


def halved(plane: Plane, border: Literal["edge", "zero"]) -> Plane:
    """Means of 2x2 pixels: [h, w] → [⌈h/2⌉, ⌈w/2⌉]; odd sides are padded with the edge or zeros."""
    h, w = plane.shape
    if h % 2 or w % 2:
        kind = cv2.BORDER_REPLICATE if border == "edge" else cv2.BORDER_CONSTANT
        plane = cv2.copyMakeBorder(plane, 0, h % 2, 0, w % 2, kind, value=0)
    quads = plane[::2, ::2] + plane[1::2, ::2] + plane[::2, 1::2] + plane[1::2, 1::2]
    return np.asarray(quads / 4)
