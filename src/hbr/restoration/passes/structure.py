"""Pose and attention of a photo: found in the result of the first stage, or given as files.

Shapes: h w the picture, n people, p key points.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from hbr.image import read_photo
from hbr.image.pixels import to_8_bits
from hbr.people.attention import limb_attention
from hbr.people.skeleton import draw_poses
from hbr.people.structure import FindKeypoints, keypoint_finder
from hbr.people.types import SEEN, DetectorError
from hbr.weights import WeightsError

log = logging.getLogger(__name__)

AttentionOf = Callable[[Tensor], Tensor | None]
"""A model's own map of bodies: [1, 3, h, w] in [0, 1] → [1, 1, h, w], or None if it has none."""

DETECTOR, POSE = "rtdetr", "dwpose"
# around key points, relative to the longer edge of their box
_MARGIN = 0.15
# edge in pixels below which nobody's parts can be told
_SMALLEST_PERSON = 32


@dataclass(frozen=True)
class Structure:
    """The maps that guide a model, and where they come from.

    Attributes:
        maps: "pose" [1, 3, h, w] and "attention" [1, 1, h, w], float32 in [0, 1].
        sources: name of a map → "file NAME", "found", "the model's", "none" or why there is none.
        people: boxes (x0, y0, x1, y1) in pixels around the key points, where they are known.
    """

    maps: Mapping[str, Tensor]
    sources: Mapping[str, str]
    people: tuple[tuple[int, int, int, int], ...] = ()


class StructureFinder:
    """Finds pose and attention; the models for it are loaded once, when they are first needed."""

    def __init__(self, attention: AttentionOf, device: str | torch.device = "cpu") -> None:
        """Take the model's own attention; nothing is loaded yet."""
        self._attention = attention
        self._device = device
        self._find: FindKeypoints | None = None
        self._lacks: str | None = None

    def __call__(
        self, pixels: np.ndarray, names: tuple[str, ...], pose: str, attention: str
    ) -> Structure:
        """Find or read the maps of a picture.

        Args:
            pixels: uint8 [h, w, 3], what the first stage made of the photo.
            names: of the maps that are needed.
            pose: "auto" finds it, "none" is a blank map; else a file: a drawn picture, or key
                points [n, 17 or 133, 3] as `.npy`.
            attention: the same; a file is a grey picture, or [h, w] in [0, 1] as `.npy`. "auto" is
                the model's own map if it has one, else that of the key points.

        Raises:
            ValueError: a file is of another size, or has values that are not finite or not in
                [0, 1].
            hbr.image.PhotoError: a file cannot be read.
        """
        keypoints: np.ndarray | None = None
        people: np.ndarray | None = None  # also those of a file, which no attention is made of
        maps: dict[str, Tensor] = {}
        sources: dict[str, str] = {}
        height, width = pixels.shape[:2]
        if "pose" in names:
            if pose == "auto":
                people, sources["pose"] = self._keypoints(pixels)
                keypoints = people
                if keypoints is not None:
                    maps["pose"] = _planes(draw_poses(keypoints, height, width))
            elif pose == "none":
                sources["pose"] = "none"
            else:
                picture, people = _pose_of(Path(pose), height, width)
                maps["pose"], sources["pose"] = _planes(picture), f"file {Path(pose).name}"
        if "attention" in names:
            known = (keypoints, sources["pose"]) if keypoints is not None else None
            found, sources["attention"] = self._attention_of(pixels, attention, known)
            if found is not None:
                maps["attention"] = found
        boxes = () if people is None else _boxes_around(people, height, width)
        return Structure(maps, sources, boxes)

    def _attention_of(
        self, pixels: np.ndarray, attention: str, known: tuple[np.ndarray, str] | None
    ) -> tuple[Tensor | None, str]:
        height, width = pixels.shape[:2]
        if attention == "none":
            return None, "none"
        if attention != "auto":
            values = _attention_file(Path(attention), height, width)
            return torch.from_numpy(values)[None, None], f"file {Path(attention).name}"
        own = self._attention(_planes(pixels))
        if own is not None:
            return own.float().clamp(0, 1).cpu(), "the model's"
        keypoints, why = known or self._keypoints(pixels)
        if keypoints is None:
            return None, why
        return torch.from_numpy(limb_attention(keypoints, height, width))[None, None], why

    def _keypoints(self, pixels: np.ndarray) -> tuple[np.ndarray | None, str]:
        """Key points of the people, or None and why they cannot be found."""
        if self._find is None and self._lacks is None:
            self._find, self._lacks = _load(str(self._device))
            if self._lacks is not None:
                log.warning("no pose is found: %s; --pose takes a file", self._lacks)
        if self._find is None:
            return None, f"none: {self._lacks}"
        keypoints = self._find(pixels)
        return keypoints, "found" if len(keypoints) else "none: no person was found"


def _load(device: str) -> tuple[FindKeypoints | None, str | None]:
    if find_spec("rtmlib") is None:
        return None, "the extra `rtmlib` is missing (pip install 'hbr[rtmlib]')"
    try:
        return keypoint_finder(DETECTOR, POSE, device=device), None
    except (WeightsError, DetectorError) as error:
        return None, str(error)


def _boxes_around(
    keypoints: np.ndarray, height: int, width: int
) -> tuple[tuple[int, int, int, int], ...]:
    """Boxes around the key points [n, p, 3] of each person, with a margin, within the picture."""
    boxes = []
    for person in keypoints.astype(np.float64):
        seen = person[np.isfinite(person).all(axis=1) & (person[:, 2] >= SEEN), :2]
        if len(seen) < 2:
            continue
        low, high = seen.min(axis=0), seen.max(axis=0)
        margin = _MARGIN * (high - low).max()
        x0, y0 = (int(v) for v in np.clip(low - margin, 0, (width, height)))
        x1, y1 = (int(v) for v in np.clip(high + margin, 0, (width, height)))
        if min(x1 - x0, y1 - y0) >= _SMALLEST_PERSON:
            boxes.append((x0, y0, x1, y1))
    return tuple(boxes)


def _pose_of(path: Path, height: int, width: int) -> tuple[np.ndarray, np.ndarray | None]:
    """The picture of a pose, uint8 [h, w, 3], and the key points [n, p, 3] if the file has them."""
    if path.suffix == ".npy":
        keypoints = _array(path)
        try:
            return draw_poses(keypoints.astype(np.float64), height, width), keypoints
        except ValueError as error:
            raise ValueError(f"{path.name}: {error}") from None
    picture = to_8_bits(read_photo(path).pixels)
    _check_size(path, picture.shape[:2], height, width)
    return picture, None


def _attention_file(path: Path, height: int, width: int) -> np.ndarray:
    """A map of bodies, float32 [h, w]."""
    if path.suffix == ".npy":
        values = _array(path).astype(np.float32)
    else:
        values = to_8_bits(read_photo(path).pixels).max(axis=2).astype(np.float32) / 255
    _check_size(path, values.shape, height, width)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # NaN is neither
        raise ValueError(f"{path.name} has values from {low:g} to {high:g}; they must be in [0, 1]")
    return values


def _array(path: Path) -> np.ndarray:
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):  # what numpy says of the pickle module is no help
        raise ValueError(f"{path.name} is no array of numpy, as np.save writes it") from None
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
        raise ValueError(f"{path.name} must be one array of numbers")
    return values


def _check_size(path: Path, got: tuple[int, ...], height: int, width: int) -> None:
    if tuple(got) != (height, width):
        size = "×".join(map(str, got[::-1]))
        raise ValueError(f"{path.name} is {size} pixels; the restored photo is {width}×{height}")


def _planes(pixels: np.ndarray) -> Tensor:
    """Uint8 [h, w, 3] → float32 [1, 3, h, w] in [0, 1]."""
    return torch.from_numpy(rearrange(pixels, "h w c -> 1 c h w").copy()).float() / 255
