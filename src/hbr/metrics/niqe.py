"""NIQE (Mittal et al. 2013): the distance of an image's statistics from those of sharp photographs.

Colour: grey (0.299, 0.587, 0.114) in whole levels. The statistics of sharp photographs are a file:
the authors' `niqe_modelparameters.mat`, BasicSR's `niqe_pris_params.npz`, or one that `fit_niqe`
wrote. Scores are comparable only with the same file.

Flat blocks count as in pyiqa, whose numbers papers report: its window is rounded to float32, so
that its sum is not quite 1, and a flat block keeps a constant of one sign. Its shape cannot be
fitted and takes the smallest value, 0.2; what depends on the missing sign is left out of the mean
of its feature, and the block out of the covariance. A flat strip therefore makes the score of a
photo much worse.

Shapes: n blocks, h w pixels; 36 features.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from scipy.io import loadmat
from scipy.special import gamma
from torch import Tensor

from hbr.files import replacing, sha256
from hbr.metrics.base import FunctionMetric, MetricError, MetricInfo
from hbr.metrics.files import with_weights
from hbr.metrics.natural import NEIGHBOURS, fit_aggd, grey_levels, mscn
from hbr.metrics.planes import Plane, gaussian
from hbr.weights import WeightsError, find_weights

BLOCK = 96
_LEAST_SHAPE = 0.2
_TAPS = gaussian(7, 7 / 6)
_WINDOW = np.outer(_TAPS, _TAPS).astype(np.float32).astype(np.float64)
_VERSION = 1
# keys of mean and covariance: hbr's, the authors', BasicSR's
_NAMES = (
    ("mean", "covariance"),
    ("mu_prisparam", "cov_prisparam"),
    ("mu_pris_param", "cov_pris_param"),
)


@dataclass(frozen=True, eq=False)
class NiqeModel:
    """The statistics of sharp photographs.

    Attributes:
        mean: [36].
        covariance: [36, 36].
        fitted_on: what it was fitted on.
    """

    mean: np.ndarray
    covariance: np.ndarray
    fitted_on: str

    def save(self, path: str | Path) -> None:
        """Write an .npz file, whole or not at all."""
        with replacing(path) as part, part.open("wb") as file:
            np.savez(
                file,
                mean=self.mean,
                covariance=self.covariance,
                fitted_on=self.fitted_on,
                version=_VERSION,
            )


def read_niqe(path: str | Path) -> NiqeModel:
    """Read a model: an .npz file of `NiqeModel.save` or of BasicSR, or the authors' .mat file.

    Raises:
        MetricError: the file is missing, is neither, or holds no mean of 36 and covariance of
            36x36 finite numbers.
    """
    path = Path(path)
    try:
        if path.suffix.lower() == ".mat":
            values: dict[str, Any] = loadmat(path)
        else:
            with np.load(path, allow_pickle=False) as file:
                values = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise MetricError(f"{path}: no such NIQE model") from None
    except Exception:  # scipy and numpy raise many kinds for a broken file
        raise MetricError(f"{path} is not a NIQE model: neither a .npz nor a .mat file") from None
    for names in _NAMES:
        if all(name in values for name in names):
            mean, covariance = (np.asarray(values[name], dtype=np.float64) for name in names)
            break
    else:
        raise MetricError(f"{path} is not a NIQE model: it holds {', '.join(values) or 'nothing'}")
    if mean.size != 36 or covariance.shape != (36, 36):
        shapes = f"{list(mean.shape)} and {list(covariance.shape)}"
        raise MetricError(
            f"{path}: NIQE needs a mean of 36 and a covariance of 36x36, not {shapes}"
        )
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise MetricError(f"{path}: the NIQE model holds values that are not finite")
    fitted_on = str(values.get("fitted_on", f"{path.name}, SHA-256 {sha256(path)[:16]}"))
    return NiqeModel(mean.reshape(36), covariance, fitted_on)


def fit_niqe(photos: Iterable[Tensor], fitted_on: str, sharpness: float = 0.75) -> NiqeModel:
    """Fit the statistics of sharp photographs, Mittal et al. 2013, Section II-C.

    Args:
        photos: RGB [1, 3, h, w] in [0, 1], at least 96x96; one is held at a time. The authors took
            125 photographs.
        fitted_on: a description of them, stored in the file.
        sharpness: blocks count whose mean local deviation is above this share of the photo's
            sharpest block.

    Raises:
        MetricError: too small a photo, or fewer than 72 sharp blocks in all (twice the features).
    """
    rows = []
    for photo in photos:
        _check_size(photo)
        for plane in grey_levels(photo):
            features, deviations = _features(plane)
            rows.append(features[deviations > sharpness * deviations.max()])
    kept = _whole(np.concatenate(rows)) if rows else np.empty((0, 36))
    if len(kept) < 72:
        raise MetricError(
            f"a NIQE model needs at least 72 sharp blocks of {BLOCK}x{BLOCK} pixels; these "
            f"{len(rows)} photos have {len(kept)}: provide more or larger photos"
        )
    return NiqeModel(kept.mean(axis=0), np.cov(kept, rowvar=False), fitted_on)


def niqe(image: Tensor, model: NiqeModel) -> Tensor:
    """Distance from the model, Mittal et al. 2013, Eq. 10: [b, 3, h, w] → [b]; lower is better.

    Over complete 96x96 blocks from the top left; see the head of this module for flat ones. NaN
    where fewer than two blocks have texture.
    """
    _check_size(image)
    return torch.tensor([_niqe(plane, model) for plane in grey_levels(image)], dtype=torch.float64)


def load_niqe(info: MetricInfo, device: str, weights: Path | None) -> FunctionMetric:
    """NIQE with the model `weights`, a file or the folder that holds it."""
    try:
        path = find_weights("niqe", info.id, weights)
    except WeightsError as error:
        fitting = "or fit one: `hbr metrics fit-niqe SHARP_PHOTOS -o niqe.npz`"
        raise MetricError(f"{error}; {fitting}") from None
    return FunctionMetric(with_weights(info, path), partial(niqe, model=read_niqe(path)))


def _niqe(plane: Plane, model: NiqeModel) -> float:
    features = _features(plane)[0]
    rows = _whole(features)
    if len(rows) < 2:
        return math.nan
    away = np.nanmean(features, axis=0) - model.mean
    covariance = (np.cov(rows, rowvar=False) + model.covariance) / 2
    return float(np.sqrt(away @ np.linalg.pinv(covariance) @ away))


def _features(plane: Plane) -> tuple[np.ndarray, np.ndarray]:
    """[h, w] → [n, 36], and the mean local deviation of each block at full size, [n]."""
    h, w = (side // BLOCK * BLOCK for side in plane.shape)
    plane = plane[:h, :w]
    values, deviation = mscn(plane, _WINDOW)
    half, _ = mscn(_half(plane), _WINDOW)
    features = [_block_features(_blocks(values, BLOCK)), _block_features(_blocks(half, BLOCK // 2))]
    return np.concatenate(features, axis=1), _blocks(deviation, BLOCK).mean(axis=(1, 2))


def _block_features(blocks: np.ndarray) -> np.ndarray:
    """[n, s, s] MSCN values → [n, 18]: Mittal et al. 2013, Section II-B."""
    n = len(blocks)
    shape, left, right = _fit(blocks.reshape(n, -1))
    found = [shape, _spread(shape) * (left + right) / 2]
    for down, across in NEIGHBOURS:
        # the authors wrap around within a block
        products = blocks * np.roll(blocks, (down, across), axis=(1, 2))
        shape, left, right = _fit(products.reshape(n, -1))
        left, right = _spread(shape) * left, _spread(shape) * right
        mean = (right - left) * gamma(2 / shape) / gamma(1 / shape)
        found += [shape, mean, left, right]
    return np.stack(found, axis=1)


def _fit(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`fit_aggd`, with the least shape where there is no fit."""
    shape, left, right = fit_aggd(values)
    return np.where(np.isnan(shape), _LEAST_SHAPE, shape), left, right


def _spread(shape: np.ndarray) -> np.ndarray:
    """Turns a deviation into the β of a generalised Gaussian."""
    return np.asarray(np.sqrt(gamma(1 / shape) / gamma(3 / shape)))


def _blocks(plane: Plane, size: int) -> np.ndarray:
    """[h, w] → [n, size, size], row by row."""
    h, w = plane.shape
    tiles = plane.reshape(h // size, size, w // size, size).swapaxes(1, 2)
    return tiles.reshape(-1, size, size)


def _half(plane: Plane) -> Plane:
    """Half size as in MATLAB's imresize: cubic (a = -½), antialiased, mirrored borders."""
    away = np.abs(np.arange(8) - 3.5) / 2
    near, far = 1.5 * away**3 - 2.5 * away**2 + 1, -0.5 * away**3 + 2.5 * away**2 - 4 * away + 2
    taps = np.where(away <= 1, near, far)
    taps /= taps.sum()
    # the eight taps of pixel i lie on 2i - 3 … 2i + 4
    blurred = cv2.sepFilter2D(plane, -1, taps, taps, anchor=(3, 3), borderType=cv2.BORDER_REFLECT)
    return np.asarray(blurred[::2, ::2])


def _whole(rows: np.ndarray) -> np.ndarray:
    """The rows without NaN: flat blocks cannot be fitted."""
    return rows[np.isfinite(rows).all(axis=1)]


def _check_size(image: Tensor) -> None:
    if image.ndim != 4 or min(image.shape[2:]) < BLOCK:
        raise MetricError(
            f"NIQE takes pictures [b, 3, h, w] of at least {BLOCK}x{BLOCK}; got {list(image.shape)}"
        )
