"""Filtering the boxes of detectors.

Shapes: n boxes, x0 y0 x1 y1 in pixels.
"""

from __future__ import annotations

import logging

import numpy as np

from hbr.people.types import People

log = logging.getLogger(__name__)

MAX_PEOPLE = 1000
"""Boxes that are kept in one photo at most: those with the highest scores."""


def to_corners(boxes: np.ndarray) -> np.ndarray:
    """[n, 4] from centre and size to x0 y0 x1 y1."""
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def non_maximum_suppression(
    boxes: np.ndarray, scores: np.ndarray, iou: float, *, within: float = 1.0
) -> np.ndarray:
    """Non-maximum suppression: boxes that overlap no box of a higher score.

    Args:
        boxes: [n, 4].
        scores: [n].
        iou: two boxes overlap when they share more than this part of their union; or
        within: more than this part of the smaller one.

    Returns:
        their indices, by descending score.
    """
    order = np.argsort(-scores, kind="stable")
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    kept = []
    while order.size:
        first, order = order[0], order[1:]
        kept.append(first)
        low = np.maximum(boxes[first, :2], boxes[order, :2])
        high = np.minimum(boxes[first, 2:], boxes[order, 2:])
        shared = np.prod(np.clip(high - low, 0, None), axis=1)
        union = areas[first] + areas[order] - shared
        smaller = np.minimum(areas[first], areas[order])
        order = order[(shared <= iou * union) & (shared <= within * smaller)]
    return np.array(kept, np.int64)


def plausible(people: People, size: tuple[int, int]) -> People:
    """The people that can be in a photo of (h, w), by descending score.

    Boxes are clipped to the photo; those that are not finite or have no area are left out, and all
    but `MAX_PEOPLE`, with a warning.
    """
    height, width = size
    boxes = np.clip(people.boxes, 0, [width, height, width, height])
    finite = np.isfinite(people.boxes).all(axis=1) & np.isfinite(people.scores)
    order = np.argsort(-people.scores, kind="stable")
    order = order[(finite & (boxes[:, 2:] > boxes[:, :2]).all(axis=1))[order]]
    if n_odd := int((~finite).sum()):
        log.warning("boxes of the detector are not finite, and left out: %d", n_odd)
    if len(order) > MAX_PEOPLE:
        log.warning(
            "the detector gives %d boxes in one photo; the best %d are kept", len(order), MAX_PEOPLE
        )
        order = order[:MAX_PEOPLE]
    keypoints = None if people.keypoints is None else people.keypoints[order]
    masks = None if people.masks is None else people.masks[order]
    return People(boxes[order], people.scores[order], keypoints, masks)
