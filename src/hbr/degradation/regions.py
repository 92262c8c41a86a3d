"""Regions of people and their parts, from boxes, key points or outlines, whichever are available.

The outline of a person is its segmentation, else a rounded shape in its box. It is divided along
the limbs if there are enough key points, else by the proportions of a standing person.

Shapes: n parts, h w pixels. Coordinates are in pixels, y downwards, (0, 0) the corner of the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from hbr.people.types import SEEN, Person, Point, Rle

# COCO: 0–4 face, 5 6 shoulders, 7 8 elbows, 9 10 wrists, 11 12 hips, 13 14 knees, 15 16 ankles
_FACE = range(5)
_TRUNK = (5, 6, 12, 11)
# joints, and the length of the hand or foot relative to the last bone
_LIMBS = (
    ((5, 7, 9), 0.4),
    ((6, 8, 10), 0.4),
    ((7, 9), 0.4),
    ((8, 10), 0.4),
    ((11, 13, 15), 0.15),
    ((12, 14, 16), 0.15),
    ((13, 15), 0.15),
    ((14, 16), 0.15),
)
# left, top, right, bottom relative to the box: head, trunk, arms, legs
_CELLS = (
    (0.0, 0.0, 1.0, 0.16),
    (0.25, 0.16, 0.75, 0.55),
    (0.0, 0.16, 0.25, 0.62),
    (0.75, 0.16, 1.0, 0.62),
    (0.0, 0.55, 0.5, 1.0),
    (0.5, 0.55, 1.0, 1.0),
)


@dataclass(frozen=True, eq=False)
class Regions:
    """The people in an image, and their parts.

    Attributes:
        outlines: bool [p, h, w], one for each person.
        parts: bool [n, h, w]; they may overlap.
        owners: for each part, the person (index of its outline) that it belongs to.
    """

    outlines: Tensor
    parts: Tensor
    owners: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check that outlines, parts and owners are consistent."""
        people, parts = self.outlines.shape, self.parts.shape
        fits = len(people) == len(parts) == 3 and people[1:] == parts[1:]
        if not fits or parts[0] != len(self.owners):
            raise ValueError(
                f"outlines are {list(people)}, parts {list(parts)} of {len(self.owners)} owners; "
                "they must be [p, h, w] and [n, h, w] of n owners"
            )
        if not all(0 <= owner < people[0] for owner in self.owners):
            raise ValueError(f"owners are {self.owners}; they must be below {people[0]}")

    @classmethod
    def of(
        cls,
        people: Sequence[Person],
        size: tuple[int, int],
        *,
        longest: int | None = None,
        window: tuple[int, int, int, int] | None = None,
    ) -> Regions:
        """These people in an image of (h, w), to which they are scaled.

        People outside the image, or outside the window, are left out.

        Args:
            people: with the size of the image that they were annotated in.
            size: of the image.
            longest: masks are downscaled so that their longer edge is at most this.
            window: (y, x, h, w) of the part of the image that the masks show; excludes `longest`.

        Raises:
            ValueError: the annotated image is of another shape.
        """
        people = [_with_size(person, size) for person in people]
        if longest is not None and max(size) > longest:
            h, w = (max(round(edge * longest / max(size)), 1) for edge in size)
            size = (h, w)
        y, x, h, w = window or (0, 0, *size)
        outlines: list[np.ndarray] = []
        parts: list[np.ndarray] = []
        owners: list[int] = []
        for person in people:
            width, height = person.image_size or size[::-1]
            frame = _Frame((size[1] / width, size[0] / height), (x, y), (h, w))
            outline, found = _parts(person, frame)
            if outline.any():
                owners += [len(outlines)] * len(found)
                outlines.append(outline)
                parts += found
        return cls(_stacked(outlines, (h, w)), _stacked(parts, (h, w)), tuple(owners))

    def mirrored(self) -> Regions:
        """The regions of the image mirrored left to right."""
        return Regions(self.outlines.flip(-1), self.parts.flip(-1), self.owners)


@dataclass(frozen=True)
class _Frame:
    """Where masks lie: mask = annotated image × scale − corner, (x, y); masks are [h, w]."""

    scale: Point
    corner: tuple[int, int]
    size: tuple[int, int]

    def axes(self) -> tuple[np.ndarray, np.ndarray]:
        """The pixel centres of a mask in the annotated image: x [w] and y [h]."""
        h, w = self.size
        x = (np.arange(w) + 0.5 + self.corner[0]) / self.scale[0]
        return x, (np.arange(h) + 0.5 + self.corner[1]) / self.scale[1]

    def pixels(self, points: Sequence[Any]) -> np.ndarray:
        """Points of the annotated image as whole pixels, int32 [n, 2], in OpenCV's range."""
        return _whole(np.array(points, np.float64) * self.scale - self.corner)


def _stacked(masks: list[np.ndarray], size: tuple[int, int]) -> Tensor:
    return torch.from_numpy(np.stack(masks) if masks else np.zeros((0, *size), bool))


def _with_size(person: Person, size: tuple[int, int]) -> Person:
    """A person whose image size is known, and fits an image of (h, w).

    A resized copy has the same shape, up to a pixel; a turned or cropped one has not.
    """
    h, w = size
    width, height = person.image_size or (w, h)
    if abs(width * h - height * w) > max(width, height, w, h):
        raise ValueError(
            f"its people are annotated for {width}x{height}, but it is {w}x{h}; "
            "take the photo that was annotated"
        )
    return replace(person, image_size=(width, height))


def _parts(person: Person, frame: _Frame) -> tuple[np.ndarray, list[np.ndarray]]:
    """The outline of a person and its parts, none of them empty: bool [h, w] each."""
    outline = _outline_mask(person, frame)
    shapes = _limbs(person, frame) or _cells(person, frame)
    return outline, [part for shape in shapes if (part := shape & outline).any()]


def _outline_mask(person: Person, frame: _Frame) -> np.ndarray:
    if isinstance(person.outline, Rle):
        mask = person.outline.mask().astype(np.uint8)
        assert person.image_size is not None  # Regions.of has filled it in
        full = [round(n * s) for n, s in zip(person.image_size, frame.scale, strict=True)]
        (left, top), (h, w) = frame.corner, frame.size
        mask = cv2.resize(mask, full, interpolation=cv2.INTER_NEAREST)
        return mask[top : top + h, left : left + w] > 0
    if person.outline is not None:
        mask = np.zeros(frame.size, np.uint8)
        cv2.fillPoly(mask, [frame.pixels(polygon) for polygon in person.outline], (1,))
        return mask > 0
    x0, y0, wide, high = person.box
    x, y = frame.axes()
    x, y = (x - x0) / wide * 2 - 1, (y - y0) / high * 2 - 1
    return np.abs(x[None]) ** 3 + np.abs(y[:, None]) ** 3 <= 1


def _cells(person: Person, frame: _Frame) -> list[np.ndarray]:
    """The box, divided by the proportions of a standing person."""
    left, top, wide, high = person.box
    x, y = frame.axes()
    x, y = ((x - left) / wide)[None], ((y - top) / high)[:, None]
    return [(x0 <= x) & (x < x1) & (y0 <= y) & (y < y1) for x0, y0, x1, y1 in _CELLS]


def _limbs(person: Person, frame: _Frame) -> list[np.ndarray]:
    """Strokes along the annotated bones, a disc for the head, and the trunk."""
    if person.keypoints is None:
        return []
    seen = {
        i: np.array([x, y]) * frame.scale - frame.corner
        for i, (x, y, visible) in enumerate(person.keypoints)
        if visible >= SEEN
    }
    half = _half_width(person, seen, frame.scale)
    out = []
    face = [seen[i] for i in _FACE if i in seen]
    if face:
        out.append(_stroke([np.mean(face, axis=0)], 2.6 * half, frame.size))
    if all(i in seen for i in _TRUNK):
        trunk = [seen[i] for i in _TRUNK]
        out.append(_stroke([*trunk, trunk[0]], 1.2 * half, frame.size, filled=True))
    for joints, beyond in _LIMBS:
        if all(i in seen for i in joints):
            bones = [seen[i] for i in joints]
            tip = bones[-1] + beyond * (bones[-1] - bones[-2])
            out.append(_stroke([*bones, tip], half, frame.size))
    return out


def _half_width(person: Person, seen: Mapping[int, np.ndarray], scale: Point) -> float:
    """Half of the width of a limb, in pixels."""
    if all(i in seen for i in _TRUNK):
        trunk = (seen[5] + seen[6] - seen[11] - seen[12]) / 2
        across = seen[5] - seen[6]
        return max(0.2 * float(max(np.hypot(*trunk), np.hypot(*across))), 1.0)
    return max(0.06 * max(person.box[2] * scale[0], person.box[3] * scale[1]), 1.0)


def _stroke(
    points: Sequence[np.ndarray], half: float, size: tuple[int, int], *, filled: bool = False
) -> np.ndarray:
    mask = np.zeros(size, np.uint8)
    path = _whole(np.array(points))
    thickness = min(max(round(2 * half), 1), 32767)
    if len(path) == 1:
        cv2.circle(mask, [int(v) for v in path[0]], max(round(half), 1), (1,), -1)
    else:
        cv2.polylines(mask, [path], isClosed=filled, color=(1,), thickness=thickness)
    if filled:
        cv2.fillPoly(mask, [path], (1,))
    return mask > 0


def _whole(points: np.ndarray) -> np.ndarray:
    """Coordinates [n, 2] as the pixels that they lie in, int32, in OpenCV's range."""
    return np.rint(points - 0.5).clip(-16000, 16000).astype(np.int32)
