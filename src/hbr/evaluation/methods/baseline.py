"""Baselines: what a restored photo must be better than."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import cv2
import numpy as np
import PIL

from hbr.evaluation.methods.config import BaselineConfig
from hbr.evaluation.methods.method import MethodSteps, one_by_one
from hbr.evaluation.methods.resizing import Pixels, resized, wanted_size
from hbr.evaluation.methods.result_folder import identity


def prepare(config: BaselineConfig, out: Path) -> MethodSteps:
    """The input itself, resized, or through a classical filter."""
    made_with = {"opencv": cv2.__version__, "pillow": PIL.__version__}
    steps = one_by_one(lambda: (made_with, partial(restore, config=config)))
    return MethodSteps(identity=identity(config), restore=steps)


def restore(pixels: Pixels, config: BaselineConfig) -> Pixels:
    """[h, w, 3] uint8 RGB → [H, W, 3], `config.scale` times as large.

    Non-local means: Buades et al., A non-local algorithm for image denoising, CVPR 2005, on
    lightness and colour, with patches of 7 and a window of 21 pixels (OpenCV's).
    """
    made = pixels
    if config.baseline == "nlm":
        bgr = np.ascontiguousarray(pixels[..., ::-1])
        h = config.strength
        made = np.asarray(cv2.fastNlMeansDenoisingColored(bgr, None, h, h, 7, 21), np.uint8)
        made = np.ascontiguousarray(made[..., ::-1])
    elif config.baseline == "median":
        made = np.asarray(cv2.medianBlur(pixels, 3), np.uint8)
    return resized(made, wanted_size((pixels.shape[0], pixels.shape[1]), config.scale))
