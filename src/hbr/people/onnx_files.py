"""Detectors in ONNX files, through ONNX Runtime (extra `onnx`).

A file takes one float32 input [b, 3, h, w]; b, h and w may be free. Its input and output follow
one of `LAYOUTS`:

    yolox     0–255 BGR, the image in the top left corner, 114 around it; out `dets` [b, n, 5]
              (x0 y0 x1 y1 score in pixels of the input, after NMS) and `labels` [b, n].
              OpenMMLab's export, and the detector that comes with DWPose.
    rtmdet    as yolox, normalised by (103.53, 116.28, 123.675) and (57.375, 57.12, 58.395).
    yolo      0–1 RGB, the image in the middle, 114 around it; out [b, 4 + c, n] (centre and size
              in pixels of the input, then scores), before NMS. Ultralytics' export.
    detr      0–1 RGB, resized whatever the shape; out `logits` [b, q, c] before the sigmoid and
              `pred_boxes` [b, q, 4] (centre and size as parts of the image). Optimum's export.

`yolo` and `detr` are recognised by their outputs; the others look alike and must be named.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from hbr.errors import one_line
from hbr.people.boxes import non_maximum_suppression, to_corners
from hbr.people.labels import person_classes
from hbr.people.types import DetectorError, People
from hbr.weights import instead_of_weights

DEFAULT_SIZE = 640
NMS_IOU = 0.7


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The input and output of an ONNX file.

    Attributes:
        fit: how the image is fitted to the size of the input.
        bgr: whether the channels are in the order BGR.
        scale, mean, std: (pixel × scale − mean) / std, in the order of the channels.
        out: see the module docstring.
    """

    fit: Literal["corner", "middle", "squash"]
    bgr: bool
    out: Literal["dets", "yolo", "detr"]
    scale: float = 1.0
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


LAYOUTS = {
    "yolox": Layout(fit="corner", bgr=True, out="dets"),
    "rtmdet": Layout(
        fit="corner",
        bgr=True,
        out="dets",
        mean=(103.53, 116.28, 123.675),
        std=(57.375, 57.12, 58.395),
    ),
    "yolo": Layout(fit="middle", bgr=False, out="yolo", scale=1 / 255),
    "detr": Layout(fit="squash", bgr=False, out="detr", scale=1 / 255),
}


class OnnxDetector:
    """A detector in an ONNX file; see `types.Detector`.

    Attributes:
        batch: how many images the file takes at a time, None for any number.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: str = "cpu",
        threshold: float = 0.5,
        layout: str | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        """Open the file.

        Raises:
            DetectorError: it is missing or not an ONNX file, its layout is unknown or differs from
                `layout`, or it has no person class.
        """
        if layout is not None and layout not in LAYOUTS:
            raise DetectorError(f"layout is {layout!r}; it must be one of {', '.join(LAYOUTS)}")
        self._session = open_session(path, device)
        (self._input,) = self._session.get_inputs()[:1]
        self._outputs = {output.name: output.shape for output in self._session.get_outputs()}
        self._layout = LAYOUTS[layout or self._recognise(path)]
        shape = self._input.shape
        if len(shape) != 4 or shape[1] != 3:
            raise DetectorError(f"{path} takes {shape}; a detector of photos takes [b, 3, h, w]")
        height, width = (n if isinstance(n, int) else DEFAULT_SIZE for n in shape[2:])
        self._size = (height, width)
        self._people = person_classes(self._class_names(classes))
        self._check(path)
        self._threshold = threshold
        self.batch = shape[0] if isinstance(shape[0], int) else None

    def __call__(self, images: Sequence[np.ndarray]) -> list[People]:
        """The people in each image, in any order; of `batch` images, or fewer."""
        placed = [place(image, self._layout, self._size) for image in images]
        batch = np.stack([pixels for pixels, _, _ in placed])
        if self.batch is not None and len(batch) < self.batch:
            missing = self.batch - len(batch)
            batch = np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)])
        outs = self._session.run([*self._outputs], {self._input.name: batch})
        people = []
        for index, (_, scale, offset) in enumerate(placed):
            boxes, scores = self._decode([np.asarray(out[index]) for out in outs])
            sure = scores > self._threshold
            boxes = (boxes[sure].astype(np.float64) - np.tile(offset, 2)) / np.tile(scale, 2)
            people.append(People(boxes, scores[sure].astype(np.float64)))
        return people

    def _decode(self, outs: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """The boxes [n, 4] in pixels of the input, and the scores [n] of being a person."""
        if self._layout.out == "dets":
            dets, labels = outs
            people = np.isin(labels, self._people)
            return dets[people, :4], dets[people, 4]
        if self._layout.out == "detr":
            named = dict(zip(self._outputs, outs, strict=True))
            logits = named["logits"][:, self._people].max(axis=1)
            height, width = self._size
            corners = to_corners(named["pred_boxes"]) * [width, height, width, height]
            return corners, 1 / (1 + np.exp(-logits.astype(np.float64)))
        rows = outs[0].T
        scores = rows[:, [4 + n for n in self._people]].max(axis=1)
        boxes = to_corners(rows[:, :4])
        sure = np.flatnonzero(scores > self._threshold)
        kept = sure[non_maximum_suppression(boxes[sure], scores[sure], NMS_IOU)]
        return boxes[kept], scores[kept]

    def _recognise(self, path: Path) -> str:
        if {"logits", "pred_boxes"} <= self._outputs.keys():
            return "detr"
        if [len(shape) for shape in self._outputs.values()] == [3]:
            return "yolo"
        raise DetectorError(
            f"{path}: its layout cannot be inferred from its outputs {', '.join(self._outputs)}; "
            f"name one of {', '.join(LAYOUTS)}"
        )

    def _check(self, path: Path) -> None:
        """Raise `DetectorError` where the outputs are not those of the layout."""
        shapes = [*self._outputs.values()]
        if self._layout.out == "dets":
            fits = len(shapes) == 2
        elif self._layout.out == "detr":
            fits = {"logits", "pred_boxes"} <= self._outputs.keys()
        else:
            fits = len(shapes) == 1 and len(shapes[0]) == 3 and self._fits_yolo(*shapes[0][1:])
        if not fits:
            outputs = ", ".join(f"{name} {shape}" for name, shape in self._outputs.items())
            raise DetectorError(f"{path} has the outputs {outputs}, which no supported layout has")

    def _fits_yolo(self, rows: int | str | None, columns: int | str | None) -> bool:
        """Whether there is a row for each class of people; YOLOv5 has the boxes down the rows."""
        if not isinstance(rows, int):
            return True
        turned = isinstance(columns, int) and rows > 1000 > columns
        return rows > 4 + max(self._people) and not turned

    def _class_names(self, classes: Sequence[str] | None) -> dict[int, str]:
        """The names of the classes: given, in the file as ultralytics writes them, or COCO's."""
        if classes is not None:
            return dict(enumerate(classes))
        names_text = self._session.get_modelmeta().custom_metadata_map.get("names", "")
        try:
            names = ast.literal_eval(names_text)
        except (ValueError, SyntaxError):
            names = None
        if isinstance(names, dict):
            return {int(number): str(name) for number, name in names.items()}
        # in all known exports of detectors trained on COCO, class 0 is the person
        return {0: "person"}


def open_session(path: Path, device: str) -> Any:
    """ONNX Runtime's session for a file.

    Raises:
        DetectorError: the extra or the file is missing, or it is not an ONNX file.
    """
    try:
        import onnxruntime
    except ImportError:
        raise DetectorError(
            f"{path} needs the extra `onnx`: pip install 'hbr[onnx]' brings ONNX Runtime"
        ) from None
    if not path.is_file():
        raise DetectorError(f"{path}: no such file")
    providers = ["CPUExecutionProvider"]
    if device.startswith("cuda"):
        number = int(device.partition(":")[2] or 0)
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": number}))  # type: ignore[arg-type]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # its errors have no common ancestor
        if what := instead_of_weights(path):
            raise DetectorError(f"{path} {what}") from None
        raise DetectorError(f"{path}: {one_line(error, 300)}") from None


def place(
    image: np.ndarray, layout: Layout, size: tuple[int, int]
) -> tuple[np.ndarray, tuple[float, float], tuple[float, float]]:
    """Fit and normalise an image for the network.

    Args:
        image: uint8 [h, w, 3] RGB.
        layout: how.
        size: height and width of the input.

    Returns:
        float32 [3, height, width], and where the image is in it: its scale, then its offset,
        (x, y) each.
    """
    height, width = size
    h, w = image.shape[:2]
    if layout.fit == "squash":
        new_w, new_h, left, top = width, height, 0, 0
    else:
        ratio = min(height / h, width / w)
        new_h, new_w = max(1, round(h * ratio)), max(1, round(w * ratio))
        middle = layout.fit == "middle"
        left, top = ((width - new_w) // 2, (height - new_h) // 2) if middle else (0, 0)
    canvas = np.full((height, width, 3), 114, np.uint8)
    resized = cv2.resize(image, (new_w, new_h), interpolation=cv2.INTER_LINEAR)
    canvas[top : top + new_h, left : left + new_w] = resized
    if layout.bgr:
        canvas = canvas[..., ::-1]
    pixels = (canvas * layout.scale - np.array(layout.mean)) / np.array(layout.std)
    placed = np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32)
    return placed, (new_w / w, new_h / h), (left, top)
