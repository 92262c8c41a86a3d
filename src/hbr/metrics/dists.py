"""DISTS: similarity of structure and texture in deep features (Ding et al. 2020).

Shapes: b batch, c channels, h w pixels. Images are RGB in [0, 1].
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hbr.metrics.backbones import Backbone, load_exactly
from hbr.metrics.base import Metric, MetricInfo, NetworkMetric
from hbr.metrics.files import read_state
from hbr.weights import find_weights

# c1 = c2 of eqs. 2 and 3
_STABLE = 1e-6


class L2Pooling(nn.Module):
    """√(g ∗ x²) with stride 2: antialiased pooling; g is a 3×3 Hann window."""

    window: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        hann = torch.tensor([0.5, 1.0, 0.5])
        window = hann[:, None] * hann
        window = (window / window.sum()).repeat(channels, 1, 1, 1)
        self.register_buffer("window", window, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[b, c, h, w] → [b, c, ⌈h / 2⌉, ⌈w / 2⌉]."""
        pooled = F.conv2d(x.square(), self.window, stride=2, padding=1, groups=x.shape[1])
        return (pooled + 1e-12).sqrt()


class DISTS(nn.Module):
    """DISTS as published, at the size of the images: the shorter side is not resized to 256.

    Differentiable, so it can be a loss; its weights get no gradient. α and β, [1, 1475, 1, 1], hold
    the 3 channels of the image and those of five activations of VGG-16.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone("vgg", pool=L2Pooling)
        self.widths = [3, *self.backbone.widths]
        self.alpha = nn.Parameter(torch.full((1, sum(self.widths), 1, 1), 0.1))
        self.beta = nn.Parameter(torch.full((1, sum(self.widths), 1, 1), 0.1))
        mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        """Two [b, 3, h, w] → [b]: eq. 5; 0 for equal images."""
        total = self.alpha.sum() + self.beta.sum()
        alpha, beta = (
            (weight / total).flatten().split(self.widths) for weight in (self.alpha, self.beta)
        )
        likeness = image.new_zeros(len(image))
        stages = zip(self._stages(image), self._stages(reference), alpha, beta, strict=True)
        for x, y, a, b in stages:
            mean_x, mean_y = x.mean(dim=(2, 3)), y.mean(dim=(2, 3))  # [b, c]
            texture = (2 * mean_x * mean_y + _STABLE) / (mean_x**2 + mean_y**2 + _STABLE)
            spread_x = (x - mean_x[..., None, None]).square().mean(dim=(2, 3))
            spread_y = (y - mean_y[..., None, None]).square().mean(dim=(2, 3))
            common = (x * y).mean(dim=(2, 3)) - mean_x * mean_y
            structure = (2 * common + _STABLE) / (spread_x + spread_y + _STABLE)
            likeness = likeness + texture @ a + structure @ b
        return 1 - likeness

    def _stages(self, image: Tensor) -> list[Tensor]:
        return [image, *self.backbone((image - self.mean) / self.std)]

    @classmethod
    def from_files(cls, features: Path, weights: Path) -> DISTS:
        """Read the published files.

        `features` is torchvision's vgg16, `weights` hold α and β.

        Raises:
            MetricError: a file cannot be read, or holds different weights.
        """
        model = cls()
        model.backbone.load(read_state(features), features)
        wanted: dict[str, Tensor] = {"alpha": model.alpha, "beta": model.beta}
        load_exactly(read_state(weights), wanted, weights)
        return model


def load_dists(info: MetricInfo, device: str, weights: Path | None) -> Metric:
    """The row `dists`, ready to run; see `hbr.metrics.load_metric`."""
    features, own = info.weights
    model = DISTS.from_files(find_weights(features, info.id, weights), find_weights(own, info.id))
    return NetworkMetric(info, model, device)
