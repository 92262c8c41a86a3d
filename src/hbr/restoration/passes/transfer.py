"""Batches of tiles to a device and back, while it computes.

On CUDA the next batch is submitted before the last one is waited for. Copies lie in pinned memory
and run on streams of their own, so that they, and what the caller does with a batch, take no time
of the device. Elsewhere one batch is done after the other.

Shapes: b tiles of a batch, t_h t_w a tile.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hbr.models.protocol import ArrayModel, Conditions, Model, Place
from hbr.restoration.pixels.color import Planes

if TYPE_CHECKING:
    import torch
    from torch import Tensor

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class TileBatch:
    """Tiles of one photo that go through a model at once.

    Attributes:
        tiles: (row, column) indices of each.
        lq: float32 [b, 3, t_h, t_w] in [0, 1].
        places: where each lies in the photo.
        conditions: of each.
    """

    tiles: Sequence[tuple[int, int]]
    lq: Planes
    places: Sequence[Place]
    conditions: Conditions


def restored_batches(
    model: Model | ArrayModel, batches: Iterable[TileBatch]
) -> Iterator[tuple[TileBatch, Planes]]:
    """Restore batches; each is yielded with its result, float32 of its shape, in order.

    A result is overwritten when the next one is asked for.
    """
    if isinstance(model, ArrayModel):
        for batch in batches:
            yield batch, model.restore_arrays(batch.lq)
        return
    submit = _on_cuda(model) if model.device.type == "cuda" else _at_once(model)
    ahead = batches_ahead(model.device)
    waiting: deque[tuple[TileBatch, Callable[[], Planes]]] = deque()
    for batch in batches:
        waiting.append((batch, submit(batch)))
        if len(waiting) > ahead:
            first, result = waiting.popleft()
            yield first, result()
    for batch, result in waiting:
        yield batch, result()


def batches_ahead(device: torch.device) -> int:
    """How many batches are submitted before one is waited for, besides that one: 0 or 1."""
    return 1 if device.type == "cuda" else 0


def _at_once(model: Model) -> Callable[[TileBatch], Callable[[], Planes]]:
    """Submits batches to a device that is waited for."""
    import torch

    def submit(batch: TileBatch) -> Callable[[], Planes]:
        tiles = torch.from_numpy(batch.lq).to(model.device, memory_format=torch.channels_last)
        made = model.restore(tiles, batch.places, batch.conditions.to(model.device))
        planes: Planes = made.detach().to("cpu", torch.float32).numpy()
        return lambda: planes

    return submit


def _on_cuda(model: Model) -> Callable[[TileBatch], Callable[[], Planes]]:
    """Submits batches to a CUDA device, with two buffers of pinned memory each way."""
    import torch

    device = model.device
    inward, outward = torch.cuda.Stream(device), torch.cuda.Stream(device)
    slots = [PinnedBuffers(), PinnedBuffers()]

    def submit(batch: TileBatch) -> Callable[[], Planes]:
        slots.append(slots.pop(0))
        computing = torch.cuda.current_stream(device)
        given = slots[-1].of("in", torch.Size(batch.lq.shape))
        given.copy_(torch.from_numpy(batch.lq))
        with torch.cuda.stream(inward):
            there = given.to(device, non_blocking=True)
            there = there.contiguous(memory_format=torch.channels_last)
        computing.wait_stream(inward)
        there.record_stream(computing)
        made = model.restore(there, batch.places, batch.conditions.to(device)).detach()
        back = slots[-1].of("out", made.shape)
        outward.wait_stream(computing)
        done = torch.cuda.Event()
        with torch.cuda.stream(outward):
            made.record_stream(outward)
            back.copy_(made.to(torch.float32), non_blocking=True)
            done.record(outward)

        def result() -> Planes:
            done.synchronize()
            planes: Planes = back.numpy()
            return planes

        return result

    return submit


class PinnedBuffers:
    """Float32 buffers on the CPU that a device copies from and to by itself, by name."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def of(self, name: str, shape: torch.Size) -> Tensor:
        """The buffer of this name and shape; where memory cannot be pinned, an ordinary one."""
        import torch

        kept = self._buffers.get(name)
        if kept is None or kept.shape != shape:
            try:
                kept = torch.empty(shape, pin_memory=True)
            except RuntimeError as error:
                log.warning("no memory is pinned, copies wait for the device: %s", error)
                kept = torch.empty(shape)
            self._buffers[name] = kept
        return kept
