"""Pairs for training and validation; each is a pure function of the seed and its number.

Nothing is remembered from one batch to the next, so a resumed training sees what an undisturbed
one would. Shapes: b batch, s edge of the crop.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from einops import rearrange
from torch import Generator, Tensor
from torch.utils.data import DataLoader, IterableDataset

from hbr.config import ConfigError
from hbr.degradation import RECIPES, Degradation, Regions, degrade, draw
from hbr.image import PhotoError
from hbr.models.protocol import Conditions
from hbr.people.coco import AnnotatedPeople, read_people
from hbr.people.types import Person
from hbr.processes import STOP_SIGNALS, block_sigint
from hbr.training.config import DataConfig, PhotoSourceConfig, TrainConfig, ValidationConfig
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


@dataclass(frozen=True)
class Pair:
    """A batch.

    Attributes:
        hq, lq: float32 [b, 3, s, s] in [0, 1].
        skipped: photos that could not be read, and one line of why; others took their places.
        conditions: what guides the model besides LQ.
    """

    hq: Tensor
    lq: Tensor
    skipped: dict[str, str] = field(default_factory=dict)
    conditions: Conditions = field(default_factory=Conditions)

    def part(self, at: slice) -> Pair:
        """A part of the batch."""
        return Pair(self.hq[at], self.lq[at], self.skipped, self.conditions.part(at))

    def to(self, device: torch.device) -> Pair:
        """The batch on a device, images with the channels last."""
        layout = torch.channels_last
        hq, lq = (x.to(device).contiguous(memory_format=layout) for x in (self.hq, self.lq))
        return Pair(hq, lq, self.skipped, self.conditions.to(device))


@dataclass(frozen=True)
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
        drawn = _integer(len(self.photos), generator)
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
        mirrored = mirror and bool(_integer(2, generator))
        if mirrored:
            square = square[:, ::-1]
        square = np.ascontiguousarray(rearrange(square, "h w c -> c h w"))
        return Crop(torch.from_numpy(square), index, (h, w), (y, x), mirrored)

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
        _integer(len(self.photos), generator)
        if self.boxes is None:
            _integer(2, generator), _integer(2, generator)
        else:
            _integer(2, generator), _unit(generator), _unit(generator)
        if mirror:
            _integer(2, generator)

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
            return _integer(free[0], generator), _integer(free[1], generator)
        boxes = self.boxes[index]
        x, y, w, h = (v * factor for v in boxes[_integer(len(boxes), generator)])
        # a point of the box becomes the middle of the crop
        middle = (y + h * _unit(generator), x + w * _unit(generator))
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


class TrainingPairs(IterableDataset[Pair | ConfigError]):
    """The batches of a training from `start` on, in order.

    Args:
        config: the training.
        start: the first step, from 0.
        index, count: of each batch, only the share of this one of so many processes.
    """

    def __init__(self, config: TrainConfig, start: int, index: int = 0, count: int = 1) -> None:
        self.config = config
        self.start = start
        self.index, self.count = index, count
        recipes = (RECIPES[name] for name, weight in config.data.degradations.items() if weight)
        moving = any(recipe.motion is not None for recipe in recipes)
        self.sources = [CropSource(s, with_people=moving) for s in config.data.sources]
        for source in self.sources:
            source.allowed = allowed_errors(self.photos, config.data.errors)

    @property
    def photos(self) -> int:
        """How many photos there are to draw from."""
        return sum(len(source.photos) for source in self.sources)

    def __iter__(self) -> Iterator[Pair | ConfigError]:
        """Batches; with several workers each makes every so-manieth one.

        An error comes as the last thing: torch would make a traceback of what a worker raises.
        """
        info = torch.utils.data.get_worker_info()
        first, every = (info.id, info.num_workers) if info else (0, 1)
        for step in range(self.start + first, self.config.steps, every):
            try:
                yield self.batch(step)
            except ConfigError as error:
                yield error
                return

    def batch(self, step: int) -> Pair:
        """The pair of this step (from 0): the crops of the share, as they are in the whole."""
        phase = self.config.phase_at(step)
        share = share_of(phase.batch, self.index, self.count)
        data = self.config.data
        generator = seeded(self.config.seed, step)
        weights = [s.weight for s in data.sources]
        crops, degradations, regions = [], [], []
        skipped: dict[str, str] = {}
        for i in range(phase.batch):
            source = self.sources[_weighted(weights, generator)]
            shrink = 1.0
            if _unit(generator) < data.shrink_prob:
                low, high = data.shrink
                shrink = low + (high - low) * _unit(generator)
            crop = None
            if i in share:
                crop = source.crop(
                    phase.crop, shrink, generator, mirror=data.mirror, skipped=skipped
                )
            else:
                source.skip(generator, mirror=data.mirror)
            degradation = _draw_one(data, generator)
            if crop is not None:
                crops.append(crop.pixels)
                degradations.append(degradation)
                regions.append(source.regions(crop) if degradation.motions else None)
        hq = torch.stack(crops).float() / 255
        return Pair(hq, degrade(hq, degradations, regions=regions), skipped)


def share_of(batch: int, index: int, count: int) -> range:
    """The crops of a batch that belong to one of `count` processes, which divides it."""
    size = batch // count
    return range(index * size, (index + 1) * size)


def _draw_one(data: DataConfig, generator: Generator) -> Degradation:
    names = list(data.degradations)
    name = names[_weighted(list(data.degradations.values()), generator)]
    return draw(RECIPES[name], 1, generator)[0]


def prepared(pairs: TrainingPairs) -> Iterator[Pair]:
    """The batches of a training, prepared in other processes.

    Raises:
        ConfigError: too many photos cannot be read.
    """
    workers = pairs.config.data.workers
    loader = DataLoader(
        pairs,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=_leave_signals_to_the_trainer,
        # its own, so that starting anew draws nothing from the generator of the training
        generator=Generator(),
    )
    with block_sigint():  # from their first moment on
        batches = iter(loader)
    for pair in batches:
        if isinstance(pair, ConfigError):
            raise pair
        yield pair


def _leave_signals_to_the_trainer(_: int) -> None:
    """Ctrl-C in a terminal reaches every process of the command; the trainer alone answers it."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def check_validation(config: ValidationConfig) -> Photos:
    """Read the validation photos once, so that no training ends at a bad one hours later.

    Returns:
        The photos, for `validation_pairs`: looking for them again would take long where they are
        many, and might find others.

    Raises:
        ConfigError: there is none, or one is smaller than the crop.
        hbr.image.PhotoError: one cannot be read.
    """
    photos = open_photos(config)
    for i in range(min(config.count, len(photos))):
        h, w = read_pixels(photos, i).shape[:2]
        if min(h, w) < config.crop:
            raise ConfigError(
                f"{photos.name(i)} is {w}x{h}; validation crops are {config.crop} pixels"
            )
    return photos


def validation_pairs(
    config: ValidationConfig, numbers: range | None = None, photos: Photos | None = None
) -> Iterator[Pair]:
    """Centre crops and their degradations, one at a time; the same for ever.

    Photo i is degraded by what a generator seeded with (seed, i) draws; `numbers` chooses photos,
    of `photos` if they are open already.
    """
    photos = open_photos(config) if photos is None else photos
    for i in range(min(config.count, len(photos))):
        if numbers is not None and i not in numbers:
            continue
        pixels = read_pixels(photos, i)
        h, w = pixels.shape[:2]
        s = config.crop
        y, x = (h - s) // 2, (w - s) // 2
        square = np.ascontiguousarray(pixels[y : y + s, x : x + s])
        hq = rearrange(torch.from_numpy(square), "h w c -> 1 c h w").float() / 255
        yield Pair(hq, degrade(hq, draw(RECIPES[config.recipe], 1, seeded(config.seed, i))))


def seeded(*numbers: int) -> Generator:
    """A generator of its own for each tuple of numbers, such as (seed, step)."""
    mixed = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return Generator().manual_seed(int(mixed >> np.uint64(1)))


def _integer(below: int, generator: Generator) -> int:
    return int(torch.randint(below, (), generator=generator))


def _unit(generator: Generator) -> float:
    return float(torch.rand((), generator=generator))


def _weighted(weights: list[float], generator: Generator) -> int:
    return int(torch.multinomial(torch.tensor(weights), 1, generator=generator))
