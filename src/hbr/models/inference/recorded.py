"""One-step models on CUDA as CUDA graphs: all kernels of a run are started at once.

A graph belongs to tiles of one shape. It is recorded when the shape comes for the third time, so
that photos of odd sizes record nothing; the kernels, and so the results, are the same.

Shapes: b tiles, t_h t_w a tile in pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor

from hbr.devices import is_out_of_memory, release_memory
from hbr.errors import one_line
from hbr.models.protocol import Backend, Conditions, Model, Place, PromptedModel

log = logging.getLogger(__name__)

Replay = Callable[[Tensor], Tensor]
"""Tiles [b, 3, t_h, t_w] of the recorded shape → what the model makes of them."""

REWRITE = "cuda-graphs"
_RUNS_BEFORE, _MOST = 2, 4


class RecordedModel:
    """A model that is replayed from CUDA graphs; see `hbr.models.protocol.Model`.

    Where something guides the model besides the image, or a graph cannot be recorded, it runs as it
    is.

    Attributes:
        fallback: why no graph is recorded any more; None as long as that works.
    """

    def __init__(
        self, model: Model, record: Callable[[Replay, Tensor], Replay] | None = None
    ) -> None:
        """Wrap a loaded model.

        Args:
            model: whose result depends on the tiles alone.
            record: records a run on tiles; `record_graph` if None.
        """
        self.model = model
        if isinstance(model, torch.nn.Module):
            model.eval()
        self.capabilities, self.device, self.dtype = model.capabilities, model.device, model.dtype
        self.backend: Backend = getattr(model, "backend", "eager")
        self.fallback: str | None = None
        self._record = record or record_graph
        self._graphs: dict[tuple[int, ...], Replay] = {}
        self._runs: dict[tuple[int, ...], int] = {}

    def embed(self, text: str) -> Tensor:
        """See `PromptedModel.embed`; only if `capabilities.takes_prompt`."""
        return cast(PromptedModel, self.model).embed(text)

    def restore(self, tiles: Tensor, places: Sequence[Place], conditions: Conditions) -> Tensor:
        """See `Model.restore`."""
        if conditions.maps or conditions.tokens or conditions.watch:
            return self.model.restore(tiles, places, conditions)
        shape = tuple(tiles.shape)
        try:
            if replay := self._graphs.get(shape) or self._recorded(shape, tiles):
                return replay(tiles)
            return self.model.restore(tiles, places, conditions)
        except (MemoryError, RuntimeError) as error:
            if not self._graphs or not is_out_of_memory(error):
                raise
        # earlier photos shall not decide on the tiles of this one
        self._graphs.clear()
        release_memory()
        return self.model.restore(tiles, places, conditions)

    def _recorded(self, shape: tuple[int, ...], tiles: Tensor) -> Replay | None:
        """The graph of a shape, if it is time to record it."""
        if self.fallback is not None or len(self._graphs) >= _MOST:
            return None
        self._runs[shape] = self._runs.get(shape, 0) + 1
        if self._runs[shape] <= _RUNS_BEFORE:
            return None
        try:
            self._graphs[shape] = self._record(self._run, tiles)
        except RuntimeError as error:
            self._graphs.clear()
            self.fallback = f"no CUDA graph can be recorded ({one_line(error, 200)})"
            log.warning("%s; the model runs without", self.fallback)
            return None
        return self._graphs[shape]

    def _run(self, tiles: Tensor) -> Tensor:
        return self.model.restore(tiles, [], Conditions())


def record_graph(run: Replay, tiles: Tensor) -> Replay:
    """Record a run on CUDA.

    Args:
        run: does not wait for the device, and allocates on it alone.
        tiles: of the shape to record.

    Raises:
        RuntimeError: something in the run cannot be recorded, or memory runs out.
    """
    given = tiles.clone()
    here, beside = torch.cuda.current_stream(tiles.device), torch.cuda.Stream(tiles.device)
    beside.wait_stream(here)
    with torch.cuda.stream(beside):
        run(given)  # libraries choose their kernels and allocate
    here.wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        made = run(given)

    def replay(tiles: Tensor) -> Tensor:
        given.copy_(tiles)
        graph.replay()
        return made.clone()  # the next replay overwrites it

    return replay
