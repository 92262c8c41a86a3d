"""The people in one photo, as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hbr.errors import ExitCode, HbrError

N_KEYPOINTS = 17


class DetectorError(HbrError, ValueError):
    """A detector, or annotations of people, that cannot be used; one line says why."""

    exit_code = ExitCode.WEIGHTS
    http_status = 503


@dataclass(frozen=True)
class People:
    """The people in one photo.

    Attributes:
        boxes: float64 [n, 4], x0 y0 x1 y1 in pixels of the photo, x1 and y1 not included.
        scores: float64 [n] in [0, 1]; 1 where somebody drew the box.
        keypoints: float64 [n, 17, 3] or None: x, y in pixels and visibility, in COCO's order (nose,
            eyes, ears, shoulders, elbows, wrists, hips, knees, ankles; left before right).
            Visibility is COCO's 0 (not labelled), 1 (hidden), 2 (seen), or a detector's confidence.
        masks: bool [n, h, w] or None.
    """

    boxes: np.ndarray
    scores: np.ndarray
    keypoints: np.ndarray | None = None
    masks: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Check that everything is about the same people.

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
        """How many there are."""
        return len(self.boxes)

    @classmethod
    def none(cls) -> People:
        """Nobody."""
        return cls(np.zeros((0, 4)), np.zeros(0))
