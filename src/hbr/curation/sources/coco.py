"""COCO and Objects365: one JSON file with images, annotations, categories and licences.

The four lists may come in any order, as they do in the wild. The file is read once, an element at a
time, into tables on disk (`disk_tables`), and images come out in its order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from hbr.curation.sources.base import Box, BoxKind, SourceImage
from hbr.curation.sources.configs import CocoConfig
from hbr.curation.sources.disk_tables import BoxIndex, IndexedImage, on_disk
from hbr.curation.sources.labels import Vocabulary
from hbr.curation.sources.paths import Places, broken, unused
from hbr.people.coco import CocoAnnotation, CocoFile, CocoImage, CocoProblem, keypoints
from hbr.people.json_stream import JsonCutError
from hbr.people.values import flag, identifier, number, text

FLICKR = "https://www.flickr.com/"


def read_coco(
    name: str, config: CocoConfig, images: Path, vocabulary: Vocabulary
) -> Iterator[SourceImage]:
    """The images in the order of the file, then the errors of the file.

    `images` is the folder that holds the files that it names.
    """
    file = config.annotations.name
    with on_disk(BoxIndex) as index:
        reading = _Reading(config.annotations, vocabulary, index)
        reading.read()
        names = ((name, name) for name in index.names())
        with on_disk(partial(Places, images, names)) as places:
            for image in index.images():
                if image.listed and image.name is not None:
                    yield reading.image(name, image, image.name, places)
                    continue
                said = f"{len(image.boxes)} boxes of image {image.id}, which the file does not list"
                yield unused(name, f"{file}:image {image.id}", said)
        for place, problem in reading.problems:
            record = broken if place == "cut" else unused
            yield record(name, f"{file}:{place}", problem)


class _Reading:
    """The state while the file is read."""

    # More than these are counted only: a file of another kind would fill the report.
    MAX_PROBLEMS = 1000

    def __init__(self, annotations: Path, vocabulary: Vocabulary, index: BoxIndex) -> None:
        self.problems: list[tuple[str, str]] = []
        self._cut = False
        self._more_problems = 0
        self._vocabulary = vocabulary
        self._file = CocoFile(
            path=annotations, is_person=lambda name: vocabulary.role(name) is not None
        )
        self._name = annotations.name
        self._index = index

    def read(self) -> None:
        """Take all entries."""
        try:
            for entry in self._file.entries():
                self._take(entry)
        except JsonCutError as error:
            self._cut = True
            self.problems.append(("cut", f"{self._name}: {error}"))
        self._finish()

    def image(self, source: str, image: IndexedImage, name: str, places: Places) -> SourceImage:
        """An image that the file lists under this name."""
        ref, error = places.at(name)
        key = name
        if image.repeated:
            key, error = f"{key}#{image.id}", f"{name} is listed twice, again as {image.id}"
        return SourceImage(
            source=source,
            key=key,
            ref=ref,
            width=image.width,
            height=image.height,
            # in a cut file, an image without boxes may be one whose boxes are lost
            boxes=image.boxes or (None if self._cut else ()),
            licence=_licence(self._file.licences.get(image.licence or "")),
            attribution=image.attribution,
            error=error,
        )

    def _take(self, entry: CocoImage | CocoAnnotation | CocoProblem) -> None:
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

    def _finish(self) -> None:
        categories = self._file.categories or {}
        self._index.name_categories([self._category(*item) for item in categories.items()])
        if self._more_problems:
            problem = f"{self._name}: {self._more_problems} more entries that cannot be used"
            self.problems.append(("more", problem))
        if not categories and self._file.counts["annotations"]:
            said = "none of its categories names a person"
            if self._cut:
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


def _licence(entry: Mapping[str, Any] | None) -> str | None:
    if entry is None:
        return None
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
