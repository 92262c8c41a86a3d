"""COCO and Objects365: one JSON file with images, annotations, categories and licences.

The four lists may come in any order, as they do in the wild. The file is read once, an element at a
time, into tables on disk (`disk_tables`), and images come out in its order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hbr.curation.sources.base import Box, BoxKind, SourceError, SourceImage
from hbr.curation.sources.disk_tables import BoxIndex, IndexedImage
from hbr.curation.sources.labels import Vocabulary
from hbr.curation.sources.paths import Places, broken, unused
from hbr.people.coco import CocoAnnotation, CocoFile, CocoImage, CocoProblem, keypoints
from hbr.people.json_stream import JsonCutError
from hbr.people.values import flag, identifier, number, text

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
        """The images in the order of the file, then the errors of the file."""
        with BoxIndex() as index:
            file = CocoFile(
                path=self.annotations, is_person=lambda name: self.vocabulary.role(name) is not None
            )
            reading = _Reading(self, file, index)
            try:
                for entry in file.entries():
                    reading.take(entry)
            except JsonCutError as error:
                reading.cut = True
                reading.problems.append(("cut", f"{self.annotations.name}: {error}"))
            except OSError as error:
                raise SourceError(f"{self.annotations}: {error.strerror or error}") from None
            reading.finish()
            licences = {id: _licence(entry) for id, entry in file.licences.items()}
            with Places(self.images, ((name, name) for name in index.names())) as places:
                for image in index.images():
                    yield self._image(image, places, licences, cut=reading.cut)
            for place, problem in reading.problems:
                record = broken if place == "cut" else unused
                yield record(self.name, f"{self.annotations.name}:{place}", problem)

    def _image(
        self, image: IndexedImage, places: Places, licences: Mapping[str, str], *, cut: bool
    ) -> SourceImage:
        if not image.listed or image.name is None:
            problem = f"{len(image.boxes)} boxes of image {image.id}, which the file does not list"
            return unused(self.name, f"{self.annotations.name}:image {image.id}", problem)
        ref, error = places.at(image.name)
        key = image.name
        if image.repeated:
            key, error = f"{key}#{image.id}", f"{image.name} is listed twice, again as {image.id}"
        return SourceImage(
            source=self.name,
            key=key,
            ref=ref,
            width=image.width,
            height=image.height,
            # in a cut file, an image without boxes may be one whose boxes are lost
            boxes=image.boxes or (None if cut else ()),
            licence=licences.get(image.licence or ""),
            attribution=image.attribution,
            error=error,
        )


class _Reading:
    """The state while the file is read."""

    # More than these are counted only: a file of another kind would fill the report.
    MAX_PROBLEMS = 1000

    def __init__(self, source: CocoSource, file: CocoFile, index: BoxIndex) -> None:
        self.problems: list[tuple[str, str]] = []
        self.cut = False
        self._more_problems = 0
        self._vocabulary = source.vocabulary
        self._file = file
        self._name = source.annotations.name
        self._index = index

    def take(self, entry: CocoImage | CocoAnnotation | CocoProblem) -> None:
        """One entry of the file."""
        if isinstance(entry, CocoProblem):
            self._problem(entry.place, entry.reason)
        elif isinstance(entry, CocoAnnotation):
            self._annotation(entry)
        elif not self._index.add_image(
            entry.id,
            entry.file_name,
            width=entry.width,
            height=entry.height,
            licence=identifier(entry.raw.get("license")),
            attribution=_attribution(entry.raw),
        ):
            self._problem(entry.place, f"has the id {entry.id} of another image")

    def finish(self) -> None:
        """The file has ended."""
        categories = self._file.categories or {}
        self._index.name_categories([self._category(*item) for item in categories.items()])
        if self._more_problems:
            problem = f"{self._name}: {self._more_problems} more entries that cannot be used"
            self.problems.append(("more", problem))
        if not categories and self._file.counts["annotations"]:
            said = "none of its categories names a person"
            if self.cut:
                said = "no category that names a person came before the cut: its boxes are lost"
            self.problems.append(("categories", f"{self._name}: {said}"))

    def _problem(self, place: str, reason: str) -> None:
        if len(self.problems) < self.MAX_PROBLEMS:
            self.problems.append((place, f"{self._name}: {place} {reason}"))
        else:
            self._more_problems += 1

    def _category(self, id: str, name: str) -> tuple[str, str, BoxKind, bool, bool]:
        role = self._vocabulary.role(name)
        return id, name, "head" if role == "head" else "full", role == "crowd", role == "ignore"

    def _annotation(self, entry: CocoAnnotation) -> None:
        x, y, w, h = entry.box
        flags = {name: flag(entry.raw.get(name)) for name in ("ignore", "isfake")}
        if unclear := [name for name, value in flags.items() if value is None]:
            said = f"has the {unclear[0]} {entry.raw[unclear[0]]!r}, not 0 or 1"
            self._problem(entry.place, said)
            return
        score = entry.raw.get("score")
        score = number(score) if score is not None else None
        box = Box(
            *(x, y, x + w, y + h),
            label="",
            score=score,
            crowd=entry.crowd,
            ignore=any(flags.values()),
            keypoints=_keypoints(entry.raw.get("keypoints")),
        )
        self._index.add_box(entry.image_id, box, entry.category_id)


def _keypoints(value: Any) -> tuple[float, ...] | None:
    """The 51 numbers of key points; None if none is labelled, or they are others than COCO's."""
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        points = keypoints(value) or ()
        if any(v > 0 for _, _, v in points):
            return tuple(float(n) for point in points for n in point)
    return None


def _licence(entry: Mapping[str, Any]) -> str:
    words = [text(entry.get(part)) for part in ("name", "url")]
    return " ".join(f"({w})" if w.startswith("http") else w for w in words if w)


def _attribution(element: Mapping[str, Any]) -> str | None:
    """The photographer's page, if the file has it.

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
