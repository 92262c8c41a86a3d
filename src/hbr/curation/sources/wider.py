"""The lists of WIDER FACE, WIDER Pedestrian and WiderPerson.

face          a name, a line with the count, then a line `x y w h …` for each face; one file
pedestrian    a line `name class x y w h class x y w h …` for each image; one file
person        `name.jpg.txt` for each image: the count, then `class x0 y0 x1 y1`; a folder
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hbr.curation.sources.base import SourceError, SourceImage
from hbr.curation.sources.disk_tables import SeenKeys
from hbr.curation.sources.labels import Vocabulary
from hbr.curation.sources.paths import Places, badly_named, broken, walk
from hbr.image import is_photo_name
from hbr.people.values import identifier, number, open_text

WiderLayout = Literal["face", "pedestrian", "person"]
PERSON_CLASSES = {
    "1": "pedestrian",
    "2": "rider",
    "3": "partially-visible person",
    "4": "ignore region",
    "5": "crowd",
}
PEDESTRIAN_CLASSES = {"1": "pedestrian", "2": "cyclist"}


@dataclass(frozen=True, kw_only=True)
class WiderSource:
    """Images and boxes of a list.

    Attributes:
        name: of the source.
        annotations: the list; for `person` the folder of lists.
        images: the folder of images.
        layout: which of the three.
        vocabulary: what the classes mean.
    """

    name: str
    annotations: Path
    images: Path
    layout: WiderLayout
    vocabulary: Vocabulary

    def __iter__(self) -> Iterator[SourceImage]:
        """The images in the order of the list; a bad line is a record of its own."""
        try:
            with Places(self.images, self._names()) as places, SeenKeys() as seen:
                for entry in self._entries():
                    if isinstance(entry, SourceImage):
                        yield entry
                    elif seen.again(entry.name):
                        said = f"{entry.name}: listed a second time in {self.annotations.name}"
                        yield broken(self.name, f"{entry.name}#line {entry.line}", said)
                    else:
                        yield self._image(entry, places)
        except OSError as error:
            raise SourceError(f"{self.annotations}: {error.strerror or error}") from None

    def _names(self) -> Iterator[tuple[str, str]]:
        for entry in self._entries():
            if isinstance(entry, _Entry):
                yield entry.name, entry.name

    def _entries(self) -> Iterator[_Entry | SourceImage]:
        """What the list says of each image, and the records of bad lines."""
        if self.layout == "person":
            yield from self._person()
            return
        with open_text(self.annotations) as file:
            lines = _Lines(file)
            yield from self._face(lines) if self.layout == "face" else self._pedestrian(lines)

    def _face(self, lines: _Lines) -> Iterator[_Entry | SourceImage]:
        for name in lines:
            place = f"{self.annotations.name}:line {lines.count}"
            if not is_photo_name(name):
                yield broken(self.name, place, f"{place}: a file name was expected, not {name!r}")
                lines.skip_to(is_photo_name)
                continue
            said = lines.take()
            if said is None or (count := _count(said)) is None:
                yield broken(self.name, place, f"{place}: no count of boxes follows {name}")
                if said is not None:
                    lines.skip_to(is_photo_name)
                continue
            # an image without faces is still followed by one line of zeros
            boxes: list[tuple[str, list[float]]] = []
            while len(boxes) < max(count, 1):
                row = lines.take_unless(is_photo_name)
                if row is None:
                    break
                boxes.append(_corner(row.split(), "face", "xywh"))
            yield _Entry(name, lines.count, boxes if count else [], len(boxes) < count)

    def _pedestrian(self, lines: _Lines) -> Iterator[_Entry]:
        for line in lines:
            name, *words = line.split()
            boxes = []
            for first in range(0, len(words), 5):
                label = _label(PEDESTRIAN_CLASSES, words[first])
                boxes.append(_corner(words[first + 1 : first + 5], label, "xywh"))
            yield _Entry(name, lines.count, boxes, bool(len(words) % 5))

    def _person(self) -> Iterator[_Entry | SourceImage]:
        for file in walk(self.annotations, lambda name: name.lower().endswith(".txt")):
            if bad := badly_named(self.name, file):
                yield bad
                continue
            try:
                with open_text(self.annotations / file) as opened:
                    lines = opened.read().splitlines()
            except OSError as error:
                yield broken(self.name, file, f"{file}: {error.strerror or error}")
                continue
            rows = [line.split() for line in lines[1:] if line.strip()]
            boxes = [_corner(r[1:], _label(PERSON_CLASSES, r[0]), "xyxy") for r in rows]
            count = _count(lines[0]) if lines else None
            cut = count is None or len(rows) < count
            yield _Entry(file[: -len(".txt")], 1, boxes, cut)

    def _image(self, entry: _Entry, places: Places) -> SourceImage:
        ref, error = places.at(entry.name)
        if entry.cut:
            error = error or f"{entry.name}: fewer boxes than the list says; it may be cut"
        people = (self.vocabulary.box(label, edges) for label, edges in entry.boxes)
        kept = tuple(box for box in people if box is not None)
        return SourceImage(source=self.name, key=entry.name, ref=ref, boxes=kept, error=error)


@dataclass(frozen=True)
class _Entry:
    """What a list says of one image; `cut` if it has fewer boxes than stated."""

    name: str
    line: int
    boxes: list[tuple[str, list[float]]]
    cut: bool


def _label(classes: Mapping[str, str], word: str) -> str:
    return classes.get(identifier(word) or "", word)


def _count(words: str) -> int | None:
    """A count of boxes; None if the text is not a count."""
    return int(words) if re.fullmatch(r"\s*[0-9]{1,18}\s*", words) else None


def _corner(words: list[str], label: str, form: Literal["xywh", "xyxy"]) -> tuple[str, list[float]]:
    """The label and the edges; NaN for numbers that are not there."""
    x, y, a, b = [*map(number, words[:4]), *[float("nan")] * 4][:4]
    return label, [x, y, a, b] if form == "xyxy" else [x, y, x + a, y + b]


class _Lines:
    """The lines of a file that are not empty, with their number and one line of looking ahead."""

    def __init__(self, file: Iterator[str]) -> None:
        self._file = file
        self._ahead: str | None = None
        self.count = 0

    def __iter__(self) -> Iterator[str]:
        while (line := self.take()) is not None:
            yield line

    def take(self) -> str | None:
        """The next line, None at the end."""
        if self._ahead is not None:
            line, self._ahead = self._ahead, None
            return line
        for raw in self._file:
            self.count += 1
            if line := raw.strip():
                return line
        return None

    def take_unless(self, stop: Callable[[str], bool]) -> str | None:
        """The next line, or None, without taking it, if it is one of these."""
        line = self.take()
        if line is not None and stop(line):
            self._ahead = line
            return None
        return line

    def skip_to(self, stop: Callable[[str], bool]) -> None:
        """Leave out lines up to one of these."""
        while self.take_unless(stop) is not None:
            pass
