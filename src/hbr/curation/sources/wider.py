"""The lists of WIDER FACE, WIDER Pedestrian and WiderPerson.

face          a name, a line with the count, then a line `x y w h …` for each face; one file
pedestrian    a line `name class x y w h class x y w h …` for each image; one file
person        `name.jpg.txt` for each image: the count, then `class x0 y0 x1 y1`; a folder
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from hbr.curation.sources.base import SourceImage
from hbr.curation.sources.configs import WiderConfig
from hbr.curation.sources.disk_tables import SeenKeys, on_disk
from hbr.curation.sources.labels import Vocabulary
from hbr.curation.sources.paths import Places, badly_named, broken, walk
from hbr.image import is_photo_name
from hbr.people.values import identifier, number, open_text

PERSON_CLASSES = {
    "1": "pedestrian",
    "2": "rider",
    "3": "partially-visible person",
    "4": "ignore region",
    "5": "crowd",
}
PEDESTRIAN_CLASSES = {"1": "pedestrian", "2": "cyclist"}

_Line = tuple[int, str]  # its number, from 1, and its text without blanks at the ends


@dataclass(frozen=True)
class WiderReader:
    """Images, in the folder `images`, and boxes of a list."""

    name: str
    config: WiderConfig
    images: Path
    vocabulary: Vocabulary

    def read(self) -> Iterator[SourceImage]:
        """The images in the order of the list; a bad line is a record of its own."""
        looked_up = partial(Places, self.images, self._names())
        with on_disk(looked_up) as places, on_disk(SeenKeys) as seen:
            for entry in self._entries():
                if isinstance(entry, SourceImage):
                    yield entry
                elif seen.again(entry.name):
                    said = f"{entry.name}: listed a second time in {self.config.annotations.name}"
                    yield broken(self.name, f"{entry.name}#line {entry.line}", said)
                else:
                    yield self._image(entry, places)

    def _names(self) -> Iterator[tuple[str, str]]:
        for entry in self._entries():
            if isinstance(entry, _Entry):
                yield entry.name, entry.name

    def _entries(self) -> Iterator[_Entry | SourceImage]:
        """What the list says of each image, and the records of bad lines."""
        layout = self.config.layout
        if layout == "person":
            yield from self._person()
            return
        with open_text(self.config.annotations) as file:
            numbered = ((n, line.strip()) for n, line in enumerate(file, 1))
            lines = (pair for pair in numbered if pair[1])
            yield from self._face(lines) if layout == "face" else self._pedestrian(lines)

    def _face(self, lines: Iterable[_Line]) -> Iterator[_Entry | SourceImage]:
        for start, name, rows in _by_photo(lines):
            place = f"{self.config.annotations.name}:line {start}"
            count = _count(rows[0][1]) if rows else None
            if name is None:
                said = f"{place}: a file name was expected, not {rows[0][1]!r}"
                yield broken(self.name, place, said)
            elif count is None:
                yield broken(self.name, place, f"{place}: no count of boxes follows {name}")
            else:
                # an image without faces is still followed by one line of zeros
                own, more = rows[: 1 + max(count, 1)], rows[1 + max(count, 1) :]
                boxes = [_corner(row.split(), "face", "xywh") for _, row in own[1:]]
                yield _Entry(name, own[-1][0], boxes if count else [], len(boxes) < count)
                for n, row in more[:1]:
                    place = f"{self.config.annotations.name}:line {n}"
                    said = f"{place}: a file name was expected, not {row!r}"
                    yield broken(self.name, place, said)

    def _pedestrian(self, lines: Iterable[_Line]) -> Iterator[_Entry]:
        for n, line in lines:
            name, *words = line.split()
            boxes = []
            for first in range(0, len(words), 5):
                label = _label(PEDESTRIAN_CLASSES, words[first])
                boxes.append(_corner(words[first + 1 : first + 5], label, "xywh"))
            yield _Entry(name, n, boxes, bool(len(words) % 5))

    def _person(self) -> Iterator[_Entry | SourceImage]:
        for file in walk(self.config.annotations, lambda name: name.lower().endswith(".txt")):
            if bad := badly_named(self.name, file):
                yield bad
                continue
            try:
                with open_text(self.config.annotations / file) as opened:
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


def _by_photo(lines: Iterable[_Line]) -> Iterator[tuple[int, str | None, list[_Line]]]:
    """The number and the text of each line that names a photo, and the lines up to the next.

    Of the lines before the first name only the first is given, with None as its name.
    """
    start, name, rows = 0, None, list[_Line]()
    for n, line in lines:
        if is_photo_name(line):
            if name or rows:
                yield start, name, rows
            start, name, rows = n, line, []
        elif name or not rows:
            start = start or n
            rows.append((n, line))
    if name or rows:
        yield start, name, rows
