"""BRISQUE (Mittal et al. 2012): a regression from statistics.

Colour: grey (0.299, 0.587, 0.114) in whole levels. The regression is a file: `brisque.safetensors`,
converted from the PyPI package brisque; or OpenCV's `brisque_model_live.yml` (an epsilon support
vector regression) and, beside it, `brisque_range_live.yml` (the ranges of the features). The second
scale and the borders are as in OpenCV's `quality` module. Scores are comparable only with the same
regression.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.special import gamma
from torch import Tensor

from hbr.metrics.base import FunctionMetric, MetricError, MetricInfo
from hbr.metrics.files import read_state, with_weights
from hbr.metrics.natural import fit_aggd, grey_levels, mscn
from hbr.metrics.planes import Plane
from hbr.weights import find_weights

# Neighbours (down, across), in OpenCV's order
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (-1, 1))


@dataclass(frozen=True, eq=False, kw_only=True)
class BrisqueModel:
    """A regression with radial basis functions.

    Attributes:
        low, high: the range of each feature that becomes [-1, 1], [36].
        support: the support vectors, [n, 36].
        alpha: their weights, [n].
        rho, gamma: offset, and the exponent of the kernel.
    """

    low: np.ndarray
    high: np.ndarray
    support: np.ndarray
    alpha: np.ndarray
    rho: float
    gamma: float

    def score(self, features: np.ndarray) -> float:
        """Features [36] → Σ α exp(-γ|x - s|²) - ρ, clipped to [0, 100] as OpenCV does."""
        scaled = 2 * (features - self.low) / (self.high - self.low) - 1
        kernel = np.exp(-self.gamma * ((self.support - scaled) ** 2).sum(axis=1))
        return float(np.clip(self.alpha @ kernel - self.rho, 0, 100))


def read_brisque(model: str | Path, ranges: str | Path) -> BrisqueModel:
    """Read OpenCV's two files.

    Raises:
        MetricError: a file is missing, or has another layout.
    """
    try:
        return _read(model, ranges)
    except cv2.error:  # a value of an unexpected type
        raise MetricError(f"{model} and {ranges} are not OpenCV's two BRISQUE files") from None


def _read(model: str | Path, ranges: str | Path) -> BrisqueModel:
    # nodes are only valid while their file is open
    model_file, range_file = _open(model), _open(ranges)
    svm = model_file.getNode("opencv_ml_svm")
    kernel, functions = svm.getNode("kernel"), svm.getNode("decision_functions")
    kind = svm.getNode("svmType").string() or svm.getNode("svm_type").string()
    radial = not kernel.empty() and kernel.getNode("type").string() == "RBF"
    if not radial or not kind.endswith("_SVR") or functions.size() != 1:
        raise MetricError(f"{model} is not OpenCV's BRISQUE model: it has no RBF regression")
    function = functions.at(0)
    support = [_numbers(row) for row in _items(svm.getNode("support_vectors"))]
    alpha = np.array(_numbers(function.getNode("alpha")))
    table = range_file.getNode("range")
    bounds = None if table.empty() else table.mat()
    if bounds is None or bounds.shape != (2, 36):
        raise MetricError(f"{ranges} is not OpenCV's BRISQUE range: it has no 2x36 matrix")
    if {len(row) for row in support} != {36} or len(alpha) != len(support):
        raise MetricError(f"{model}: BRISQUE needs support vectors of 36 and one α for each")
    return BrisqueModel(
        low=bounds[0].astype(np.float64),
        high=bounds[1].astype(np.float64),
        support=np.array(support),
        alpha=alpha,
        rho=function.getNode("rho").real(),
        gamma=kernel.getNode("gamma").real(),
    )


def _open(path: str | Path) -> cv2.FileStorage:
    if not Path(path).is_file():
        raise MetricError(f"{path}: no such BRISQUE file")
    try:
        return cv2.FileStorage(str(path), cv2.FILE_STORAGE_READ)
    except (cv2.error, SystemError):
        raise MetricError(f"{path} is not an OpenCV YAML file") from None


def _items(node: cv2.FileNode) -> list[cv2.FileNode]:
    return [node.at(i) for i in range(node.size())]


def _numbers(node: cv2.FileNode) -> list[float]:
    return [item.real() for item in _items(node)]


def brisque(image: Tensor, model: BrisqueModel) -> Tensor:
    """The score of each picture: [b, 3, h, w] → [b] in [0, 100]; lower is better.

    NaN for pictures without any texture.
    """
    scores = [model.score(brisque_features(plane)) for plane in grey_levels(image)]
    return torch.tensor(scores, dtype=torch.float64)


def load_brisque(info: MetricInfo, device: str, weights: Path | None) -> FunctionMetric:
    """BRISQUE with the model file `weights`, or the folder it is in.

    OpenCV's range file lies beside it, with `range` for `model` in its name.

    Raises:
        MetricError: one of them is missing.
    """
    path = find_weights("brisque", info.id, weights)
    if path.suffix == ".safetensors":
        model = _read_converted(path)
        return FunctionMetric(with_weights(info, path), partial(brisque, model=model))
    if path.is_dir():
        path = path / "brisque_model_live.yml"
    ranges = path.with_name(path.name.replace("model", "range"))
    model = read_brisque(path, ranges)
    return FunctionMetric(with_weights(info, path, ranges), partial(brisque, model=model))


def _read_converted(path: Path) -> BrisqueModel:
    """Read a regression that `hbr.weights.conversion.brisque` wrote."""
    state = {name: tensor.double().numpy() for name, tensor in read_state(path).items()}
    shapes = {name: value.shape[-1:] for name, value in state.items()}
    n = len(state.get("support", ()))
    wanted = {"low": 36, "high": 36, "support": 36, "alpha": n, "rho": 1, "gamma": 1}
    if shapes != {name: (size,) for name, size in wanted.items()}:
        raise MetricError(f"{path} is not a BRISQUE regression")
    rho, gamma = float(state.pop("rho")[0]), float(state.pop("gamma")[0])
    return BrisqueModel(**state, rho=rho, gamma=gamma)


def brisque_features(plane: Plane) -> np.ndarray:
    """The features, 18 at each of two scales, [h, w] → [36]: Mittal et al. 2012, Section III-A."""
    h, w = plane.shape
    half = cv2.resize(plane, (w // 2, h // 2), interpolation=cv2.INTER_CUBIC)
    return np.concatenate([_scale_features(mscn(scale)[0]) for scale in (plane, half)])


def _scale_features(values: Plane) -> np.ndarray:
    shape, left, right = fit_aggd(values.reshape(1, -1))
    found = [shape, (left**2 + right**2) / 2]
    for down, across in _NEIGHBOURS:
        products = values * _shifted(values, down, across)
        shape, left, right = fit_aggd(products.reshape(1, -1))
        spread = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
        mean = (right - left) * gamma(2 / shape) / gamma(1 / shape) * spread
        found += [shape, mean, left**2, right**2]
    return np.concatenate(found)


def _shifted(values: Plane, down: int, across: int) -> Plane:
    """The value `down` rows below and `across` columns to the right, zeros beyond the border."""
    h, w = values.shape
    padded = np.pad(values, 1)
    return padded[1 + down : 1 + down + h, 1 + across : 1 + across + w]
