"""An image's bytes → upright 8-bit sRGB pixels, and the boxes of its annotations on them.

The pixels are those of `hbr.image.read_photo`; most JPEGs need none of its steps (turning,
profiles, CMYK), and take a short path to the same values.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import JpegImagePlugin

from hbr.curation.sources.base import Box
from hbr.image import read_photo
from hbr.image.colorimetry import Signals, exif_signals, stated_profile
from hbr.image.colour import load_profile
from hbr.image.metadata import bare_exif, exif_orientation, xmp_orientation
from hbr.image.notes import Notes, pillow_quiet
from hbr.image.pixels import turn_upright
from hbr.image.reading import named_bytes
from hbr.people.grids import UNDO, Grid, GridName, turn_box

# SourceImage.rotation, counter-clockwise, as the orientation in EXIF that asks for it.
_TURN = {0: 1, 90: 8, 180: 3, 270: 6}

BoxEdges = tuple[float, float, float, float]


@dataclass(frozen=True)
class Decoded:
    """An image as the stages see it.

    Attributes:
        pixels: [h, w, 3] uint8, RGB in sRGB, upright.
        stored: (width, height) of the file's own grid.
        orientation: 1 to 8, by EXIF.
        rotation: degrees, by the source; where it is stated, it led from there to `pixels`, and
            EXIF did not.
    """

    pixels: np.ndarray
    stored: tuple[int, int]
    orientation: int
    rotation: int

    @property
    def width(self) -> int:
        """Pixels across, upright."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Pixels down, upright."""
        return int(self.pixels.shape[0])

    def place(self, box: Box, *, turned: bool) -> BoxEdges:
        """The edges of a box on the upright pixels; not clipped, not ordered where it is broken.

        Args:
            box: as the source gives it.
            turned: its numbers already refer to the grid that EXIF leads to.
        """
        width, height = self._grid(turned=turned)
        return self._upright(box.in_pixels(width, height), turned=turned)

    def place_keypoints(self, box: Box, *, turned: bool) -> tuple[float, ...] | None:
        """The key points of a box on the upright pixels; those of visibility 0 stay 0, 0."""
        if box.keypoints is None:
            return None
        points = zip(box.keypoints[::3], box.keypoints[1::3], box.keypoints[2::3], strict=True)
        placed = ((*self._upright((x, y, x, y), turned=turned)[:2], v) for x, y, v in points)
        return tuple(n for x, y, v in placed for n in ((x, y, v) if v > 0 else (0.0, 0.0, 0.0)))

    def _grid(self, *, turned: bool) -> tuple[int, int]:
        """(width, height) of the pixels that annotations refer to."""
        grid = Grid(self.stored, self.orientation)
        return grid.upright if turned else grid.stored

    def _upright(self, edges: BoxEdges, *, turned: bool) -> BoxEdges:
        turn = _TURN[self.rotation] if self.rotation else self.orientation
        if turned and turn == self.orientation:
            return edges
        if turned:
            edges = turn_box(edges, *self._grid(turned=True), UNDO[self.orientation])
        return turn_box(edges, *self.stored, turn)

    def counts_as(
        self, width: int | None, height: int | None, default: GridName = "stored"
    ) -> bool | None:
        """Which grid annotations that state this size refer to.

        Returns:
            False on the file's own grid, True on the one EXIF leads to, None on neither. Where
            nothing is stated, or both are alike, it is the default.
        """
        size = None if width is None or height is None else (width, height)
        return Grid(self.stored, self.orientation).is_upright(size, default)


def decode(data: bytes, name: str, *, rotation: int = 0, max_pixels: int) -> Decoded:
    """Decode an image file.

    Raises:
        PhotoError: it is damaged, cut short, animated, too large or no photograph; one line.
    """
    pixels, orientation = _plain_jpeg(data, max_pixels), 1
    if pixels is None:
        photo = read_photo(named_bytes(data, name), max_pixels=max_pixels)
        pixels, orientation = photo.displayed().pixels, photo.orientation
    height, width = pixels.shape[:2]
    stored = (height, width) if orientation > 4 else (width, height)
    if rotation and _TURN[rotation] != orientation:
        pixels = turn_upright(turn_upright(pixels, UNDO[orientation]), _TURN[rotation])
    return Decoded(pixels, stored, orientation, rotation)


def _plain_jpeg(data: bytes, max_pixels: int) -> np.ndarray | None:
    """[h, w, 3] of an upright RGB JPEG without a profile that changes it; None for all others."""
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    try:
        with pillow_quiet():
            image = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
            if image.mode != "RGB" or image.width * image.height > max_pixels:
                return None
            info = image.info
            if (info.get("exif") or info.get("xmp")) and _said(info) != 1:
                return None
            if _is_converted(info):
                return None
            return np.asarray(image)
    except (OSError, ValueError, SyntaxError):  # errors of hbr are ValueErrors
        return None  # `read_photo` says what is wrong


def _is_converted(info: Mapping[Any, Any]) -> bool:
    """Whether the numbers of a JPEG change in sRGB; PhotoError if that is unclear."""
    signals, exif = Signals(icc=info.get("icc_profile")), bare_exif(info.get("exif"))
    if signals.silent and exif:
        signals = exif_signals(exif)
    space = stated_profile(signals, "RGB", Notes("", strict=True))
    return space.icc is not None and load_profile(space.icc, "RGB") is not None


def _said(info: Mapping[Any, Any]) -> int:
    exif, xmp = info.get("exif"), info.get("xmp")
    bare = bare_exif(exif) if isinstance(exif, bytes) else None
    return (
        (bare and exif_orientation(bare)) or (isinstance(xmp, bytes) and xmp_orientation(xmp)) or 1
    )
