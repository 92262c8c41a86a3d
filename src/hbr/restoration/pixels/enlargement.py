"""By how much a photo was enlarged before: an estimate of its true resolution.

Three traces are looked for, on the grey values and along both axes:

* repeated pixels, as nearest neighbour leaves them;
* a ripple: interpolated pixels are smoother than those that they were made of, so the mean
  difference between neighbours rises and falls once for each original pixel (Gallagher 2005). It
  gives the factor to a percent;
* the cut-off of the spectrum: photographs have a power of about 1/f² up to the highest frequency,
  enlarged or blurred ones only up to half a cycle for each original pixel. It is rough, says which
  ripple to believe, and stands alone where there is none.

Shapes: h w pixels; n frequencies.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST = 8.0

Grey = NDArray[np.float32]

_SMALLEST_EDGE, _LARGEST_EDGE = 96, 1536
_BANDS = 64
# decibels that the spectrum falls below that of lower frequencies, at the cut-off and after it
_FALL, _STAYS = 6.0, 4.0
_N_FFT = 8192
# how far a ripple stands out of its neighbours; without a cut-off it must be stronger
_PROMINENT, _ALONE = 6.0, 12.0
_REPEATED = 0.15
_JPEG_GRID = 8


def estimate_enlargement(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> float:
    """The factor by which a photo was enlarged, or is blurred as if it had been.

    Args:
        pixels: RGB [h, w, 3], the full range of uint8 or uint16. The middle is looked at.

    Returns:
        from 1, which is also the answer for photos of less than 96 pixels along an edge, to 8.
    """
    h, w = pixels.shape[:2]
    if min(h, w) < _SMALLEST_EDGE:
        return 1.0
    top, left = max(0, h - _LARGEST_EDGE) // 2, max(0, w - _LARGEST_EDGE) // 2
    part = pixels[top : top + _LARGEST_EDGE, left : left + _LARGEST_EDGE].astype(np.float32)
    grey: Grey = part @ np.array([0.299, 0.587, 0.114], np.float32)
    grey *= 255 / np.iinfo(pixels.dtype).max
    axes = grey, np.ascontiguousarray(grey.T)
    repeated = min(_repeated(grey, 0.1) for grey in axes)
    if repeated > _REPEATED:
        return float(min(1 / (1 - repeated), LARGEST))
    rough = min(map(_from_cutoff, axes))
    # repeated pixels that a JPEG has changed
    steps = 1 / (1 - min(_repeated(grey, 0.5) for grey in axes))
    if steps > 1.3 * rough and (factor := _from_ripple(axes, 1.15 * steps, _ALONE)):
        return min(factor, LARGEST)
    return min(_from_ripple(axes, rough, _PROMINENT if rough > 1 else _ALONE) or rough, LARGEST)


def _repeated(grey: Grey, part: float) -> float:
    """How many of the columns [h, w] differ from the one before by less than this part."""
    from scipy.ndimage import maximum_filter1d  # slow to import

    change = np.abs(np.diff(grey, axis=1)).mean(0)
    return float((change < part * maximum_filter1d(change, 17)).mean())


def _from_cutoff(grey: Grey) -> float:
    """The factor by the cut-off of the spectrum along the rows of [h, w]; 1 if there is none."""
    rows = (grey - grey.mean(1, keepdims=True)) * np.hanning(grey.shape[1]).astype(np.float32)
    power = (np.abs(np.fft.rfft(rows, axis=1)) ** 2).mean(0)[1:]
    f = np.fft.rfftfreq(grey.shape[1])[1:]
    band = np.minimum((f * 2 * _BANDS).astype(int), _BANDS - 1)
    count = np.maximum(np.bincount(band, minlength=_BANDS), 1)
    whitened = np.bincount(band, power * f**2, _BANDS) / count
    level = 10 * np.log10(whitened + 1e-6)
    level = np.convolve(np.pad(level, 1, mode="edge"), np.ones(3) / 3, "valid")
    centre = (np.arange(_BANDS) + 0.5) / (2 * _BANDS)
    for c, own in zip(centre[3:], level[3:], strict=True):
        below = level[(centre >= c / 3) & (centre <= c / 1.6)].mean()
        above = level[(centre >= c) & (centre <= 2 * c)]
        if own < below - _FALL and (above < below - _STAYS).mean() > 0.8:
            return float(0.5 / c)
    return 1.0


def _from_ripple(axes: tuple[Grey, Grey], rough: float, needed: float) -> float | None:
    """The factor by the ripple that both axes have, near a rough one; None if there is none."""
    from scipy.ndimage import maximum_filter1d  # slow to import

    frequency = np.fft.rfftfreq(_N_FFT)
    height = np.sqrt(np.prod([maximum_filter1d(_ripple(grey), 7) for grey in axes], axis=0))
    _leave_out_jpeg(frequency, height)
    best, found = 0.0, None
    # the frequency of a ripple of less than 2 pixels is mirrored at 1/2
    for factor in np.arange(max(1.15, rough / 1.8), min(LARGEST, rough * 1.25), 0.01):
        at = 1 / factor if factor >= 2 else 1 - 1 / factor
        near = np.flatnonzero(np.abs(frequency - at) < 0.002)
        k = near[height[near].argmax()]
        # a blurred photo has a lower cut-off: the factor is rather below the rough one
        fit = np.exp(-(np.log(1.15 * factor / rough) ** 2) / (2 * 0.2**2))
        if height[k] >= needed and height[k] * fit > best:
            best = height[k] * fit
            found = 1 / frequency[k] if factor >= 2 else 1 / (1 - frequency[k])
    return None if found is None else float(found)


def _ripple(grey: Grey) -> NDArray[np.float64]:
    """How far each frequency stands out in the differences along the rows of [h, w]: [n]."""
    from scipy.ndimage import median_filter  # slow to import

    heights = []
    for order in (1, 2):  # at factor 2 second differences are all alike
        change = np.log(np.abs(np.diff(grey, n=order, axis=1)).mean(0) + 0.01)
        change = np.clip(change - median_filter(change, 31), -1.5, 1.5)
        spectrum = np.abs(np.fft.rfft(change * np.hanning(len(change)), _N_FFT))
        heights.append(spectrum / (median_filter(spectrum, 601) + 1e-6))
    return np.maximum(*heights)


def _leave_out_jpeg(frequency: NDArray[Any], height: NDArray[Any]) -> None:
    """Clear the multiples of 1/8, unless 1/4 or 1/2 stand out of the odd ones: in place."""
    near = [np.abs(frequency - k / _JPEG_GRID) < 0.006 for k in range(1, 5)]
    grid = min(height[near[0]].max(), height[near[2]].max())
    for at in near:
        if height[at].max() < 3 * grid:
            height[at] = 0
