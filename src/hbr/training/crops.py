"""Random crops of photos; unreadable photos are skipped.

Shapes: h w size of a photo, s size of the crop.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from einops import rearrange
from torch import Generator, Tensor

from hbr.config import ConfigError
from hbr.degradation import Regions
from hbr.image import Photo, PhotoError
from hbr.image.pixels import to_8_bits
from hbr.people.coco import read_people
from hbr.people.grids import GridName, same_shape, upright_people
from hbr.people.names import AnnotatedPeople
from hbr.people.types import N_KEYPOINTS, Person
from hbr.training.config import PhotoSourceConfig
from hbr.training.photos import (
    CuratedPeople,
    FolderPhotos,
    Photos,
    open_photos,
    photo_files,
    read_upright,
)

log = logging.getLogger(__name__)

# COCO's points in a mirrored image: left becomes right
_MIRRORED = (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15)

PersonBox = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A square crop of a photo.

    Attributes:
        pixels: uint8 [3, s, s].
        photo: index of the photo.
        size: (h, w) of the photo, after resizing.
        corner: (y, x) of the top left corner of the crop.
        mirrored: whether the crop was flipped horizontally.
        orientation: of the file, by EXIF; the pixels are upright.
        resized_from: (h, w) of the upright photo before resizing; None if it is `size`.
    """

    pixels: Tensor
    photo: int
    size: tuple[int, int]
    corner: tuple[int, int]
    mirrored: bool
    orientation: int = 1
    resized_from: tuple[int, int] | None = None


class CropSource:
    """Draws crops from the photos of a source.

    Attributes:
        photos: the photos to draw crops from.
        placed: the people of each photo that crops are placed on; None if crops may be anywhere.
        people: the people of each photo; None if unknown or not requested.
        warning: one line about skipped annotations, or None.
        allowed: maximum number of consecutive unreadable photos.
        free: bytes of decoded photos that may still be kept.
    """

    def __init__(
        self, config: PhotoSourceConfig, *, with_people: bool = False, kept_bytes: int = 0
    ) -> None:
        """Open the photos.

        Args:
            config: the source.
            with_people: whether to load their people, for `regions`.
            kept_bytes: of decoded photos to keep in memory, those that are read first.
        """
        self.free = kept_bytes
        self._kept: dict[int, Photo] = {}
        self.people: list[tuple[Person, ...]] | CuratedPeople | None = None
        self.placed: list[tuple[Person, ...]] | None = None
        self.grid = config.boxes_grid
        self.warning: str | None = None
        if config.boxes is not None:
            annotated = read_people(config.boxes)
            self.photos, self.placed, clashes = _with_people(config, annotated)
            self.warning = "; ".join(filter(None, [annotated.warning, *clashes])) or None
            self.people = self.placed if with_people else None
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
        photo: int | None = None,
    ) -> Crop:
        """Return a random crop of a photo.

        Args:
            size: size of the crop in pixels.
            shrink: factor to downscale the photo by first, if it is large enough.
            generator: source of randomness.
            mirror: whether to flip the crop horizontally with probability 0.5.
            skipped: unreadable photos are added to it, name → reason.
            photo: index of the photo; None draws one.

        Raises:
            ConfigError: more consecutive photos than allowed are unreadable.
        """
        drawn = random_integer(len(self.photos), generator) if photo is None else photo
        index, read = self._read(drawn, {} if skipped is None else skipped)
        pixels = to_8_bits(read.pixels)
        h, w = pixels.shape[:2]
        # the photo is never smaller than the crop, and only enlarged if it was smaller
        factor = max(shrink, size / min(h, w))
        if factor != 1:
            target = (max(round(w * factor), size), max(round(h * factor), size))
            method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
            pixels = cv2.resize(pixels, target, interpolation=method)
            h, w = pixels.shape[:2]
        y, x = draw_corner(self._boxes(index, read, factor), (h, w), size, generator)
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
            orientation=read.orientation,
            resized_from=read.size,
        )

    def _boxes(self, index: int, photo: Photo, factor: float) -> list[PersonBox] | None:
        """Return the boxes that crops are placed on, in a photo resized by `factor`."""
        if self.placed is None:
            return None
        boxes = []
        for person in upright_people(self.placed[index], photo.size, photo.orientation, self.grid):
            size = photo.size[::-1]
            # the annotated copy may have another size
            own = person.image_size
            width, height = own if own is not None and same_shape(own, size) else size
            across, down = factor * (size[0] / width), factor * (size[1] / height)
            x, y, w, h = person.box
            boxes.append((x * across, y * down, w * across, h * down))
        return boxes

    def regions(self, crop: Crop) -> Regions | None:
        """Return the regions of the people in a crop, or None if they are unknown."""
        people = None if self.people is None else self.people[crop.photo]
        if not people:
            return None
        window = (*crop.corner, *crop.pixels.shape[1:])
        try:
            found = Regions.of(_people_of(crop, people, self.grid), crop.size, window=window)
        except ValueError as error:
            if crop.photo not in self._unfit:
                self._unfit.add(crop.photo)
                name = self.photos.name(crop.photo)
                log.warning("%s: %s; motion blur is applied in random places", name, error)
            return None
        return found.mirrored() if crop.mirrored else found

    def keypoints(self, crop: Crop) -> np.ndarray:
        """Return the key points of the annotated people, in pixels of a crop: [n, 17, 3]."""
        people = () if self.people is None else self.people[crop.photo]
        return crop_keypoints(people, crop, self.grid)

    def skip(self, generator: Generator, *, mirror: bool = True) -> None:
        """Draw as many random numbers as `crop` does, without reading the photo.

        That number depends neither on the photo nor on the values drawn.
        """
        random_integer(len(self.photos), generator)
        if self.placed is None:
            random_integer(2, generator), random_integer(2, generator)
        else:
            random_integer(2, generator), random_uniform(generator), random_uniform(generator)
        if mirror:
            random_integer(2, generator)

    def _read(self, index: int, skipped: dict[str, str]) -> tuple[int, Photo]:
        """Read photo `index`, or deterministically the next readable one."""
        n = len(self.photos)
        for i in range(min(self.allowed + 1, n)):
            at = (index + i) % n
            if at in self._kept:
                return at, self._kept[at]
            try:
                photo = read_upright(self.photos, at)
            except PhotoError as error:
                skipped[self.photos.name(at)] = str(error)
                continue
            if photo.pixels.nbytes <= self.free:
                self.free -= photo.pixels.nbytes
                self._kept[at] = photo
            return at, photo
        raise _too_many(skipped, self.allowed, n)


def draw_corner(
    boxes: Sequence[PersonBox] | None, hw: tuple[int, int], size: int, generator: Generator
) -> tuple[int, int]:
    """Draw the corner (y, x) of a crop of an image.

    With `boxes` (x, y, width, height) the crop is centred on a random point in a random one;
    without, it lies anywhere. `hw` is (h, w) of the image.
    """
    free = (hw[0] - size + 1, hw[1] - size + 1)
    if boxes is None:
        return random_integer(free[0], generator), random_integer(free[1], generator)
    x, y, w, h = boxes[random_integer(len(boxes), generator)]
    centre = (y + h * random_uniform(generator), x + w * random_uniform(generator))
    row, column = (int(min(max(c - size / 2, 0), f - 1)) for c, f in zip(centre, free, strict=True))
    return row, column


def _people_of(crop: Crop, people: Sequence[Person], grid: GridName) -> list[Person]:
    """People on the upright grid of a crop's photo; a size that is not stated is the photo's."""
    size = crop.resized_from or crop.size
    upright = upright_people(people, size, crop.orientation, grid)
    return [replace(person, image_size=person.image_size or size[::-1]) for person in upright]


def crop_keypoints(people: Sequence[Person], crop: Crop, grid: GridName) -> np.ndarray:
    """Key points of annotated people in pixels of a crop: [n, 17, 3].

    People without key points are left out; points outside the crop stay as they are.
    """
    found = []
    for person in _people_of(crop, people, grid):
        if person.keypoints is None or person.image_size is None:
            continue
        points = np.array(person.keypoints, np.float64)  # [17, 3]
        width, height = person.image_size
        points[:, :2] *= (crop.size[1] / width, crop.size[0] / height)
        points[:, :2] -= crop.corner[::-1]
        if crop.mirrored:
            points[:, 0] = crop.pixels.shape[-1] - points[:, 0]
            points = points[list(_MIRRORED)]
        found.append(points)
    return np.stack(found) if found else np.zeros((0, N_KEYPOINTS, 3))


def _with_people(
    config: PhotoSourceConfig, annotated: AnnotatedPeople
) -> tuple[Photos, list[tuple[Person, ...]], list[str]]:
    """Return the photos of a folder with annotated people, the people of each, and clashes."""
    assert config.photos is not None  # as PhotoSourceConfig checks
    places = {file.relative_to(config.photos).as_posix(): file for file in _photo_files(config)}
    found, clashes = annotated.match(places)
    files = [file for place, file in places.items() if found.get(place)]
    if not files:
        why = f" ({clashes[0]})" if clashes else ""
        raise ConfigError(f"{config.photos}: no photo is left of `boxes` and `exclude`{why}")
    people = [found[place] for place in places if found.get(place)]
    return FolderPhotos(config.photos, files), people, clashes


def _photo_files(config: PhotoSourceConfig) -> list[Path]:
    """Return the photos of a folder without the excluded ones."""
    assert config.photos is not None
    return [file for file in photo_files(config.photos) if file.name not in config.exclude]


def _without_excluded(config: PhotoSourceConfig) -> Photos:
    if config.photos is None or not config.exclude:
        return open_photos(config)
    files = _photo_files(config)
    if not files:
        raise ConfigError(f"{config.photos}: no photo is left of `exclude`")
    return FolderPhotos(config.photos, files)


def allowed_errors(photos: int, errors: float) -> int:
    """Return how many photos may be unreadable: the fraction `errors`, but at least one."""
    return max(1, int(photos * errors))


def _too_many(skipped: dict[str, str], allowed: int, photos: int) -> ConfigError:
    return ConfigError(
        f"{len(skipped)} of {photos} photos could not be read, and data.errors allows {allowed}; "
        f"the last: {list(skipped.values())[-1]}"
    )


class Skipped:
    """The unreadable photos that a training has skipped so far.

    Args:
        photos: total number of photos.
        errors: fraction of them that may be unreadable.
        lines: photos skipped before, name → reason; new ones are added to it.
    """

    def __init__(self, photos: int, errors: float, lines: dict[str, str]) -> None:
        self.photos = photos
        self.allowed = allowed_errors(photos, errors)
        self.lines = lines

    def add(self, skipped: dict[str, str]) -> list[str]:
        """Add those of a batch, name → reason; return a message for each new one.

        Raises:
            ConfigError: more photos than allowed are unreadable.
        """
        new = {name: why for name, why in skipped.items() if name not in self.lines}
        self.lines.update(new)
        if len(self.lines) > self.allowed:
            raise _too_many(self.lines, self.allowed, self.photos)
        return [f"skipped: {why}; the next photo is used instead" for why in new.values()]


def random_integer(below: int, generator: Generator) -> int:
    """Return a uniform random integer in [0, `below`)."""
    return int(torch.randint(below, (), generator=generator))


def random_uniform(generator: Generator, bounds: tuple[float, float] = (0.0, 1.0)) -> float:
    """Return a uniform random number in [low, high)."""
    low, high = bounds
    return low + (high - low) * float(torch.rand((), generator=generator))
