"""Key points of detected people: RTMPose and DWPose in ONNX files (extra `rtmlib`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hbr.people.onnx_files import open_session
from hbr.people.skeleton import N_WHOLE_BODY
from hbr.people.types import N_KEYPOINTS, DetectorError, People


class RtmPose:
    """A pose estimator from boxes to key points.

    Files for 17 (COCO), 26 (Halpe) and 133 (COCO-WholeBody: DWPose, RTMW) points all begin with
    COCO's 17, and those are taken.
    """

    def __init__(self, path: str | Path, *, device: str = "cpu") -> None:
        """Open a file with the outputs `simcc_x` and `simcc_y`.

        Raises:
            DetectorError: an extra or the file is missing, or it is another kind of model.
        """
        try:
            from rtmlib import RTMPose
        except ImportError:
            raise DetectorError(
                f"{path} needs the extra `rtmlib`: pip install 'hbr[rtmlib]' brings it"
            ) from None
        session = open_session(Path(path), device)
        shape = session.get_inputs()[0].shape
        outputs = [output.shape for output in session.get_outputs()]
        if len(outputs) != 2 or not all(isinstance(n, int) for n in shape[2:]):
            raise DetectorError(
                f"{path} is not an RTMPose model: its input is {shape}, its outputs {outputs}"
            )
        del session
        height, width = shape[2:]
        self._pose = RTMPose(str(path), model_input_size=(width, height), device=device)

    def __call__(self, images: Sequence[np.ndarray], people: Sequence[People]) -> list[People]:
        """The same people, with key points; their visibility is the model's confidence.

        Args:
            images: uint8 [h, w, 3] RGB.
            people: those in each image.

        Raises:
            DetectorError: the model has fewer than 17 points.
        """
        each = zip(images, people, strict=True)
        return [self._of(image, found) for image, found in each]

    def whole_body(self, image: np.ndarray, people: People) -> np.ndarray:
        """All key points of the model: [n, p, 3], x y and confidence in [0, 1].

        Args:
            image: uint8 [h, w, 3] RGB.
            people: at least one.

        Raises:
            DetectorError: the model has neither COCO's 17 points nor the 133 of the whole body.
        """
        points = self._points(image, people)
        if points.shape[1] not in (N_KEYPOINTS, N_WHOLE_BODY):
            raise DetectorError(
                f"the pose model has {points.shape[1]} key points; {N_KEYPOINTS} or "
                f"{N_WHOLE_BODY} (DWPose) are needed"
            )
        return points

    def _points(self, image: np.ndarray, people: People) -> np.ndarray:
        """Whatever points the model has, as `whole_body`."""
        bgr = np.ascontiguousarray(image[..., ::-1])
        points, scores = self._pose(bgr, list(people.boxes))
        return np.concatenate([points, np.clip(scores[..., None], 0, 1)], axis=2)

    def _of(self, image: np.ndarray, people: People) -> People:
        if not len(people):
            return dataclasses.replace(people, keypoints=np.zeros((0, N_KEYPOINTS, 3)))
        points = self._points(image, people)
        if points.shape[1] < N_KEYPOINTS:
            raise DetectorError(
                f"the pose model has {points.shape[1]} key points; at least 17 are needed"
            )
        return dataclasses.replace(people, keypoints=points[:, :N_KEYPOINTS])
