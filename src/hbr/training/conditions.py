"""The maps and texts that guide a model besides the LQ image, for each crop of a training.

Shapes: n people, p key points, s size of the crop.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from hbr.people.attention import limb_attention, part_labels
from hbr.people.captions import read_captions
from hbr.people.skeleton import draw_poses
from hbr.people.structure import FindKeypoints, keypoint_finder
from hbr.training.config import ConditionsConfig


class ConditionMaker:
    """Makes the conditions of crops, as a configuration says."""

    def __init__(self, config: ConditionsConfig) -> None:
        """Read the captions, and load the models that find key points.

        Raises:
            ConfigError: the captions cannot be read.
            DetectorError: a model or an extra is missing or damaged.
        """
        self.config = config
        self.captions = {} if config.captions is None else read_captions(config.captions)
        self._find: FindKeypoints | None = None
        if config.source != "people":
            self._find = keypoint_finder(config.detector, config.pose, cache=config.cache)

    def text(self, photo: str) -> str:
        """The caption of a photo by its path or name; an unknown one has an empty caption."""
        return self.captions.get(photo) or self.captions.get(Path(photo).name, "")

    def maps(self, hq: Tensor, lq: Tensor, annotated: np.ndarray) -> dict[str, Tensor]:
        """The maps of a crop, each float32 [c, s, s] in [0, 1].

        Args:
            hq, lq: [3, s, s] in [0, 1].
            annotated: key points [n, 17, 3] in pixels of the crop.

        Returns:
            "pose" (3 channels), "attention" (1), and "parts", the labels of body parts (6).
        """
        keypoints = annotated
        if self._find is not None:
            image = hq if self.config.source == "hq" else lq
            pixels = rearrange(image.mul(255).round().byte(), "c h w -> h w c").numpy()
            keypoints = self._find(pixels)
        return structure_maps(keypoints, hq.shape[-2], hq.shape[-1])


def structure_maps(keypoints: np.ndarray, height: int, width: int) -> dict[str, Tensor]:
    """The maps of key points [n, p, 3]: "pose", "attention" and "parts", as `ConditionMaker`."""
    pose = rearrange(draw_poses(keypoints, height, width), "h w c -> c h w")
    return {
        "pose": torch.from_numpy(pose.copy()).float() / 255,
        "attention": torch.from_numpy(limb_attention(keypoints, height, width))[None],
        "parts": torch.from_numpy(part_labels(keypoints, height, width)),
    }
