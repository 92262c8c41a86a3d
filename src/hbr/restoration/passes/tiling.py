"""Plans of overlapping tiles: their positions, and the windows that blend them without seams.

A plan is data; `hbr.restoration.passes.inference` runs a model over it. The two axes of a photo are
planned independently, and the window of a tile is the outer product of its windows along them.

Shapes: h w the photo, t_h t_w a tile, all in pixels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hbr.models.protocol import Capabilities, Conditions, Place
from hbr.restoration.settings import TileChoice

if TYPE_CHECKING:
    from torch import Tensor

# Neighbours share an eighth of the native size: 64 of 512 pixels.
_OVERLAPS_PER_NATIVE = 8
# A network keeps its quality on tiles slightly larger than those it was trained on.
_LARGEST_PER_NATIVE = 1.25
# When memory runs out, tiles shrink to a quarter of the native size at most: in smaller ones a
# network has too little context.
_SMALLEST_PER_NATIVE = 4


@dataclass(frozen=True)
class Axis:
    """Tiles along one axis.

    All tiles have the same size and start at multiples of `multiple_of`, so that a model that works
    on a grid (latents, patches) sees the same grid in every tile as in the whole photo.

    Attributes:
        size: the photo, in pixels.
        tile: a tile, in pixels.
        overlap: the minimum that two neighbours share, in pixels.
        starts: first pixel of each tile, ascending; the last tile may extend past the photo.
    """

    size: int
    tile: int
    overlap: int
    starts: tuple[int, ...]

    def window(self, index: int) -> NDArray[np.float32]:
        """Weight of each pixel of tile `index`, float32 [tile] in [0, 1].

        The windows of all tiles sum to 1 at every pixel: neighbours cross-fade along a raised
        cosine that is half as wide as the overlap and centred in what they share. The outer part
        has no weight, because there the output is affected by the border of the tile. At the edges
        of the photo the window does not fall off.
        """
        x = np.arange(self.tile, dtype=np.float64) + (self.starts[index] + 0.5)
        weight = self._fade(index, x) - self._fade(index + 1, x)
        return weight.astype(np.float32)

    def source(self, index: int) -> NDArray[np.intp]:
        """The pixel of the photo at each pixel of tile `index`, [tile]; mirrored past the end."""
        x = np.arange(self.tile) + self.starts[index]
        period = max(1, 2 * (self.size - 1))
        x %= period
        return np.minimum(np.minimum(x, period - x), self.size - 1)

    def _fade(self, index: int, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """From 0 to 1 around the middle of what tiles `index` − 1 and `index` share."""
        if index == 0:
            return np.ones_like(x)
        if index == len(self.starts):
            return np.zeros_like(x)
        middle = (self.starts[index - 1] + self.tile + self.starts[index]) / 2
        if self.overlap == 0:
            return (x > middle).astype(np.float64)
        t = np.clip((x - middle) / (self.overlap / 2) + 0.5, 0, 1)
        return 0.5 - 0.5 * np.cos(np.pi * t)


@dataclass(frozen=True)
class TilePlan:
    """Every tile of a photo: each of `rows` with each of `columns`."""

    rows: Axis
    columns: Axis

    def __len__(self) -> int:
        """Number of tiles."""
        return len(self.rows.starts) * len(self.columns.starts)

    @property
    def edge(self) -> int:
        """The longer edge of a tile, in pixels."""
        return max(self.rows.tile, self.columns.tile)

    def batches(self, size: int) -> Iterator[list[tuple[int, int]]]:
        """(row, column) indices of the tiles, row by row, `size` at a time (the last fewer)."""
        tiles = itertools.product(range(len(self.rows.starts)), range(len(self.columns.starts)))
        while batch := list(itertools.islice(tiles, size)):
            yield batch

    def read(
        self, pixels: NDArray[np.uint8] | NDArray[np.uint16], row: int, column: int
    ) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """One tile [t_h, t_w, 3] of the photo's pixels [h, w, 3]."""
        return pixels[np.ix_(self.rows.source(row), self.columns.source(column))]

    def place(self, row: int, column: int) -> Place:
        """Where a tile lies."""
        return Place(
            top=self.rows.starts[row],
            left=self.columns.starts[column],
            height=self.rows.size,
            width=self.columns.size,
        )

    def share(self, conditions: Conditions, tiles: Sequence[tuple[int, int]]) -> Conditions:
        """The conditions of some tiles, out of those of the photo.

        Args:
            conditions: maps [1, c, h, w] and tokens [1, q, d].
            tiles: b (row, column) indices.

        Returns:
            maps [b, c, t_h, t_w], cut out as `read` cuts out the pixels, and tokens [b, q, d].
        """
        if not conditions.maps and not conditions.tokens:
            return conditions
        import torch

        def part(whole: Tensor, row: int, column: int) -> Tensor:
            return whole[:, :, self.rows.source(row)][..., self.columns.source(column)]

        maps = {
            name: torch.cat([part(whole, *tile) for tile in tiles])
            for name, whole in conditions.maps.items()
        }
        tokens = {name: t.expand(len(tiles), -1, -1) for name, t in conditions.tokens.items()}
        return replace(conditions, maps=maps, tokens=tokens)


def plan_tiles(
    height: int, width: int, capabilities: Capabilities, tile: TileChoice = "auto"
) -> TilePlan:
    """Plan the tiles of a photo.

    Args:
        height, width: the photo, 1 or more.
        capabilities: the sizes that the model supports.
        tile: 0 makes the photo one tile. A number is the edge of a tile, rounded up to a size that
            the model supports; smaller photos get a smaller tile. "auto" stays near the size that
            the model was trained on, at most a quarter above it, on every device: it chooses the
            number of tiles that covers the photo with the least overlap. A photo up to 1.25 times
            the native size is one tile. Memory is not considered: if it runs out,
            `hbr.restoration.passes.inference` retries with smaller tiles. "auto" is 0 with `whole`,
            and the native size with `fixed_tiles`.

    Raises:
        ValueError: `tile` is below the smallest size that the model can be tiled with.
    """
    least = least_tile(capabilities)
    whole_number = isinstance(tile, int) and not isinstance(tile, bool)
    if tile != "auto" and not (whole_number and (tile == 0 or tile >= least)):
        raise ValueError(f"tile is {tile!r}; it must be auto, 0 or at least {least}")
    tile = 0 if tile == "auto" and capabilities.whole else tile
    return TilePlan(plan_axis(height, capabilities, tile), plan_axis(width, capabilities, tile))


def plan_axis(size: int, capabilities: Capabilities, tile: TileChoice) -> Axis:
    """`plan_tiles` along one axis of `size` pixels."""
    step = capabilities.multiple_of
    padded = max(_up(size, step), _up(capabilities.min_size, step))
    native = _up(capabilities.native_size, step)
    if tile == "auto" and capabilities.fixed_tiles:
        edge = native
    elif tile == "auto":
        edge = _edge_near_native(padded, native, capabilities)
    else:
        edge = _up(tile, step) if tile else padded
    edge = min(edge, padded)
    overlap = _overlap(edge, capabilities)
    if edge == padded:
        return Axis(size, edge, overlap, (0,))
    count = math.ceil((padded - overlap) / (edge - overlap))
    # Spaced evenly, then rounded down to the grid, so that neighbours share at least the overlap.
    spread = ((padded - edge) // step * i // (count - 1) for i in range(count))
    return Axis(size, edge, overlap, tuple(step * start for start in spread))


def _edge_near_native(padded: int, native: int, capabilities: Capabilities) -> int:
    """The edge with the least computation, of the two smallest possible numbers of tiles."""
    overlap = _overlap(native, capabilities)

    def edge(count: int) -> int:
        return _up(math.ceil((padded + (count - 1) * overlap) / count), capabilities.multiple_of)

    largest = max(native, int(_LARGEST_PER_NATIVE * native))
    fewest = next(count for count in itertools.count(1) if edge(count) <= largest)
    counts = (fewest, fewest + 1)
    return edge(min(counts, key=lambda count: (count * edge(count), abs(edge(count) - native))))


def smaller_tiles(plan: TilePlan, capabilities: Capabilities) -> TilePlan | None:
    """The plan with tiles of half the edge, or None if they would be too small to be useful."""
    smallest = max(least_tile(capabilities), capabilities.native_size // _SMALLEST_PER_NATIVE)
    edge = _up(max(plan.edge // 2, smallest), capabilities.multiple_of)
    if edge >= plan.edge:
        return None
    return plan_tiles(plan.rows.size, plan.columns.size, capabilities, edge)


def least_tile(capabilities: Capabilities) -> int:
    """Smallest edge of tiles in pixels: half of it is overlap, and both are on the model's grid."""
    return max(2 * capabilities.multiple_of, _up(capabilities.min_size, capabilities.multiple_of))


def _overlap(edge: int, capabilities: Capabilities) -> int:
    wanted = _up(
        math.ceil(capabilities.native_size / _OVERLAPS_PER_NATIVE), capabilities.multiple_of
    )
    return min(wanted, edge // 2 // capabilities.multiple_of * capabilities.multiple_of)


def _up(size: int, step: int) -> int:
    """The smallest multiple of `step` that is at least `size`."""
    return -(-size // step) * step
