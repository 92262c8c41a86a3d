"""Where the parts of people are: from boxes, keypoints or segmentation, whichever there are.

The outline of a person is its segmentation, else a rounded shape in its box. It is parted along
limbs where keypoints show enough of them, else by the proportions of somebody who stands.

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
# joints, and how far beyond the last of them the hand or foot reaches
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
# left, top, right, bottom of the box, in parts of it: head, trunk, arms, legs
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
    """The people in one image, and their parts.

    Attributes:
        outlines: bool [p, h, w], one for each person.
        parts: bool [n, h, w]; they may overlap.
        owners: for each part, the person (index of its outline) that it belongs to.
    """

    outlines: Tensor
    parts: Tensor
    owners: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check that outlines, parts and owners go together."""
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
        cls, people: Sequence[Person], size: tuple[int, int], *, longest: int | None = None
    ) -> Regions:
        """These people in an image of (h, w), to which they are scaled.

        Whoever lies outside of the image is left out.

        Args:
            people: with the size of the image that they were annotated in.
            size: of the image.
            longest: the masks are made smaller, so that their longer edge is at most this.

        Raises:
            ValueError: the annotated image is of another shape.
        """
        people = [_with_size(person, size) for person in people]
        if longest is not None and max(size) > longest:
            h, w = (max(round(edge * longest / max(size)), 1) for edge in size)
            size = (h, w)
        outlines: list[np.ndarray] = []
        parts: list[np.ndarray] = []
        owners: list[int] = []
        for person in people:
            outline, found = _parts(person, size)
            if outline.any():
                owners += [len(outlines)] * len(found)
                outlines.append(outline)
                parts += found
        return cls(_stacked(outlines, size), _stacked(parts, size), tuple(owners))


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


def _parts(person: Person, size: tuple[int, int]) -> tuple[np.ndarray, list[np.ndarray]]:
    """The outline of a person and its parts, none of them empty: bool [h, w] each."""
    width, height = person.image_size or size[::-1]
    scale = (size[1] / width, size[0] / height)
    outline = _outline_mask(person, size, scale)
    shapes = _limbs(person, size, scale) or _cells(person, size, scale)
    return outline, [part for shape in shapes if (part := shape & outline).any()]


def _outline_mask(person: Person, size: tuple[int, int], scale: Point) -> np.ndarray:
    h, w = size
    if isinstance(person.outline, Rle):
        mask = person.outline.mask().astype(np.uint8)
        return cv2.resize(mask, (w, h), interpolation=cv2.INTER_NEAREST) > 0
    if person.outline is not None:
        mask = np.zeros(size, np.uint8)
        cv2.fillPoly(mask, [_pixels(polygon, scale) for polygon in person.outline], (1,))
        return mask > 0
    left, top, wide, high = person.box
    x = ((np.arange(w) + 0.5) / scale[0] - left) / wide * 2 - 1
    y = ((np.arange(h) + 0.5) / scale[1] - top) / high * 2 - 1
    return np.abs(x[None]) ** 3 + np.abs(y[:, None]) ** 3 <= 1


def _cells(person: Person, size: tuple[int, int], scale: Point) -> list[np.ndarray]:
    """The box in proportions of somebody who stands."""
    h, w = size
    left, top, wide, high = person.box
    x = (((np.arange(w) + 0.5) / scale[0] - left) / wide)[None]
    y = (((np.arange(h) + 0.5) / scale[1] - top) / high)[:, None]
    return [(x0 <= x) & (x < x1) & (y0 <= y) & (y < y1) for x0, y0, x1, y1 in _CELLS]


def _limbs(person: Person, size: tuple[int, int], scale: Point) -> list[np.ndarray]:
    """Strokes along the bones that are annotated, a disc for the head, the trunk."""
    if person.keypoints is None:
        return []
    seen = {
        i: np.array([x * scale[0], y * scale[1]])
        for i, (x, y, visible) in enumerate(person.keypoints)
        if visible >= SEEN
    }
    half = _half_width(person, seen, scale)
    out = []
    face = [seen[i] for i in _FACE if i in seen]
    if face:
        out.append(_stroke([np.mean(face, axis=0)], 2.6 * half, size))
    if all(i in seen for i in _TRUNK):
        trunk = [seen[i] for i in _TRUNK]
        out.append(_stroke([*trunk, trunk[0]], 1.2 * half, size, filled=True))
    for joints, beyond in _LIMBS:
        if all(i in seen for i in joints):
            bones = [seen[i] for i in joints]
            tip = bones[-1] + beyond * (bones[-1] - bones[-2])
            out.append(_stroke([*bones, tip], half, size))
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
    path = _pixels([tuple(p) for p in points], (1.0, 1.0))
    thickness = min(max(round(2 * half), 1), 32767)
    if len(path) == 1:
        cv2.circle(mask, [int(v) for v in path[0]], max(round(half), 1), (1,), -1)
    else:
        cv2.polylines(mask, [path], isClosed=filled, color=(1,), thickness=thickness)
    if filled:
        cv2.fillPoly(mask, [path], (1,))
    return mask > 0


def _pixels(points: Sequence[Any], scale: Point) -> np.ndarray:
    """Whole pixel positions, int32 [n, 2], kept to what OpenCV can draw."""
    where = np.array(points, np.float64) * scale - 0.5
    return np.rint(where).clip(-16000, 16000).astype(np.int32)
