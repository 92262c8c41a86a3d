"""COCO's annotation format (instances, person key points, Objects365), read entry by entry.

`CocoFile` streams a file of any size; `read_people` holds the people of a file in memory. An entry
that cannot be used costs that entry, never the file.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hbr.config import ConfigError
from hbr.people.json_stream import JsonCutError, top_level
from hbr.people.labels import normalised
from hbr.people.names import AnnotatedPeople
from hbr.people.types import N_KEYPOINTS, Keypoint, Person, Point, Rle
from hbr.people.values import flag, identifier, number, pixels, text

_LARGEST = 1e9  # no coordinate of a photo


@dataclass(frozen=True, slots=True, kw_only=True)
class CocoImage:
    """An entry of `images`; `raw` is all of it."""

    place: str
    id: str
    file_name: str
    width: int | None
    height: int | None
    raw: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CocoAnnotation:
    """An entry of `annotations`; `raw` is all of it.

    Attributes:
        place: such as "annotations[7]".
        image_id, category_id: as text.
        box: x, y, width, height as written, NaN for what is not a number.
        crowd: the box holds a group.
    """

    place: str
    image_id: str
    category_id: str
    box: tuple[float, float, float, float]
    crowd: bool
    raw: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CocoProblem:
    """An entry that cannot be used, and why: "annotations[7]" "lacks an image_id …"."""

    place: str
    reason: str


@dataclass(kw_only=True)
class CocoFile:
    """A COCO file that is being read; its four lists may come in any order.

    Attributes:
        path: the JSON file.
        is_person: whether annotations of this category name are wanted.
        categories: id → name of those that are; None until the first category was read. Annotations
            that come after the categories are filtered by them, those before are not.
        licences: id → entry of `licenses`.
        counts: entries of `images` and `annotations` so far.
    """

    path: Path
    is_person: Callable[[str], bool]
    categories: dict[str, str] | None = None
    licences: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=lambda: {"images": 0, "annotations": 0})

    def entries(self) -> Iterator[CocoImage | CocoAnnotation | CocoProblem]:
        """The images and annotations in the order of the file.

        Raises:
            JsonCutError: the file is cut, or is not one JSON object.
            OSError: it cannot be read.
        """
        for key, element in top_level(self.path):
            if key in self.counts:
                place = f"{key}[{self.counts[key]}]"
                self.counts[key] += 1
                entry = self._entry(key, place, element)
                if entry is not None:
                    yield entry
            elif not isinstance(element, dict):
                continue
            elif key == "categories":
                self.categories = self.categories or {}
                name = text(element.get("name"))
                if name and self.is_person(name):
                    self.categories[identifier(element.get("id")) or ""] = name
            elif key == "licenses":
                self.licences[identifier(element.get("id")) or ""] = element

    def _entry(
        self, key: str, place: str, element: Any
    ) -> CocoImage | CocoAnnotation | CocoProblem | None:
        if not isinstance(element, dict):
            return CocoProblem(place, "is not an object")
        if key == "images":
            id, name = identifier(element.get("id")), text(element.get("file_name"))
            if id is None or name is None:
                return CocoProblem(place, "lacks an id or a file_name")
            width, height = pixels(element.get("width")), pixels(element.get("height"))
            return CocoImage(
                place=place, id=id, file_name=name, width=width, height=height, raw=element
            )
        category = identifier(element.get("category_id")) or ""
        if self.categories is not None and category not in self.categories:
            return None
        image, box = identifier(element.get("image_id")), element.get("bbox")
        if image is None or not isinstance(box, list) or len(box) != 4:
            return CocoProblem(place, "lacks an image_id or a bbox of 4 numbers")
        x, y, w, h = map(number, box)
        if (crowd := flag(element.get("iscrowd"))) is None:
            return CocoProblem(place, f"has the iscrowd {element['iscrowd']!r}, not 0 or 1")
        return CocoAnnotation(
            place=place,
            image_id=image,
            category_id=category,
            box=(x, y, w, h),
            crowd=crowd,
            raw=element,
        )


def read_people(path: str | Path, *, labels: Sequence[str] = ("person",)) -> AnnotatedPeople:
    """Read the people of a COCO file into memory; crowds are left out.

    `labels` are names of the categories that are people; case, spaces, - and _ do not matter.

    Raises:
        ConfigError: the file cannot be read, is not a COCO file, or has no such category.
    """
    wanted = set(map(normalised, labels))
    file = CocoFile(path=Path(path), is_person=lambda label: normalised(label) in wanted)
    skipped: dict[str, list[str]] = defaultdict(list)
    try:
        images, annotations = _images_and_annotations(file, skipped)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    except JsonCutError as error:
        raise ConfigError(f"{path} is not a COCO file: {error}") from None
    if not any(file.counts.values()):
        raise ConfigError(f"{path} is not a COCO file: it has no images and no annotations")
    if not file.categories and annotations:
        raise ConfigError(f"{path} has no category that is called {' or '.join(labels)}")
    people: dict[str, list[Person]] = {image.file_name: [] for image in images.values()}
    for entry in annotations:
        if entry.category_id not in (file.categories or {}) or entry.crowd:
            continue
        image = images.get(entry.image_id)
        if image is None:
            skipped["belongs to an image that is not listed"].append(entry.place)
            continue
        person, problems = _person(entry, image)
        for problem in problems:
            skipped[problem].append(entry.place)
        if person is not None:
            people[image.file_name].append(person)
    return AnnotatedPeople(
        Path(path), {name: tuple(found) for name, found in people.items()}, skipped
    )


def _images_and_annotations(
    file: CocoFile, skipped: dict[str, list[str]]
) -> tuple[dict[str, CocoImage], list[CocoAnnotation]]:
    """The images by id, and the annotations; `skipped` gets what can be neither."""
    images: dict[str, CocoImage] = {}
    annotations: list[CocoAnnotation] = []
    names: set[str] = set()
    for entry in file.entries():
        if isinstance(entry, CocoProblem):
            skipped[entry.reason].append(entry.place)
        elif isinstance(entry, CocoAnnotation):
            annotations.append(entry)
        elif entry.id in images:
            skipped["has the id of another image"].append(entry.place)
        elif entry.file_name in names:
            skipped["has the file name of another image"].append(entry.place)
        else:
            images[entry.id] = entry
            names.add(entry.file_name)
    return images, annotations


def _person(entry: CocoAnnotation, image: CocoImage) -> tuple[Person | None, list[str]]:
    """The person of an annotation, without those parts of it that cannot be used; and why not."""
    if not all(map(math.isfinite, entry.box)):
        return None, ["has a box that is not finite"]
    if min(entry.box[2:]) <= 0:
        return None, ["has a box without area"]
    size = (image.width, image.height) if image.width and image.height else None
    problems, points, outline = [], None, None
    try:
        points = keypoints(entry.raw.get("keypoints"))
    except (TypeError, ValueError, OverflowError):
        problems.append(f"has key points that are not {N_KEYPOINTS} times x, y, visibility")
    try:
        outline = _outline(entry.raw.get("segmentation"), size)
    except (TypeError, KeyError, ValueError, OverflowError):
        problems.append("has an outline that is neither polygons nor a mask of the image's size")
    return Person(size, entry.box, points, outline), problems


def keypoints(values: Any) -> tuple[Keypoint, ...] | None:
    """The key points of an annotation's `keypoints`; None if it has none.

    Raises:
        TypeError, ValueError, OverflowError: they are not 17 times x, y, visibility.
    """
    if not values:
        return None
    numbers = _finite(values)
    if len(numbers) != 3 * N_KEYPOINTS:
        raise ValueError
    return tuple(
        (x, y, int(v) if v.is_integer() else v)
        for x, y, v in zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True)
    )


def _outline(
    value: Any, size: tuple[int, int] | None
) -> tuple[tuple[Point, ...], ...] | Rle | None:
    if not value:
        return None
    if isinstance(value, dict):
        height, width = map(int, value["size"])
        counts = value["counts"]
        if size is not None and (width, height) != size:
            raise ValueError
        if isinstance(counts, str):
            return Rle.from_text((height, width), counts)
        return Rle((height, width), tuple(map(int, counts)))
    flat = [_finite(polygon) for polygon in value]
    polygons = (tuple(zip(points[::2], points[1::2], strict=True)) for points in flat)
    return tuple(polygon for polygon in polygons if len(polygon) >= 3) or None


def _finite(values: Any) -> list[float]:
    numbers = list(map(float, values))
    if not all(abs(value) < _LARGEST for value in numbers):
        raise ValueError
    return numbers
