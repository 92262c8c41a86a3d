"""Attention maps: how much each pixel belongs to a person, in [0, 1], merged by the maximum.

One of three sources is here: key points, as Gaussian limbs. Another is a segmentation model
(`hbr.people.segmentation`). The third, a network of body parts, belongs to the model that uses it
(`hbr.models.diffbody.parts`); its labels come from here.

Shapes: n people, k parts, h w pixels.
"""

from __future__ import annotations

import numpy as np

from hbr.people.types import N_KEYPOINTS, SEEN

# COCO's points by number
_NOSE, _L_EYE, _R_EYE, _L_EAR, _R_EAR, _L_SHOULDER, _R_SHOULDER, _L_ELBOW, _R_ELBOW = range(9)
_L_WRIST, _R_WRIST, _L_HIP, _R_HIP, _L_KNEE, _R_KNEE, _L_ANKLE, _R_ANKLE = range(9, 17)

_Pairs = tuple[tuple[int, int], ...]
PART_LIMBS: tuple[_Pairs, ...] = (
    ((_NOSE, _L_EAR), (_NOSE, _R_EAR), (_L_EYE, _R_EYE), (_L_EAR, _R_EAR)),
    ((_L_SHOULDER, _R_SHOULDER), (_L_SHOULDER, _L_ELBOW), (_R_SHOULDER, _R_ELBOW)),
    (
        (_L_ELBOW, _L_WRIST),
        (_R_ELBOW, _R_WRIST),
        (_L_SHOULDER, _L_HIP),
        (_R_SHOULDER, _R_HIP),
        (_L_HIP, _R_HIP),
        (_L_SHOULDER, _R_HIP),
        (_R_SHOULDER, _L_HIP),
    ),
    ((_L_HIP, _L_KNEE), (_R_HIP, _R_KNEE), (_L_KNEE, _L_ANKLE), (_R_KNEE, _R_ANKLE)),
    ((_L_ANKLE, _L_ANKLE), (_R_ANKLE, _R_ANKLE)),
)
"""The limbs of head; arms and upper torso; lower arms and torso; legs; feet."""

# of the person's size: the deviation of a limb's Gaussian, and that of a head or foot
_WIDTHS = (0.05, 0.045, 0.06, 0.045, 0.04)
_NO_LABEL = 0.5


def limb_maps(keypoints: np.ndarray, height: int, width: int) -> np.ndarray:
    """Draw each part of the bodies as Gaussians around its limbs, merged over people by max.

    Args:
        keypoints: [n, 17 or more, 3], COCO's 17 first: x, y, visibility; points less visible than
            `SEEN` or not finite are left out, with the limbs that end there.
        height, width: of the maps.

    Returns:
        float32 [k, height, width] in [0, 1], 1 on the limbs.
    """
    maps = np.zeros((len(PART_LIMBS), height, width), np.float32)
    for person in keypoints[:, :N_KEYPOINTS]:
        seen = np.isfinite(person).all(axis=1) & (person[:, 2] >= SEEN)
        if not seen.any():
            continue
        extent = np.ptp(person[seen, :2], axis=0).max()
        for part, limbs in enumerate(PART_LIMBS):
            # a person with only two eyes in the picture is larger than the part that is visible
            sigma = max(1.0, _WIDTHS[part] * max(extent, 0.1 * min(height, width)))
            for start, end in limbs:
                if seen[start] and seen[end]:
                    _draw(maps[part], person[start, :2], person[end, :2], sigma)
    return maps


def limb_attention(keypoints: np.ndarray, height: int, width: int) -> np.ndarray:
    """The attention map of key points: the maximum over the parts, float32 [h, w] in [0, 1]."""
    return limb_maps(keypoints, height, width).max(axis=0)


def part_labels(keypoints: np.ndarray, height: int, width: int) -> np.ndarray:
    """Soft labels of parts and background, for the training of a network of parts.

    Returns:
        float32 [k + 1, height, width], which sum to 1; the last is the background.
    """
    maps = limb_maps(keypoints, height, width)
    whole = np.concatenate([maps, np.maximum(_NO_LABEL - maps.max(axis=0, keepdims=True), 0)])
    # where a limb is certain, the background is not, and of two parts the nearer counts more
    sharp = whole**4
    return sharp / np.maximum(sharp.sum(axis=0, keepdims=True), 1e-12)


def _draw(canvas: np.ndarray, start: np.ndarray, end: np.ndarray, sigma: float) -> None:
    """Raise a map to the Gaussian of the distance to a segment, within 4 σ of it."""
    height, width = canvas.shape
    low = np.floor(np.minimum(start, end) - 4 * sigma)
    high = np.ceil(np.maximum(start, end) + 4 * sigma) + 1
    x0, y0 = (int(v) for v in np.clip(low, 0, (width, height)))
    x1, y1 = (int(v) for v in np.clip(high, 0, (width, height)))
    if x0 >= x1 or y0 >= y1:
        return
    points = np.stack(np.meshgrid(np.arange(x0, x1), np.arange(y0, y1)), axis=-1) + 0.5
    along = end - start
    length = float(along @ along)
    t = np.clip((points - start) @ along / length, 0, 1) if length > 0 else 0.0
    nearest = start + np.asarray(t)[..., None] * along
    distance = ((points - nearest) ** 2).sum(axis=-1)
    region = canvas[y0:y1, x0:x1]
    np.maximum(region, np.exp(-distance / (2 * sigma**2)), out=region, casting="same_kind")
