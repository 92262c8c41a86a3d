"""Baselines: what a restored photo must be better than."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import PIL

from hbr.evaluation.methods.base import MethodOutcome, Report
from hbr.evaluation.methods.config import BaselineConfig
from hbr.evaluation.methods.resizing import Pixels, resized, wanted_size
from hbr.evaluation.methods.result_folder import RestorePixels, ResultFolder, identity, run_each


class BaselineMethod:
    """The input itself, resized, or through a classical filter."""

    def __init__(self, config: BaselineConfig) -> None:
        """Take the configuration."""
        self.config = config

    def run(
        self,
        inputs: Mapping[str, Path],
        out: Path,
        *,
        resume: bool = True,
        report: Report = lambda line: None,
    ) -> MethodOutcome:
        """See `hbr.evaluation.methods.base.Method`."""
        with ResultFolder(out, identity(self.config), inputs, resume=resume) as results:

            def load() -> RestorePixels:
                results.note({"opencv": cv2.__version__, "pillow": PIL.__version__})
                return partial(restore, config=self.config)

            return results.outcome(inputs, run_each(results, inputs, load, report))


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
