"""Pairs for training and validation; each is a pure function of the seed and its number.

Nothing is remembered from one batch to the next, so a resumed training sees what an undisturbed
one would. Shapes: b batch, s edge of the crop.
"""

from __future__ import annotations

import json
import logging
import signal
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from einops import rearrange
from torch import Generator, Tensor
from torch.utils.data import DataLoader, IterableDataset

from hbr.config import ConfigError
from hbr.degradation import RECIPES, Degradation, degrade, draw
from hbr.image import PhotoError, is_photo_name, read_photo
from hbr.image.pixels import to_8_bits
from hbr.training.config import DataConfig, SourceConfig, TrainConfig, ValidationConfig

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

log = logging.getLogger(__name__)

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Pair:
    """A batch: hq and lq, float32 [b, 3, s, s] in [0, 1]."""

    hq: Tensor
    lq: Tensor


def photo_files(folder: Path) -> list[Path]:
    """The photos of a folder and its sub-folders, sorted by name.

    Raises:
        ConfigError: there is no such folder, or it holds no photo.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder of photos")
    files = sorted(p for p in folder.rglob("*") if p.is_file() and is_photo_name(p))
    if not files:
        raise ConfigError(f"{folder} holds no photo")
    return files


def person_boxes(file: Path) -> dict[str, list[Box]]:
    """File name → person boxes (x, y, width, height in pixels) of a COCO file, crowds left out."""
    try:
        coco = json.loads(file.read_text())
        people = {c["id"] for c in coco["categories"] if c["name"] == "person"}
        names = {image["id"]: image["file_name"] for image in coco["images"]}
        boxes: dict[str, list[Box]] = defaultdict(list)
        for a in coco["annotations"]:
            if a["category_id"] in people and not a.get("iscrowd"):
                x, y, w, h = a["bbox"]
                boxes[names[a["image_id"]]].append((x, y, w, h))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file} is no COCO file: {error!r}") from None
    return dict(boxes)


class Source:
    """The crops of one folder."""

    def __init__(self, config: SourceConfig) -> None:
        self.boxes = person_boxes(config.boxes) if config.boxes else None
        self.files = [
            file
            for file in photo_files(config.photos)
            if file.name not in config.exclude and (self.boxes is None or file.name in self.boxes)
        ]
        if not self.files:
            raise ConfigError(f"{config.photos}: no photo is left of `boxes` and `exclude`")

    def crop(self, size: int, shrink: float, generator: Generator) -> Tensor:
        """A random square of a random photo, mirrored half of the time: uint8 [3, s, s]."""
        file, pixels = self._read(_integer(len(self.files), generator))
        h, w = pixels.shape[:2]
        # never below the crop, and never enlarged unless the photo is smaller than it
        factor = max(shrink, size / min(h, w))
        if factor != 1:
            target = (max(round(w * factor), size), max(round(h * factor), size))
            method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
            pixels = cv2.resize(pixels, target, interpolation=method)
            h, w = pixels.shape[:2]
        y, x = self._corner(file, (h, w), size, factor, generator)
        square = pixels[y : y + size, x : x + size]
        if _integer(2, generator):
            square = square[:, ::-1]
        return rearrange(torch.from_numpy(np.ascontiguousarray(square)), "h w c -> c h w")

    def _read(self, index: int) -> tuple[Path, np.ndarray]:
        """Photo `index`, or the next one that can be read: the same at every try."""
        for i in range(len(self.files)):
            file = self.files[(index + i) % len(self.files)]
            try:
                return file, to_8_bits(read_photo(file).pixels)
            except PhotoError as error:
                log.warning("%s; the next photo takes its place", error)
        raise ConfigError(f"{self.files[0].parent}: none of the photos can be read")

    def _corner(
        self, file: Path, hw: tuple[int, int], size: int, factor: float, generator: Generator
    ) -> tuple[int, int]:
        free = (hw[0] - size + 1, hw[1] - size + 1)
        if self.boxes is None:
            return _integer(free[0], generator), _integer(free[1], generator)
        boxes = self.boxes[file.name]
        x, y, w, h = (v * factor for v in boxes[_integer(len(boxes), generator)])
        # a point of the box becomes the middle of the crop
        middle = (y + h * _unit(generator), x + w * _unit(generator))
        row, column = (
            int(min(max(m - size / 2, 0), f - 1)) for m, f in zip(middle, free, strict=True)
        )
        return row, column


class TrainingPairs(IterableDataset[Pair]):
    """The batches of a training from `start` on, in order."""

    def __init__(self, config: TrainConfig, start: int) -> None:
        self.config = config
        self.start = start
        self.sources = [Source(s) for s in config.data.sources]

    def __iter__(self) -> Iterator[Pair]:
        """Batches; with several workers each makes every so-manieth one."""
        info = torch.utils.data.get_worker_info()
        first, every = (info.id, info.num_workers) if info else (0, 1)
        for step in range(self.start + first, self.config.steps, every):
            yield self.batch(step)

    def batch(self, step: int) -> Pair:
        """The pair of this step (from 0)."""
        phase = self.config.phase_at(step)
        data = self.config.data
        generator = seeded(self.config.seed, step)
        weights = [s.weight for s in data.sources]
        crops, degradations = [], []
        for _ in range(phase.batch):
            source = self.sources[_weighted(weights, generator)]
            shrink = 1.0
            if _unit(generator) < data.shrink_prob:
                low, high = data.shrink
                shrink = low + (high - low) * _unit(generator)
            crops.append(source.crop(phase.crop, shrink, generator))
            degradations.append(_draw_one(data, generator))
        hq = torch.stack(crops).float() / 255
        return Pair(hq, degrade(hq, degradations))


def _draw_one(data: DataConfig, generator: Generator) -> Degradation:
    names = list(data.degradations)
    name = names[_weighted(list(data.degradations.values()), generator)]
    return draw(RECIPES[name], 1, generator)[0]


def training_loader(config: TrainConfig, start: int) -> DataLoader[Pair]:
    """The batches from step `start` on, prepared in other processes."""
    workers = config.data.workers
    return DataLoader(
        TrainingPairs(config, start),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=_leave_signals_to_the_trainer,
        # its own, so that starting anew draws nothing from the generator of the training
        generator=Generator(),
    )


def _leave_signals_to_the_trainer(_: int) -> None:
    """Ctrl-C in a terminal reaches every process of the command; the trainer alone answers it."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def check_validation(config: ValidationConfig) -> None:
    """Read the validation photos once, so that no training ends at a bad one hours later.

    Raises:
        ConfigError: there is none, or one is smaller than the crop.
        hbr.image.PhotoError: one cannot be read.
    """
    for file in photo_files(config.photos)[: config.count]:
        h, w = read_photo(file).size
        if min(h, w) < config.crop:
            raise ConfigError(f"{file} is {w}x{h}; validation crops are {config.crop} pixels")


def validation_pairs(config: ValidationConfig) -> Iterator[Pair]:
    """Centre crops and their degradations, one at a time; the same for ever.

    Photo i is degraded by what a generator seeded with (seed, i) draws.
    """
    for i, file in enumerate(photo_files(config.photos)[: config.count]):
        pixels = to_8_bits(read_photo(file).pixels)
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
