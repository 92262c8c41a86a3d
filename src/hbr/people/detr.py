"""RT-DETR, RT-DETRv2, D-FINE and RF-DETR through transformers.

The image processor of RF-DETR needs torchvision. What all of these processors do is the same, and
done here: resize to a fixed size regardless of the aspect ratio, scale, normalise.

Shapes: b images, q queries, c classes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hbr.devices import exact_inference
from hbr.errors import one_line
from hbr.people.boxes import to_corners
from hbr.people.labels import person_classes
from hbr.people.types import Detector, DetectorError, People

MODEL_TYPES = ("rt_detr", "rt_detr_v2", "d_fine", "rf_detr")


def detr_detector(name: str, *, device: str = "cpu", threshold: float = 0.5) -> Detector:
    """Load a detection transformer from a folder, the hub or its cache.

    Raises:
        DetectorError: it is missing, of another family, or has no person class.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForObjectDetection

    config, prepare = _configuration(name)
    person = person_classes({int(k): v for k, v in config.id2label.items()})
    try:
        model, loaded = AutoModelForObjectDetection.from_pretrained(
            name, config=config, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise DetectorError(_one_line(name, error)) from None
    # missing weights are initialised at random; old files may lack a counter or a tied weight
    if 10 * len(missing := loaded["missing_keys"]) > len(model.state_dict()):
        raise DetectorError(f"{name} holds different weights: {len(missing)} are missing")
    model = model.to(device).eval()

    @exact_inference()
    def detect(images: Sequence[np.ndarray]) -> list[People]:
        pixels = torch.stack([prepare(image) for image in images])  # [b, 3, h, w]
        out = model(pixel_values=pixels.to(device))
        scores, boxes = out.logits.float().cpu(), out.pred_boxes.float().cpu()
        sizes = [image.shape[:2] for image in images]
        each = zip(scores, boxes, sizes, strict=True)
        return [select_people(s, b, person, threshold, size) for s, b, size in each]

    return detect


def preparation(config: dict[str, Any], where: str) -> Callable[[np.ndarray], Tensor]:
    """What a `preprocessor_config.json` does: uint8 [h, w, 3] RGB → float32 [3, h', w'].

    Raises:
        DetectorError: it is not the preprocessing of these families.
    """
    size = config.get("size")
    if not isinstance(size, dict) or not {"height", "width"} <= set(size):
        raise DetectorError(f"{where} resizes to {size}; a fixed height and width is needed")
    edges = (int(size["width"]), int(size["height"]))
    resample = Image.Resampling(config.get("resample", Image.Resampling.BILINEAR))
    factor = config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1
    mean, std = np.zeros(3), np.ones(3)
    if config.get("do_normalize", False):
        mean, std = np.array(config["image_mean"]), np.array(config["image_std"])

    def prepare(image: np.ndarray) -> Tensor:
        resized = Image.fromarray(image).resize(edges, resample)
        pixels = (np.asarray(resized, np.float64) * factor - mean) / std
        return torch.from_numpy(pixels.astype(np.float32).transpose(2, 0, 1).copy())

    return prepare


def select_people(
    logits: Tensor, boxes: Tensor, classes: Sequence[int], threshold: float, size: tuple[int, int]
) -> People:
    """The queries that detect a person.

    Args:
        logits: [q, c], before the sigmoid.
        boxes: [q, 4], centre and size as parts of the image.
        threshold: on the score.
        size: height and width of the image.
    """
    scores = logits[:, list(classes)].sigmoid().amax(dim=1).double().numpy()
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] > threshold]
    edges = [size[1], size[0]] * 2
    corners = np.clip(to_corners(boxes.double().numpy()[order]) * edges, 0, edges)
    return People(corners, scores[order])


def _configuration(name: str) -> tuple[Any, Callable[[np.ndarray], Tensor]]:
    from transformers import AutoConfig
    from transformers.utils import cached_file

    try:
        config = AutoConfig.from_pretrained(name)
        path = cached_file(name, "preprocessor_config.json")
        settings = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError) as error:
        raise DetectorError(_one_line(name, error)) from None
    if config.model_type not in MODEL_TYPES:
        raise DetectorError(
            f"{name} is of the type {config.model_type}; it must be one of {', '.join(MODEL_TYPES)}"
        )
    # RF-DETR's processor normalises by default, the others do not
    settings.setdefault("do_normalize", config.model_type == "rf_detr")
    settings.setdefault("image_mean", [0.485, 0.456, 0.406])
    settings.setdefault("image_std", [0.229, 0.224, 0.225])
    return config, preparation(settings, name)


def _one_line(name: str, error: BaseException) -> str:
    return f"{name}: the detector cannot be loaded: {one_line(error, 300)}"
