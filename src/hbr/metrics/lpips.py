"""LPIPS: perceptual distance of deep features (Zhang et al. 2018).

Shapes: b batch, c channels, h w pixels. Images are RGB in [0, 1].
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from hbr.metrics.backbones import Backbone, Net, load_exactly
from hbr.metrics.base import Metric, MetricInfo, NetworkMetric
from hbr.metrics.files import read_state
from hbr.weights import find_weights


class LPIPS(nn.Module):
    """LPIPS 0.1: eq. 1 of the paper, with its linear layers.

    Differentiable, so it can be a loss; its weights get no gradient. The linear layers are named as
    in the published files: `lin{i}.model.1.weight`.

    Args:
        net: the network of the features, "vgg" or "alex".
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.backbone = Backbone(net)
        for i, width in enumerate(self.backbone.widths):
            # the published modules have dropout before the convolution
            linear = nn.Conv2d(width, 1, 1, bias=False)
            self.add_module(f"lin{i}", nn.ModuleDict({"model": nn.ModuleDict({"1": linear})}))
        # the paper normalises images in [-1, 1]; these are the same numbers for [0, 1]
        mean = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
        self.register_buffer("mean", (mean + 1) / 2, persistent=False)
        std = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)
        self.register_buffer("std", std / 2, persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        """Two [b, 3, h, w] → [b], the mean over all positions; 0 for equal images."""
        total = image.new_zeros(len(image))
        features = (self.backbone((t - self.mean) / self.std) for t in (image, reference))
        for i, (x, y) in enumerate(zip(*features, strict=True)):
            difference = (_unit(x) - _unit(y)) ** 2  # [b, c, h', w']
            linear = cast(nn.ModuleDict, self.get_submodule(f"lin{i}.model"))["1"]
            total = total + linear(difference).mean(dim=(1, 2, 3))
        return total

    @classmethod
    def from_files(cls, net: Net, features: Path, linear: Path) -> LPIPS:
        """Read the published files.

        `net` is "vgg" or "alex"; `features` torchvision's vgg16 or alexnet; `linear` the linear
        layers of LPIPS 0.1.

        Raises:
            MetricError: a file cannot be read, or holds different weights.
        """
        model = cls(net)
        model.backbone.load(read_state(features), features)
        wanted = {k: v for k, v in model.state_dict().items() if k.startswith("lin")}
        load_exactly(read_state(linear), wanted, linear)
        return model


def load_lpips(info: MetricInfo, device: str, weights: Path | None) -> Metric:
    """The row `lpips-vgg` or `lpips-alex`, ready to run; see `hbr.metrics.load_metric`."""
    nets: dict[str, Net] = {"lpips-vgg": "vgg", "lpips-alex": "alex"}
    features, linear = info.weights
    model = LPIPS.from_files(
        nets[info.id], find_weights(features, info.id, weights), find_weights(linear, info.id)
    )
    return NetworkMetric(info, model, device)


def _unit(features: Tensor) -> Tensor:
    """Scale the vector at each position to length 1; 1e-10 is from the published code.

    The smaller constant changes no value, and keeps the gradient finite where a vector is zero.
    """
    length = (features.square().sum(dim=1, keepdim=True) + 1e-24).sqrt()
    return features / (length + 1e-10)
