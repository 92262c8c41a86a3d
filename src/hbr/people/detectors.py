"""Detectors of people: one interface for transformers, NanoDet, ONNX files and ultralytics.

rtdetr, dfine, rfdetr     transformers, Apache-2.0; what `hbr fetch` has put there, or the hub's
nanodet                   NanoDet-g, Apache-2.0; `hbr fetch people` gets it without a hub
mtcnn                     MTCNN, MIT; finds faces, not whole people; by `hbr fetch people` too
a folder or hub name      transformers: RT-DETR, RT-DETRv2, D-FINE, RF-DETR
file.onnx                 ONNX Runtime (extra `onnx`), in one of the layouts of `onnx_files`
yolo11n … yolo11x, *.pt   ultralytics (extra `ultralytics`, AGPL-3.0); the paper's choice
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from hbr.devices import fit_in_memory
from hbr.errors import OutOfMemoryError
from hbr.people.boxes import plausible
from hbr.people.types import Detector, DetectorError, People
from hbr.weights import WeightsError, entries, find_weights

log = logging.getLogger(__name__)

T = TypeVar("T")

DEFAULT_DETECTOR = "rtdetr"

PERSON_DETECTORS = ("dfine", "rfdetr", "rtdetr", "nanodet")
"""Known detectors of whole people, the best first."""

NO_PERSON_DETECTOR = (
    "there is no person detector on this machine; `hbr fetch people` gets one (NanoDet, "
    "Apache-2.0, of a download of 145 MB), or take --people off"
)
"""The message where `find_person_detector` finds none."""


def find_person_detector() -> str | None:
    """The best known detector whose weights are on this machine, as `load_detector` takes it.

    Returns:
        one of `PERSON_DETECTORS`, or None; then `NO_PERSON_DETECTOR` says what to do.
    """
    return next((name for name in PERSON_DETECTORS if entries()[name].installed), None)


def load_detector(
    name: str | Path = DEFAULT_DETECTOR,
    *,
    device: str = "cpu",
    threshold: float = 0.5,
    batch_size: int = 8,
    layout: str | None = None,
    classes: Sequence[str] | None = None,
) -> Detector:
    """Load a detector, whose boxes are filtered and sorted by `boxes.plausible`.

    Args:
        name: see the module docstring.
        device: as torch names it.
        threshold: boxes with a lower score are dropped, in [0, 1].
        batch_size: images per forward pass; halved when memory runs out. NanoDet and MTCNN look
            at one at a time.
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

        onnx = OnnxDetector(
            Path(text), device=device, threshold=threshold, layout=layout, classes=classes
        )
        detector: Detector = onnx
        batch_size = onnx.batch or batch_size
    else:
        detector = _load(text, device, threshold)
        batch_size = 1 if text in ("nanodet", "mtcnn") else batch_size

    def detect(images: Sequence[np.ndarray]) -> list[People]:
        nonlocal batch_size
        found, batch_size = in_batches(images, detector, batch_size)
        each = zip(found, images, strict=True)
        return [plausible(people, image.shape[:2]) for people, image in each]

    return detect


def in_batches(
    images: Sequence[np.ndarray], run: Callable[[Sequence[np.ndarray]], list[T]], batch_size: int
) -> tuple[list[T], int]:
    """Call `run` on batches of images; halve the batch size when memory runs out.

    Returns:
        the result for each image, and the batch size that fits.

    Raises:
        OutOfMemoryError: one image does not fit.
    """
    found: list[T] = []

    def next_batch(size: int) -> list[T]:
        return run(images[len(found) : len(found) + size])

    def halved(size: int) -> int:
        size = min(size, len(images) - len(found)) // 2
        if size == 0:
            raise OutOfMemoryError("out of memory on one image; use --device cpu")
        log.warning("out of memory: detecting people in %d images at a time", size)
        return size

    while len(found) < len(images):
        batch, batch_size = fit_in_memory(next_batch, batch_size, halved)
        found += batch
    return found, batch_size


def _load(name: str, device: str, threshold: float) -> Detector:
    if name.lower().endswith(".pt") or name.startswith("yolo11"):
        from hbr.people.ultralytics_yolo import ultralytics_detector

        return ultralytics_detector(name, device=device, threshold=threshold)
    if name == "nanodet":
        from hbr.people.nanodet import nanodet_detector

        return nanodet_detector(_weights_of(name), device=device, threshold=threshold)
    if name == "mtcnn":
        from hbr.people.mtcnn import FaceDetector

        return FaceDetector(_weights_of(name), device=device, threshold=threshold)
    from hbr.people.detr import detr_detector

    known = entries().get(name)
    if known is not None and known.kind == "detector":
        name = str(known.find() or known.hub)
    return detr_detector(name, device=device, threshold=threshold)


def _weights_of(name: str) -> Path:
    try:
        return find_weights(name)
    except WeightsError as error:
        raise DetectorError(str(error)) from None
