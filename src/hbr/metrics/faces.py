"""Face identity between an image and its reference, by a network of the user's choice.

The network is an ONNX file that turns an aligned face, RGB [b, 3, 112, 112] in 0–255, into an
embedding [b, d]; SFace of the OpenCV Zoo (Apache-2.0) is what hbr recommends, because the better
known ArcFace weights are for non-commercial research only.

Shapes: n people; key points in COCO's order, left and right being the person's own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from hbr.errors import one_line
from hbr.image.alignment import aligned, similarity
from hbr.metrics.base import MetricError, MetricInfo
from hbr.metrics.files import with_weights
from hbr.metrics.person import SEEN, PeopleLike, PersonMetric
from hbr.metrics.planes import levels
from hbr.weights import find_weights, instead_of_weights

_SIDE = 112
# Nose, the eye on the left of the picture, the one on its right: where ArcFace's crops have them
_PLACES = np.array([(56.0252, 71.7366), (38.2946, 51.6963), (73.5318, 51.5014)])
_NOSE_AND_EYES = [0, 2, 1]
# Below this distance between the eyes, a face has too few pixels for identification
_FEWEST_BETWEEN_EYES = 8.0


class FaceNetwork:
    """Embeds aligned faces with an ONNX file.

    Raises:
        MetricError: onnxruntime is not installed, the file is missing or broken, or its input is
            not [b, 3, 112, 112].
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        try:
            import onnxruntime
        except ImportError:
            raise MetricError(
                "face-identity runs on ONNX Runtime; install it with `pip install 'hbr[onnx]'`"
            ) from None
        if not path.is_file():
            raise MetricError(f"{path}: no such face network")
        providers = ["CPUExecutionProvider"]
        if device.startswith("cuda"):
            providers.insert(0, "CUDAExecutionProvider")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # onnxruntime has a class for each kind of broken file
            unread = f"cannot be run by ONNX Runtime: {one_line(error, 200)}"
            raise MetricError(f"{path} {instead_of_weights(path) or unread}") from None
        self._input = self._session.get_inputs()[0]
        if list(self._input.shape[1:]) != [3, _SIDE, _SIDE]:
            raise MetricError(
                f"{path} takes {self._input.shape}; a face network takes [b, 3, {_SIDE}, {_SIDE}]"
            )

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        """Faces [n, 3, 112, 112] in 0–255 → embeddings [n, d] of length 1."""
        rows = [
            # one by one: published files have a fixed batch of 1
            np.ravel(self._session.run(None, {self._input.name: face[None].astype(np.float32)})[0])
            for face in faces
        ]
        vectors = np.stack(rows).astype(np.float64)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def identity_distances(
    network: FaceNetwork, image: Tensor, reference: Tensor, people: PeopleLike
) -> np.ndarray:
    """1 - cosine of the embeddings, for each face in the reference: [1, 3, h, w] twice → [n].

    NaN for people whose nose and eyes are not all visible, or whose eyes are less than 8 pixels
    apart. Both pictures are cropped by the key points of the reference.

    Fails where: networks of this kind are trained on clean frontal faces and are themselves thrown
    off by blur and by profiles; they err more often for people who were rare in their training,
    so compare methods on the same faces, never people with each other. A distance does not say
    whether two strangers would be confused: that threshold is the network's own. It favours methods
    that were trained with a loss of such a network.
    """
    found = np.full(len(people.boxes), np.nan)
    if people.keypoints is None:
        return found
    one, other = (levels(t)[0].transpose(1, 2, 0).astype(np.float32) for t in (image, reference))
    for i, points in enumerate(np.asarray(people.keypoints, dtype=np.float64)):
        places = points[_NOSE_AND_EYES]
        apart = float(np.linalg.norm(places[1, :2] - places[2, :2]))
        if (places[:, 2] < SEEN).any() or apart < _FEWEST_BETWEEN_EYES:
            continue
        turn = similarity(places[:, :2], _PLACES)
        faces = np.stack([aligned(picture, turn, _SIDE) for picture in (one, other)])
        a, b = network(faces.transpose(0, 3, 1, 2))
        found[i] = 1 - float(a @ b)
    return found


def load_identity(info: MetricInfo, device: str, weights: Path | None) -> PersonMetric:
    """The mean of `identity_distances` over the faces of a picture, NaN where there are none."""
    path = find_weights("sface", info.id, weights)
    network = FaceNetwork(path, device)

    def measure(x: Tensor, y: Tensor, people: PeopleLike) -> float:
        distances = identity_distances(network, x, y, people)
        seen = distances[np.isfinite(distances)]
        return float(seen.mean()) if len(seen) else float("nan")

    return PersonMetric(with_weights(info, path), measure)
