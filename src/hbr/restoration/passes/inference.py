"""Runs a model over the tiles of a photo, in memory that hardly grows with the photo.

The outputs of a row of tiles are blended in float32 in one buffer as high as a tile and as wide as
the photo; rows that no later tile overlaps are converted to integers and leave the buffer.

Shapes: b tiles of a batch, t_h t_w a tile, h w the photo, n rows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hbr.devices import fit_in_memory
from hbr.errors import OutOfMemoryError
from hbr.models.protocol import ArrayModel, Capabilities, Conditions, Model
from hbr.restoration.passes.tiling import Axis, TilePlan, least_tile, plan_tiles, smaller_tiles
from hbr.restoration.passes.transfer import TileBatch, restored_batches
from hbr.restoration.pixels.color import Planes, to_unit
from hbr.restoration.settings import RestoreSettings

_WHITE = np.iinfo(np.uint16).max

logger = logging.getLogger(__name__)


TileProgress = Callable[[int, int], None]
"""Called with the finished tiles and their total after each batch, from 0 again when a run restarts
with smaller tiles."""


@dataclass(frozen=True)
class TiledRun:
    """The result of a run over a photo, and the tiles and batch that it ended with.

    Attributes:
        pixels: [h, w, 3], the full range of uint16.
        plan: the tiles that fitted into memory.
        batch: tiles per batch.
    """

    pixels: NDArray[np.uint16]
    plan: TilePlan
    batch: int


def run_tiles(
    model: Model | ArrayModel,
    pixels: NDArray[np.uint8] | NDArray[np.uint16],
    plan: TilePlan,
    *,
    conditions: Conditions | None = None,
    batch: int = 1,
    progress: TileProgress | None = None,
) -> NDArray[np.uint16]:
    """Restore every tile of `plan` and blend the results.

    Args:
        model: its output is clamped to [0, 1] after blending.
        pixels: the photo [h, w, 3], the full range of uint8 or uint16.
        plan: the tiles of a photo of this size.
        conditions: of the whole photo: maps [1, c, h, w] and tokens [1, q, d].
        batch: tiles per batch.
        progress: called as `progress(done, total)`, counting tiles.

    Returns:
        pixels [h, w, 3], the full range of uint16.

    Raises:
        FloatingPointError: the model returned values that are not finite.
        RuntimeError: the model returned another shape.
    """
    conditions = conditions or Conditions()
    blend = _Blend(plan)
    done = 0

    def batches() -> Iterator[TileBatch]:
        for tiles in plan.batches(batch):
            lq = np.concatenate([to_unit(plan.read(pixels, *tile)) for tile in tiles])
            places = [plan.place(*tile) for tile in tiles]
            yield TileBatch(tiles, lq, places, plan.share(conditions, tiles))

    for given, restored in restored_batches(model, batches()):
        if restored.shape != given.lq.shape:
            raise RuntimeError(
                f"the model made {list(restored.shape)} of {list(given.lq.shape)}; "
                "they must be equal"
            )
        for (row, column), tile in zip(given.tiles, restored, strict=True):
            blend.add(row, column, tile)
        done += len(given.tiles)
        if progress:
            progress(done, len(plan))
    return blend.finish()


def run_within_memory(
    model: Model | ArrayModel,
    pixels: NDArray[np.uint8] | NDArray[np.uint16],
    plan: TilePlan,
    *,
    conditions: Conditions | None = None,
    batch: int = 1,
    progress: TileProgress | None = None,
) -> TiledRun:
    """`run_tiles`, restarted whenever memory runs out: smaller tiles first, then smaller batches.

    Raises:
        OutOfMemoryError: even the smallest tiles, one at a time, do not fit.
    """

    def run(size: tuple[TilePlan, int]) -> NDArray[np.uint16]:
        plan, batch = size
        return run_tiles(model, pixels, plan, conditions=conditions, batch=batch, progress=progress)

    def smaller(size: tuple[TilePlan, int]) -> tuple[TilePlan, int]:
        plan, batch = size
        at_once = min(batch, len(plan))
        used = f"tiles of {plan.columns.tile}×{plan.rows.tile} pixels, {at_once} at a time"
        if smaller := smaller_tiles(plan, model.capabilities):
            plan = smaller
        elif at_once > 1:
            batch = at_once // 2
        else:
            least = least_tile(model.capabilities)
            smaller_tile = f"smaller tiles (--tile {least}), " if least < plan.edge else ""
            raise OutOfMemoryError(
                f"out of memory on {model.device} with {used}; "
                f"use {smaller_tile}a smaller --scale, or --device cpu"
            )
        logger.warning(
            "out of memory on %s with %s: trying tiles of %d×%d, %d at a time",
            *(model.device, used, plan.columns.tile, plan.rows.tile, batch),
        )
        return plan, batch

    done, (plan, batch) = fit_in_memory(run, (plan, batch), smaller)
    return TiledRun(done, plan, batch)


def decided(
    settings: RestoreSettings, run: TiledRun, capabilities: Capabilities
) -> RestoreSettings:
    """The settings with which `run` comes again, also where memory ran out in it."""
    if capabilities.samples:
        return settings
    tile = 0 if settings.tile == "auto" and capabilities.whole else settings.tile
    rows, columns = run.plan.rows.size, run.plan.columns.size
    if plan_tiles(rows, columns, capabilities, tile) != run.plan:
        tile = run.plan.edge
    return replace(settings, tile=tile, batch=run.batch)


def run_crops(
    model: Model | ArrayModel,
    crops: Sequence[NDArray[np.uint8] | NDArray[np.uint16]],
    *,
    conditions: Conditions | None = None,
    batch: int = 1,
) -> list[NDArray[np.uint16]]:
    """Restore crops of the same size, each by itself; fewer at a time when memory runs out.

    Args:
        model: its output is clamped to [0, 1].
        crops: [n, n, 3] each, the full range of uint8 or uint16, of a size that the model takes.
        conditions: tokens [1, q, d], the same for all.
        batch: crops per batch.

    Returns:
        [n, n, 3] each, the full range of uint16.

    Raises:
        FloatingPointError: the model returned values that are not finite.
        OutOfMemoryError: not even one crop fits.
    """
    edge = crops[0].shape[0]
    axis = Axis(edge, edge, 0, (0,))
    plan = TilePlan(axis, axis)
    conditions = conditions or Conditions()
    done: list[NDArray[np.uint16]] = []

    def next_batch(size: int) -> list[NDArray[np.uint16]]:
        part = crops[len(done) : len(done) + size]
        tiles = [(0, 0)] * len(part)
        lq = np.concatenate([to_unit(crop) for crop in part])  # [b, 3, n, n]
        places = [plan.place(*tile) for tile in tiles]
        given = TileBatch(tiles, lq, places, plan.share(conditions, tiles))
        ((_, restored),) = restored_batches(model, [given])
        _check_finite(restored)
        return [_levels(crop) for crop in restored]

    def halved(size: int) -> int:
        size = min(size, len(crops) - len(done)) // 2
        if size == 0:
            raise OutOfMemoryError(
                f"out of memory on {model.device} with one person of {edge} pixels; "
                "use --device cpu"
            )
        return size

    while len(done) < len(crops):
        made, batch = fit_in_memory(next_batch, batch, halved)
        done += made
    return done


class _Blend:
    """The weighted sum of tiles that arrive row by row, and the finished pixels above them."""

    def __init__(self, plan: TilePlan) -> None:
        self._plan = plan
        self._out = np.empty((plan.rows.size, plan.columns.size, 3), np.uint16)
        width = plan.columns.starts[-1] + plan.columns.tile
        self._rows = np.zeros((3, plan.rows.tile, width), np.float32)
        self._top = 0  # the row of the photo that `_rows` starts at

    def add(self, row: int, column: int, tile: Planes) -> None:
        """Add a tile [3, t_h, t_w] with its window."""
        _check_finite(tile)
        self._finish_above(self._plan.rows.starts[row])
        left = self._plan.columns.starts[column]
        part = self._rows[:, :, left : left + self._plan.columns.tile]
        window = self._plan.columns.window(column)
        windowed = tile * self._plan.rows.window(row)[:, None]
        # in the middle of a tile a float32 sum is the same, and faster
        middle = _middle(window)
        part[..., middle] += windowed[..., middle]
        for side in slice(0, middle.start), slice(middle.stop, None):
            # rounded once, as a fused multiply-add does it
            part[..., side] += windowed[..., side] * window[side].astype(np.float64)

    def finish(self) -> NDArray[np.uint16]:
        """All pixels [h, w, 3]."""
        self._finish_above(self._plan.rows.size)
        return self._out

    def _finish_above(self, start: int) -> None:
        n = start - self._top
        if n <= 0:
            return
        self._out[self._top : start] = _levels(self._rows[:, :n, : self._plan.columns.size])
        kept = self._rows[:, n:].copy()
        self._rows[:, : kept.shape[1]] = kept
        self._rows[:, kept.shape[1] :] = 0
        self._top = start


def _middle(window: NDArray[np.float32]) -> slice:
    """Where a window that rises and falls is 1; empty if it is nowhere."""
    (full,) = np.nonzero(window == 1)
    return slice(int(full[0]), int(full[-1]) + 1) if len(full) else slice(0, 0)


def _levels(planes: Planes) -> NDArray[np.uint16]:
    """Float32 [3, h, w] → [h, w, 3], the full range of uint16; values outside [0, 1] are cut."""
    out = np.empty((*planes.shape[1:], 3), np.uint16)
    for c, plane in enumerate(planes):
        ready = plane.clip(0, 1)
        ready *= _WHITE
        out[..., c] = np.rint(ready, out=ready)
    return out


def _check_finite(tile: Planes) -> None:
    if not np.isfinite(tile).all():
        raise FloatingPointError(
            "the model returned values that are not finite; try another precision "
            "(--dtype float32) or check the model"
        )
