"""Putting restored people back into a photo: soft masks, colours of the surroundings, no seam.

Fine detail and the rest are blended with masks of different width (P. Burt and E. Adelson, "A
multiresolution spline with application to image mosaics", ACM ToG 2(4), 1983, with two bands): a
wide transition hides a step of brightness, but two textures that are averaged over a wide
transition are blurred there.

Shapes: h w the window of the photo that is pasted into.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from hbr.people.grids import Edges
from hbr.restoration.people.locating import LocatedPerson

FloatPlane = NDArray[np.float32]
Window = tuple[int, int, int, int]

MARGIN = 1.25
"""Edge of what is cut out, over the longer edge of the person's box."""

# Detail is what a Gaussian of this deviation removes; it changes over within twice this, in pixels.
_DETAIL = 3.0
_FINE = 2.0
# Between two people with outlines, the mask of one falls within this many pixels.
_BETWEEN = 2.0
# Reach of the matching of colours, over the longer edge of the window.
_REACH = 1 / 6
_COARSE = 48  # edge of the grid on which colours are matched


def around(box: Edges, size: tuple[int, int]) -> Window:
    """The window around a box, with its margin, inside a photo of (h, w): x0, y0, x1, y1."""
    fade = fade_of(box)
    (x0, y0, x1, y1), (height, width) = box, size
    low, high = np.floor([x0 - fade, y0 - fade]), np.ceil([x1 + fade, y1 + fade])
    (left, top), (right, bottom) = np.maximum(low, 0), np.minimum(high, [width, height])
    return int(left), int(top), int(right), int(bottom)


def box_mask(box: Edges, window: Window, size: tuple[int, int]) -> FloatPlane:
    """A mask that is 1 in a box and falls to 0 with the distance from it, by a raised cosine.

    It is 0 from the margin on, a quarter of the longer edge over both sides. Where the margin
    leaves the photo, there is nothing to blend with, and it does not fall.

    Args:
        box: x0, y0, x1, y1 in pixels of the photo.
        window: x0, y0, x1, y1 of the part of the photo that the mask is wanted for.
        size: (h, w) of the photo.

    Returns:
        [h, w] in [0, 1].
    """
    fade = fade_of(box)
    distances = []
    for axis, edge in ((0, size[1]), (1, size[0])):
        at = np.arange(window[axis], window[axis + 2], dtype=np.float32) + 0.5
        low, high = box[axis], box[axis + 2]
        before = np.zeros_like(at) if low - fade <= 0 else low - at
        after = np.zeros_like(at) if high + fade >= edge else at - high
        distances.append(np.maximum(np.maximum(before, after), 0))
    across, down = distances
    return _falling(np.asarray(np.hypot(across[None, :], down[:, None]) / fade, np.float32))


def outline_mask(
    inside: NDArray[np.bool_], at: tuple[int, int], window: Window, fade: float
) -> FloatPlane:
    """A mask that is 1 on the pixels of a segmentation and falls to 0 at a distance of `fade`.

    Args:
        inside: bool, the pixels of a person, in a part of the photo.
        at: x, y of that part.
        window: x0, y0, x1, y1 that the mask is wanted for.
        fade: in pixels.

    Returns:
        [h, w] in [0, 1].
    """
    whole = np.ones((window[3] - window[1], window[2] - window[0]), np.uint8)
    left, top = max(at[0], window[0]), max(at[1], window[1])
    right = min(at[0] + inside.shape[1], window[2])
    bottom = min(at[1] + inside.shape[0], window[3])
    if left < right and top < bottom:
        part = inside[top - at[1] : bottom - at[1], left - at[0] : right - at[0]]
        rows, columns = slice(top - window[1], bottom - window[1]), slice(left - window[0], None)
        whole[rows, columns][:, : right - left] = ~part
    if whole.all():
        return np.zeros(whole.shape, np.float32)
    distance = cv2.distanceTransform(whole, cv2.DIST_L2, 5)
    return _falling(np.asarray(distance, np.float32) / max(fade, 1.0))


def person_mask(
    person: LocatedPerson,
    people: Sequence[LocatedPerson],
    window: Window,
    size: tuple[int, ...],
    result: tuple[int, ...],
) -> FloatPlane:
    """The mask of a person's window: their outline within their box, up to other people's.

    `window` is x0, y0, x1, y1 on the grid of the result; `size` and `result` are (h, w) of the
    photo and the result.

    Returns:
        [h, w] of the window, in [0, 1].
    """
    box = scaled(person.box, size, result)
    mask = box_mask(box, window, (result[0], result[1]))
    own = _outline(person, size, result)
    if own is None:
        return mask
    mask = np.minimum(mask, outline_mask(*own, window, fade_of(box) / 2))
    ours = outline_mask(*own, window, _BETWEEN)
    for other in people:
        theirs = None if other is person else _outline(other, size, result)
        if theirs is not None:
            mask *= 1 - np.clip(outline_mask(*theirs, window, _BETWEEN) - ours, 0, 1)
    return mask


def scaled(box: Edges, size: tuple[int, ...], result: tuple[int, ...]) -> Edges:
    """A box in a photo of (h, w), on the grid of its result."""
    x0, y0, x1, y1 = box
    down, across = result[0] / size[0], result[1] / size[1]
    return x0 * across, y0 * down, x1 * across, y1 * down


def _outline(
    person: LocatedPerson, size: tuple[int, ...], result: tuple[int, ...]
) -> tuple[NDArray[np.bool_], tuple[int, int]] | None:
    """The pixels of a person on the grid of the result, and x, y of their corner."""
    if person.mask is None:
        return None
    x0, y0, x1, y1 = (round(edge) for edge in scaled(person.area, size, result))
    if person.mask.shape == (y1 - y0, x1 - x0):
        return person.mask, (x0, y0)
    shape = max(1, x1 - x0), max(1, y1 - y0)
    resized = cv2.resize(person.mask.astype(np.float32), shape, interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized) >= 0.5, (x0, y0)


def paste(into: FloatPlane, restored: FloatPlane, mask: FloatPlane, fade: float) -> None:
    """Paste a restored window, with the colours of its surroundings, in place.

    Args:
        into: [3, h, w] in [0, 1], a view of the photo.
        restored: [3, h, w] in [0, 1]; it is changed too.
        mask: [h, w] in [0, 1]; where it is 0, nothing changes.
        fade: the width of its transition in pixels.
    """
    restored += surroundings(into, restored, mask)
    steeper = max(1.0, fade / (np.pi * _FINE))
    fine = np.clip((mask - 0.5) * steeper + 0.5, 0, 1)
    for under, over in zip(into, restored, strict=True):
        difference = over - under
        coarse = cv2.GaussianBlur(difference, (0, 0), _DETAIL)
        blended = under + mask * coarse + fine * (difference - coarse)
        np.copyto(under, np.clip(blended, 0, 1), where=mask > 0)


def surroundings(into: FloatPlane, restored: FloatPlane, mask: FloatPlane) -> FloatPlane:
    """What to add to a restored window so that it has the colours of its surroundings.

    Where the mask rises, both are seen: their difference there is smoothed and continued into the
    middle (normalised convolution; H. Knutsson and C.-F. Westin, CVPR 1993).

    Args:
        into: [3, h, w], the surroundings.
        restored: [3, h, w].
        mask: [h, w] in [0, 1].

    Returns:
        [3, h, w]; zeros where the mask rises nowhere.
    """
    height, width = mask.shape
    weight = 4 * mask * (1 - mask)
    if not weight.any():
        return np.zeros_like(restored)
    scale = min(1.0, _COARSE / max(height, width))
    grid = max(1, round(width * scale)), max(1, round(height * scale))

    def small(plane: FloatPlane) -> FloatPlane:
        return np.asarray(cv2.resize(plane, grid, interpolation=cv2.INTER_AREA), np.float32)

    sigma = max(1.0, _REACH * max(grid))
    reach = max(grid) | 1
    norm = cv2.GaussianBlur(small(weight), (2 * reach + 1, 2 * reach + 1), sigma)
    out = np.empty_like(restored)
    for under, over, into_plane in zip(into, restored, out, strict=True):
        seen = cv2.GaussianBlur(
            small(weight * (under - over)), (2 * reach + 1, 2 * reach + 1), sigma
        )
        field = np.asarray(seen / np.maximum(norm, 1e-12), np.float32)
        into_plane[...] = cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR)
    return out


def fade_of(box: Edges) -> float:
    """Distance from a box at which its mask ends, in pixels."""
    x0, y0, x1, y1 = box
    return max(1.0, (MARGIN - 1) / 2 * max(x1 - x0, y1 - y0))


def _falling(distance: FloatPlane) -> FloatPlane:
    """From 1 at distances up to 0 to 0 at distances from 1, by a raised cosine."""
    return np.asarray(0.5 + 0.5 * np.cos(np.pi * np.clip(distance, 0, 1)), np.float32)
