"""Which grid of pixels annotations refer to: the file's own, or the upright one.

EXIF may ask for a photo to be turned. Some annotators looked at the pixels as they are stored,
others at the upright photo. The size that the annotations state tells which, if turning swaps the
edges of the photo; otherwise the caller's `default` decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hbr.image.pixels import turn_upright
from hbr.people.types import Keypoint, Person, Point, Rle

GridName = Literal["stored", "upright"]
Edges = tuple[float, float, float, float]

UNDO = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
"""Orientation → its inverse."""


def turn_box(edges: Edges, width: float, height: float, orientation: int) -> Edges:
    """A box on an image of this size, turned by `orientation` (EXIF, 1 to 8)."""
    x0, y0, x1, y1 = edges
    if orientation > 4:
        x0, y0, x1, y1, width, height = y0, x0, y1, x1, height, width
    if orientation in (2, 3, 6, 7):
        x0, x1 = width - x1, width - x0
    if orientation in (3, 4, 7, 8):
        y0, y1 = height - y1, height - y0
    return x0, y0, x1, y1


@dataclass(frozen=True)
class Grid:
    """The pixels of a file.

    Attributes:
        stored: (width, height) as they are stored.
        orientation: 1 to 8, by EXIF.
    """

    stored: tuple[int, int]
    orientation: int

    @property
    def upright(self) -> tuple[int, int]:
        """(width, height) of the upright photo."""
        return self.stored[::-1] if self.orientation > 4 else self.stored

    def is_upright(self, size: tuple[int, int] | None, default: GridName) -> bool | None:
        """Whether annotations that state this size refer to the upright grid.

        Returns:
            None if the size is that of neither.
        """
        if size is not None and size not in (self.stored, self.upright):
            return None
        if size is None or self.stored == self.upright:
            return default == "upright"
        return size == self.upright


def upright_people(
    people: Sequence[Person], size: tuple[int, int], orientation: int, default: GridName = "stored"
) -> tuple[Person, ...]:
    """People on the upright grid of a photo, whichever of the two they were annotated on.

    Args:
        people: as annotated, in the photo or in a copy of another size. Those of another shape
            than the photo are left as they are.
        size: (h, w) of the upright photo.
        orientation: of its file, by EXIF.
        default: the grid where no size is stated, or it does not tell.
    """
    if orientation == 1:
        return tuple(people)
    height, width = size
    stored = (height, width) if orientation > 4 else (width, height)
    return tuple(_upright(person, Grid(stored, orientation), default) for person in people)


def _upright(person: Person, grid: Grid, default: GridName) -> Person:
    size = person.image_size
    if size is None:
        same: tuple[int, int] | None = None
    else:
        fitting = [own for own in (grid.stored, grid.upright) if same_shape(size, own)]
        if not fitting:
            return person
        same = fitting[0] if len(set(fitting)) == 1 else None
    if grid.is_upright(same, default):
        return person
    return turn_person(replace(person, image_size=size or grid.stored), grid.orientation)


def same_shape(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes can be those of one picture, resized, within a pixel."""
    (w, h), (width, height) = size, other
    return abs(width * h - height * w) <= max(width, height, w, h)


def turn_person(person: Person, orientation: int) -> Person:
    """A person, whose image size is known, turned by `orientation`."""
    assert person.image_size is not None
    width, height = person.image_size

    def turned(x: float, y: float) -> Point:
        return turn_box((x, y, x, y), width, height, orientation)[:2]

    x, y, w, h = person.box
    x0, y0, x1, y1 = turn_box((x, y, x + w, y + h), width, height, orientation)
    points: tuple[Keypoint, ...] | None = None
    if person.keypoints is not None:
        points = tuple((*turned(x, y), v) if v > 0 else (x, y, v) for x, y, v in person.keypoints)
    outline = person.outline
    if isinstance(outline, Rle):
        outline = Rle.of_mask(turn_upright(outline.mask(), orientation))
    elif outline is not None:
        outline = tuple(tuple(turned(x, y) for x, y in polygon) for polygon in outline)
    size = (height, width) if orientation > 4 else (width, height)
    return Person(size, (x0, y0, x1 - x0, y1 - y0), points, outline)
