"""What every source gives: images with their boxes, one at a time, and where their bytes lie."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from hbr.archives import image_bytes, read_cell, read_part
from hbr.errors import HbrError
from hbr.people.grids import GridName

BoxKind = Literal["full", "visible", "head"]


class SourceError(HbrError, ValueError):
    """A source that cannot be opened, or bytes that are not there; one line says what and why."""

    http_status = 422


@dataclass(frozen=True, slots=True)
class Box:
    """One box of an annotation, as it was written there: it may be empty, outside, or NaN.

    Attributes:
        x0, y0, x1, y1: left, top, right and bottom edge, `x1` and `y1` not included; in pixels of
            the image as stored, or, where `normalised`, as parts of its width and height.
        label: the label in the words of the source's vocabulary.
        kind: the whole body (also where hidden), its visible part, or the head.
        score: the detector's or the annotators' confidence in [0, 1]; None where none is stated.
        crowd: the box holds a group, not one person.
        ignore: the source marks the box as a poor example: a depiction (drawing, statue), the
            inside of a thing, a region that was not annotated, a "difficult" object.
        normalised: the edges are parts of width and height, to be multiplied by them.
        keypoints: 51 numbers, x, y (in pixels of the image as stored) and visibility of COCO's 17
            key points; None where there are none.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    _: KW_ONLY
    label: str
    kind: BoxKind = "full"
    score: float | None = None
    crowd: bool = False
    ignore: bool = False
    normalised: bool = False
    # `Task` takes the rest of a box by its text, which must not change for boxes without them
    keypoints: tuple[float, ...] | None = field(default=None, repr=False)

    def in_pixels(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The edges (x0, y0, x1, y1) in pixels of an image of this size."""
        if not self.normalised:
            return self.x0, self.y0, self.x1, self.y1
        return self.x0 * width, self.y0 * height, self.x1 * width, self.y1 * height


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageRef:
    """Where the bytes of an image file lie: a file, a part of a file, or a cell of a table.

    It is small, can be pickled, and reads the same in any process and on any machine that sees
    the same files.

    Attributes:
        path: absolute path of the file; for `hub`, the data set's name or folder.
        offset, size: the bytes' place in `path`, for members of a tar.
        column, row: the cell's place, for Parquet (`row` counts through the whole file) and `hub`.
        hub: configuration, split and revision of a Hugging Face data set, each may be empty.
    """

    path: str
    offset: int | None = None
    size: int | None = None
    column: str | None = None
    row: int | None = None
    hub: tuple[str, str, str] | None = None

    @classmethod
    def file(cls, path: str | Path) -> ImageRef:
        """The whole of one file."""
        return cls(path=str(Path(path).absolute()))

    def read_bytes(self) -> bytes:
        """The image file's bytes.

        Raises:
            SourceError: they cannot be read; the message names them.
        """
        try:
            if self.column is not None and self.row is not None:
                return self._read_cell(self.column, self.row)
            if self.offset is not None and self.size is not None:
                return read_part(self.path, self.offset, self.size)
            return Path(self.path).read_bytes()
        except OSError as error:
            raise SourceError(f"{self.path}: {error.strerror or error}") from None

    def _read_cell(self, column: str, row: int) -> bytes:
        if self.hub is not None:
            from hbr.curation.sources.hub_tables import read_cell as read_hub_cell

            data = image_bytes(read_hub_cell(self.path, self.hub, column, row), Path(self.path))
        else:
            data = image_bytes(read_cell(self.path, column, row), Path(self.path).parent)
        if data is None:
            raise SourceError(f"{self.path}, row {row}: no image bytes in {column}")
        return data


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceImage:
    """One image of a source, or one thing wrong in it.

    Attributes:
        source: the source's name, unique in a run.
        key: names the image within the source, unique there.
        ref: where its bytes lie; None where that is not known, and then `error` says why.
        width, height: pixels as the annotations state them, which may be wrong; None where they do
            not.
        boxes: the boxes of people; () means that the image is annotated and has none, None that it
            is not annotated, so that a detector must find them.
        licence, attribution: as the source states them.
        error: one line that says what is wrong with it; the other fields may still be set.
        rotation: degrees (90, 180, 270), counter-clockwise, by which the stored pixels must be
            turned to be upright, whatever EXIF says; 0 leaves it to EXIF.
        grid: which grid boxes refer to if `width` and `height` do not tell: that of the stored
            pixels, or the upright one that EXIF leads to.
        entry: `error` is of a line or an entry of the annotations, which costs only itself.
    """

    source: str
    key: str
    ref: ImageRef | None
    width: int | None = None
    height: int | None = None
    boxes: tuple[Box, ...] | None = None
    licence: str | None = None
    attribution: str | None = None
    error: str | None = None
    rotation: int = 0
    grid: GridName = "stored"
    entry: bool = False

    @property
    def id(self) -> str:
        """Unique among all sources of a run."""
        return f"{self.source}/{self.key}"


class Source(Protocol):
    """Images with their boxes, one at a time; iterating again gives the same.

    What is wrong with one image or one line is a `SourceImage` with an `error`, never an exception.

    Raises:
        SourceError: from iterating, if the source as a whole cannot be read at all.
    """

    @property
    def name(self) -> str:
        """Unique in a run; without slashes."""
        ...

    def __iter__(self) -> Iterator[SourceImage]:
        """The images in the order of the source, which is the same every time."""
        ...
