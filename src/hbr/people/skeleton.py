"""Poses drawn as pictures: bodies with OpenPose's 18 points, hands and faces, on black.

The layout of points and limbs and the idea of one colour for each limb are OpenPose's (Cao et al.
2017), which control networks are trained on; the drawing is our own.

Coordinates are pixels, x to the right, y downwards. Shapes: n people, h w pixels.
"""

from __future__ import annotations

import colorsys
from itertools import pairwise

import cv2
import numpy as np

from hbr.people.types import N_KEYPOINTS, SEEN

N_WHOLE_BODY = 133
"""COCO-WholeBody: 17 body points, 6 of the feet, 68 of the face, 21 of each hand."""

OPENPOSE_18 = (0, -1, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
"""Which of COCO's points each of OpenPose's 18 is; -1 is the neck, the middle of the shoulders."""

_NECK = 1
_SHOULDERS = (5, 6)

LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10),
    (1, 11), (11, 12), (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
"""Pairs of the 18 points that are joined."""

_FACE = slice(23, 91)
_HANDS = (slice(91, 112), slice(112, 133))
# the wrist, then four points of each finger
_FINGERS = tuple((0, *range(1 + 4 * i, 5 + 4 * i)) for i in range(5))
# fixed-point coordinates of OpenCV: 1/16 of a pixel
_SHIFT = 4


def openpose_points(keypoints: np.ndarray) -> np.ndarray:
    """The 18 points of OpenPose from COCO's 17.

    Args:
        keypoints: [n, 17 or more, 3], x y visibility; the first 17 are COCO's.

    Returns:
        [n, 18, 3]; the neck is the middle of the shoulders, as visible as the less visible one.
    """
    points = keypoints[:, list(OPENPOSE_18)]
    left, right = (keypoints[:, i] for i in _SHOULDERS)
    points[:, _NECK] = (left + right) / 2
    points[:, _NECK, 2] = np.minimum(left[:, 2], right[:, 2])
    return points


def draw_poses(keypoints: np.ndarray, height: int, width: int) -> np.ndarray:
    """Draw people as skeletons on black.

    Args:
        keypoints: [n, 17, 3] (COCO) or [n, 133, 3] (COCO-WholeBody): x, y, and visibility; points
            less visible than `SEEN` or not finite are left out. No people give a black picture.
        height, width: of the picture; points may lie outside it.

    Returns:
        uint8 [height, width, 3] RGB.

    Raises:
        ValueError: another number of points.
    """
    if keypoints.ndim != 3 or keypoints.shape[1:] not in ((N_KEYPOINTS, 3), (N_WHOLE_BODY, 3)):
        raise ValueError(
            f"key points are {keypoints.shape}; they must be (n, {N_KEYPOINTS}, 3) or "
            f"(n, {N_WHOLE_BODY}, 3)"
        )
    canvas = np.zeros((height, width, 3), np.uint8)
    # the strokes of 512 pixels, which control networks know, at any size
    stroke = max(1.0, min(height, width) / 128)
    for person, body in zip(keypoints, openpose_points(keypoints), strict=True):
        _draw_body(canvas, body, stroke)
        if len(person) == N_WHOLE_BODY:
            for hand in _HANDS:
                _draw_hand(canvas, person[hand], stroke)
            for point in person[_FACE]:
                _dot(canvas, point, (255, 255, 255), stroke * 0.6)
    return canvas


def _draw_body(canvas: np.ndarray, points: np.ndarray, stroke: float) -> None:
    limbs = canvas.copy()
    for i, (start, end) in enumerate(LIMBS):
        _line(limbs, points[start], points[end], _colour(i, len(LIMBS)), stroke)
    # limbs are darker than the points on them
    np.maximum(canvas, (limbs * 0.6).astype(np.uint8), out=canvas)
    for i, point in enumerate(points):
        _dot(canvas, point, _colour(i, len(points)), stroke)


def _draw_hand(canvas: np.ndarray, points: np.ndarray, stroke: float) -> None:
    for i, finger in enumerate(_FINGERS):
        for start, end in pairwise(finger):
            _line(canvas, points[start], points[end], _colour(i, len(_FINGERS)), stroke * 0.5)
    for point in points:
        _dot(canvas, point, (0, 0, 255), stroke * 0.7)


def _line(
    canvas: np.ndarray,
    start: np.ndarray,
    end: np.ndarray,
    colour: tuple[int, int, int],
    stroke: float,
) -> None:
    if not (_is_seen(start) and _is_seen(end)):
        return
    thickness = max(1, round(2 * stroke))
    cv2.line(canvas, _fixed(start), _fixed(end), colour, thickness, cv2.LINE_AA, _SHIFT)


def _dot(
    canvas: np.ndarray, point: np.ndarray, colour: tuple[int, int, int], radius: float
) -> None:
    if _is_seen(point):
        size = max(1, round(radius * 2**_SHIFT))
        cv2.circle(canvas, _fixed(point), size, colour, -1, cv2.LINE_AA, _SHIFT)


def _is_seen(point: np.ndarray) -> bool:
    # what lies far outside does not fit OpenCV's integers
    return bool(np.isfinite(point).all() and point[2] >= SEEN and np.abs(point[:2]).max() < 1e5)


def _fixed(point: np.ndarray) -> tuple[int, int]:
    x, y = (round(float(v) * 2**_SHIFT) for v in point[:2])
    return x, y


def _colour(i: int, n: int) -> tuple[int, int, int]:
    """The i-th of n hues around the circle."""
    r, g, b = (round(255 * v) for v in colorsys.hsv_to_rgb(i / n, 1, 1))
    return r, g, b
