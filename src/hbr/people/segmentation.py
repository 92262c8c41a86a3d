"""Which pixels are people: MediaPipe's selfie network, or any segmentation model of transformers.

Shapes: b images, c channels, h w pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hbr.devices import exact_inference
from hbr.errors import one_line
from hbr.people.network_files import fill, read_tensors
from hbr.people.types import DetectorError
from hbr.weights import find_weights

SELFIE = "selfie-segmentation"

_SIDE = 256  # of the pictures that the selfie network takes
_AROUND, _LEAST = 1.1, 0.25  # chosen on photos of COCO, see docs/people.md

# labels of transformers' models that are not part of a person
_NOT_PERSON = frozenset({"background", "unlabeled", "void"})


PersonSegmenter = Callable[[np.ndarray], np.ndarray]
"""uint8 [h, w, 3] RGB → the share of people in each pixel: float32 [h, w] in [0, 1]."""


def load_person_segmenter(name: str | Path, *, device: str = "cpu") -> PersonSegmenter:
    """Load a segmenter.

    Args:
        name: "selfie-segmentation", made for one person who fills the picture: give it crops; or a
            folder in transformers' layout.
        device: as torch names it.

    Raises:
        DetectorError: it is missing, damaged, or no model of semantic segmentation.
        WeightsError: the selfie network is not on this machine; the message says how to get it.
    """
    if str(name) == SELFIE:
        return selfie_segmenter(find_weights(SELFIE), device=device)
    return transformers_segmenter(name, device=device)


def person_mask(
    segment: PersonSegmenter, image: np.ndarray, box: tuple[float, float, float, float]
) -> np.ndarray | None:
    """Which pixels of a box are the person's.

    The segmenter sees a square around the box, a tenth larger; what it marks outside the box is
    somebody else.

    Args:
        segment: of the square.
        image: uint8 [h, w, 3] RGB.
        box: x0 y0 x1 y1 in pixels, at least partly inside the image.

    Returns:
        float32 [h', w'] in [0, 1] of the pixels that the box touches; None where less than a
        quarter of them are marked: small or hidden people are often missed, and the box is better
        then.
    """
    low, high = np.array(box[:2]), np.array(box[2:])
    half = (high - low).max() * _AROUND / 2
    edge = [image.shape[1], image.shape[0]]
    x0, y0 = np.clip(np.floor((low + high) / 2 - half), 0, edge).astype(int)
    x1, y1 = np.clip(np.ceil((low + high) / 2 + half), 0, edge).astype(int)
    left, top = np.clip(np.floor(low), 0, edge).astype(int)
    right, bottom = np.clip(np.ceil(high), 0, edge).astype(int)
    if right <= left or bottom <= top:
        return None
    whole = segment(np.ascontiguousarray(image[y0:y1, x0:x1]))
    mask = whole[top - y0 : bottom - y0, left - x0 : right - x0]
    return mask if (mask > 0.5).mean() >= _LEAST else None


def selfie_segmenter(path: Path, *, device: str = "cpu") -> PersonSegmenter:
    """MediaPipe's selfie segmentation (Apache-2.0), which squeezes a picture into a square.

    Raises:
        DetectorError: the file is missing, damaged, or of another network.
    """
    network = fill(SelfieNetwork(), read_tensors(path), path, device)

    @exact_inference()
    def segment(image: np.ndarray) -> np.ndarray:
        h, w = image.shape[:2]
        how = cv2.INTER_AREA if max(h, w) > _SIDE else cv2.INTER_LINEAR
        square = cv2.resize(image, (_SIDE, _SIDE), interpolation=how)
        pixels = torch.from_numpy(square).permute(2, 0, 1)[None].float() / 255
        mask = network(pixels.to(device))[0, 0].cpu().numpy()
        return np.clip(cv2.resize(mask, (w, h), interpolation=cv2.INTER_LINEAR), 0, 1)

    return segment


def transformers_segmenter(folder: str | Path, *, device: str = "cpu") -> PersonSegmenter:
    """A semantic segmentation or human parsing model of transformers, as SegFormer-clothes.

    A pixel's share is the probability of all labels that are not background.

    Raises:
        DetectorError: it is missing, damaged, or no model of semantic segmentation.
    """
    from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

    load = {"local_files_only": True}
    try:
        processor: Any = AutoImageProcessor.from_pretrained(folder, **load)
        model: Any = AutoModelForSemanticSegmentation.from_pretrained(folder, **load)
    except Exception as error:  # a damaged folder can raise anything
        line = one_line(error, 200)
        raise DetectorError(f"{folder} is no segmentation model: {line}") from None
    model.eval().requires_grad_(False).to(device)
    names = {int(i): str(name).lower() for i, name in model.config.id2label.items()}
    people = [i for i, name in names.items() if "person" in name.split()]
    labels = people or [i for i, name in names.items() if name not in _NOT_PERSON]

    @exact_inference()
    def segment(image: np.ndarray) -> np.ndarray:
        given = processor(images=image, return_tensors="pt").to(device)
        logits = model(**given).logits.float()
        share = logits.softmax(dim=1)[0, labels].sum(dim=0).cpu().numpy()
        size = (image.shape[1], image.shape[0])
        return np.clip(cv2.resize(share, size, interpolation=cv2.INTER_LINEAR), 0, 1)

    return segment


class Excitation(nn.Module):
    """The weight of each channel in [0, 1], from the means of all: [b, c, h, w] → [b, c, 1, 1]."""

    def __init__(self, c: int, inner: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(c, inner, 1), nn.Conv2d(inner, c, 1)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        means = x.mean(dim=(2, 3), keepdim=True)
        return cast(Tensor, self.excite(self.squeeze(means).relu())).sigmoid()


class InvertedResidual(nn.Module):
    """A block of MobileNetV3 (Howard et al. 2019): [b, i, h, w] → [b, o, h', w']."""

    def __init__(self, i: int, wide: int, o: int, plan: BlockPlan) -> None:
        super().__init__()
        kernel, self._stride, squeeze, self._hard = plan
        self.expand = nn.Conv2d(i, wide, 1)
        self.depthwise = nn.Conv2d(wide, wide, kernel, self._stride, groups=wide)
        self.excitation = Excitation(wide, squeeze) if squeeze else None
        self.project = nn.Conv2d(wide, o, 1)
        self._adds = i == o and self._stride == 1

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        act = F.hardswish if self._hard else F.relu
        inner = act(self.expand(x))
        inner = act(_same(self.depthwise, inner))
        if self.excitation is not None:
            inner = inner * self.excitation(inner)
        out = cast(Tensor, self.project(inner))
        return out + x if self._adds else out


class Decoder(nn.Module):
    """Doubles the size, with the features of the encoder at that size."""

    def __init__(self, i: int, c: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(i, c, 1)
        self.excitation = Excitation(c, c)
        self.mix = nn.Conv2d(c, c, 1)
        self.depthwise = nn.Conv2d(c, c, 3, groups=c)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """[b, i, h, w] and [b, c, 2 h, 2 w] → [b, c, 2 h, 2 w]."""
        x = self.reduce(F.interpolate(x, scale_factor=2, mode="bilinear"))
        x = x + seen * self.excitation(x + seen)
        x = self.mix(x).relu()
        return x + _same(self.depthwise, x).relu()


BlockPlan = tuple[int, int, int, bool]
"""Kernel, stride, width of the excitation (0: none), and whether it is hard-swish or ReLU."""

_BLOCKS: tuple[tuple[int, int, int, BlockPlan], ...] = (
    (16, 16, 16, (3, 2, 8, False)),
    (16, 72, 24, (3, 2, 0, False)),
    (24, 88, 24, (3, 1, 0, False)),
    (24, 96, 32, (5, 2, 24, True)),
    (32, 128, 32, (5, 1, 32, True)),
    (32, 128, 32, (5, 1, 32, True)),
    (32, 96, 32, (5, 1, 24, True)),
    (32, 96, 32, (5, 1, 24, True)),
)


class SelfieNetwork(nn.Module):
    """RGB [b, 3, 256, 256] in [0, 1] → the share of a person [b, 1, 256, 256] in [0, 1].

    The order of its convolutions is that of the published file, but for the two of `context`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2)
        self.blocks = nn.ModuleList(InvertedResidual(*block) for block in _BLOCKS)
        self.context, self.context_weight = nn.Conv2d(32, 128, 1), nn.Conv2d(32, 128, 1)
        self.decoders = nn.ModuleList(Decoder(*c) for c in ((128, 24), (24, 16), (16, 16)))
        self.out = nn.ConvTranspose2d(16, 1, 2, 2)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        x = F.hardswish(_same(self.stem, x))
        seen = {-1: x}
        for n, block in enumerate(self.blocks):
            x = seen[n] = block(x)
        weight = self.context_weight(x.mean(dim=(2, 3), keepdim=True)).sigmoid()
        x = self.context(x).relu() * weight
        for decoder, n in zip(self.decoders, (2, 0, -1), strict=True):
            x = decoder(x, seen[n])
        return cast(Tensor, self.out(x)).sigmoid()


def _same(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A convolution of an image of even edges, padded as TensorFlow's SAME: more at the end."""
    more = conv.kernel_size[0] - conv.stride[0]
    return cast(Tensor, conv(F.pad(x, (more // 2, more - more // 2) * 2)))
