"""Where the parts of people are: from boxes, keypoints or segmentation, whichever there are.

The outline of a person is its segmentation, else a rounded shape in its box. It is parted along
limbs where keypoints show enough of them, else by the proportions of somebody who stands.

Shapes: n parts, h w pixels. Coordinates are in pixels, y downwards, (0, 0) the corner of the image.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from hbr.config import ConfigError, check

Point = tuple[float, float]
Keypoint = tuple[float, float, int]

# COCO: 0–4 face, 5 6 shoulders, 7 8 elbows, 9 10 wrists, 11 12 hips, 13 14 knees, 15 16 ankles
_N_KEYPOINTS = 17
_FACE = range(5)
_TRUNK = (5, 6, 12, 11)
# joints, and how far beyond the last of them the hand or foot reaches
_LIMBS = (
    ((5, 7, 9), 0.4),
    ((6, 8, 10), 0.4),
    ((7, 9), 0.4),
    ((8, 10), 0.4),
    ((11, 13, 15), 0.15),
    ((12, 14, 16), 0.15),
    ((13, 15), 0.15),
    ((14, 16), 0.15),
)
# left, top, right, bottom of the box, in parts of it: head, trunk, arms, legs
_CELLS = (
    (0.0, 0.0, 1.0, 0.16),
    (0.25, 0.16, 0.75, 0.55),
    (0.0, 0.16, 0.25, 0.62),
    (0.75, 0.16, 1.0, 0.62),
    (0.0, 0.55, 0.5, 1.0),
    (0.5, 0.55, 1.0, 1.0),
)


@dataclass(frozen=True)
class Rle:
    """A mask as COCO writes crowds and machine-made masks: column by column, 0s first.

    Attributes:
        size: (h, w).
        counts: lengths of the runs, which add up to h·w.
    """

    size: tuple[int, int]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check that the runs fill the mask."""
        ok = min(self.counts, default=0) >= 0 and sum(self.counts) == self.size[0] * self.size[1]
        check(ok, "counts", sum(self.counts), f"runs that fill {self.size[0]}x{self.size[1]}")

    def mask(self) -> np.ndarray:
        """Bool [h, w]."""
        values = np.arange(len(self.counts)) % 2 == 1
        return np.repeat(values, self.counts).reshape(self.size, order="F")


@dataclass(frozen=True)
class Person:
    """An annotated person; what is not known is None.

    Attributes:
        image_size: (w, h) of the image that the coordinates belong to.
        box: x, y, width, height.
        keypoints: 17 in COCO's order: x, y, and 0 for those that are not annotated.
        outline: polygons, each of three points or more, or a mask.
    """

    image_size: tuple[int, int]
    box: tuple[float, float, float, float]
    keypoints: tuple[Keypoint, ...] | None = None
    outline: tuple[tuple[Point, ...], ...] | Rle | None = None

    def __post_init__(self) -> None:
        """Check every field."""
        check(min(self.image_size) >= 1, "image_size", self.image_size, "1 pixel or more")
        numbers = [*self.box, *(v for p in self.keypoints or () for v in p)]
        check(bool(np.isfinite(numbers).all()), "box", self.box, "finite, keypoints too")
        check(min(self.box[2:]) > 0, "box", self.box, "of some width and height")
        if self.keypoints is not None:
            n = len(self.keypoints)
            check(n == _N_KEYPOINTS, "keypoints", n, f"{_N_KEYPOINTS} keypoints, as in COCO")


@dataclass(frozen=True, eq=False)
class Regions:
    """The people in one image, and their parts.

    Attributes:
        outlines: bool [p, h, w], one for each person.
        parts: bool [n, h, w]; they may overlap.
        owners: for each part, the person (index of its outline) that it belongs to.
    """

    outlines: Tensor
    parts: Tensor
    owners: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check that outlines, parts and owners go together."""
        people, parts = self.outlines.shape, self.parts.shape
        fits = len(people) == len(parts) == 3 and people[1:] == parts[1:]
        if not fits or parts[0] != len(self.owners):
            raise ValueError(
                f"outlines are {list(people)}, parts {list(parts)} of {len(self.owners)} owners; "
                "they must be [p, h, w] and [n, h, w] of n owners"
            )
        if not all(0 <= owner < people[0] for owner in self.owners):
            raise ValueError(f"owners are {self.owners}; they must be below {people[0]}")

    @classmethod
    def of(
        cls, people: Sequence[Person], size: tuple[int, int], *, longest: int | None = None
    ) -> Regions:
        """These people in an image of (h, w), to which they are scaled.

        Whoever lies outside of the image is left out.

        Args:
            people: with the size of the image that they were annotated in.
            size: of the image.
            longest: the masks are made smaller, so that their longer edge is at most this.

        Raises:
            ValueError: the annotated image is of another shape.
        """
        for person in people:
            _check_shape(person, size)
        if longest is not None and max(size) > longest:
            h, w = (max(round(edge * longest / max(size)), 1) for edge in size)
            size = (h, w)
        outlines: list[np.ndarray] = []
        parts: list[np.ndarray] = []
        owners: list[int] = []
        for person in people:
            outline, found = _parts(person, size)
            if outline.any():
                owners += [len(outlines)] * len(found)
                outlines.append(outline)
                parts += found
        return cls(_stacked(outlines, size), _stacked(parts, size), tuple(owners))


def _stacked(masks: list[np.ndarray], size: tuple[int, int]) -> Tensor:
    return torch.from_numpy(np.stack(masks) if masks else np.zeros((0, *size), bool))


def read_people(path: str | Path) -> dict[str, tuple[Person, ...]]:
    """The people of a COCO file (instances or person keypoints), by the file name of the image.

    Crowds are left out. Images without people are there, with none.

    Raises:
        ConfigError: the file cannot be read, or is no COCO file.
    """
    try:
        coco = json.loads(Path(path).read_text(encoding="utf-8"))
        wanted = {c["id"] for c in coco["categories"] if c["name"] == "person"}
        images = {image["id"]: image for image in coco["images"]}
        found: dict[str, list[Person]] = defaultdict(list)
        for entry in coco["annotations"]:
            if entry["category_id"] in wanted and not entry.get("iscrowd"):
                image = images[entry["image_id"]]
                found[image["file_name"]].append(_person(entry, image))
        return {image["file_name"]: tuple(found[image["file_name"]]) for image in images.values()}
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    except ConfigError as error:
        number = entry.get("id")
        raise ConfigError(f"{path}: annotation {number}: {error}") from None
    except (
        *(ValueError, KeyError, TypeError, AttributeError, IndexError),
        *(OverflowError, RecursionError),
    ) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ConfigError(f"{path} is no COCO file of people: {what}") from None


def people_of(people: Mapping[str, tuple[Person, ...]], place: str) -> tuple[Person, ...]:
    """Those of the image at this place in its folder ("sub/a.jpg"), else of its name alone."""
    return people.get(place) or people.get(Path(place).name) or ()


def _person(entry: Mapping[str, Any], image: Mapping[str, Any]) -> Person:
    flat = entry.get("keypoints")
    keypoints = None
    if flat:
        keypoints = tuple(
            (float(x), float(y), int(v))
            for x, y, v in zip(flat[::3], flat[1::3], flat[2::3], strict=True)
        )
    x, y, w, h = map(float, entry["bbox"])
    size = (int(image["width"]), int(image["height"]))
    return Person(size, (x, y, w, h), keypoints, _outline(entry.get("segmentation")))


def _outline(value: Any) -> tuple[tuple[Point, ...], ...] | Rle | None:
    if not value:
        return None
    if isinstance(value, dict):
        counts = value["counts"]
        runs = _uncompressed(counts) if isinstance(counts, str) else tuple(map(int, counts))
        h, w = value["size"]
        return Rle((int(h), int(w)), runs)
    polygons = (
        tuple(zip(map(float, flat[::2]), map(float, flat[1::2]), strict=True)) for flat in value
    )
    return tuple(polygon for polygon in polygons if len(polygon) >= 3) or None


def _uncompressed(text: str) -> tuple[int, ...]:
    """COCO's compressed runs: signed numbers in base 32, differences to the last but one run.

    A character less 48 holds five bits, low ones first, and a sixth that says that more follow;
    the fifth of the last one is the sign.
    """
    runs: list[int] = []
    number = shift = 0
    for character in text:
        bits = ord(character) - 48
        check(0 <= bits < 64, "counts", character, "a character of COCO's compressed runs")
        number |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            number -= 1 << shift
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
        number = shift = 0
    return tuple(runs)


def _check_shape(person: Person, size: tuple[int, int]) -> None:
    """A resized copy has the same shape, up to a pixel; a turned or cropped one has not."""
    h, w = size
    width, height = person.image_size
    if abs(width * h - height * w) > max(width, height, w, h):
        raise ValueError(
            f"its people are annotated for {width}x{height}, but it is {w}x{h}; "
            "take the photo that was annotated"
        )


def _parts(person: Person, size: tuple[int, int]) -> tuple[np.ndarray, list[np.ndarray]]:
    """The outline of a person and its parts, none of them empty: bool [h, w] each."""
    scale = (size[1] / person.image_size[0], size[0] / person.image_size[1])
    outline = _outline_mask(person, size, scale)
    shapes = _limbs(person, size, scale) or _cells(person, size, scale)
    return outline, [part for shape in shapes if (part := shape & outline).any()]


def _outline_mask(person: Person, size: tuple[int, int], scale: Point) -> np.ndarray:
    h, w = size
    if isinstance(person.outline, Rle):
        mask = person.outline.mask().astype(np.uint8)
        return cv2.resize(mask, (w, h), interpolation=cv2.INTER_NEAREST) > 0
    if person.outline is not None:
        mask = np.zeros(size, np.uint8)
        cv2.fillPoly(mask, [_pixels(polygon, scale) for polygon in person.outline], (1,))
        return mask > 0
    left, top, wide, high = person.box
    x = ((np.arange(w) + 0.5) / scale[0] - left) / wide * 2 - 1
    y = ((np.arange(h) + 0.5) / scale[1] - top) / high * 2 - 1
    return np.abs(x[None]) ** 3 + np.abs(y[:, None]) ** 3 <= 1


def _cells(person: Person, size: tuple[int, int], scale: Point) -> list[np.ndarray]:
    """The box in proportions of somebody who stands."""
    h, w = size
    left, top, wide, high = person.box
    x = (((np.arange(w) + 0.5) / scale[0] - left) / wide)[None]
    y = (((np.arange(h) + 0.5) / scale[1] - top) / high)[:, None]
    return [(x0 <= x) & (x < x1) & (y0 <= y) & (y < y1) for x0, y0, x1, y1 in _CELLS]


def _limbs(person: Person, size: tuple[int, int], scale: Point) -> list[np.ndarray]:
    """Strokes along the bones that are annotated, a disc for the head, the trunk."""
    if person.keypoints is None:
        return []
    seen = {
        i: np.array([x * scale[0], y * scale[1]])
        for i, (x, y, visible) in enumerate(person.keypoints)
        if visible
    }
    half = _half_width(person, seen, scale)
    out = []
    face = [seen[i] for i in _FACE if i in seen]
    if face:
        out.append(_stroke([np.mean(face, axis=0)], 2.6 * half, size))
    if all(i in seen for i in _TRUNK):
        trunk = [seen[i] for i in _TRUNK]
        out.append(_stroke([*trunk, trunk[0]], 1.2 * half, size, filled=True))
    for joints, beyond in _LIMBS:
        if all(i in seen for i in joints):
            bones = [seen[i] for i in joints]
            tip = bones[-1] + beyond * (bones[-1] - bones[-2])
            out.append(_stroke([*bones, tip], half, size))
    return out


def _half_width(person: Person, seen: Mapping[int, np.ndarray], scale: Point) -> float:
    """Half of the width of a limb, in pixels."""
    if all(i in seen for i in _TRUNK):
        trunk = (seen[5] + seen[6] - seen[11] - seen[12]) / 2
        across = seen[5] - seen[6]
        return max(0.2 * float(max(np.hypot(*trunk), np.hypot(*across))), 1.0)
    return max(0.06 * max(person.box[2] * scale[0], person.box[3] * scale[1]), 1.0)


def _stroke(
    points: Sequence[np.ndarray], half: float, size: tuple[int, int], *, filled: bool = False
) -> np.ndarray:
    mask = np.zeros(size, np.uint8)
    path = _pixels([tuple(p) for p in points], (1.0, 1.0))
    thickness = min(max(round(2 * half), 1), 32767)
    if len(path) == 1:
        cv2.circle(mask, [int(v) for v in path[0]], max(round(half), 1), (1,), -1)
    else:
        cv2.polylines(mask, [path], isClosed=filled, color=(1,), thickness=thickness)
    if filled:
        cv2.fillPoly(mask, [path], (1,))
    return mask > 0


def _pixels(points: Sequence[Any], scale: Point) -> np.ndarray:
    """Whole pixel positions, int32 [n, 2], kept to what OpenCV can draw."""
    where = np.array(points, np.float64) * scale - 0.5
    return np.rint(where).clip(-16000, 16000).astype(np.int32)
