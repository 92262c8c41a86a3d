"""Crops of photos, as their generator draws them; photos that cannot be read are passed over.

Shapes: h w a photo, s edge of the crop.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from einops import rearrange
from torch import Generator, Tensor

from hbr.config import ConfigError
from hbr.degradation import Regions
from hbr.image import PhotoError
from hbr.people.coco import AnnotatedPeople, read_people
from hbr.people.types import Person
from hbr.training.config import PhotoSourceConfig
from hbr.training.photos import (
    CuratedPeople,
    FolderPhotos,
    Photos,
    open_photos,
    photo_files,
    read_pixels,
)

log = logging.getLogger(__name__)

PersonBox = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A square of a photo.

    Attributes:
        pixels: uint8 [3, s, s].
        photo: the number of the photo.
        size: (h, w) of the photo when it was cut out.
        corner: (y, x) of the square in it.
        mirrored: left to right, after it was cut out.
    """

    pixels: Tensor
    photo: int
    size: tuple[int, int]
    corner: tuple[int, int]
    mirrored: bool


class CropSource:
    """The crops of some photos.

    Attributes:
        photos: those that crops are drawn from.
        boxes: the person boxes of each photo; None if crops fall anywhere.
        people: the people of each photo; None if they are not known, or not asked for.
        warning: one line about annotations that were skipped.
        allowed: how many photos may be unreadable one after the other.
    """

    def __init__(self, config: PhotoSourceConfig, *, with_people: bool = False) -> None:
        """Look for the photos.

        Args:
            config: where they are.
            with_people: also hold their people, for `regions`.
        """
        self.people: list[tuple[Person, ...]] | CuratedPeople | None = None
        self.boxes: list[list[PersonBox]] | None = None
        self.warning: str | None = None
        if config.boxes is not None:
            annotated = read_people(config.boxes)
            self.warning = annotated.warning
            self.photos, people = _with_people(config, annotated)
            self.boxes = [[person.box for person in found] for found in people]
            self.people = people if with_people else None
        else:
            self.photos = _without_excluded(config)
            if with_people and config.manifest is not None:
                self.people = CuratedPeople(config.manifest, config.split)
        self.allowed = len(self.photos) - 1
        self._unfit: set[int] = set()

    def crop(
        self,
        size: int,
        shrink: float,
        generator: Generator,
        *,
        mirror: bool = True,
        skipped: dict[str, str] | None = None,
    ) -> Crop:
        """A random square of a random photo.

        Args:
            size: its edge in pixels.
            shrink: factor by which the photo is made smaller first, if it is large enough.
            generator: what is drawn from.
            mirror: every other one is mirrored.
            skipped: photos that cannot be read are added to it.

        Raises:
            ConfigError: one photo after the other cannot be read, more than are allowed.
        """
        drawn = random_integer(len(self.photos), generator)
        index, pixels = self._read(drawn, {} if skipped is None else skipped)
        h, w = pixels.shape[:2]
        # never below the crop, and never enlarged unless the photo is smaller than it
        factor = max(shrink, size / min(h, w))
        if factor != 1:
            target = (max(round(w * factor), size), max(round(h * factor), size))
            method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
            pixels = cv2.resize(pixels, target, interpolation=method)
            h, w = pixels.shape[:2]
        y, x = self._corner(index, (h, w), size, factor, generator)
        square = pixels[y : y + size, x : x + size]
        mirrored = mirror and bool(random_integer(2, generator))
        if mirrored:
            square = square[:, ::-1]
        square = np.ascontiguousarray(rearrange(square, "h w c -> c h w"))
        return Crop(
            pixels=torch.from_numpy(square),
            photo=index,
            size=(h, w),
            corner=(y, x),
            mirrored=mirrored,
        )

    def regions(self, crop: Crop) -> Regions | None:
        """Where the people of a crop are; None if that is not known."""
        people = None if self.people is None else self.people[crop.photo]
        if not people:
            return None
        try:
            found = Regions.of(people, crop.size, window=(*crop.corner, *crop.pixels.shape[1:]))
        except ValueError as error:
            if crop.photo not in self._unfit:
                self._unfit.add(crop.photo)
                name = self.photos.name(crop.photo)
                log.warning("%s: %s; its motion blur is in random places", name, error)
            return None
        return found.mirrored() if crop.mirrored else found

    def skip(self, generator: Generator, *, mirror: bool = True) -> None:
        """Draw as many numbers as `crop` does, without reading the photo.

        How many that is depends on nothing that is in it, nor on what is drawn.
        """
        random_integer(len(self.photos), generator)
        if self.boxes is None:
            random_integer(2, generator), random_integer(2, generator)
        else:
            random_integer(2, generator), random_unit(generator), random_unit(generator)
        if mirror:
            random_integer(2, generator)

    def _read(self, index: int, skipped: dict[str, str]) -> tuple[int, np.ndarray]:
        """Photo `index`, or the next one that can be read: the same at every try."""
        n = len(self.photos)
        for i in range(min(self.allowed + 1, n)):
            at = (index + i) % n
            try:
                return at, read_pixels(self.photos, at)
            except PhotoError as error:
                skipped[self.photos.name(at)] = str(error)
        raise _too_many(skipped, self.allowed, n)

    def _corner(
        self, index: int, hw: tuple[int, int], size: int, factor: float, generator: Generator
    ) -> tuple[int, int]:
        free = (hw[0] - size + 1, hw[1] - size + 1)
        if self.boxes is None:
            return random_integer(free[0], generator), random_integer(free[1], generator)
        boxes = self.boxes[index]
        x, y, w, h = (v * factor for v in boxes[random_integer(len(boxes), generator)])
        # a point of the box becomes the middle of the crop
        middle = (y + h * random_unit(generator), x + w * random_unit(generator))
        row, column = (
            int(min(max(m - size / 2, 0), f - 1)) for m, f in zip(middle, free, strict=True)
        )
        return row, column


def _with_people(
    config: PhotoSourceConfig, annotated: AnnotatedPeople
) -> tuple[Photos, list[tuple[Person, ...]]]:
    """The photos of a folder that show annotated people, and these."""
    assert config.photos is not None  # as PhotoSourceConfig checks
    files, people = [], []
    for file in photo_files(config.photos):
        found = annotated.find(file.relative_to(config.photos).as_posix())
        if found and file.name not in config.exclude:
            files.append(file)
            people.append(found)
    if not files:
        raise ConfigError(f"{config.photos}: no photo is left of `boxes` and `exclude`")
    return FolderPhotos(config.photos, files), people


def _without_excluded(config: PhotoSourceConfig) -> Photos:
    if config.photos is None or not config.exclude:
        return open_photos(config)
    files = [file for file in photo_files(config.photos) if file.name not in config.exclude]
    if not files:
        raise ConfigError(f"{config.photos}: no photo is left of `exclude`")
    return FolderPhotos(config.photos, files)


def allowed_errors(photos: int, errors: float) -> int:
    """How many of so many photos may be unreadable: a part of them, but always one."""
    return max(1, int(photos * errors))


def _too_many(skipped: dict[str, str], allowed: int, photos: int) -> ConfigError:
    return ConfigError(
        f"{len(skipped)} of {photos} photos could not be read, and data.errors lets {allowed} "
        f"pass; the last: {list(skipped.values())[-1]}"
    )


class Skipped:
    """The photos that a training could not read so far.

    Args:
        photos: how many there are in all.
        errors: the part of them that may be unreadable.
        lines: those of before, with why; new ones are added to it.
    """

    def __init__(self, photos: int, errors: float, lines: dict[str, str]) -> None:
        self.photos = photos
        self.allowed = allowed_errors(photos, errors)
        self.lines = lines

    def add(self, skipped: dict[str, str]) -> list[str]:
        """Count those of a batch, name → why; gives a line for each that is new.

        Raises:
            ConfigError: there are more now than may be.
        """
        new = {name: why for name, why in skipped.items() if name not in self.lines}
        self.lines.update(new)
        if len(self.lines) > self.allowed:
            raise _too_many(self.lines, self.allowed, self.photos)
        return [f"left out: {why}; the next photo takes its place" for why in new.values()]


def random_integer(below: int, generator: Generator) -> int:
    """One of 0 … `below` - 1, all equally likely."""
    return int(torch.randint(below, (), generator=generator))


def random_unit(generator: Generator) -> float:
    """A number in [0, 1)."""
    return float(torch.rand((), generator=generator))
