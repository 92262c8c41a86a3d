"""Full-reference measures of structure that need no weights: MS-SSIM, GMSD, VIF, spectra.

Shapes: b batch, h w pixels. Images are RGB [b, 3, h, w] in [0, 1]; computed on the CPU in float64.
"""

from functools import lru_cache

import cv2
import numpy as np
from torch import Tensor

from hbr.metrics.fidelity import ssim_maps
from hbr.metrics.planes import Plane, for_each, gaussian, grey, halved, luma, valid

# The exponents of the five scales, Wang et al. 2003, Section 3.2
_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def ms_ssim(image: Tensor, reference: Tensor) -> Tensor:
    """Multi-scale SSIM on Y of YCbCr (BT.601, 16–235): two [b, 3, h, w] → [b].

    Wang et al. 2003, Eq. 7: contrast and structure at five scales, luminance at the last. Each
    scale averages 2x2 pixels of the one before; odd sides repeat their edge, where libraries differ
    from each other by some thousandths. The score is 0 where structure is negative overall.
    """
    return for_each(_ms_ssim, luma(image), luma(reference))


def _ms_ssim(x: Plane, y: Plane) -> float:
    score = 1.0
    for scale, exponent in enumerate(_SCALES):
        if scale:
            x, y = halved(x, "edge"), halved(y, "edge")
        whole, structure = ssim_maps(x, y)
        part = whole if scale == len(_SCALES) - 1 else structure
        score *= max(float(np.mean(part)), 0.0) ** exponent
    return score


def gmsd(image: Tensor, reference: Tensor) -> Tensor:
    """Gradient magnitude similarity deviation: two [b, 3, h, w] → [b], 0 for equal pictures.

    Xue et al. 2014, Eq. 4 and 6, on grey (0.299, 0.587, 0.114) at half size, c = 170; zero
    padding, as in the authors' code.
    """
    return for_each(_gmsd, grey(image), grey(reference))


def _gmsd(x: Plane, y: Plane) -> float:
    squared_x, squared_y = (_squared_gradient(halved(plane, "zero")) for plane in (x, y))
    c = 170.0
    similarity = (2 * np.sqrt(squared_x * squared_y) + c) / (squared_x + squared_y + c)
    return float(np.std(similarity))


def _squared_gradient(plane: Plane) -> Plane:
    slope, flat = np.array([-1.0, 0.0, 1.0]), np.full(3, 1 / 3)
    border = cv2.BORDER_CONSTANT
    across = cv2.sepFilter2D(plane, -1, slope, flat, borderType=border)
    down = cv2.sepFilter2D(plane, -1, flat, slope, borderType=border)
    return np.asarray(across**2 + down**2)


def vif_p(image: Tensor, reference: Tensor) -> Tensor:
    """Visual information fidelity in the pixel domain (VIFp): two [b, 3, h, w] → [b].

    Sheikh and Bovik 2006, Eq. 11, with the Gaussian mixtures fitted in four scales of pixels in
    place of wavelet bands, as in the authors' `vifp_mscale`; noise variance 2, on grey. 1 for equal
    pictures, above 1 where contrast was added: it rewards sharpening. A flat reference gives 1.
    """
    return for_each(_vif_p, grey(image), grey(reference))


def _vif_p(x: Plane, y: Plane, noise: float = 2.0, tiny: float = 1e-8) -> float:
    kept = known = 0.0
    for scale in range(4):
        size = 2 ** (4 - scale) + 1
        taps = gaussian(size, size / 5)
        if scale:
            x, y = valid(x, taps)[::2, ::2], valid(y, taps)[::2, ::2]
        mean_x, mean_y = valid(x, taps), valid(y, taps)
        var_x = np.maximum(valid(x * x, taps) - mean_x**2, 0)
        var_y = np.maximum(valid(y * y, taps) - mean_y**2, 0)
        covariance = valid(x * y, taps) - mean_x * mean_y
        # x = gain · y + residual; the gain is 0 for a flat or negatively correlated y
        gain = covariance / (var_y + tiny)
        related = (var_y >= tiny) & (var_x >= tiny) & (gain >= 0)
        gain = np.where(related, gain, 0)
        rest = np.maximum(var_x - gain * covariance, tiny)
        var_y = np.where(var_y >= tiny, var_y, 0)
        kept += float(np.sum(np.log10(1 + gain**2 * var_y / (rest + noise))))
        known += float(np.sum(np.log10(1 + var_y / noise)))
    return (kept + tiny) / (known + tiny)


def log_spectrum(image: Tensor, reference: Tensor) -> Tensor:
    """Mean distance of the log spectra, in dB: two [b, 3, h, w] → [b], 0 for equal spectra.

    Measures whether an image is exactly as sharp as its reference: the
    power of the grey plane (mean subtracted, Hann window) is averaged over rings of one frequency,
    and the mean over the rings of |10·log10(P/P_reference)| is the distance. Every ring counts the
    same, from one cycle in the shorter side to half a cycle per pixel. The noise of 8-bit rounding
    (1/12 of a squared level) is added to both, so that differences below it do not count.

    Fails where: it does not see *where* detail is, so noise of the right power counts as texture,
    and a picture that is shifted or mirrored scores 0. Use it together with a metric of structure.
    """
    return for_each(_log_spectrum, grey(image), grey(reference))


def _log_spectrum(x: Plane, y: Plane) -> float:
    rings, window = _rings(*x.shape)
    counts = np.bincount(rings.ravel())[1:-1]
    rounding = 1 / 12 * float(np.sum(window**2))

    def power(plane: Plane) -> np.ndarray:
        spectrum = np.abs(np.fft.rfft2((plane - plane.mean()) * window)) ** 2
        return np.bincount(rings.ravel(), spectrum.ravel())[1:-1] / counts + rounding

    return float(np.mean(np.abs(10 * np.log10(power(x) / power(y)))))


@lru_cache(maxsize=4)
def _rings(h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    """The ring that each frequency of `rfft2` is in, [h, w // 2 + 1], and the window, [h, w].

    Ring 0 is the mean, the last ring everything beyond half a cycle per pixel.
    """
    n = min(h, w) // 2
    radius = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None])
    rings = np.minimum(np.rint(radius * 2 * n), n + 1).astype(np.int64)
    return rings, np.outer(np.hanning(h), np.hanning(w))
