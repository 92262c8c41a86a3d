"""Metrics of the people in an image, which metrics of whole images do not measure.

All compare with a reference of the same size and take the positions of the people in it as data:
masks, boxes, key points. An image without the people that a metric needs scores NaN, never 0.

Shapes: n people, h w pixels. Pictures are RGB [b, 3, h, w] in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import cv2
import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from hbr.metrics.base import MetricError, MetricInfo, check_images
from hbr.metrics.ciede import ciede2000, lab
from hbr.metrics.planes import Plane, grey, levels

# Visibility from which a key point counts as labelled: COCO's 1 and 2, or a confidence
SEEN = 0.3

# A person of fewer pixels is not measured
_FEWEST = 64

# Deviations of annotators on COCO's key points, Ronchi and Perona 2017: nose, then pairs
_PAIRED = (0.025, 0.035, 0.079, 0.072, 0.062, 0.107, 0.087, 0.089)
_SIGMAS = np.array([0.026, *np.repeat(_PAIRED, 2)])


class PeopleLike(Protocol):
    """The people in one image."""

    @property
    def boxes(self) -> np.ndarray:
        """[n, 4], x0 y0 x1 y1 in pixels."""

    @property
    def keypoints(self) -> np.ndarray | None:
        """[n, 17, 3] or None: x, y, visibility, in COCO's order; below 0.3 is not labelled."""

    @property
    def masks(self) -> np.ndarray | None:
        """Bool [n, h, w] or None."""


PersonMeasure = Callable[..., float]
"""Two pictures [1, 3, h, w], the people in the reference, and if it needs them, in the restored."""


class PersonMetric:
    """A measure of one image and its people as a `Metric`."""

    def __init__(self, info: MetricInfo, measure: PersonMeasure) -> None:
        self.info = info
        self.measure = measure

    def __call__(
        self,
        image: Tensor,
        reference: Tensor | None = None,
        people: Sequence[PeopleLike] | None = None,
        restored_people: Sequence[PeopleLike] | None = None,
    ) -> Tensor:
        """[b, 3, h, w] twice, and the people in each reference → float64 [b], NaN without people.

        `restored_people`, those detected in the restored images, are used by
        `person-keypoints` only.

        Raises:
            MetricError: what does not fit, or is missing.
        """
        check_images(self.info, image, reference)
        assert reference is not None  # by check_images
        given = [self._checked(people, image, "people in the references")]
        if "restored keypoints" in self.info.needs:
            what = "people found in the restored pictures"
            given.append(self._checked(restored_people, image, what))
        pictures = zip(image.split(1), reference.split(1), *given, strict=True)
        scores = [self.measure(*one) for one in pictures]
        return torch.tensor(scores, dtype=torch.float64)

    def _checked(
        self, people: Sequence[PeopleLike] | None, image: Tensor, what: str
    ) -> Sequence[PeopleLike]:
        if people is None:
            raise MetricError(f"{self.info.id} needs the {what}, and none were given")
        if len(people) != len(image):
            raise MetricError(f"{self.info.id}: {len(image)} pictures but {len(people)} {what}")
        for one in people:
            if one.masks is not None and len(one.masks) and one.masks.shape[1:] != image.shape[2:]:
                h, w = one.masks.shape[1:]
                raise MetricError(
                    f"{self.info.id}: a mask is {w}x{h}, its picture "
                    f"{image.shape[3]}x{image.shape[2]}"
                )
            for need in ("masks", "keypoints"):
                if need in self.info.needs and len(one.boxes) and getattr(one, need) is None:
                    raise MetricError(f"{self.info.id} needs {need}, and the {what} have none")
        return people


def person_sharpness(image: Tensor, reference: Tensor, people: PeopleLike) -> float:
    """Octaves between the sharpness of the people and the reference; see `sharpness_ratios`."""
    return float(np.abs(np.log2(sharpness_ratios(image, reference, people)[0])))


def background_sharpness(image: Tensor, reference: Tensor, people: PeopleLike) -> float:
    """The same outside the people."""
    return float(np.abs(np.log2(sharpness_ratios(image, reference, people)[1])))


def person_keypoints(
    image: Tensor, reference: Tensor, people: PeopleLike, restored: PeopleLike
) -> float:
    """`keypoint_agreement`, which looks at the people alone."""
    return keypoint_agreement(restored, people)


def colour_error(image: Tensor, reference: Tensor, people: PeopleLike) -> float:
    """Mean ΔE (CIEDE2000) over the pixels of the people's masks; 1 is just visible.

    Both pictures, [1, 3, h, w], are first averaged by a Gaussian of σ = shorter side / 64 over
    pixels of the masks alone, so that texture, noise and blur do not count as colour, nor the
    background as skin. sRGB, D65.

    Fails where: masks are wrong at their borders (every pixel in them counts in full); fine
    patterns that lost their colour at a scale below σ; clothing weighs as much as skin, by its
    area. Hue shifts of the reference itself are not measured.
    """
    mask = _union(people, image)
    if mask.sum() < _FEWEST:
        return float("nan")
    weight = mask.astype(np.float64)
    sigma = min(mask.shape) / 64
    total = cv2.GaussianBlur(weight, (0, 0), sigma)[mask]

    def smooth(picture: Tensor) -> np.ndarray:
        # [k, 3], the pixels of the mask
        values = lab(levels(picture)[0].transpose(1, 2, 0) / 255) * weight[..., None]
        return np.asarray(cv2.GaussianBlur(values, (0, 0), sigma)[mask] / total[:, None])

    return float(np.mean(ciede2000(smooth(image), smooth(reference))))


def sharpness_ratios(image: Tensor, reference: Tensor, people: PeopleLike) -> tuple[float, float]:
    """Sharpness over the reference's, inside the people's masks and outside them.

    Above 1 is sharper than the reference, below 1 softer. Sharpness is the root mean square of the
    gradient (Sobel's, on grey levels) over pixels at least 3 away from the masks' border, so that
    outlines count for neither side. One squared level is added to both. The metrics give the
    distance from 1 in octaves, |log₂ ratio|, because twice as sharp is as wrong as half as
    sharp; this function gives the direction.

    Fails where: noise, ringing and JPEG blocks count as sharpness, wherever they lie, so a ratio of
    1 does not prove detail; a reference that is out of focus is the measure of its own blur. A side
    of fewer than 64 pixels is NaN.
    """
    mask = _union(people, image).astype(np.uint8)
    square = np.ones((7, 7), np.uint8)
    # no erosion at the border of the image
    inside = cv2.erode(mask, square).astype(bool)
    outside = ~cv2.dilate(mask, square).astype(bool)
    slopes = [_squared_slope(next(grey(picture))) for picture in (image, reference)]

    def ratio(region: Plane) -> float:
        if region.sum() < _FEWEST or not mask.any():
            return float("nan")
        energy, expected = (float(slope[region].mean()) + 1 for slope in slopes)
        return float(np.sqrt(energy / expected))

    return ratio(inside), ratio(outside)


def keypoint_agreement(restored: PeopleLike, reference: PeopleLike) -> float:
    """Mean object key point similarity of the people in the reference, in [0, 1]; 1 is the same.

    COCO's OKS over the points that are visible in the reference, with the area of the mask, or 0.53
    of the box where there are no masks; people are matched so that the sum is largest, and a person
    who is not found counts 0.

    Fails where: it measures the detector as well as the restoration, so use one detector for both
    and report its name; where the reference's points are annotations by hand, even the untouched
    reference scores below 1. People found in the restored picture alone do not count, and a pose
    can be right on a body that is not.
    """
    points = _points(reference)
    seen = [i for i in range(len(points)) if (points[i, :, 2] >= SEEN).any()]
    if not seen:
        return float("nan")
    areas = _areas(reference)
    others = _points(restored)
    scores = np.zeros((len(seen), len(others)))
    for row, i in enumerate(seen):
        visible = points[i, :, 2] >= SEEN
        squared = ((others[:, visible, :2] - points[i, visible, :2]) ** 2).sum(axis=2)
        spread = 2 * max(float(areas[i]), 1.0) * (2 * _SIGMAS[visible]) ** 2
        # a point that was not found is NaN, and counts 0
        scores[row] = np.nan_to_num(np.exp(-squared / spread)).mean(axis=1)
    matched = scores[linear_sum_assignment(scores, maximize=True)]
    return float(matched.sum() / len(seen))


def _points(people: PeopleLike) -> np.ndarray:
    if people.keypoints is None:
        return np.empty((0, 17, 3))
    return np.asarray(people.keypoints, dtype=np.float64)


def _areas(people: PeopleLike) -> np.ndarray:
    if people.masks is not None:
        return people.masks.sum(axis=(1, 2)).astype(np.float64)
    x0, y0, x1, y1 = np.asarray(people.boxes, dtype=np.float64).T
    return np.asarray(0.53 * (x1 - x0) * (y1 - y0))


def _union(people: PeopleLike, image: Tensor) -> Plane:
    if people.masks is None or not len(people.masks):
        return np.zeros(tuple(image.shape[2:]), dtype=bool)
    return np.logical_or.reduce(np.asarray(people.masks, dtype=bool), axis=0)


def _squared_slope(plane: Plane) -> Plane:
    across = cv2.Sobel(plane, -1, 1, 0, scale=1 / 8)
    down = cv2.Sobel(plane, -1, 0, 1, scale=1 / 8)
    return np.asarray(across**2 + down**2)
