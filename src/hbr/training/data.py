"""Pairs for training and validation; each is a pure function of the seed and its number.

Nothing is remembered from one batch to the next, so a resumed training sees what an undisturbed
one would. Shapes: b batch, s edge of the crop.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from einops import rearrange
from torch import Generator, Tensor
from torch.utils.data import DataLoader, IterableDataset

from hbr.config import ConfigError
from hbr.degradation import degrade, draw, find_recipe
from hbr.models.protocol import Conditions
from hbr.processes import STOP_SIGNALS, block_sigint
from hbr.training.config import DataConfig, TrainConfig, ValidationConfig
from hbr.training.crops import CropSource, allowed_errors, random_integer, random_unit
from hbr.training.photos import (
    Photos,
    open_photos,
    read_pixels,
)


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
        data = config.data
        self.recipes = [find_recipe(name) for name in data.degradations]
        weighted = zip(self.recipes, data.degradations.values(), strict=True)
        moving = any(recipe.motion is not None for recipe, weight in weighted if weight)
        self.sources = [CropSource(s, with_people=moving) for s in data.sources]
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
        size = phase.crop + data.margin
        crops, degradations, regions, corners = [], [], [], []
        skipped: dict[str, str] = {}
        for i in range(phase.batch):
            source = self.sources[_weighted(weights, generator)]
            shrink = 1.0
            if random_unit(generator) < data.shrink_prob:
                low, high = data.shrink
                shrink = low + (high - low) * random_unit(generator)
            crop = None
            if i in share:
                crop = source.crop(size, shrink, generator, mirror=data.mirror, skipped=skipped)
            else:
                source.skip(generator, mirror=data.mirror)
            recipe = self.recipes[_weighted([*data.degradations.values()], generator)]
            (degradation,) = draw(recipe, 1, generator)
            corner = _corner_in_margin(data, generator) if data.margin else (0, 0)
            if crop is not None:
                crops.append(crop.pixels)
                degradations.append(degradation)
                regions.append(source.regions(crop) if degradation.motions else None)
                corners.append(corner)
        hq = torch.stack(crops).float() / 255
        lq = degrade(hq, degradations, regions=regions)
        return Pair(_squares(hq, corners, phase.crop), _squares(lq, corners, phase.crop), skipped)


def _corner_in_margin(data: DataConfig, generator: Generator) -> tuple[int, int]:
    y, x = random_integer(data.margin + 1, generator), random_integer(data.margin + 1, generator)
    return (y, x) if random_unit(generator) < data.shift_prob else (0, 0)


def _squares(images: Tensor, corners: list[tuple[int, int]], size: int) -> Tensor:
    """The square at (y, x) of each image: [b, 3, h, w] → [b, 3, s, s]."""
    squares = [
        image[:, y : y + size, x : x + size] for image, (y, x) in zip(images, corners, strict=True)
    ]
    return torch.stack(squares)


def share_of(batch: int, index: int, count: int) -> range:
    """The crops of a batch that belong to one of `count` processes, which divides it."""
    size = batch // count
    return range(index * size, (index + 1) * size)


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
    recipe = find_recipe(config.recipe)
    for i in range(min(config.count, len(photos))):
        if numbers is not None and i not in numbers:
            continue
        pixels = read_pixels(photos, i)
        h, w = pixels.shape[:2]
        s = config.crop
        y, x = (h - s) // 2, (w - s) // 2
        square = np.ascontiguousarray(pixels[y : y + s, x : x + s])
        hq = rearrange(torch.from_numpy(square), "h w c -> 1 c h w").float() / 255
        yield Pair(hq, degrade(hq, draw(recipe, 1, seeded(config.seed, i))))


def seeded(*numbers: int) -> Generator:
    """A generator of its own for each tuple of numbers, such as (seed, step)."""
    mixed = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return Generator().manual_seed(int(mixed >> np.uint64(1)))


def _weighted(weights: list[float], generator: Generator) -> int:
    return int(torch.multinomial(torch.tensor(weights), 1, generator=generator))
