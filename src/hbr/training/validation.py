"""The validation photos of a training, which are degraded the same way every time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from einops import rearrange

from hbr.config import ConfigError
from hbr.degradation import degrade, draw, find_recipe
from hbr.image.pixels import to_8_bits
from hbr.people.coco import read_people
from hbr.people.types import Person
from hbr.training.conditions import ConditionMaker
from hbr.training.config import ValidationConfig
from hbr.training.crops import Crop, crop_keypoints
from hbr.training.data import Pair, conditioned, seeded
from hbr.training.photos import CuratedPeople, Photos, open_photos, read_upright


def check_validation(config: ValidationConfig) -> Photos:
    """Read the validation photos once, to fail early on an unusable one.

    Returns:
        The photos, for `validation_pairs`: searching many photos again is slow, and may give a
        different result.

    Raises:
        ConfigError: there are no photos, or one is smaller than the crop.
        hbr.image.PhotoError: a photo is unreadable.
    """
    photos = open_photos(config)
    for i in range(min(config.count, len(photos))):
        _check_size(photos.name(i), read_upright(photos, i).size, config.crop)
    return photos


def _check_size(name: str, size: tuple[int, int], crop: int) -> None:
    h, w = size
    if min(h, w) < crop:
        raise ConfigError(f"{name} is {w}x{h}; validation crops are {crop} pixels")


def validation_pairs(
    config: ValidationConfig,
    numbers: range | None = None,
    photos: Photos | None = None,
    maker: ConditionMaker | None = None,
) -> Iterator[Pair]:
    """Yield centre crops and their degradations, one at a time; always the same.

    The degradation of photo i is drawn from a generator seeded with (seed, i). `numbers` selects
    photos; `photos` are the opened photos, if available; `maker` makes the conditions, if there
    are any.

    Raises:
        ConfigError: a photo is smaller than the crop.
    """
    photos = open_photos(config) if photos is None else photos
    recipe = find_recipe(config.recipe)
    people = None if maker is None else _validation_people(config, photos)
    for i in range(min(config.count, len(photos))):
        if numbers is not None and i not in numbers:
            continue
        photo = read_upright(photos, i)
        pixels = to_8_bits(photo.pixels)
        (h, w), s = pixels.shape[:2], config.crop
        _check_size(photos.name(i), (h, w), s)
        y, x = (h - s) // 2, (w - s) // 2
        square = np.ascontiguousarray(pixels[y : y + s, x : x + s])
        hq = rearrange(torch.from_numpy(square), "h w c -> 1 c h w").float() / 255
        pair = Pair(hq=hq, lq=degrade(hq, draw(recipe, 1, seeded(config.seed, i))))
        if maker is not None:
            crop = Crop(pixels=pair.hq[0], photo=i, size=(h, w), corner=(y, x), mirrored=False)
            crop = replace(crop, orientation=photo.orientation)
            points = crop_keypoints(() if people is None else people[i], crop, config.boxes_grid)
            pair = conditioned(pair, maker, [points], [photos.name(i)])
        yield pair


def _validation_people(
    config: ValidationConfig, photos: Photos
) -> Sequence[Sequence[Person]] | CuratedPeople | None:
    """The annotated people of the validation photos, by index; None if there are none."""
    if config.manifest is not None:
        return CuratedPeople(config.manifest, config.split)
    if config.boxes is None or config.photos is None:
        return None
    annotated, folder = read_people(config.boxes), config.photos
    names = (Path(photos.name(i)) for i in range(min(config.count, len(photos))))
    return [annotated.find(name.relative_to(folder).as_posix()) or () for name in names]
