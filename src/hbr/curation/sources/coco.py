"""COCO and Objects365: one JSON file with images, annotations, categories and licences.

The four lists may come in any order, as they do in the wild. The file is read once, an element at a
time, into tables on disk (`spill`), and images come out in its order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hbr.curation.sources.base import Box, BoxKind, SourceError, SourceImage
from hbr.curation.sources.disk_tables import BoxIndex, IndexedImage
from hbr.curation.sources.json_stream import JsonCutError, top_level
from hbr.curation.sources.labels import Vocabulary
from hbr.curation.sources.paths import at, broken, number, pixels, text

FLICKR = "https://www.flickr.com/"


@dataclass(frozen=True)
class CocoSource:
    """Images and boxes of a file in COCO's format.

    Attributes:
        name: of the source.
        annotations: the JSON file.
        images: the folder that holds the files that it names.
        vocabulary: what its categories mean.
    """

    name: str
    annotations: Path
    images: Path
    vocabulary: Vocabulary

    def __iter__(self) -> Iterator[SourceImage]:
        """The images in the file's order; then what is wrong with the file."""
        with BoxIndex() as index:
            reading = _Reading(self, index)
            try:
                for key, element in top_level(self.annotations):
                    reading.take(key, element)
            except JsonCutError as error:
                reading.cut = True
                reading.problems.append(("cut", f"{self.annotations.name}: {error}"))
            except OSError as error:
                raise SourceError(f"{self.annotations}: {error.strerror or error}") from None
            reading.finish()
            for image in index.images():
                yield self._image(image, reading)
            for place, problem in reading.problems:
                yield broken(self.name, f"{self.annotations.name}:{place}", problem)

    def _image(self, image: IndexedImage, reading: _Reading) -> SourceImage:
        if not image.listed or image.name is None:
            problem = f"{len(image.boxes)} boxes of image {image.id}, which the file does not list"
            return broken(self.name, f"{self.annotations.name}:image {image.id}", problem)
        ref, error = at(self.images, image.name)
        key = image.name
        if image.repeated:
            key, error = f"{key}#{image.id}", f"{image.name} is listed twice, again as {image.id}"
        return SourceImage(
            self.name,
            key,
            ref,
            image.width,
            image.height,
            # in a cut file, an image without boxes may be one whose boxes are lost
            image.boxes or (None if reading.cut else ()),
            reading.licences.get(image.licence or ""),
            image.attribution,
            error,
        )


class _Reading:
    """What is known while the file is read."""

    # More than these are counted only: a file of another kind would fill the report.
    MAX_PROBLEMS = 1000

    def __init__(self, source: CocoSource, index: BoxIndex) -> None:
        self.licences: dict[str, str] = {}
        self.problems: list[tuple[str, str]] = []
        self.cut = False
        self._more_problems = 0
        self._vocabulary = source.vocabulary
        self._file = source.annotations.name
        self._index = index
        # None until they come: where they come last, boxes of all categories wait on disk
        self._categories: dict[str, tuple[str, BoxKind, bool, bool]] | None = None
        self._counts = {"images": 0, "annotations": 0}

    def take(self, key: str, element: Any) -> None:
        """One element of the file."""
        if key in self._counts:
            self._counts[key] += 1
            place = f"{key}[{self._counts[key] - 1}]"
            if not isinstance(element, dict):
                self._problem(place, f"{self._file}: {place} is no object")
            elif key == "images":
                self._image(place, element)
            else:
                self._annotation(place, element)
        elif key == "categories" and isinstance(element, dict):
            self._category(element)
        elif key == "licenses" and isinstance(element, dict):
            words = [text(element.get(part)) for part in ("name", "url")]
            told = " ".join(f"({w})" if w.startswith("http") else w for w in words if w)
            self.licences[_id(element.get("id")) or ""] = told

    def finish(self) -> None:
        """The file has ended."""
        rows = [(key, *what) for key, what in (self._categories or {}).items()]
        self._index.name_categories(rows)
        if self._more_problems:
            problem = f"{self._file}: {self._more_problems} more entries that cannot be used"
            self.problems.append(("more", problem))
        if not self._categories and self._counts["annotations"]:
            said = "none of its categories names a person"
            if self.cut:
                said = "no category that names a person came before the cut: its boxes are lost"
            self.problems.append(("categories", f"{self._file}: {said}"))

    def _problem(self, place: str, problem: str) -> None:
        if len(self.problems) < self.MAX_PROBLEMS:
            self.problems.append((place, problem))
        else:
            self._more_problems += 1

    def _category(self, element: dict[str, Any]) -> None:
        if self._categories is None:
            self._categories = {}
        label = text(element.get("name"))
        role = self._vocabulary.role(label) if label else None
        if label and role:
            kind: BoxKind = "head" if role == "head" else "full"
            what = (label, kind, role == "crowd", role == "ignore")
            self._categories[_id(element.get("id")) or ""] = what

    def _image(self, place: str, element: dict[str, Any]) -> None:
        name, id = text(element.get("file_name")), _id(element.get("id"))
        if name is None or id is None:
            self._problem(place, f"{self._file}: {place} lacks an id or a file_name")
            return
        added = self._index.add_image(
            id,
            name,
            width=pixels(element.get("width")),
            height=pixels(element.get("height")),
            licence=_id(element.get("license")),
            attribution=_attribution(element),
        )
        if not added:
            self._problem(place, f"{self._file}: {place} has the id {id} of another image")

    def _annotation(self, place: str, element: dict[str, Any]) -> None:
        category, image = _id(element.get("category_id")), _id(element.get("image_id"))
        if self._categories is not None and category not in self._categories:
            return
        edges = element.get("bbox")
        if image is None or not isinstance(edges, list) or len(edges) != 4:
            self._problem(place, f"{self._file}: {place} lacks an image_id or a bbox of 4 numbers")
            return
        x, y, w, h = map(number, edges)
        crowd = bool(element.get("iscrowd", 0))
        ignore = bool(element.get("ignore", 0)) or bool(element.get("isfake", 0))
        score = element.get("score")
        score = number(score) if score is not None else None
        box = Box(x, y, x + w, y + h, "", score=score, crowd=crowd, ignore=ignore)
        self._index.add_box(image, box, category or "")


def _id(value: Any) -> str | None:
    """An id as text; None for what is none."""
    return str(value) if isinstance(value, int) else text(value)


def _attribution(element: dict[str, Any]) -> str | None:
    """The photographer's page, as far as the file tells it.

    A name on Flickr's servers, `server/id_secret_size.jpg`, holds the photo's id.
    """
    for key in ("author", "attribution", "flickr_photo", "flickr_url", "coco_url", "url"):
        value = text(element.get(key))
        if value is None:
            continue
        file = value.rsplit("/", 1)[-1]
        photo = file.split("_")[0]
        if key.startswith("flickr") and "_" in file and photo.isdigit():
            return f"{FLICKR}photo.gne?id={photo}"
        return value
    return None
