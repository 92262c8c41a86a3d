"""Whether a face is still the same person's: dlib's face embedding before and after.

The network is dlib's `dlib_face_recognition_resnet_model_v1` (King 2017, CC0): a residual network
of 29 convolutions that turns an aligned face into 128 numbers, nearer to each other for one person
than for two. It errs more often for people who were rare in its training, children among them:
compare a face with itself, before and after, never people with each other.

Shapes: b faces, c channels, n faces of a photo.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hbr.devices import exact_inference
from hbr.image.alignment import aligned, similarity
from hbr.people.mtcnn import FaceDetector
from hbr.people.network_files import fill, read_tensors
from hbr.weights import entries, find_weights

EMBEDDING = "dlib-face-embedding"
SAME_FACE = 0.45
"""A face whose embedding has moved less than this is still the same; see docs/people.md."""
SMALLEST_FACE = 60
"""Pixels of the longer edge of a face; smaller faces cannot be identified."""

_SIDE = 150
# MTCNN's five points in dlib's chips, of the mean face of its landmarks: eyes, nose, mouth
_PLACES = np.array([(47.5, 46.6), (100.5, 46.6), (74.0, 76.6), (50.4, 103.0), (97.6, 103.0)])
_MEAN = (122.782, 117.001, 104.298)


@dataclass(frozen=True, kw_only=True)
class IdentityChange:
    """A face before and after.

    Attributes:
        box: x0, y0, x1, y1 in pixels of the picture before.
        distance: between the embeddings; from `SAME_FACE` on it may be another person's. None: it
            cannot be known, because the face has fewer than `SMALLEST_FACE` pixels, or is found in
            the picture after only.
    """

    box: tuple[float, float, float, float]
    distance: float | None


FaceEmbedder = Callable[[np.ndarray], np.ndarray]
"""Faces, uint8 [b, 150, 150, 3] RGB of `face_chips` → float64 [b, 128]."""
IdentityGuard = Callable[[np.ndarray, np.ndarray], list[IdentityChange]]
"""How far each face has moved from a picture before to the same one after; see `compare_faces`."""


def compare_faces(
    detector: FaceDetector, embed: FaceEmbedder, before: np.ndarray, after: np.ndarray
) -> list[IdentityChange]:
    """How far each face has moved: those of `before` by descending score, then new ones.

    Args:
        detector, embed: the networks.
        before: uint8 [h, w, 3] RGB.
        after: the same photo, of any size.
    """
    scale = np.array([after.shape[1] / before.shape[1], after.shape[0] / before.shape[0]])
    faces, others = detector.faces(before), detector.faces(after)
    large = (faces.boxes[:, 2:] - faces.boxes[:, :2]).max(axis=1, initial=0) >= SMALLEST_FACE
    one = embed(face_chips(before, faces.points[large]))
    two = embed(face_chips(after, faces.points[large] * scale))
    known = iter(np.linalg.norm(one - two, axis=1).tolist())
    changes = [
        IdentityChange(box=tuple(box), distance=next(known) if enough else None)
        for box, enough in zip(faces.boxes.tolist(), large, strict=True)
    ]
    new = _only_in(others.boxes / np.tile(scale, 2), faces.boxes)
    return changes + [IdentityChange(box=tuple(box), distance=None) for box in new.tolist()]


def face_embedder(path: Path, *, device: str = "cpu") -> FaceEmbedder:
    """Load the network that embeds aligned faces.

    Raises:
        DetectorError: the file is missing, damaged, or of another network.
    """
    tensors = read_tensors(path)
    width = len(tensors["stem.bias"]) if "stem.bias" in tensors else 32
    network = fill(FaceEmbedding(width), tensors, path, device)

    @exact_inference()
    def embed(chips: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(chips).permute(0, 3, 1, 2).float().to(device)
        return np.asarray(network(pixels).cpu().double().numpy())

    return embed


def find_identity_guard(device: str = "cpu") -> IdentityGuard | None:
    """The guard, where the weights of both networks are on this machine, else None.

    Raises:
        DetectorError, WeightsError: they are damaged.
    """
    if not all(entries()[name].installed for name in ("mtcnn", EMBEDDING)):
        return None
    detector = FaceDetector(find_weights("mtcnn"), device=device)
    return partial(compare_faces, detector, face_embedder(find_weights(EMBEDDING), device=device))


def face_chips(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Aligned faces, uint8 [n, 150, 150, 3].

    Args:
        image: uint8 [h, w, 3] RGB.
        points: [n, 5, 2] as in `mtcnn.Faces`.
    """
    chips = [aligned(image, similarity(five, _PLACES), _SIDE) for five in points]
    return np.stack(chips) if chips else np.zeros((0, _SIDE, _SIDE, 3), np.uint8)


class FaceResidual(nn.Module):
    """[b, i, h, w] → [b, o, h', w']; what is smaller or narrower is padded with zeros."""

    def __init__(self, i: int, o: int, shrinks: bool) -> None:
        super().__init__()
        self._shrinks = shrinks
        self.one = nn.Conv2d(i, o, 3, 2 if shrinks else 1, 0 if shrinks else 1)
        self.two = nn.Conv2d(o, o, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        out = cast(Tensor, self.two(self.one(x).relu()))
        if self._shrinks:
            x = F.avg_pool2d(x, 2)
        sizes = [max(pair) for pair in zip(out.shape[1:], x.shape[1:], strict=True)]
        return (_filled(out, sizes) + _filled(x, sizes)).relu()


class FaceEmbedding(nn.Module):
    """RGB [b, 3, 150, 150] in 0-255 → [b, 128]; `width` is 32 as published."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 7, 2)
        blocks = [FaceResidual(width, width, shrinks=False) for _ in range(3)]
        for i, o, n in ((1, 2, 3), (2, 4, 2), (4, 8, 2), (8, 8, 0)):
            blocks.append(FaceResidual(i * width, o * width, shrinks=True))
            blocks += [FaceResidual(o * width, o * width, shrinks=False) for _ in range(n)]
        self.blocks = nn.Sequential(*blocks)
        self.out = nn.Linear(8 * width, 128, bias=False)
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        x = (x - cast(Tensor, self.mean)) / 256
        x = F.max_pool2d(self.stem(x).relu(), 3, 2)
        return cast(Tensor, self.out(self.blocks(x).mean(dim=(2, 3))))


def _filled(x: Tensor, sizes: Sequence[int]) -> Tensor:
    c, h, w = (size - has for size, has in zip(sizes, x.shape[1:], strict=True))
    return F.pad(x, (0, w, 0, h, 0, c))


def _only_in(boxes: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The boxes whose centres lie in none of the known ones."""
    centres = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
    inside = (centres >= known[None, :, :2]) & (centres <= known[None, :, 2:])
    return boxes[~inside.all(axis=2).any(axis=1)]
