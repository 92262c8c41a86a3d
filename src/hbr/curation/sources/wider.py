"""The lists of WIDER FACE, WIDER Pedestrian and WiderPerson.

face          a name, a line with the count, then a line `x y w h …` for each face; one file
pedestrian    a line `name class x y w h class x y w h …` for each image; one file
person        `name.jpg.txt` for each image: the count, then `class x0 y0 x1 y1`; a folder
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hbr.curation.sources.base import SourceError, SourceImage
from hbr.curation.sources.disk_tables import SeenKeys
from hbr.curation.sources.labels import Vocabulary
from hbr.curation.sources.paths import at, badly_named, broken, walk
from hbr.image import is_photo_name
from hbr.people.values import number

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
        if self.layout == "person":
            yield from self._person()
            return
        read = self._face if self.layout == "face" else self._pedestrian
        try:
            with (
                self.annotations.open(encoding="utf-8-sig", errors="backslashreplace") as file,
                SeenKeys() as seen,
            ):
                lines = _Lines(file)
                for image in read(lines):
                    if image.ref is not None and seen.again(image.key):
                        said = f"{image.key}: listed a second time in {self.annotations.name}"
                        yield broken(self.name, f"{image.key}#line {lines.count}", said)
                    else:
                        yield image
        except OSError as error:
            raise SourceError(f"{self.annotations}: {error.strerror or error}") from None

    def _face(self, lines: _Lines) -> Iterator[SourceImage]:
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
            # an image without faces is followed by one line of zeros all the same
            boxes: list[tuple[str, list[float]]] = []
            while len(boxes) < max(count, 1):
                row = lines.take_unless(is_photo_name)
                if row is None:
                    break
                boxes.append(_corner(row.split(), "face", "xywh"))
            yield self._image(name, boxes if count else [], len(boxes) < count)

    def _pedestrian(self, lines: _Lines) -> Iterator[SourceImage]:
        for line in lines:
            name, *words = line.split()
            boxes = []
            for first in range(0, len(words), 5):
                label = PEDESTRIAN_CLASSES.get(words[first], words[first])
                boxes.append(_corner(words[first + 1 : first + 5], label, "xywh"))
            yield self._image(name, boxes, bool(len(words) % 5))

    def _person(self) -> Iterator[SourceImage]:
        for file in walk(self.annotations, lambda name: name.lower().endswith(".txt")):
            try:
                lines = (self.annotations / file).read_text(encoding="utf-8-sig").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                yield broken(self.name, file, f"{file}: {error}")
                continue
            if bad := badly_named(self.name, file):
                yield bad
                continue
            rows = [line.split() for line in lines[1:] if line.strip()]
            boxes = [_corner(r[1:], PERSON_CLASSES.get(r[0], r[0]), "xyxy") for r in rows]
            count = _count(lines[0]) if lines else None
            cut = count is None or len(rows) < count
            yield self._image(file[: -len(".txt")], boxes, cut)

    def _image(self, name: str, boxes: list[tuple[str, list[float]]], cut: bool) -> SourceImage:
        ref, error = at(self.images, name)
        if cut:
            error = error or f"{name}: fewer boxes than the list says; it may be cut"
        people = (self.vocabulary.box(label, edges) for label, edges in boxes)
        kept = tuple(box for box in people if box is not None)
        return SourceImage(source=self.name, key=name, ref=ref, boxes=kept, error=error)


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
        """The next line, but None, and it stays, if it is one of these."""
        line = self.take()
        if line is not None and stop(line):
            self._ahead = line
            return None
        return line

    def skip_to(self, stop: Callable[[str], bool]) -> None:
        """Leave out lines up to one of these."""
        while self.take_unless(stop) is not None:
            pass
