"""RT-DETR, RT-DETRv2, D-FINE and RF-DETR through transformers.

The image processor of RF-DETR needs torchvision. What all of these processors do is the same, and
done here: resize to a fixed size regardless of the aspect ratio, scale, normalise.

Shapes: b images, q queries, c classes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hbr.errors import one_line
from hbr.people.boxes import to_corners
from hbr.people.labels import person_classes
from hbr.people.types import DetectorError, People

MODEL_TYPES = ("rt_detr", "rt_detr_v2", "d_fine", "rf_detr")


class DetrDetector:
    """A detection transformer; see `detectors.Detector`."""

    def __init__(self, name: str, *, device: str = "cpu", threshold: float = 0.5) -> None:
        """Load from a folder, the hub's cache, or the hub.

        Raises:
            DetectorError: it is missing, of another family, or has no person class.
        """
        from safetensors import SafetensorError
        from transformers import AutoModelForObjectDetection

        config, self._prepare = _configuration(name)
        self._people = person_classes({int(k): v for k, v in config.id2label.items()})
        try:
            model, loaded = AutoModelForObjectDetection.from_pretrained(
                name, config=config, use_safetensors=True, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise DetectorError(_one_line(name, error)) from None
        # missing weights are initialised at random; old files may lack a counter or a tied weight
        if 10 * len(missing := loaded["missing_keys"]) > len(model.state_dict()):
            raise DetectorError(f"{name} holds different weights: {len(missing)} are missing")
        self._model = model.to(device).eval()
        self._device = device
        self._threshold = threshold

    @torch.inference_mode()
    def __call__(self, images: Sequence[np.ndarray]) -> list[People]:
        """The people in each image."""
        pixels = torch.stack([self._prepare(image) for image in images])  # [b, 3, h, w]
        out = self._model(pixel_values=pixels.to(self._device))
        scores, boxes = out.logits.float().cpu(), out.pred_boxes.float().cpu()
        sizes = [image.shape[:2] for image in images]
        each = zip(scores, boxes, sizes, strict=True)
        return [select_people(s, b, self._people, self._threshold, size) for s, b, size in each]


class Preparation:
    """The preprocessing of an image by a `preprocessor_config.json`."""

    def __init__(self, config: dict[str, Any], where: str) -> None:
        """Read it.

        Raises:
            DetectorError: it is not the preprocessing of these families.
        """
        size = config.get("size")
        if not isinstance(size, dict) or not {"height", "width"} <= set(size):
            raise DetectorError(f"{where} resizes to {size}; a fixed height and width is needed")
        self.size = (int(size["width"]), int(size["height"]))
        self._resample = Image.Resampling(config.get("resample", Image.Resampling.BILINEAR))
        self._factor = (
            config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1
        )
        self._mean, self._std = np.zeros(3), np.ones(3)
        if config.get("do_normalize", False):
            self._mean = np.array(config["image_mean"])
            self._std = np.array(config["image_std"])

    def __call__(self, image: np.ndarray) -> Tensor:
        """Uint8 [h, w, 3] RGB to float32 [3, h', w']."""
        resized = Image.fromarray(image).resize(self.size, self._resample)
        pixels = (np.asarray(resized, np.float64) * self._factor - self._mean) / self._std
        return torch.from_numpy(pixels.astype(np.float32).transpose(2, 0, 1).copy())


def select_people(
    logits: Tensor, boxes: Tensor, classes: Sequence[int], threshold: float, size: tuple[int, int]
) -> People:
    """The queries that detect a person.

    Args:
        logits: [q, c], before the sigmoid.
        boxes: [q, 4], centre and size as parts of the image.
        classes: the person classes.
        threshold: on the score.
        size: height and width of the image.
    """
    scores = logits[:, list(classes)].sigmoid().amax(dim=1).double().numpy()
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] > threshold]
    edges = [size[1], size[0]] * 2
    corners = np.clip(to_corners(boxes.double().numpy()[order]) * edges, 0, edges)
    return People(corners, scores[order])


def _configuration(name: str) -> tuple[Any, Preparation]:
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
    return config, Preparation(settings, name)


def _one_line(name: str, error: BaseException) -> str:
    text = one_line(error)
    return f"{name}: the detector cannot be loaded: {text[:300]}"
