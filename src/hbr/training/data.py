"""The pairs of a training; each is a pure function of the seed and its index.

There is no state between batches, so a resumed training sees the same data as an uninterrupted
one. Shapes: b batch, s size of the crop, m with its margin, c h w a latent.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, IterableDataset

from hbr.config import ConfigError
from hbr.degradation import Degradation, Regions, degrade, draw, find_recipe, sharpen
from hbr.models.protocol import Conditions
from hbr.processes import STOP_SIGNALS, block_sigint, worker_context
from hbr.training.conditions import ConditionMaker
from hbr.training.config import DataConfig, TrainConfig
from hbr.training.crops import (
    CropSource,
    allowed_errors,
    random_integer,
    random_uniform,
)
from hbr.training.latents import LatentCache

# In pixels: what programs that make photos smaller sharpen them with.
_CRISP_SIGMA = (0.5, 1.0)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A batch of pairs.

    Attributes:
        hq, lq: float32 [b, 3, s, s] in [0, 1].
        skipped: unreadable photos that were replaced by others, name → reason on one line.
        conditions: further inputs of the model besides LQ.
        texts: the caption of each image; empty if there are none.
        latents: of each HQ image, float32 [c, h, w]; None where it is yet to be encoded. Empty
            if latents are not kept.
    """

    hq: Tensor
    lq: Tensor
    skipped: dict[str, str] = field(default_factory=dict)
    conditions: Conditions = field(default_factory=Conditions)
    texts: tuple[str, ...] = ()
    latents: tuple[Tensor | None, ...] = ()

    def part(self, at: slice) -> Pair:
        """Return a part of the batch."""
        hq, lq, conditions = self.hq[at], self.lq[at], self.conditions.part(at)
        texts, latents = self.texts[at], self.latents[at]
        return replace(self, hq=hq, lq=lq, conditions=conditions, texts=texts, latents=latents)

    def to(self, device: torch.device) -> Pair:
        """Return the batch on a device, with images in channels-last layout."""
        layout = torch.channels_last
        hq, lq = (x.to(device).contiguous(memory_format=layout) for x in (self.hq, self.lq))
        latents = tuple(None if z is None else z.to(device) for z in self.latents)
        return replace(self, hq=hq, lq=lq, conditions=self.conditions.to(device), latents=latents)


@dataclass(frozen=True, kw_only=True)
class CropBatch:
    """The HQ crops of a batch, and what was drawn for their degradation.

    Attributes:
        whole: uint8 [b, 3, m, m], the crops with their margin.
        size: s, without the margin.
        corners: (y, x) of each crop in the margin.
        degradations, regions: of each, as `hbr.degradation.degrade` takes them.
        keypoints: of the annotated people, in pixels of the crop, [n, 17, 3] for each.
        names: of the photos.
        crisp: σ and amount of the unsharp mask of each photo, or None; see `DataConfig`.
        sharpen: those of the targets that are not crisp, or None.
        pair: what else belongs to the batch; its images are not used.
    """

    whole: Tensor
    size: int
    corners: list[tuple[int, int]]
    degradations: list[Degradation]
    regions: list[Regions | None]
    keypoints: list[np.ndarray]
    names: list[str]
    crisp: list[tuple[float, float] | None]
    sharpen: tuple[float, float] | None
    pair: Pair

    def degraded(self, device: torch.device) -> Pair:
        """Return the batch with its LQ images, computed on a device."""
        whole = sharpen(self.whole.to(device).float() / 255, self.crisp)
        targets = sharpen(whole, [None if crisp else self.sharpen for crisp in self.crisp])
        hq, lq = (
            _squares(images, self.corners, self.size)
            for images in (targets, degrade(whole, self.degradations, regions=self.regions))
        )
        return replace(self.pair, hq=hq, lq=lq)

    def to(self, device: torch.device) -> Pair:
        """Return the batch on a device that degrades it, as `Pair.to`."""
        return self.degraded(device).to(device)


class TrainingPairs(IterableDataset[Pair | CropBatch | ConfigError]):
    """The batches of a training from step `start` on, in order.

    Args:
        config: the training.
        start: the first step, from 0.
        index, count: rank of this process and number of processes; each batch is restricted to
            the share of this process.
        latents: where latents of HQ crops are kept, if they are.
        degraded: whether to degrade the crops here, rather than where they are used.
    """

    def __init__(
        self,
        config: TrainConfig,
        start: int,
        index: int = 0,
        count: int = 1,
        latents: LatentCache | None = None,
        *,
        degraded: bool = True,
    ) -> None:
        self.config = config
        self.start = start
        self.index, self.count = index, count
        self.latents, self.degraded = latents, degraded
        data = config.data
        self.recipes = [find_recipe(name) for name in data.degradations]
        weighted = zip(self.recipes, data.degradations.values(), strict=True)
        moving = any(recipe.motion is not None for recipe, weight in weighted if weight)
        self.conditions = None if data.conditions is None else ConditionMaker(data.conditions)
        people = moving or (data.conditions is not None and data.conditions.source == "people")
        kept = int(data.kept_gb * 1e9 / len(data.sources))
        self.sources = [CropSource(s, with_people=people, kept_bytes=kept) for s in data.sources]
        for source in self.sources:
            source.allowed = allowed_errors(self.photos, config.data.errors)

    @property
    def photos(self) -> int:
        """Number of photos to draw from."""
        return sum(len(source.photos) for source in self.sources)

    def __iter__(self) -> Iterator[Pair | CropBatch | ConfigError]:
        """Yield batches; of n workers, each makes every n-th one.

        An error is yielded as the last item: torch would wrap a raised one in a traceback.
        """
        info = torch.utils.data.get_worker_info()
        first, every = (info.id, info.num_workers) if info else (0, 1)
        for step in range(self.start + first, self.config.steps, every):
            try:
                yield self.batch(step) if self.degraded else self.undegraded(step)
            except ConfigError as error:
                yield error
                return

    def batch(self, step: int) -> Pair:
        """Return this process's share of the batch of a step (from 0)."""
        crops = self._crops(step)
        pair = crops.degraded(torch.device("cpu"))
        return conditioned(pair, self.conditions, crops.keypoints, crops.names)

    def undegraded(self, step: int) -> CropBatch:
        """Return the same as crops that are yet to be degraded; conditions come from HQ."""
        crops = self._crops(step)
        if self.conditions is None:
            return crops
        hq = _squares(crops.whole.float() / 255, crops.corners, crops.size)
        pair = replace(crops.pair, hq=hq, lq=hq)
        pair = conditioned(pair, self.conditions, crops.keypoints, crops.names)
        return replace(crops, pair=replace(pair, hq=crops.pair.hq, lq=crops.pair.lq))

    def _crops(self, step: int) -> CropBatch:
        phase = self.config.phase_at(step)
        share = share_of(phase.batch, self.index, self.count)
        data = self.config.data
        generator = seeded(self.config.seed, step)
        weights = [s.weight for s in data.sources]
        size = phase.crop + data.margin
        crops, degradations, regions, corners = [], [], [], []
        keypoints, names, sharpened = [], [], []
        skipped: dict[str, str] = {}
        for i in range(phase.batch):
            number = _weighted(weights, generator)
            source = self.sources[number]
            photo, placing = self._chosen(number, generator)
            shrink = _shrinking(data, placing)
            crop = None
            if i in share:
                crop = source.crop(
                    size, shrink, placing, mirror=data.mirror, skipped=skipped, photo=photo
                )
            else:
                source.skip(placing, mirror=data.mirror)
            recipe = self.recipes[_weighted([*data.degradations.values()], generator)]
            (degradation,) = draw(recipe, 1, generator)
            corner = _corner_in_margin(data, placing) if data.margin else (0, 0)
            crisp = _crispness(data, generator) if data.crisp_prob and shrink < 1 else None
            if crop is not None:
                y, x = corner
                crops.append(crop.pixels)
                degradations.append(degradation)
                regions.append(source.regions(crop) if degradation.motions else None)
                corners.append(corner)
                keypoints.append(source.keypoints(crop) - (x, y, 0))
                names.append(source.photos.name(crop.photo))
                sharpened.append(crisp)
        whole = torch.stack(crops)
        empty = torch.empty(0)
        return CropBatch(
            whole=whole,
            size=phase.crop,
            corners=corners,
            degradations=degradations,
            regions=regions,
            keypoints=keypoints,
            names=names,
            crisp=sharpened,
            sharpen=data.sharpen,
            pair=Pair(
                hq=empty, lq=empty, skipped=skipped, latents=self._kept(whole, corners, phase.crop)
            ),
        )

    def _chosen(self, source: int, generator: Generator) -> tuple[int | None, Generator]:
        """Return the photo of a crop, if it is from a fixed set, and what its place is drawn by."""
        latents = self.config.data.latents
        if latents is None:
            return None, generator
        photo = random_integer(len(self.sources[source].photos), generator)
        crop = random_integer(latents.crops, generator)
        return photo, seeded(self.config.seed, 3, source, photo, crop)

    def _kept(
        self, whole: Tensor, corners: list[tuple[int, int]], size: int
    ) -> tuple[Tensor | None, ...]:
        if self.latents is None:
            return ()
        return tuple(self.latents.load(crop) for crop in _squares(whole, corners, size))


def conditioned(
    pair: Pair, maker: ConditionMaker | None, keypoints: list[np.ndarray], names: list[str]
) -> Pair:
    """The pair with the maps and texts of each crop, if there are any."""
    if maker is None:
        return pair
    each = [
        maker.maps(hq, lq, points)
        for hq, lq, points in zip(pair.hq, pair.lq, keypoints, strict=True)
    ]
    maps = {name: torch.stack([found[name] for found in each]) for name in each[0]}
    return replace(
        pair, conditions=Conditions(maps=maps), texts=tuple(maker.text(name) for name in names)
    )


def _corner_in_margin(data: DataConfig, generator: Generator) -> tuple[int, int]:
    y, x = random_integer(data.margin + 1, generator), random_integer(data.margin + 1, generator)
    return (y, x) if random_uniform(generator) < data.shift_prob else (0, 0)


def _shrinking(data: DataConfig, generator: Generator) -> float:
    """Draw the factor to downscale a photo by; 1 leaves it as it is."""
    if random_uniform(generator) >= data.shrink_prob:
        return 1.0
    return random_uniform(generator, data.shrink)


def _crispness(data: DataConfig, generator: Generator) -> tuple[float, float] | None:
    """Draw the σ and amount of a crisp photo's unsharp mask; None leaves it as it is."""
    if random_uniform(generator) >= data.crisp_prob:
        return None
    return random_uniform(generator, _CRISP_SIGMA), random_uniform(generator, data.crisp)


def _squares(images: Tensor, corners: list[tuple[int, int]], size: int) -> Tensor:
    """Crop the square at (y, x) of each image: [b, 3, h, w] → [b, 3, s, s]."""
    squares = [
        image[:, y : y + size, x : x + size] for image, (y, x) in zip(images, corners, strict=True)
    ]
    return torch.stack(squares)


def share_of(batch: int, index: int, count: int) -> range:
    """Return the crops of process `index` of `count`; `batch` is a multiple of `count`."""
    size = batch // count
    return range(index * size, (index + 1) * size)


def prepared(pairs: TrainingPairs) -> Iterator[Pair | CropBatch]:
    """Yield the batches of a training, prepared by worker processes.

    Raises:
        ConfigError: too many photos are unreadable.
    """
    workers = pairs.config.data.workers
    loader = DataLoader(
        pairs,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        multiprocessing_context=worker_context((__name__,)) if workers else None,
        worker_init_fn=_ignore_stop_signals,
        # its own generator, so that creating the loader does not advance torch's global one
        generator=Generator(),
    )
    with block_sigint():  # the workers inherit the mask
        batches = iter(loader)
    try:
        for pair in batches:
            if isinstance(pair, ConfigError):
                raise pair
            yield pair
    finally:
        # ends the workers now: the traceback of an error would keep them, and as they ignore
        # SIGTERM, Python would wait for them for ever at its end
        del batches


def _ignore_stop_signals(_: int) -> None:
    """Ignore Ctrl-C, which a terminal sends to all processes; the trainer handles it."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def seeded(*numbers: int) -> Generator:
    """Return a generator seeded by a tuple of numbers, such as (seed, step)."""
    mixed = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return Generator().manual_seed(int(mixed >> np.uint64(1)))


def _weighted(weights: list[float], generator: Generator) -> int:
    return int(torch.multinomial(torch.tensor(weights), 1, generator=generator))
