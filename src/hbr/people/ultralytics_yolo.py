"""YOLO11 through ultralytics, the paper's detector. Its licence is AGPL-3.0, so it is an extra."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from hbr.errors import one_line
from hbr.people.labels import person_classes
from hbr.people.types import DetectorError, People

log = logging.getLogger(__name__)

LICENCE = (
    "ultralytics and its weights are AGPL-3.0: who distributes or serves a work with them must "
    "offer its source under that licence, or buy another"
)


class UltralyticsDetector:
    """An ultralytics detector; see `detectors.Detector`."""

    def __init__(self, name: str, *, device: str = "cpu", threshold: float = 0.5) -> None:
        """Load a `.pt` file, or `yolo11n` to `yolo11x`, which ultralytics downloads.

        Loading a `.pt` file executes code in it: use only files from sources that you trust.

        Raises:
            DetectorError: the extra or the file is missing, or it has no person class.
        """
        try:
            from ultralytics import YOLO
        except ImportError:
            raise DetectorError(
                f"{name} needs the extra `ultralytics`: pip install 'hbr[ultralytics]'; {LICENCE}"
            ) from None
        log.warning("%s: %s", name, LICENCE)
        try:
            self._model = YOLO(name if name.endswith(".pt") else f"{name}.pt")
        except Exception as error:  # its errors have no common base class
            raise DetectorError(f"{name}: {one_line(error, 300)}") from None
        names = {int(number): str(label) for number, label in self._model.names.items()}
        self._people = person_classes(names)
        self._device = device
        self._threshold = threshold

    def __call__(self, images: Sequence[np.ndarray]) -> list[People]:
        """The people in each image."""
        results = self._model.predict(
            [np.ascontiguousarray(image[..., ::-1]) for image in images],  # BGR is expected
            conf=self._threshold,
            classes=self._people,
            device=self._device,
            batch=len(images),
            rect=False,  # else results depend on the other shapes in the batch
            verbose=False,
        )
        people = []
        for result in results:
            boxes = result.boxes.xyxy.double().cpu().numpy().reshape(-1, 4)
            scores = result.boxes.conf.double().cpu().numpy().reshape(-1)
            order = np.argsort(-scores, kind="stable")
            people.append(People(boxes[order], scores[order]))
        return people
