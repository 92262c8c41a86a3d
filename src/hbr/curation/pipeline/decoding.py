"""An image's bytes → upright 8-bit sRGB pixels, and the boxes of its annotations on them.

The pixels are those of `hbr.image.read_photo`; the many JPEGs that need nothing of what it does
(turning, profiles, CMYK) come the short way, to the same values.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import JpegImagePlugin, UnidentifiedImageError

from hbr.curation.sources.base import Box
from hbr.image import PhotoError, read_photo
from hbr.image.colorimetry import Signals, exif_signals, stated_profile
from hbr.image.colour import load_profile
from hbr.image.metadata import bare_exif, exif_orientation, xmp_orientation
from hbr.image.notes import Notes
from hbr.image.pixels import on_white, to_8_bits, turn_upright

# SourceImage.rotation, counter-clockwise, as the orientation in EXIF that asks for it.
_TURN = {0: 1, 90: 8, 180: 3, 270: 6}


BoxEdges = tuple[float, float, float, float]


@dataclass(frozen=True)
class Decoded:
    """An image as the stages see it.

    Attributes:
        pixels: [h, w, 3] uint8, RGB in sRGB, upright.
        stored: (width, height) of the file's own grid.
        orientation: 1 to 8, by EXIF, that led from there to `pixels`, before `rotation`.
        rotation: degrees, by the source.
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

    def place(self, box: Box, *, turned: bool) -> tuple[float, float, float, float]:
        """The edges of a box on the upright pixels; not clipped, not ordered where it is broken.

        Args:
            box: as the source gives it.
            turned: its numbers already count on the grid that EXIF leads to.
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
        """(width, height) of the pixels that annotations count on."""
        return self.stored[::-1] if turned and self.orientation > 4 else self.stored

    def _upright(self, edges: BoxEdges, *, turned: bool) -> BoxEdges:
        width, height = self._grid(turned=turned)
        if not turned:
            edges = turn_box(edges, width, height, self.orientation)
            if self.orientation > 4:
                width, height = height, width
        return turn_box(edges, width, height, _TURN[self.rotation])

    def counts_as(self, width: int | None, height: int | None) -> bool | None:
        """On which grid annotations that state this size count.

        Returns:
            False on the file's own grid, True on the one EXIF leads to, None on neither. Where
            nothing is stated, or both are alike, it is the file's own.
        """
        if width is None or height is None or (width, height) == self.stored:
            return False
        swapped = self.stored[::-1]
        return True if self.orientation > 4 and (width, height) == swapped else None


def turn_box(
    edges: tuple[float, float, float, float], width: int, height: int, orientation: int
) -> tuple[float, float, float, float]:
    """A box on an image of this size, after what `orientation` (EXIF, 1 to 8) asks for."""
    x0, y0, x1, y1 = edges
    if orientation > 4:
        x0, y0, x1, y1, width, height = y0, x0, y1, x1, height, width
    if orientation in (2, 3, 6, 7):
        x0, x1 = width - x1, width - x0
    if orientation in (3, 4, 7, 8):
        y0, y1 = height - y1, height - y0
    return x0, y0, x1, y1


def decode(data: bytes, name: str, *, rotation: int = 0, max_pixels: int) -> Decoded:
    """Decode an image file.

    Raises:
        PhotoError: it is damaged, cut short, animated, too large or no photograph; one line.
    """
    pixels = _plain_jpeg(data, max_pixels)
    if pixels is not None:
        orientation = 1
    else:
        file = io.BytesIO(data)
        file.name = name
        photo = read_photo(file, max_pixels=max_pixels)
        seen = photo.pixels if photo.alpha is None else on_white(photo.pixels, photo.alpha)
        pixels, orientation = to_8_bits(seen), photo.orientation
    height, width = pixels.shape[:2]
    stored = (height, width) if orientation > 4 else (width, height)
    if rotation:
        pixels = np.ascontiguousarray(turn_upright(pixels, _TURN[rotation]))
    return Decoded(pixels, stored, orientation, rotation)


def _plain_jpeg(data: bytes, max_pixels: int) -> np.ndarray | None:
    """[h, w, 3] of an upright RGB JPEG without a profile that changes it; None for all others."""
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
            if image.mode != "RGB" or image.width * image.height > max_pixels:
                return None
            info = image.info
            if (info.get("exif") or info.get("xmp")) and _said(info) != 1:
                return None
            if _is_converted(info):
                return None
            return np.asarray(image)
    except (
        OSError,
        ValueError,
        SyntaxError,
        UnidentifiedImageError,
    ):  # errors of hbr are ValueErrors
        return None  # `read_photo` says what is wrong


def _is_converted(info: Mapping[Any, Any]) -> bool:
    """Whether the numbers of a JPEG become others in sRGB; PhotoError if that is unclear."""
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


__all__ = ["Decoded", "PhotoError", "decode", "turn_box"]
