"""Detectors of people: one interface for transformers, ONNX files and ultralytics.

rtdetr, dfine, rfdetr     transformers, Apache-2.0; what `hbr fetch` has put there, or the hub's
a folder or hub name      transformers: RT-DETR, RT-DETRv2, D-FINE, RF-DETR
file.onnx                 ONNX Runtime (extra `onnx`), in one of the layouts of `onnx_files`
yolo11n … yolo11x, *.pt   ultralytics (extra `ultralytics`, AGPL-3.0); the paper's choice
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from hbr.people.types import DetectorError, People
from hbr.weights import entries

DEFAULT_DETECTOR = "rtdetr"


class Detector(Protocol):
    """Detects the people in photos."""

    def __call__(self, images: Sequence[np.ndarray]) -> list[People]:
        """The people in each image, in pixels of that image, by descending score.

        Args:
            images: uint8 [h, w, 3] RGB, of any sizes.
        """
        ...


def load_detector(
    name: str | Path = DEFAULT_DETECTOR,
    *,
    device: str = "cpu",
    threshold: float = 0.5,
    batch_size: int = 8,
    layout: str | None = None,
    classes: Sequence[str] | None = None,
) -> Detector:
    """Load a detector.

    Args:
        name: see the module docstring.
        device: as torch names it.
        threshold: boxes with a lower score are dropped, in [0, 1].
        batch_size: images per forward pass; halved when memory runs out.
        layout: of an ONNX file, one of `onnx_files.LAYOUTS`; None detects it.
        classes: class names of an ONNX file without any; None means COCO's.

    Raises:
        DetectorError: it is missing, needs an extra, or has no person class.
    """
    if not 0 <= threshold <= 1:
        raise DetectorError(f"threshold is {threshold}; it must be in [0, 1]")
    if batch_size < 1:
        raise DetectorError(f"batch_size is {batch_size}; it must be 1 or more")
    text = str(name)
    if text.lower().endswith(".onnx"):
        from hbr.people.onnx_files import OnnxDetector

        return OnnxDetector(
            Path(text),
            device=device,
            threshold=threshold,
            batch_size=batch_size,
            layout=layout,
            classes=classes,
        )
    if text.lower().endswith(".pt") or text.startswith("yolo11"):
        from hbr.people.ultralytics_yolo import UltralyticsDetector

        return UltralyticsDetector(text, device=device, threshold=threshold, batch_size=batch_size)
    from hbr.people.detr import DetrDetector

    known = entries().get(text)
    if known is not None and known.kind == "detector":
        text = str(known.find() or known.hub)
    return DetrDetector(text, device=device, threshold=threshold, batch_size=batch_size)
