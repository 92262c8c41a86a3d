"""NanoDet-g: the people in a photo, by a network of 3.8 million weights.

The network and what is done before and after it are those of RangiLyu/nanodet (Apache-2.0): a
convolutional backbone of cross-stage partial blocks (CSPNet), a path aggregation network whose
levels are added, and for each level a head that says class and box. Each side of a box is a
distribution over distances (Generalized Focal Loss, Li et al. 2020, Eq. 3-5).

Small people are missed where a photo is shrunk to the 416 pixels that the network is trained for,
so it is looked at again at larger sizes. The network has convolutions only: this finds what
tiles would find, without their edges through people.

Shapes: b images, c channels, h w pixels, n boxes, k distances.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from hbr.devices import exact_inference
from hbr.people.boxes import non_maximum_suppression
from hbr.people.network_files import fill, read_tensors
from hbr.people.types import Detector, People

LOOKS = ((416, math.inf), (640, 0.7), (1280, 0.3))
"""Of each look: the longer edge of the network's input, and the largest box that counts, as a part
of the photo's longer edge.

Each finds smaller people than the one before, and takes parts of large people for people. The last
is left out where the photo has no more pixels than the one before shows.
"""

NMS_IOU, NMS_WITHIN = 0.6, 0.85

N_CLASSES, N_DISTANCES = 80, 11
STRIDES = (8, 16, 32)
PERSON = 0
# of BGR pixels in 0-255
_MEAN, _STD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)


def _conv(i: int, o: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(i, o, kernel, stride, kernel // 2)


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.1)


class Residual(nn.Module):
    """[b, c, h, w] → the same shape: two convolutions of half the width, one after the other."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.one, self.two = _conv(c, c // 2), _conv(c // 2, c // 2)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        half = _leaky(self.one(x))
        return torch.cat([_leaky(self.two(half)), half], dim=1)


class CspBlock(nn.Module):
    """[b, i, h, w] → [b, 2 c, h / stride, w / stride]; half of the channels bypass the blocks."""

    def __init__(self, i: int, c: int, n_residual: int, stride: int) -> None:
        super().__init__()
        self.first = _conv(i, c, stride=stride)
        self.residuals = nn.Sequential(*(Residual(c) for _ in range(n_residual)))
        self.last = _conv(c, c)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        by = _leaky(self.first(x))
        return torch.cat([_leaky(self.last(self.residuals(by))), by], dim=1)


class Head(nn.Module):
    """[b, c, h, w] → [b, classes and distances, h, w]."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.inner, self.out = _conv(c, c), _conv(c, N_CLASSES + 4 * N_DISTANCES, kernel=1)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return cast(Tensor, self.out(_leaky(self.inner(x))))


class NanoDet(nn.Module):
    """The network; `width` is 32 as published.

    The names of its weights, in this order, are those that the conversion gives.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        c = width
        self.stem = _conv(3, c, stride=2)
        self.blocks = nn.ModuleList(
            CspBlock(i * c, o * c, n, stride)
            for i, o, n, stride in ((1, 1, 1, 1), (2, 2, 2, 2), (4, 4, 2, 2), (8, 8, 3, 2))
        )
        self.lateral = nn.ModuleList(_conv(i * c, 4 * c, kernel=1) for i in (4, 8, 16))
        self.heads = nn.ModuleList(Head(4 * c) for _ in STRIDES)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Normalised BGR [b, 3, h, w], h and w multiples of 32 → [b, 124, h/s, w/s] for each s.

        The first 80 channels are the logits of COCO's classes, the others those of the distances
        to the left, top, right and bottom of the box, each 0 to 10 strides.
        """
        x = F.max_pool2d(_leaky(self.stem(x)), 3, 2, 1)
        levels = []
        for block in self.blocks:
            x = block(x)
            levels.append(x)
        levels = [conv(level) for conv, level in zip(self.lateral, levels[1:], strict=True)]
        for small, large in ((2, 1), (1, 0), (0, 1), (1, 2)):  # down the pyramid, and up
            size = levels[large].shape[-2:]
            levels[large] = levels[large] + F.interpolate(levels[small], size, mode="bilinear")
        return [head(level) for head, level in zip(self.heads, levels, strict=True)]


def nanodet_detector(path: Path, *, device: str = "cpu", threshold: float = 0.5) -> Detector:
    """NanoDet on photos at several sizes, one photo at a time, because their shapes differ.

    Raises:
        DetectorError: the file is missing, damaged, or of another network.
    """
    tensors = read_tensors(path)
    width = len(tensors["stem.bias"]) if "stem.bias" in tensors else 32
    network = fill(NanoDet(width), tensors, path, device)
    return lambda images: [_people_in(image, network, device, threshold) for image in images]


def _people_in(image: np.ndarray, network: NanoDet, device: str, threshold: float) -> People:
    height, width = image.shape[:2]
    parts = []
    n_looks = len(LOOKS) if max(height, width) >= LOOKS[-1][0] else len(LOOKS) - 1
    for size, largest in LOOKS[:n_looks]:
        boxes, scores = _look(image, size, network, device)
        sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
        sure = (scores > threshold) & (sides < largest * max(height, width))
        parts.append((boxes[sure], scores[sure]))
    boxes, scores = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    boxes = np.clip(boxes, 0, [width, height, width, height])
    kept = non_maximum_suppression(boxes, scores, NMS_IOU, within=NMS_WITHIN)
    return People(boxes[kept], scores[kept].astype(np.float64))


@exact_inference()
def _look(
    image: np.ndarray, size: int, network: NanoDet, device: str
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes in pixels of the image, and scores, with its longer edge shrunk to `size`."""
    h, w = image.shape[:2]
    new_h, new_w = (max(1, round(edge * size / max(h, w))) for edge in (h, w))
    how = cv2.INTER_AREA if max(h, w) > size else cv2.INTER_LINEAR
    bgr = cv2.resize(image, (new_w, new_h), interpolation=how)[..., ::-1]
    # padded with what the network takes for grey
    canvas = np.zeros((_whole(new_h), _whole(new_w), 3), np.float32)
    canvas[:new_h, :new_w] = (bgr - np.array(_MEAN)) / np.array(_STD)
    pixels = torch.from_numpy(canvas).permute(2, 0, 1)[None].contiguous()
    boxes, scores = decode(network(pixels.to(device)))
    return boxes * (w / new_w, h / new_h, w / new_w, h / new_h), scores


def decode(levels: Sequence[Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and scores of people from the outputs of the network for one image.

    Args:
        levels: [1, 124, h, w] for each of `STRIDES`.

    Returns:
        boxes [n, 4], x0 y0 x1 y1 in pixels of the input; the probability of a person [n].
    """
    boxes, scores = [], []
    steps = torch.arange(N_DISTANCES, dtype=torch.float32)
    for level, stride in zip(levels, STRIDES, strict=True):
        out = level[0].float().cpu()
        scores.append(out[PERSON].sigmoid().flatten())
        shares = rearrange(out[N_CLASSES:], "(s k) h w -> s (h w) k", s=4).softmax(dim=2)
        left, top, right, bottom = shares @ steps * stride
        centres = [(torch.arange(edge) + 0.5) * stride for edge in out.shape[1:]]
        y, x = (v.flatten() for v in torch.meshgrid(*centres, indexing="ij"))
        boxes.append(torch.stack([x - left, y - top, x + right, y + bottom], dim=1))
    return torch.cat(boxes).numpy().astype(np.float64), torch.cat(scores).numpy()


def _whole(edge: int) -> int:
    return -(-edge // STRIDES[-1]) * STRIDES[-1]
