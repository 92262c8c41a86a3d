"""YOLO11 through ultralytics, the paper's detector. Its licence is AGPL-3.0, so it is an extra."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from hbr.errors import one_line
from hbr.people.labels import person_classes
from hbr.people.types import Detector, DetectorError, People

log = logging.getLogger(__name__)

LICENCE = (
    "ultralytics and its weights are AGPL-3.0: who distributes or serves a work with them must "
    "offer its source under that licence, or buy another"
)


def ultralytics_detector(name: str, *, device: str, threshold: float) -> Detector:
    """Load a `.pt` file, or `yolo11n` to `yolo11x`, which ultralytics downloads.

    Loading a `.pt` file executes code in it: use only files from sources that you trust. Its people
    come in any order.

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
        model = YOLO(name if name.endswith(".pt") else f"{name}.pt")
    except Exception as error:  # its errors have no common base class
        raise DetectorError(f"{name}: {one_line(error, 300)}") from None
    person = person_classes({int(number): str(label) for number, label in model.names.items()})

    def detect(images: Sequence[np.ndarray]) -> list[People]:
        results = model.predict(
            [np.ascontiguousarray(image[..., ::-1]) for image in images],  # BGR is expected
            conf=threshold,
            classes=person,
            device=device,
            batch=len(images),
            rect=False,  # else results depend on the other shapes in the batch
            verbose=False,
        )
        people = []
        for found in (result.boxes for result in results):
            boxes = found.xyxy.double().cpu().numpy().reshape(-1, 4)
            people.append(People(boxes, found.conf.double().cpu().numpy().reshape(-1)))
        return people

    return detect
