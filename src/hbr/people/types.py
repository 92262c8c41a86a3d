"""The people in a photo as plain data: boxes, key points and masks.

`Person` is one person as annotated, `People` holds all people of a photo as arrays. Coordinates are
in pixels, x to the right, y downwards, from the top left corner of the photo.

Shapes: n people, h w pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hbr.config import check
from hbr.errors import ExitCode, HbrError

Point = tuple[float, float]
Keypoint = tuple[float, float, float]

N_KEYPOINTS = 17
"""COCO's key points: nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles."""

SEEN = 0.3
"""A key point counts as labelled from this visibility on: COCO's 1 and 2, or a confidence."""

_LARGEST = 1e9


class DetectorError(HbrError, ValueError):
    """A detector of people that cannot be used; one line says why."""

    exit_code = ExitCode.WEIGHTS
    http_status = 503


@dataclass(frozen=True)
class Rle:
    """A mask in COCO's run-length encoding: runs of 0 and 1 in turn, column by column.

    Attributes:
        size: (h, w).
        counts: lengths of the runs, which add up to h·w.
    """

    size: tuple[int, int]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        ok = min(self.counts, default=0) >= 0 and sum(self.counts) == self.size[0] * self.size[1]
        check(ok, "counts", sum(self.counts), f"runs that fill {self.size[0]}x{self.size[1]}")

    @classmethod
    def from_text(cls, size: tuple[int, int], text: str) -> Rle:
        """Decode the compressed form.

        Each number is written in groups of 5 bits, lowest first, one group a character: code point
        48 plus the group, plus 32 if more groups follow. Numbers are signed; from the fourth on
        they are differences to the run two before.

        Raises:
            ConfigError: a character that does not belong to the code, or runs of another size.
        """
        runs: list[int] = []
        value = shift = 0
        for character in text:
            bits = ord(character) - 48
            check(0 <= bits < 64, "counts", character, "a character of COCO's compressed runs")
            value |= (bits & 0x1F) << shift
            shift += 5
            if bits & 0x20:
                continue
            if bits & 0x10:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
        return cls(size, tuple(runs))

    @classmethod
    def of_mask(cls, mask: np.ndarray) -> Rle:
        """Encode bool [h, w]."""
        column_wise = mask.T.reshape(-1).astype(np.int8)
        edges = np.flatnonzero(np.diff(column_wise, prepend=np.int8(0)))
        runs = np.diff([0, *edges.tolist(), mask.size])
        return cls((mask.shape[0], mask.shape[1]), tuple(runs.tolist()))

    def mask(self) -> np.ndarray:
        """Bool [h, w]."""
        values = np.arange(len(self.counts)) % 2 == 1
        return np.repeat(values, self.counts).reshape(self.size, order="F")


@dataclass(frozen=True)
class Person:
    """An annotated person; what is not known is None.

    Attributes:
        image_size: (w, h) of the image that the coordinates belong to.
        box: x, y, width, height.
        keypoints: 17 in COCO's order: x, y, and visibility (0 not labelled, 1 hidden, 2 visible).
        outline: polygons, each of three points or more, or a mask.
    """

    image_size: tuple[int, int] | None
    box: tuple[float, float, float, float]
    keypoints: tuple[Keypoint, ...] | None = None
    outline: tuple[tuple[Point, ...], ...] | Rle | None = None

    def __post_init__(self) -> None:
        if self.image_size is not None:
            check(min(self.image_size) >= 1, "image_size", self.image_size, "1 pixel or more")
        numbers = [*self.box, *(v for p in self.keypoints or () for v in p)]
        check(bool(np.isfinite(numbers).all()), "box", self.box, "finite, key points too")
        check(min(self.box[2:]) > 0, "box", self.box, "of some width and height")
        if self.keypoints is not None:
            n = len(self.keypoints)
            check(n == N_KEYPOINTS, "keypoints", n, f"{N_KEYPOINTS} key points, as in COCO")

    def mask(self) -> np.ndarray | None:
        """The outline as bool [h, w] of the annotated image; None if either is not known."""
        if self.outline is None or self.image_size is None:
            return None
        if isinstance(self.outline, Rle):
            return self.outline.mask()
        width, height = self.image_size
        mask = np.zeros((height, width), bool)
        for polygon in self.outline:
            mask |= fill(np.array(polygon), height, width)
        return mask


def fill(polygon: np.ndarray, height: int, width: int) -> np.ndarray:
    """The pixels whose centre lies inside a polygon (even-odd rule).

    `polygon` is [n, 2], x y in pixels; its last point is joined with the first.

    Returns:
        bool [height, width].

    Raises:
        ValueError: a coordinate is not finite, or larger than any image.
    """
    if not (np.abs(polygon) < _LARGEST).all():
        raise ValueError("a coordinate of a polygon is not finite or is larger than any image")
    # each edge toggles, in the rows that it crosses, all pixels to the right of it
    toggles = np.zeros((height, width + 1), np.int64)
    centres = np.arange(height) + 0.5
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        rows = np.flatnonzero((y0 <= centres) != (y1 <= centres))
        if rows.size:
            x = x0 + (centres[rows] - y0) * (x1 - x0) / (y1 - y0)
            toggles[rows, np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)] += 1
    return np.cumsum(toggles[:, :width], axis=1) % 2 == 1


@dataclass(frozen=True)
class People:
    """The people in one photo.

    Attributes:
        boxes: float64 [n, 4], x0 y0 x1 y1 in pixels of the photo, x1 and y1 not included.
        scores: float64 [n] in [0, 1]; 1 for annotated boxes.
        keypoints: float64 [n, 17, 3] or None: x, y in pixels and visibility, in COCO's order.
            Visibility is COCO's 0 (not labelled), 1 (hidden), 2 (visible), or a confidence.
        masks: bool [n, h, w] or None.
    """

    boxes: np.ndarray
    scores: np.ndarray
    keypoints: np.ndarray | None = None
    masks: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Check that all arrays have the same number of people.

        Raises:
            ValueError: a shape does not fit.
        """
        n = len(self.boxes)
        masks = np.zeros((n, 0, 0)) if self.masks is None else self.masks
        shapes = {
            "boxes": (self.boxes, (n, 4)),
            "scores": (self.scores, (n,)),
            "keypoints": (self.keypoints, (n, N_KEYPOINTS, 3)),
            "masks": (self.masks, (n, *masks.shape[1:])),
        }
        for name, (array, shape) in shapes.items():
            if array is not None and np.shape(array) != shape:
                raise ValueError(f"{name} is {np.shape(array)}; it must be {shape}")

    def __len__(self) -> int:
        return len(self.boxes)

    @classmethod
    def none(cls) -> People:
        """An empty photo."""
        return cls(np.zeros((0, 4)), np.zeros(0))

    @classmethod
    def of(cls, people: Sequence[Person]) -> People:
        """Annotated people as arrays.

        Key points of a person without them are 0; there are masks only if everyone has an outline.
        """
        if not people:
            return cls.none()
        boxes = np.array([person.box for person in people], np.float64)
        boxes[:, 2:] += boxes[:, :2]
        keypoints = None
        if any(person.keypoints for person in people):
            unknown = ((0.0, 0.0, 0.0),) * N_KEYPOINTS
            keypoints = np.array([person.keypoints or unknown for person in people], np.float64)
        masks = [mask for person in people if (mask := person.mask()) is not None]
        stacked = np.stack(masks) if len(masks) == len(people) else None
        return cls(boxes, np.ones(len(people)), keypoints, stacked)

    def without_border(self, border: int, size: tuple[int, int]) -> People:
        """The people in the photo of (h, w) after `border` pixels are cut off each edge.

        Boxes are clipped; those of nobody who is left stay, without area.
        """
        if not border:
            return self
        h, w = (edge - 2 * border for edge in size)
        boxes = np.clip(self.boxes - border, 0, [w, h, w, h])
        keypoints, masks = self.keypoints, self.masks
        if keypoints is not None:
            keypoints = keypoints.copy()
            seen = keypoints[..., 2] > 0
            keypoints[seen, :2] -= border
        if masks is not None:
            masks = masks[:, border : border + h, border : border + w]
        return People(boxes, self.scores, keypoints, masks)


Detector = Callable[[Sequence[np.ndarray]], list[People]]
"""Images, uint8 [h, w, 3] RGB → the people in each, in its pixels.

Those of `hbr.people.load_detector` come by descending score.
"""
