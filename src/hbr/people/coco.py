"""COCO's annotation format (instances, person key points, Objects365), read entry by entry.

`CocoFile` streams a file of any size; `read_people` holds the people of a file in memory. An entry
that cannot be used costs that entry, never the file.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hbr.config import ConfigError
from hbr.image.paths import photo_suffix
from hbr.people.json_stream import JsonCutError, top_level
from hbr.people.labels import normalised
from hbr.people.types import N_KEYPOINTS, Keypoint, Person, Point, Rle
from hbr.people.values import flag, identifier, name_parts, number, pixels, text

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


class AnnotatedPeople(Mapping[str, tuple[Person, ...]]):
    """The people of each image of an annotation file, by the file name that is written there.

    Images without people are there, with none.

    Attributes:
        path: the file.
        skipped: reason → places of the entries that were not used.
    """

    def __init__(
        self,
        path: Path,
        people: Mapping[str, tuple[Person, ...]],
        skipped: Mapping[str, Sequence[str]],
    ) -> None:
        self.path = path
        self.skipped = skipped
        self._people = people
        self._named: dict[str, list[str]] = defaultdict(list)
        for name in people:
            self._named[_parts(name)[0][-1]].append(name)

    def __getitem__(self, name: str) -> tuple[Person, ...]:
        """The people of an image."""
        return self._people[name]

    def __iter__(self) -> Iterator[str]:
        """The file names, in the order of the file."""
        return iter(self._people)

    def __len__(self) -> int:
        """The number of images."""
        return len(self._people)

    def find(self, place: str, *, any_suffix: bool = False) -> tuple[Person, ...] | None:
        """The people of the photo at `place`, a path relative to the folder of photos.

        The annotations may name folders that the photo is not in, or the other way round: the
        longest agreeing end of the two paths counts, if one of them is the end of the other.

        Args:
            place: with slashes.
            any_suffix: "a.png" also stands for "a.jpg".

        Returns:
            None if no image of the file, or more than one, agrees.
        """
        agreeing = self._agreeing(place, any_suffix)
        return self._people[agreeing[0]] if len(agreeing) == 1 else None

    def match(self, places: Iterable[str]) -> tuple[dict[str, tuple[Person, ...]], list[str]]:
        """The people of all photos of a folder, and what cannot be told.

        Args:
            places: as for `find`.

        Returns:
            The people of each photo that the annotations name, and a line for each clash: names
            that fall on one photo, or photos that one name falls on. Their people are left out.
        """
        found, clashes = {}, []
        taken: dict[str, list[str]] = defaultdict(list)
        for place in places:
            if line := self.clash(place):
                clashes.append(line)
            elif agreeing := self._agreeing(place, any_suffix=False):
                taken[agreeing[0]].append(place)
        for name, photos in taken.items():
            own = [place for place in photos if _parts(place) == _parts(name)]
            if len(photos) > 1:
                shown = " and ".join(photos[:2]) + (" and more" if photos[2:] else "")
                clashes.append(f"{self.path}: {name} may be {shown}; name the folder, too")
            for place in own if len(photos) > 1 else photos:
                found[place] = self._people[name]
        return found, clashes

    def clash(self, place: str, *, any_suffix: bool = False) -> str | None:
        """One line if several names fall on the photo at `place`; see `find`."""
        names = self._agreeing(place, any_suffix)
        if len(names) < 2:
            return None
        return f"{self.path}: {names[0]} and {names[1]} both may be {place}; name the folder, too"

    def _agreeing(self, place: str, any_suffix: bool) -> list[str]:
        wanted, suffix = _parts(place)
        agreeing: dict[int, list[str]] = defaultdict(list)
        for name in self._named.get(wanted[-1], ()):
            parts, other = _parts(name)
            n = min(len(parts), len(wanted))
            fits = any_suffix or not suffix or not other or suffix == other
            if fits and parts[-n:] == wanted[-n:]:
                agreeing[n].append(name)
        best = agreeing[max(agreeing)] if agreeing else []
        for exact in ((wanted, suffix), (wanted, None)):
            chosen = [n for n in best if _parts(n) == exact or (_parts(n)[0], None) == exact]
            best = chosen or best
        return best

    @property
    def warning(self) -> str | None:
        """One line that counts what was skipped; None if everything was used."""
        if not self.skipped:
            return None
        total = sum(map(len, self.skipped.values()))
        reasons = [
            f"{places[0]} {reason}" + (f" (and {len(places) - 1} more)" if places[1:] else "")
            for reason, places in self.skipped.items()
        ]
        entries = "1 entry" if total == 1 else f"{total} entries"
        return f"{self.path}: {entries} skipped: {'; '.join(reasons)}"


def _parts(name: str) -> tuple[tuple[str, ...], str]:
    """The folders and the file of a name, and the suffix of a picture that it has, or none."""
    parts = name_parts(name) or ("",)
    suffix = photo_suffix(parts[-1])
    return (*parts[:-1], parts[-1].removesuffix(suffix)), suffix


def read_people(path: str | Path, *, labels: Sequence[str] = ("person",)) -> AnnotatedPeople:
    """Read the people of a COCO file into memory; crowds are left out.

    Args:
        path: the JSON file.
        labels: names of the categories that are people; case, spaces, - and _ do not matter.

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
