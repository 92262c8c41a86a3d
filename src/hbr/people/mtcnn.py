"""MTCNN: the faces in a photo, with five points each, by three small networks.

Zhang et al., "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks",
2016; weights, thresholds and steps of the cascade as in facenet-pytorch (MIT). P-Net looks at every
place of the photo at many sizes, R-Net and O-Net look at what the previous one accepted.

Shapes: b images or faces, n boxes, h w pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hbr.devices import exact_inference
from hbr.people.boxes import non_maximum_suppression
from hbr.people.network_files import fill, read_tensors
from hbr.people.types import N_KEYPOINTS, People

SMALLEST = 20
"""Pixels; smaller faces are not looked for."""
LONGEST = 1600
"""Pixels; larger photos are shrunk to this."""

_THRESHOLDS = (0.6, 0.7, 0.7)
_SHRINK = 0.709  # from one size of the photo to the next
_CELL, _STRIDE = 12, 2  # of P-Net
_MOST = 2000  # boxes that go from one network to the next
_BATCH = 256
# COCO's nose, left and right eye among MTCNN's points; the person's left is right in the picture
_COCO = {0: 2, 1: 1, 2: 0}


@dataclass(frozen=True)
class Faces:
    """The faces in a photo, by descending score.

    Attributes:
        boxes: float64 [n, 4], x0 y0 x1 y1 in pixels of the photo.
        scores: float64 [n] in [0, 1].
        points: float64 [n, 5, 2], x y in pixels: the eye on the left of the picture, the one on its
            right, the tip of the nose, the left and the right corner of the mouth.
    """

    boxes: np.ndarray
    scores: np.ndarray
    points: np.ndarray


class CascadeNetwork(nn.Module):
    """One network of the cascade: convolutions, one dense layer or none, and its outputs."""

    def __init__(
        self,
        widths: Sequence[int],
        kernels: Sequence[int],
        pools: Sequence[int],
        dense: tuple[int, int] | None,
        answers: Sequence[int],
    ) -> None:
        """Build it; the names of its parts are those of facenet-pytorch's files.

        Args:
            widths: channels before and after each convolution.
            kernels: of the convolutions.
            pools: kernels of the pooling after the first convolutions.
            dense: features before and after the dense layer.
            answers: sizes of the outputs: whether it is a face, its box, its points.
        """
        super().__init__()
        self._pools, self._n_convs, self._dense = pools, len(kernels), dense is not None
        for n, kernel in enumerate(kernels, start=1):
            self.add_module(f"conv{n}", nn.Conv2d(widths[n - 1], widths[n], kernel))
            self.add_module(f"prelu{n}", nn.PReLU(widths[n]))
        last = len(kernels) + 1
        if dense is not None:
            self.add_module(f"dense{last}", nn.Linear(*dense))
            self.add_module(f"prelu{last}", nn.PReLU(dense[1]))
            self._answers = [f"dense{last + 1}_{n}" for n in range(1, len(answers) + 1)]
        else:
            self._answers = [f"conv{last}_{n}" for n in range(1, len(answers) + 1)]
        for name, size in zip(self._answers, answers, strict=True):
            layer = nn.Linear(dense[1], size) if dense else nn.Conv2d(widths[-1], size, 1)
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> list[Tensor]:
        """[b, 3, h, w] in [-1, 1] → the probability of a face [b, …], then the other answers."""
        parts = dict(self.named_children())
        for n in range(1, self._n_convs + 1):
            x = parts[f"prelu{n}"](parts[f"conv{n}"](x))
            if n <= len(self._pools):
                x = F.max_pool2d(x, self._pools[n - 1], 2, ceil_mode=True)
        if self._dense:
            n = self._n_convs + 1
            x = x.permute(0, 3, 2, 1).flatten(1)  # the order in which it was trained
            x = parts[f"prelu{n}"](parts[f"dense{n}"](x))
        face, *others = (parts[name](x) for name in self._answers)
        return [face.softmax(dim=1)[:, 1], *others]


def networks() -> dict[str, CascadeNetwork]:
    """The three networks, with random weights."""
    return {
        "pnet": CascadeNetwork((3, 10, 16, 32), (3, 3, 3), (2,), None, (2, 4)),
        "rnet": CascadeNetwork((3, 28, 48, 64), (3, 3, 2), (3, 3), (576, 128), (2, 4)),
        "onet": CascadeNetwork(
            (3, 32, 64, 64, 128), (3, 3, 3, 2), (3, 3, 2), (1152, 256), (2, 4, 10)
        ),
    }


class FaceDetector:
    """Detects faces; see `types.Detector`. The boxes of `People` are those of the faces."""

    def __init__(self, path: Path, *, device: str = "cpu", threshold: float = 0.5) -> None:
        """Load the weights.

        Raises:
            DetectorError: the file is missing, damaged, or of other networks.
        """
        tensors = read_tensors(path)
        self._networks = {
            name: fill(
                network,
                {k.removeprefix(name + "."): v for k, v in tensors.items() if k.startswith(name)},
                path,
                device,
            )
            for name, network in networks().items()
        }
        self._device = device
        self._threshold = threshold

    def __call__(self, images: Sequence[np.ndarray]) -> list[People]:
        """The faces in each image, with nose and eyes as key points."""
        return [_as_people(self.faces(image)) for image in images]

    @exact_inference()
    def faces(self, image: np.ndarray) -> Faces:
        """The faces in an image, uint8 [h, w, 3] RGB of any size."""
        scale = min(1.0, LONGEST / max(image.shape[:2]))
        if scale < 1:
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        photo = torch.from_numpy(np.array(image, np.float32)).permute(2, 0, 1)[None]
        photo = (photo.to(self._device) - 127.5) / 128
        boxes = self._candidates(photo)
        for name, side, threshold in (("rnet", 24, _THRESHOLDS[1]), ("onet", 48, _THRESHOLDS[2])):
            boxes, scores, shifts, *points = self._look(name, photo, boxes, side, threshold)
            if name == "rnet":
                kept = non_maximum_suppression(boxes, scores, 0.7)[:_MOST]
                boxes = _squares(_shifted(boxes[kept], shifts[kept], 1))
        sizes = boxes[:, 2:] - boxes[:, :2] + 1
        places = points[0].reshape(-1, 2, 5).transpose(0, 2, 1)  # five x, then five y
        places = boxes[:, None, :2] - 1 + places * sizes[:, None]
        boxes = _shifted(boxes, shifts, 1)
        kept = non_maximum_suppression(boxes, scores, 0.7, within=0.7)
        kept = kept[scores[kept] > self._threshold]
        return Faces(boxes[kept] / scale, scores[kept], places[kept] / scale)

    def _candidates(self, photo: Tensor) -> np.ndarray:
        """Square boxes [n, 4] that P-Net takes for faces."""
        h, w = photo.shape[-2:]
        scale, found = _CELL / SMALLEST, []
        while min(h, w) * scale >= _CELL:
            small = F.interpolate(photo, (int(h * scale + 1), int(w * scale + 1)), mode="area")
            scores, shifts = (
                out[0].cpu().double().numpy() for out in self._networks["pnet"](small)
            )
            y, x = np.nonzero(scores >= _THRESHOLDS[0])
            corners = np.stack([x, y], axis=1) * _STRIDE + 1
            boxes = np.floor(np.concatenate([corners, corners + _CELL - 1], axis=1) / scale)
            rows = np.concatenate([boxes, shifts[:, y, x].T, scores[y, x][:, None]], axis=1)
            found.append(rows[non_maximum_suppression(boxes, rows[:, 8], 0.5)[:_MOST]])
            scale *= _SHRINK
        rows = np.concatenate([np.zeros((0, 9)), *found])
        rows = rows[non_maximum_suppression(rows[:, :4], rows[:, 8], 0.7)[:_MOST]]
        return _squares(_shifted(rows[:, :4], rows[:, 4:8], 0))

    def _look(
        self, name: str, photo: Tensor, boxes: np.ndarray, side: int, threshold: float
    ) -> list[np.ndarray]:
        """The boxes that a network takes for faces, their scores, and its other answers."""
        h, w = photo.shape[-2:]
        low = np.maximum(np.trunc(boxes[:, :2]), 1).astype(int) - 1
        high = np.minimum(np.trunc(boxes[:, 2:]), [w, h]).astype(int)
        inside = np.flatnonzero((high > low).all(axis=1))
        crops = [
            F.interpolate(photo[:, :, y0:y1, x0:x1], (side, side), mode="area")
            for (x0, y0), (x1, y1) in zip(low[inside], high[inside], strict=True)
        ]
        crops = crops or [photo.new_zeros(0, 3, side, side)]
        outs = [self._networks[name](batch) for batch in torch.cat(crops).split(_BATCH)]
        scores, *others = (torch.cat(out).cpu().double().numpy() for out in zip(*outs, strict=True))
        sure = scores > threshold
        return [boxes[inside][sure], scores[sure], *(other[sure] for other in others)]


def _shifted(boxes: np.ndarray, shifts: np.ndarray, more: int) -> np.ndarray:
    """Each edge moved by a part of the width or height (`more` pixels are added to that)."""
    sizes = boxes[:, 2:] - boxes[:, :2] + more
    return boxes + shifts * np.tile(sizes, 2)


def _squares(boxes: np.ndarray) -> np.ndarray:
    """Squares of the longer edge around the same centres."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True) / 2
    return np.concatenate([centres - half, centres + half], axis=1)


def _as_people(faces: Faces) -> People:
    keypoints = np.zeros((len(faces.boxes), N_KEYPOINTS, 3))
    for coco, point in _COCO.items():
        keypoints[:, coco, :2] = faces.points[:, point]
        keypoints[:, coco, 2] = faces.scores
    return People(faces.boxes, faces.scores, keypoints)
