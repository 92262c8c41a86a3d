"""How long a batch will take: the speed of one tile, times the tiles of all photos."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hbr.image import Photo
from hbr.image.reading import photo_size
from hbr.models.protocol import Capabilities
from hbr.restoration.batch.jobs import Job
from hbr.restoration.passes.tiling import TilePlan, plan_tiles
from hbr.restoration.restorer import Restorer
from hbr.restoration.settings import RestoreSettings


@dataclass(frozen=True)
class TimeEstimate:
    """The time that a model needs for photos, without reading and writing them.

    Attributes:
        seconds: for all photos whose size is known.
        tiles: of these photos.
        unknown: photos whose size is not known before they are read.
    """

    seconds: float
    tiles: int
    unknown: int

    def __str__(self) -> str:
        """As in `about 5 min for 120 tiles`."""
        tiles = "1 tile" if self.tiles == 1 else f"{self.tiles} tiles"
        rest = f", {self.unknown} not estimated" if self.unknown else ""
        return f"about {_in_words(self.seconds)} for {tiles}{rest}"


def estimate(jobs: Sequence[Job], restorer: Restorer, settings: RestoreSettings) -> TimeEstimate:
    """Measure one tile, and estimate the time of all photos by their headers.

    Args:
        jobs: the photos; their pixels are not read. Those that would be enlarged too much are not
            estimated.
        restorer: restores one tile of noise, twice; the second time counts.
        settings: of the restoration.
    """
    plans = planned_tiles(jobs, restorer.capabilities, settings)
    unknown = len(jobs) - len(plans)
    if not plans:
        return TimeEstimate(0.0, 0, unknown)
    largest = max(plans, key=tile_pixels)
    per_pixel = _seconds_per_tile(restorer, settings, largest) / tile_pixels(largest)
    seconds = sum(len(plan) * tile_pixels(plan) for plan in plans) * per_pixel
    return TimeEstimate(seconds, sum(map(len, plans)), unknown)


def planned_tiles(
    jobs: Sequence[Job], capabilities: Capabilities, settings: RestoreSettings
) -> list[TilePlan]:
    """The tiles of each photo, by its header; without those that tell no size or will fail."""
    tile, plans = settings.tile, []
    if tile == "auto" and capabilities.samples and not capabilities.whole:
        tile = capabilities.native_size  # windows count as tiles
    for job in jobs:
        size = photo_size(job.stdin or job.source)
        if size is not None:
            with contextlib.suppress(ValueError):
                seen = _seen(size, capabilities, settings)
                plans.append(plan_tiles(*seen, capabilities, tile))
    return plans


def tile_pixels(plan: TilePlan) -> int:
    """Pixels of a tile."""
    return plan.rows.tile * plan.columns.tile


def _seen(
    photo: tuple[int, int], capabilities: Capabilities, settings: RestoreSettings
) -> tuple[int, int]:
    """(height, width) of what the model sees of a photo; at most, with `reduce` of "auto"."""
    if isinstance(settings.reduce, float | int):
        height, width = (
            max(1, round(edge / settings.reduce)) * capabilities.upscale for edge in photo
        )
        return height, width
    return settings.result_size(photo)


def _seconds_per_tile(restorer: Restorer, settings: RestoreSettings, plan: TilePlan) -> float:
    shape = (plan.rows.tile, plan.columns.tile, 3)
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    photo = Photo.from_array(noise)
    alone = replace(settings, scale=1.0, size=None, reduce=None, gate="off", people="off")
    return [restorer(photo, alone).timings["model"] for _ in range(2)][1]


def _in_words(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes < 600 else f"{round(minutes / 60)} h"
