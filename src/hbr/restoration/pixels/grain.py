"""Putting a photo's own grain back after it was restored.

Restoring removes noise, and with it the grain of film or of a sensor, without which skin and skies
look like plastic. The grain is measured where the photo is flat: its deviation by brightness, its
spectrum, and how far the channels share it. What the restored picture has left there is subtracted,
and noise of the missing rest is added, drawn from the seed. It is not the old noise, which would
bring the damage back, but noise of the same look.

Source: Norkin & Birkbeck, "Film grain synthesis for AV1 video codec", DCC 2018, for the parts: flat
blocks, a strength by brightness, noise of the spectrum found there. AV1 models the spectrum by an
autoregressive process; here it is taken as it is.

Shapes: n blocks, b = 32 pixels along each side of a block, H W the restored picture, r rows.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hbr.restoration.pixels.color import to_unit
from hbr.restoration.pixels.inputs import resized_pixels
from hbr.restoration.settings import RestoreSettings

if TYPE_CHECKING:
    from hbr.image import Photo

log = logging.getLogger(__name__)

Floats = NDArray[np.float32]

_B = 32
_MOST_BLOCKS, _MOST_CANDIDATES = 8192, 2048
_LEAST_FLAT = 8
_SMALL = 1024 * 1024  # pixels of a photo whose blocks overlap by half
# In blocks that are all but black or white, clipping hides the grain.
_EXPOSED = (0.03, 0.97)
_END, _MOST_CLIPPED = 1 / 255, 0.005
# Means of 4x4 pixels have 1/16 of the variance of white noise, and nearly all of that of structure.
_COARSE = 0.4
# Grain is everywhere: the variance of its finest part is nowhere much less, but for brightness.
# Where it is more, that is texture.
_PATCH, _LEAST_PERCENT = 16, 1
_ABOVE_LEAST = 6.0
# Within a range of brightness, blocks of grain alone have nearly the same variance.
_RANGES = (0.25, 0.5, 0.75)
_ABOVE_QUIET = 2.0
_LUMA = np.array([0.299, 0.587, 0.114])
_ROWS = 256
# Pixels that restoring left as they were keep the grain that they have; this near to one that was
# changed, it fades in.
_NEAR, _CHANGED = 15, 0.5 / 255


@dataclass(frozen=True, eq=False, kw_only=True)
class Grain:
    """The grain that is missing in a restored picture.

    Attributes:
        offset, slope: variance of the luma by its brightness x, offset + slope · x, in [0, 1]².
        least, most: limits of the variance.
        kernel: [b, b], by which white noise gets the spectrum; its squares sum to 1.
        mixing: [3, 3], by which three independent fields become R, G and B with a luma of variance
            1.
    """

    offset: float
    slope: float
    least: float
    most: float
    kernel: Floats
    mixing: Floats

    def deviation(self, brightness: Floats) -> Floats:
        """Standard deviation of the luma at a brightness in [0, 1]."""
        variance = np.clip(self.offset + self.slope * brightness, self.least, self.most)
        return np.sqrt(variance, dtype=np.float32)


def grained(planes: Floats, photo: Photo, settings: RestoreSettings) -> Floats:
    """The restored picture with `settings.grain` of the photo's own grain.

    Where the restored picture is the photo, to half a level, nothing is added. A warning tells if
    the photo has no flat area that shows grain.

    Args:
        planes: the restored picture [3, H, W] in [0, 1]; it is changed in place.
        photo: what was restored.
        settings: how; the grain is that of the photo at the size of the result.
    """
    if settings.grain == 0:
        return planes
    pixels = resized_pixels(photo, settings)
    missing = missing_grain(pixels, planes)
    if missing is None:
        log.warning("no flat area shows grain that can be measured; none is added")
        return planes
    add_grain(planes, pixels, missing, settings.grain, settings.seed)
    return planes


def missing_grain(pixels: NDArray[np.uint8] | NDArray[np.uint16], planes: Floats) -> Grain | None:
    """The grain of a photo that its restored picture lacks; None if no flat area shows any.

    Args:
        pixels: the photo [H, W, 3] at the size of the restored picture.
        planes: the restored picture [3, H, W] in [0, 1].
    """
    height, width = pixels.shape[:2]
    step = _B if height * width > _SMALL else _B // 2
    rows, columns = range(0, height - _B + 1, step), range(0, width - _B + 1, step)
    places = _evenly([(y, x) for y in rows for x in columns], _MOST_BLOCKS)
    places = _evenly([place for place in places if _may_be_flat(pixels, *place)], _MOST_CANDIDATES)
    if len(places) < _LEAST_FLAT:
        return None
    before = np.stack([to_unit(pixels[y : y + _B, x : x + _B])[0] for y, x in places])
    after = np.stack([planes[:, y : y + _B, x : x + _B] for y, x in places])
    brightness = _brightness(before).mean(axis=(1, 2))
    old, new = _detrended(before), _detrended(after)  # [n, 3, b, b]
    changed = np.abs(before - after).max(axis=(1, 2, 3)) > _CHANGED
    finest = _fine_part(_brightness(before)).var(axis=(1, 2))
    quiet = changed & (finest <= _ABOVE_LEAST * _least_finest(pixels))
    flat = _alike(brightness, _variances(old), quiet)
    if len(flat) < _LEAST_FLAT:
        return None
    brightness, old, new = brightness[flat], old[flat], new[flat]
    offset, slope, least, most = _variance_by(brightness, _variances(old), _variances(new))
    power = np.maximum(_power(old) - _power(new), 0)
    power[0, 0] = 0
    root = np.sqrt(power)
    kernel = np.fft.fftshift(np.fft.ifft2(root).real)
    kernel /= np.sqrt(np.square(kernel).sum()) or 1.0
    return Grain(
        offset=offset,
        slope=slope,
        least=least,
        most=most,
        kernel=kernel.astype(np.float32),
        mixing=_mixing(_covariance(old) - _covariance(new)),
    )


def add_grain(
    planes: Floats,
    pixels: NDArray[np.uint8] | NDArray[np.uint16],
    grain: Grain,
    share: float,
    seed: int,
) -> None:
    """Add grain to a picture, in place, strip by strip.

    Args:
        planes: [3, H, W] in [0, 1]; clipped to it.
        pixels: the photo [H, W, 3].
        grain: what to add.
        share: of its deviation, 0 to 1.
        seed: of the noise.
    """
    from scipy.ndimage import uniform_filter
    from scipy.signal import oaconvolve

    height, width = planes.shape[1:]
    for top in range(0, height, _ROWS):
        bottom = min(height, top + _ROWS)
        first, last = max(0, top - _NEAR), min(height, bottom + _NEAR)
        changed = np.abs(planes[:, first:last] - to_unit(pixels[first:last])[0]).max(axis=0)
        near = uniform_filter((changed > _CHANGED).astype(np.float32), 2 * _NEAR + 1)
        weight = np.minimum(1, 2 * near[top - first : bottom - first])
        white = _white(top, bottom, width, seed)  # [3, r + b, W + b]
        field = oaconvolve(white, grain.kernel[None], mode="valid", axes=(1, 2))
        field = field[:, : bottom - top, :width]
        strip = planes[:, top:bottom]
        weight *= share * grain.deviation(np.tensordot(_LUMA, strip, 1).astype(np.float32))
        strip += weight * np.tensordot(grain.mixing, field, 1)
        np.clip(strip, 0, 1, out=strip)


def _white(top: int, bottom: int, width: int, seed: int) -> Floats:
    """White noise of rows `top` − b/2 to `bottom` + b/2, the same whatever strips ask for it."""
    first, last = top - _B // 2, bottom + _B // 2
    chunks = range(first // _ROWS, (last - 1) // _ROWS + 1)
    shape = (3, _ROWS, width + _B)
    made = [
        np.random.default_rng([seed, chunk + 1]).standard_normal(shape, np.float32)
        for chunk in chunks
    ]
    start = first - chunks[0] * _ROWS
    return np.concatenate(made, axis=1)[:, start : start + last - first]


def _evenly(places: list[tuple[int, int]], most: int) -> list[tuple[int, int]]:
    """At most so many of the places, spread evenly."""
    if len(places) <= most:
        return places
    return [places[i] for i in np.linspace(0, len(places) - 1, most).round().astype(int)]


def _may_be_flat(pixels: NDArray[np.uint8] | NDArray[np.uint16], y: int, x: int) -> bool:
    """Whether a block is well exposed, and has no structure that is coarser than grain."""
    luma = pixels[y : y + _B, x : x + _B] @ (_LUMA / np.iinfo(pixels.dtype).max)  # [b, b]
    clipped = ((luma < _END) | (luma > 1 - _END)).mean()
    if clipped > _MOST_CLIPPED or not _EXPOSED[0] <= luma.mean() <= _EXPOSED[1]:
        return False
    rest = _detrended(luma.astype(np.float32))
    coarse = rest.reshape(8, 4, 8, 4).mean(axis=(1, 3)).var()
    return bool(0 < coarse <= _COARSE * rest.var())


def _fine_part(luma: Floats) -> Floats:
    """The finest part of [..., h, w] without its border; white noise keeps its deviation.

    Source: Immerkaer, "Fast noise variance estimation", CVIU 64, 1996.
    """
    for axis in (-1, -2):
        moved = np.moveaxis(luma, axis, 0)
        luma = np.moveaxis(moved[:-2] - 2 * moved[1:-1] + moved[2:], 0, axis)
    return luma / np.float32(6)


def _least_finest(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> float:
    """Nearly the least variance of the finest part, in well exposed patches of 16x16 pixels."""
    found: list[NDArray[np.float64]] = []
    scale = _LUMA / np.iinfo(pixels.dtype).max
    for top in range(0, pixels.shape[0], _ROWS):
        luma = (pixels[top : top + _ROWS] @ scale).astype(np.float32)
        rows, columns = luma.shape[0] // _PATCH, luma.shape[1] // _PATCH
        cut = luma[: rows * _PATCH, : columns * _PATCH]
        grid = cut.reshape(rows, _PATCH, columns, _PATCH).swapaxes(1, 2)
        patches = grid.reshape(-1, _PATCH, _PATCH)
        low, high = patches.min(axis=(1, 2)), patches.max(axis=(1, 2))
        mean = patches.mean(axis=(1, 2))
        exposed = (low > _END) & (high < 1 - _END) & (mean > _EXPOSED[0]) & (mean < _EXPOSED[1])
        found.append(_fine_part(patches[exposed]).var(axis=(1, 2)))
    variances = np.concatenate(found)
    return float(np.percentile(variances, _LEAST_PERCENT)) if len(variances) else 0.0


def _alike(
    brightness: Floats, variance: NDArray[np.float64], quiet: NDArray[np.bool_]
) -> NDArray[np.intp]:
    """Of the quiet blocks, those alike in variance in each range of brightness; all are [n]."""
    ranges = np.digitize(brightness, _RANGES)
    found = [np.empty(0, np.intp)]
    for number in range(len(_RANGES) + 1):
        inside = np.flatnonzero(quiet & (ranges == number))
        if len(inside) >= _LEAST_FLAT // 2:
            limit = _ABOVE_QUIET * np.percentile(variance[inside], 20)
            found.append(inside[variance[inside] <= limit])
    return np.concatenate(found)


def _basis() -> NDArray[np.float64]:
    """Orthonormal polynomials up to the second degree on a block, [b², 6]."""
    y, x = np.mgrid[-1 : 1 : _B * 1j, -1 : 1 : _B * 1j]
    columns = [np.ones_like(x), x, y, x * y, x * x, y * y]
    return np.linalg.qr(np.stack([c.ravel() for c in columns], axis=1))[0]


_BASIS = _basis().astype(np.float32)


def _detrended(blocks: Floats) -> Floats:
    """Blocks [..., b, b] without what varies slowly in them."""
    flat = blocks.reshape(*blocks.shape[:-2], _B * _B)
    return np.asarray(flat - flat @ _BASIS @ _BASIS.T, np.float32).reshape(blocks.shape)


def _brightness(blocks: Floats) -> Floats:
    """[n, 3, b, b] → the luma [n, b, b]."""
    return np.asarray(np.einsum("c,ncyx->nyx", _LUMA, blocks), np.float32)


def _variances(rest: Floats) -> NDArray[np.float64]:
    return np.asarray(_brightness(rest).var(axis=(1, 2)), np.float64)


def _power(rest: Floats) -> NDArray[np.float64]:
    """The mean power spectrum of the luma, [b, b]."""
    spectra = np.square(np.abs(np.fft.fft2(_brightness(rest).astype(np.float64))))
    return np.asarray(spectra.mean(axis=0))


def _covariance(rest: Floats) -> NDArray[np.float64]:
    """Of the channels, [3, 3]."""
    return np.cov(np.moveaxis(rest, 1, 0).reshape(3, -1).astype(np.float64))


def _variance_by(
    brightness: Floats, old: NDArray[np.float64], new: NDArray[np.float64]
) -> tuple[float, float, float, float]:
    """The missing variance as a line over the brightness, and its limits."""
    missing = np.maximum(old - new, 0)
    spread = float(brightness.max() - brightness.min())
    slope, offset = 0.0, float(missing.mean())
    if spread > 0.2:
        slope, offset = (float(v) for v in np.polyfit(brightness, missing, 1))
    low, high = (float(v) for v in np.percentile(missing, [5, 95]))
    return offset, slope, low, high


def _mixing(covariance: NDArray[np.float64]) -> Floats:
    """A root of the covariance of the channels, scaled to a luma of variance 1."""
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0))
    variance = float(np.square(_LUMA @ root).sum())
    return (root / np.sqrt(variance) if variance > 0 else root).astype(np.float32)
