"""Which people are in a photo, and where: by a detector, a file of boxes, or boxes that are given.

A file of boxes is COCO's `.json`, in which the photo is found by its name, or YOLO's: a `.txt` for
one photo, or a folder with a `.txt` for each, named like the photo. Class 0 of YOLO's, `person` in
COCO's vocabulary, is people.

Shapes: n people, h w pixels.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hbr.config import ConfigError
from hbr.errors import display_name
from hbr.image import Photo
from hbr.image.pixels import to_8_bits
from hbr.people.boxes import non_maximum_suppression, plausible
from hbr.people.coco import read_people
from hbr.people.detectors import (
    NO_PERSON_DETECTOR,
    find_person_detector,
    load_detector,
)
from hbr.people.grids import Edges, same_shape, upright_people
from hbr.people.names import AnnotatedPeople
from hbr.people.types import Detector, DetectorError, Person
from hbr.people.values import open_text
from hbr.people.yolo_lines import read_lines
from hbr.restoration.settings import NO_OUTLINES, NOBODY, PeopleChoice, RestoreSettings
from hbr.weights import entries

if TYPE_CHECKING:
    from hbr.people.segmentation import PersonSegmenter

log = logging.getLogger(__name__)

MOST_PEOPLE = 100
"""Of more people, the largest are restored for themselves."""

SELFIE = "selfie-segmentation"

_SAME = 0.7  # boxes of a detector whose intersection over union is above this are one person
_YOLO_PERSON = 0

Locate = Callable[[Photo], Sequence["LocatedPerson"]]


@dataclass(frozen=True, eq=False, kw_only=True)
class LocatedPerson:
    """A person in a photo.

    Attributes:
        number: from 1.
        box: x0, y0, x1, y1 in pixels of the upright photo, inside it.
        score: the detector's, in [0, 1]; 1 for boxes that were given.
        mask: bool [h, w] of `area`: the pixels of the person; None if only the box is known.
    """

    number: int
    box: Edges
    score: float
    mask: NDArray[np.bool_] | None = None

    @property
    def area(self) -> tuple[int, int, int, int]:
        """x0, y0, x1, y1 of the pixels that the box touches."""
        x0, y0, x1, y1 = self.box
        return math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1)


class PeopleLocator:
    """Finds people; files and detectors are opened once, when they are first needed."""

    def __init__(self, detector: Detector | None = None, device: str = "cpu") -> None:
        """Take a detector that is used where the source is "auto"; nothing is loaded yet."""
        self._given = detector
        self._device = device
        self._sources: dict[str, Locate] = {}
        self._segmenters: dict[str, PersonSegmenter] = {}
        self._told = False

    def __call__(self, photo: Photo, choice: PeopleChoice) -> tuple[tuple[LocatedPerson, ...], str]:
        """The people in a photo, and where they are known from.

        Raises:
            hbr.people.types.DetectorError: there is no such detector, or none at all.
            ConfigError: a file cannot be read, or has nothing about this photo.
            ValueError: a box is outside the photo, or somebody who is chosen is not there.
        """
        if choice.boxes:
            people = _given_boxes(photo, choice.boxes)
            source = "boxes given"
        else:
            people = _numbered(self._source(choice.source)(photo))
            source = "auto" if choice.source == "auto" else Path(choice.source).name
        numbers = {*choice.persons, *(number for number, _ in choice.fidelity)}
        if missing := numbers - {person.number for person in people}:
            there = "nobody was found" if not people else f"{len(people)} found"
            raise ValueError(
                f"person {min(missing)} is not there: {there}, numbered from 1, left to right"
            )
        return people, source

    def is_ready(self, settings: RestoreSettings) -> bool:
        """Whether people can be looked for, as `settings` ask; opens what is needed for it.

        Where there is no detector at all and nothing is asked that needs one, a line says so, once.

        Raises:
            hbr.people.types.DetectorError, ConfigError: what is asked cannot be done.
        """
        choice = settings.choice
        if choice.boxes:
            return True
        asked = settings.people == "only" or choice.source != "auto" or choice.must_find
        try:
            self._source(choice.source)
        except DetectorError as error:
            if asked:
                raise
            if not self._told:
                log.warning("nobody is looked for, as with --people off: %s", error)
            self._told = True
            return False
        return True

    def outlined(
        self, photo: Photo, people: Sequence[LocatedPerson], outlines: str
    ) -> tuple[Sequence[LocatedPerson], str]:
        """People with their outlines, as `PeopleChoice.outlines` asks, and the segmentation's name.

        Raises:
            hbr.people.types.DetectorError, hbr.weights.WeightsError: the segmentation cannot be
                used.
        """
        outlines, segment = self.segmenter(outlines)
        if segment is None or all(person.mask is not None for person in people):
            return people, NO_OUTLINES
        from hbr.people.segmentation import person_mask

        pixels, drawn = to_8_bits(photo.pixels), []
        for person in people:
            if person.mask is None:
                mask = person_mask(segment, pixels, person.box)
                person = person if mask is None else replace(person, mask=mask > 0.5)
            drawn.append(person)
        return drawn, outlines

    def segmenter(self, outlines: str) -> tuple[str, PersonSegmenter | None]:
        """What `PeopleChoice.outlines` stands for, by name, and the segmentation, loaded once.

        Raises:
            hbr.people.types.DetectorError, hbr.weights.WeightsError: it cannot be used.
        """
        if outlines == "auto":
            outlines = SELFIE if entries()[SELFIE].installed else NO_OUTLINES
        if outlines != NO_OUTLINES and outlines not in self._segmenters:
            from hbr.people.segmentation import load_person_segmenter

            self._segmenters[outlines] = load_person_segmenter(outlines, device=self._device)
        return outlines, self._segmenters.get(outlines)

    def _source(self, source: str) -> Locate:
        if source not in self._sources:
            self._sources[source] = self._open(source)
        return self._sources[source]

    def _open(self, source: str) -> Locate:
        path = Path(source)
        if path.suffix.lower() == ".json":
            annotated = read_people(path)
            if annotated.warning:
                log.warning("%s", annotated.warning)
            return lambda photo: _annotated(photo, annotated)
        if path.suffix.lower() == ".txt" or (path.is_dir() and any(path.glob("*.txt"))):
            return lambda photo: _yolo(photo, path)
        if source == NOBODY:
            return lambda photo: ()
        detect = self._given if source == "auto" else None
        if detect is None:
            name = auto_detector() if source == "auto" else source
            if name is None:
                raise DetectorError(NO_PERSON_DETECTOR)
            detect = load_detector(name, device=self._device)
        return partial(_detected, detect)


def auto_detector() -> str | None:
    """Name of the detector that the source "auto" stands for; None where none is installed."""
    return find_person_detector()


def _numbered(people: Sequence[LocatedPerson]) -> tuple[LocatedPerson, ...]:
    """At most `MOST_PEOPLE`, the largest, numbered from left to right by their middles."""
    if len(people) > MOST_PEOPLE:
        log.warning(
            "%d people were found; the %d largest are restored for themselves",
            *(len(people), MOST_PEOPLE),
        )
        largest = sorted(people, key=lambda p: -math.prod(np.subtract(p.box[2:], p.box[:2])))
        people = largest[:MOST_PEOPLE]
    ordered = sorted(people, key=lambda p: (p.box[0] + p.box[2], p.box))
    return tuple(replace(person, number=i) for i, person in enumerate(ordered, 1))


def _given_boxes(photo: Photo, boxes: Sequence[Edges]) -> tuple[LocatedPerson, ...]:
    people = []
    for i, (x, y, w, h) in enumerate(boxes, 1):
        box = _inside((x, y, x + w, y + h), photo)
        if box is None:
            height, width = photo.size
            shown = ",".join(f"{value:g}" for value in (x, y, w, h))
            raise ValueError(f"the box {shown} is outside the photo of {width}×{height} pixels")
        people.append(LocatedPerson(number=i, box=box, score=1.0))
    return tuple(people)


def _detected(detect: Detector, photo: Photo) -> list[LocatedPerson]:
    """What a detector found, without what cannot be people; the same person only once."""
    (found,) = detect([to_8_bits(photo.pixels)])
    people = plausible(found, photo.size)
    located = []
    for i in non_maximum_suppression(people.boxes, people.scores, _SAME):
        box = _inside(tuple(people.boxes[i].tolist()), photo)
        if box is not None:
            mask = None if people.masks is None else people.masks[i]
            located.append(_located(box, float(people.scores[i]), mask))
    return located


def _annotated(photo: Photo, annotated: AnnotatedPeople) -> list[LocatedPerson]:
    """The people whom a COCO file names in this photo."""
    name, path = _name(photo), display_name(annotated.path)
    place = photo.path.as_posix() if photo.path else name
    if clash := annotated.clash(place, any_suffix=True):
        raise ConfigError(clash)
    people = annotated.find(place, any_suffix=True)
    if people is None:
        raise ConfigError(f"{path} has no photo called {name}; give the file of this photo")
    located = []
    for person in upright_people(people, photo.size, photo.orientation):
        size = person.image_size or photo.size[::-1]
        box = _inside(_scaled(person, photo, size), photo)
        if box is None or not same_shape(size, photo.size[::-1]):
            shown = "×".join(map(str, size))
            width, height = photo.size[::-1]
            raise ConfigError(
                f"{path} has people of another photo under the name {name}: of {shown} pixels, and "
                f"the photo has {width}×{height}"
            )
        located.append(_located(box, 1.0, _resized(person.mask(), photo)))
    return located


def _yolo(photo: Photo, path: Path) -> list[LocatedPerson]:
    """The people in a YOLO file; of a folder, the one named like the photo."""
    file = path / f"{Path(_name(photo)).stem}.txt" if path.is_dir() else path
    try:
        with open_text(file) as opened:
            # any number of classes: only the first is looked at
            read = read_lines(opened.read().splitlines(), 10**6)
    except OSError as error:
        raise ConfigError(f"{display_name(file)}: {error.strerror or error}") from None
    if read.problems:
        line, problem = read.problems[0]
        raise ConfigError(f"{display_name(file)}, line {line}: {problem}")
    h, w = photo.size
    located = []
    for thing in read.objects:
        x0, y0, x1, y1 = thing.edges
        box = _inside((x0 * w, y0 * h, x1 * w, y1 * h), photo)
        if thing.index == _YOLO_PERSON and box is not None:
            located.append(_located(box, 1.0 if thing.score is None else thing.score, None))
    return located


def _name(photo: Photo) -> str:
    if photo.path is None:
        raise ConfigError("the photo has no name, so a file cannot say who is in it; give boxes")
    return photo.path.name


def _located(box: Edges, score: float, mask: NDArray[np.bool_] | None) -> LocatedPerson:
    person = LocatedPerson(number=0, box=box, score=score)
    if mask is None:
        return person
    x0, y0, x1, y1 = person.area
    part = mask[y0:y1, x0:x1]
    return replace(person, mask=np.ascontiguousarray(part)) if part.any() else person


def _scaled(person: Person, photo: Photo, size: tuple[int, int]) -> Edges:
    """The edges of a person's box on the photo, annotated on an image of size (w, h)."""
    (height, width), (w, h), (x, y, wide, tall) = photo.size, size, person.box
    sx, sy = width / w, height / h
    return x * sx, y * sy, (x + wide) * sx, (y + tall) * sy


def _resized(mask: NDArray[np.bool_] | None, photo: Photo) -> NDArray[np.bool_] | None:
    if mask is None or mask.shape == photo.size:
        return mask
    rows, columns = (
        np.arange(size) * old // size for size, old in zip(photo.size, mask.shape, strict=True)
    )
    return mask[np.ix_(rows, columns)]


def _inside(edges: tuple[float, ...], photo: Photo) -> Edges | None:
    """The part of a box inside the photo; None if there is none of a pixel or more."""
    (height, width), (x0, y0, x1, y1) = photo.size, edges
    box = max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))
    return box if box[2] - box[0] >= 1 and box[3] - box[1] >= 1 else None
