"""The network of body parts, and the losses that compare the parts of two images.

In the manner of BPBReID (Somers et al. 2023): each cell of a feature map belongs to one of five
parts or to the background, by a softmax; the foreground is the maximum over the parts; the feature
of a part is the mean of the features under its posterior.

Shapes: b batch, H W pixels, h w cells, k parts (k + 1 with the background, the last), d channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import ResNetBackbone, ResNetConfig

from hbr.models.diffbody.config import N_PARTS, PartNetworkConfig
from hbr.models.hfie import IMAGENET_MEAN, IMAGENET_STD

# a part is visible where its posterior is above this somewhere, as in BPBReID
_VISIBLE = 0.4


@dataclass(frozen=True)
class Parts:
    """What the network finds in a batch of images.

    Attributes:
        posteriors: [b, k + 1, h, w], which sum to 1 over the second dimension.
        features: [b, k, d], the mean feature of each part.
    """

    posteriors: Tensor
    features: Tensor

    @property
    def visible(self) -> Tensor:
        """Which parts are in the image: bool [b, k]."""
        return self.posteriors[:, :-1].amax(dim=(2, 3)) > _VISIBLE

    def detach(self) -> Parts:
        """The same without a graph."""
        return Parts(self.posteriors.detach(), self.features.detach())


class PartNetwork(nn.Module):
    """A ResNet whose last two stages, at the size of the finer one, tell the parts of bodies."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: PartNetworkConfig) -> None:
        super().__init__()
        resnet = ResNetConfig(
            embedding_size=config.embedding_size,
            hidden_sizes=list(config.hidden_sizes),
            depths=list(config.depths),
            layer_type=config.layer_type,
            out_indices=[len(config.depths) - 1, len(config.depths)],
        )
        self.backbone = ResNetBackbone(resnet)
        self.project = nn.Conv2d(sum(config.hidden_sizes[-2:]), config.dim, 1)
        self.classify = nn.Conv2d(config.dim, N_PARTS + 1, 1)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def features(self, image: Tensor) -> Tensor:
        """Features of each cell: [b, 3, H, W] in [0, 1] → [b, d, h, w]."""
        x = ((image - self.mean.to(image)) / self.std.to(image)).to(self.project.weight.dtype)
        fine, coarse = self.backbone(x).feature_maps
        coarse = F.interpolate(coarse, fine.shape[-2:], mode="bilinear", align_corners=False)
        return self.project(torch.cat([fine, coarse], dim=1))

    def logits(self, image: Tensor) -> Tensor:
        """Logits of parts and background: [b, 3, H, W] in [0, 1] → [b, k + 1, h, w]."""
        return self.classify(F.relu(self.features(image)))

    def forward(self, image: Tensor) -> Parts:
        """Find the parts of [b, 3, H, W] in [0, 1]."""
        seen = F.relu(self.features(image))
        posteriors = self.classify(seen).softmax(dim=1)
        under = posteriors[:, :-1]
        total = under.sum(dim=(2, 3)).clamp(min=1e-6)[..., None]
        return Parts(posteriors, torch.einsum("bkhw,bdhw->bkd", under, seen) / total)


def foreground(posteriors: Tensor, size: tuple[int, int]) -> Tensor:
    """The attention map: the maximum over the parts, [b, k + 1, h, w] → [b, 1, H, W] in [0, 1]."""
    parts = posteriors[:, :-1].amax(dim=1, keepdim=True).float()
    return F.interpolate(parts, size, mode="bilinear", align_corners=False)


def part_classification(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy with soft part labels [b, k + 1, H, W], at the size of the logits: a scalar."""
    target = F.adaptive_avg_pool2d(target, (logits.shape[-2], logits.shape[-1]))
    return -(target * logits.float().log_softmax(dim=1)).sum(dim=1).mean()


def part_loss(
    found: Parts, wanted: Parts, kind: Literal["cosine", "cross-entropy", "squared"]
) -> Tensor:
    """L_part: how far the parts of a restored image are from those of I_reg.

    The paper's Eq. 6 is a cross-entropy of a difference, which is malformed as printed; it says
    what is compared (part features of D(z̃_0) and I_reg) and what is not. The parts that are visible
    in I_reg count.

    Args:
        found: of the restored image, with a graph.
        wanted: of I_reg.
        kind: "cosine" is Σ over visible parts of 1 − cosine of the features; "cross-entropy" the
            mean over the cells of the cross-entropy of the posteriors, soft, with I_reg's as the
            target; "squared" Σ over visible parts of the mean squared difference of the features.

    Returns:
        a scalar, summed over the batch.
    """
    if kind == "cross-entropy":
        entropy = -(wanted.posteriors * found.posteriors.clamp(min=1e-12).log()).sum(dim=1)
        return entropy.mean(dim=(1, 2)).sum()
    if kind == "cosine":
        each = 1 - F.cosine_similarity(found.features, wanted.features, dim=-1)
    else:
        each = (found.features - wanted.features).square().mean(dim=-1)
    return (each * wanted.visible).sum()
