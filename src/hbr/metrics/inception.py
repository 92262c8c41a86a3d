"""The features under FID: Inception v3 as torch-fidelity has it, after one of two ways of resizing.

Shapes: b batch, h w pixels. Images are RGB in [0, 1].
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hbr.devices import exact_inference
from hbr.errors import one_line
from hbr.files import sha256
from hbr.metrics.base import MetricError, MetricInfo
from hbr.metrics.files import read_state
from hbr.metrics.frechet import FrechetDistance
from hbr.version import installed_version
from hbr.weights import find_weights

Resizing = Literal["tensorflow", "clean"]

_SIZE = 299


class InceptionFeatures:
    """The 2048 features of FID's Inception v3.

    The pictures are rounded to 8 bits and resized to 299×299, ignoring the aspect ratio.

    Args:
        path: the weights, `pt_inception-2015-12-05-6726825d.pth`.
        device: where it runs.
        resizing: "tensorflow": bilinear and aliased, as in TensorFlow 1 and torch-fidelity.
            "clean": `resize_clean`, the default of clean-fid and pyiqa.

    Raises:
        MetricError: torch-fidelity is not installed, or the file holds different weights.
    """

    def __init__(self, path: Path, device: str = "cpu", resizing: Resizing = "tensorflow") -> None:
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError:
            raise MetricError(
                "fid takes its features from torch-fidelity; install it with "
                "`pip install 'hbr[fid]'`"
            ) from None
        read_state(path)  # refuses files with code, which torch-fidelity would execute
        try:
            network = FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path)
            )
        except RuntimeError as error:
            reason = one_line(error, 200)
            raise MetricError(
                f"{path} does not hold the weights of FID's Inception: {reason}"
            ) from None
        self._network = network.to(device)
        self._device = device
        self._resizing = resizing
        package = f"torch-fidelity {installed_version('torch-fidelity')}"
        clean = " resized as clean-fid" if resizing == "clean" else ""
        self.id = f"{package} inception-v3-compat 2048{clean}, weights {sha256(path)[:16]}"

    def __call__(self, images: Tensor) -> Tensor:
        """RGB [b, 3, h, w] in [0, 1] → [b, 2048]."""
        levels = (images * 255).round().clamp(0, 255).to("cpu", torch.uint8)
        with exact_inference():
            if self._resizing == "tensorflow":
                (features,) = self._network(levels.to(self._device))
                return features
            # torch-fidelity takes whole levels only and resizes them itself: from here on, layers
            x = (resize_clean(levels).to(self._device) - 128) / 128
            for name, layer in self._network.named_children():
                if name == "fc":
                    break
                x = layer(x)
            return x.flatten(1)


def resize_clean(levels: Tensor) -> Tensor:
    """uint8 [b, 3, h, w] → float32 [b, 3, 299, 299] in [0, 255], not rounded.

    Each channel by Pillow's antialiased bicubic on floats, clipped; Parmar, Zhang, Zhu 2022.
    """

    def resized(plane: np.ndarray) -> np.ndarray:
        image = Image.fromarray(plane.astype(np.float32))
        return np.asarray(image.resize((_SIZE, _SIZE), Image.Resampling.BICUBIC)).clip(0, 255)

    planes = levels.flatten(0, 1).numpy()  # [b·3, h, w]
    small = np.stack([resized(plane) for plane in planes])
    return torch.from_numpy(small).unflatten(0, levels.shape[:2])


def load_fid(info: MetricInfo, device: str, weights: Path | None) -> FrechetDistance:
    """The rows `fid` and `fid-clean`, ready to collect images; see `hbr.metrics.load_metric`."""
    path = find_weights(info.weights[0], info.id, weights)
    clean = info.id == "fid-clean"
    extractor = InceptionFeatures(path, device, "clean" if clean else "tensorflow")
    peer = replace(info, version=f"{info.version} {installed_version('torch-fidelity')}")
    return FrechetDistance(peer, extractor)
