"""FSIM and FSIMc (Zhang et al. 2011): phase congruency and gradients.

Shapes: b batch, h w pixels, o orientations, s scales. Images are RGB [b, 3, h, w] in [0, 1];
computed on the CPU in float64.
"""

import math
from functools import lru_cache, partial

import cv2
import numpy as np
from torch import Tensor

from hbr.metrics.planes import Plane, for_each, yiq

_ORIENTATIONS, _SCALES = 4, 4
_TINY = float(np.finfo(np.float64).eps)


def fsim(image: Tensor, reference: Tensor) -> Tensor:
    """Feature similarity on grey: two [b, 3, h, w] → [b], 1 for equal pictures.

    Zhang et al. 2011, Eq. 7, T1 = 0.85, T2 = 160; images are first average-pooled by
    round(shorter side / 256).
    """
    return for_each(partial(_fsim, chromatic=False), yiq(image), yiq(reference))


def fsimc(image: Tensor, reference: Tensor) -> Tensor:
    """FSIM that also compares I and Q: Zhang et al. 2011, Eq. 11, T3 = T4 = 200, λ = 0.03."""
    return for_each(partial(_fsim, chromatic=True), yiq(image), yiq(reference))


def _fsim(x: np.ndarray, y: np.ndarray, chromatic: bool) -> float:
    x, y = _pooled(x), _pooled(y)
    phase_x, phase_y = phase_congruency(x[0]), phase_congruency(y[0])
    score = _similar(phase_x, phase_y, 0.85) * _similar(_gradient(x[0]), _gradient(y[0]), 160)
    if chromatic:
        score *= np.abs(_similar(x[1], y[1], 200) * _similar(x[2], y[2], 200)) ** 0.03
    weight = np.maximum(phase_x, phase_y)
    # two flat images have no phase congruency, and are equal in it
    return float(np.sum(score * weight) / np.sum(weight)) if weight.any() else float(np.mean(score))


def _pooled(planes: np.ndarray) -> np.ndarray:
    """Means over squares of n pixels, n = round(shorter side / 256): [3, h, w] → [3, h/n, w/n]."""
    n = max(1, round(min(planes.shape[1:]) / 256))
    h, w = (side // n for side in planes.shape[1:])
    return planes[:, : h * n, : w * n].reshape(3, h, n, w, n).mean(axis=(2, 4))


def _similar(a: Plane, b: Plane, constant: float) -> Plane:
    return np.asarray((2 * a * b + constant) / (a**2 + b**2 + constant))


def _gradient(plane: Plane) -> Plane:
    """Magnitude by Scharr's operator, zeros outside the border."""
    slope, smooth = np.array([-1.0, 0.0, 1.0]), np.array([3.0, 10.0, 3.0]) / 16
    border = cv2.BORDER_CONSTANT
    across = cv2.sepFilter2D(plane, -1, slope, smooth, borderType=border)
    down = cv2.sepFilter2D(plane, -1, smooth, slope, borderType=border)
    return np.hypot(across, down)


def phase_congruency(plane: Plane) -> Plane:
    """Kovesi's phase congruency PC2 of a plane [h, w] in levels → [h, w] in [0, 1].

    Kovesi 1999, Eq. 14, as Zhang et al. 2011 use it: log-Gabor filters of 4 orientations and 4
    scales (wavelengths 6, 12, 24, 48), noise threshold at k = 2 standard deviations, estimated from
    the median energy of the smallest scale and divided by 1.7.
    """
    filters, noise_per_energy = _log_gabor(*plane.shape)
    transform = np.fft.fft2(plane)
    energy, amplitude = np.zeros(plane.shape), np.zeros(plane.shape)
    for bank, ratio in zip(filters, noise_per_energy, strict=True):
        response = np.fft.ifft2(transform * bank)  # [s, h, w], even + i · odd
        total = response.sum(axis=0)
        direction = total / (np.abs(total) + _TINY)
        # the component along the mean phase, less the one across it
        turned = response * direction.conj()
        along = (turned.real - np.abs(turned.imag)).sum(axis=0)
        # the energy of noise has a χ² distribution of two degrees: mean = median / ln 2
        mean_energy = np.median(np.abs(response[0]) ** 2) / math.log(2)
        rayleigh = math.sqrt(mean_energy * ratio / 2)
        noise = rayleigh * (math.sqrt(math.pi / 2) + 2 * math.sqrt(2 - math.pi / 2))
        energy += np.maximum(along - noise / 1.7, 0)
        amplitude += np.abs(response).sum(axis=0)
    return np.asarray(energy / (amplitude + _TINY))


@lru_cache(maxsize=2)
def _log_gabor(h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    """The filters in frequency, [o, s, h, w], and noise energy over smallest-scale energy, [o].

    Kovesi 1999, Section 5: radial log-Gabors with σ/f = 0.55 under a Butterworth low-pass (cut-off
    0.45, order 15), times Gaussians of the angle with σ = π / (4 · 1.2).
    """
    rows, columns = _frequencies(h)[:, None], _frequencies(w)[None]
    radius = np.hypot(rows, columns)
    lowpass = 1 / (1 + (radius / 0.45) ** 30)
    radius[0, 0] = 1
    angle = np.arctan2(-rows, columns)
    wavelengths = 6 * 2 ** np.arange(_SCALES)
    radial = np.log(radius * wavelengths[:, None, None])  # [s, h, w]
    radial = np.exp(-(radial**2) / (2 * math.log(0.55) ** 2)) * lowpass
    radial[:, 0, 0] = 0
    centres = np.arange(_ORIENTATIONS)[:, None, None] * math.pi / _ORIENTATIONS
    away = np.abs(np.angle(np.exp(1j * (angle - centres))))  # [o, h, w]
    spread = np.exp(-(away**2) / (2 * (math.pi / (_ORIENTATIONS * 1.2)) ** 2))
    filters = spread[:, None] * radial[None]
    # in space: Σ of squares, and of products of different scales, over all pixels
    spatial = np.fft.ifft2(filters).real * math.sqrt(h * w)
    squares = (spatial**2).sum(axis=(1, 2, 3))
    products = ((spatial.sum(axis=1) ** 2).sum(axis=(1, 2)) - squares) / 2
    smallest = (filters[:, 0] ** 2).sum(axis=(1, 2))
    return filters, (2 * squares + 4 * products) / smallest


def _frequencies(n: int) -> np.ndarray:
    """Frequencies in the order of the FFT; from -½ to ½, for odd sizes too, as in Kovesi's code."""
    return np.fft.fftfreq(n) * (n / (n - 1) if n % 2 else 1)
