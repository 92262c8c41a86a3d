"""Key points of the people in a picture, found once and kept by the picture's content.

Shapes: n people, p key points, h w pixels.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hbr.files import write_bytes
from hbr.people.detectors import load_detector
from hbr.people.pose import RtmPose
from hbr.people.skeleton import N_WHOLE_BODY
from hbr.weights import entries, find_weights

log = logging.getLogger(__name__)

FindKeypoints = Callable[[np.ndarray], np.ndarray]
"""uint8 [h, w, 3] RGB → key points [n, p, 3]: x, y, visibility."""


def keypoint_finder(
    detector: str, pose: str, *, device: str = "cpu", cache: Path | None = None
) -> FindKeypoints:
    """A function that finds the people in a picture, then the key points of each.

    The pose model is asked about the boxes of people only: without boxes it would take the whole
    picture for a person. A picture without people has none.

    Args:
        detector: as `load_detector` takes it.
        pose: an ONNX file of RTMPose or DWPose, or a name of the catalogue.
        device: of both.
        cache: folder of what was found before, by the content of the picture and the two models.

    Raises:
        DetectorError: a model or an extra is missing or damaged.
        WeightsError: the file of a known pose model is missing, or not the one it should be.
    """
    file = find_weights(pose) if pose in entries() else Path(pose)
    find = load_detector(detector, device=device)
    points = RtmPose(file, device=device)

    def found(image: np.ndarray) -> np.ndarray:
        (people,) = find([image])
        if not len(people):
            return np.zeros((0, N_WHOLE_BODY, 3))
        return points.whole_body(image, people)

    return found if cache is None else kept(found, cache, f"{detector} {file.name}")


def kept(find: FindKeypoints, folder: Path, models: str) -> FindKeypoints:
    """`find`, with its results in files of a folder that are named by the picture's content.

    Args:
        find: called for pictures that are not in the folder, or whose file is damaged.
        folder: created with its first file.
        models: what `find` runs; other models have files of their own.
    """

    def found(image: np.ndarray) -> np.ndarray:
        digest = hashlib.sha256(f"{models} {image.shape}".encode())
        digest.update(image.tobytes())
        file = folder / f"{digest.hexdigest()[:32]}.npy"
        if file.is_file():
            try:
                keypoints: np.ndarray = np.load(file, allow_pickle=False)
                return keypoints
            except (OSError, ValueError) as error:
                log.warning("%s is found anew: %s", file, error)
        keypoints = find(image)
        folder.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        np.save(buffer, keypoints)
        write_bytes(file, buffer.getvalue())
        return keypoints

    return found
