"""Exporting a model as an ONNX graph, which `hbr.models.graphs` runs without torch.

Shapes: t_h t_w a tile in pixels.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from hbr.errors import one_line
from hbr.models.graphs import (
    GRAPH,
    RESTORED,
    TILES,
    BackendError,
    GraphModel,
    open_session,
    ready_name,
)
from hbr.models.loading import open_model
from hbr.models.protocol import Capabilities, Conditions, Model
from hbr.weights import FoundFile

# An ONNX file holds less than 2 GiB.
_LARGEST = 1.9 * 2**30
# Between the graph and the model in torch, both in float32, in [0, 1].
_TOLERANCE = 0.5 / 255
_OPSET = 17


def write_graph(
    path: Path, fidelity: float | None, folder: Path, decoder: FoundFile | None = None
) -> Capabilities:
    """Write the graph of a model file into a folder, as `hbr.models.graph_files` describes it.

    The graph is compared with the model at two sizes.

    Args:
        path: a model file of hbr.
        fidelity: of a model with two ends, else None.
        folder: there already.
        decoder: in place of the model's own.

    Returns:
        what the graph supports.

    Raises:
        BackendError: the model cannot be a graph.
        OSError: the folder cannot be written.
    """
    opened = open_model(path, decoder)
    _check_exportable(path, opened.capabilities)
    model = opened.load(torch.device("cpu"), torch.float32, fidelity)
    size = sum(p.numel() for p in cast(nn.Module, model).state_dict().values()) * 4
    if size > _LARGEST:
        raise BackendError(f"{path.name} is too large for a graph")
    native = opened.capabilities.native_size
    raw = folder / "raw.onnx"
    try:
        step = opened.capabilities.multiple_of
        _trace(model, (native + step, native + 2 * step), raw)
        open_session(raw, portable=True, save=folder / GRAPH)
        raw.unlink()
        ready = folder / ready_name(native, native)
        open_session(folder / GRAPH, size=(native, native), save=ready)
    except Exception as error:  # of torch or ONNX Runtime; theirs have no common ancestor
        raise BackendError(f"{path.name} cannot be made a graph: {one_line(error, 200)}") from error
    capabilities = replace(opened.capabilities, dtypes=("float32",))
    _compare(path, model, GraphModel(folder, capabilities))
    return capabilities


def _check_exportable(path: Path, capabilities: Capabilities) -> None:
    if capabilities.samples or capabilities.takes_prompt:
        why = "restores in many steps" if capabilities.samples else "makes texts of what it sees"
        raise BackendError(f"{path.name} {why} and cannot be a graph")


class _Tile(nn.Module):
    """A model as a function of one tile."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, tiles: Tensor) -> Tensor:
        return self.model.restore(tiles, [], Conditions())


def _trace(model: Model, size: tuple[int, int], out: Path) -> None:
    """Write the graph for one tile of any size, by an example of a size like no other."""
    free = {2: "h", 3: "w"}
    with _quietly(), torch.no_grad():
        torch.onnx.export(
            _Tile(model),
            (torch.rand(1, 3, *size),),
            out,
            dynamo=False,  # the other exporter needs onnxscript
            opset_version=_OPSET,
            input_names=[TILES],
            output_names=[RESTORED],
            dynamic_axes={TILES: free, RESTORED: free},
        )


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without what torch says about its exporter."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def _compare(path: Path, model: Model, graph: GraphModel) -> None:
    """Check that a graph computes what its model does, on noise of the native and another size."""
    needs = graph.capabilities
    step, native = needs.multiple_of, needs.native_size
    least = -(-max(needs.min_size, native // 4) // step) * step
    rng = np.random.default_rng(0)
    for size in ((native, native), (least, least + step)):
        tile = rng.random((1, 3, *size), np.float32)
        with torch.inference_mode():
            tiles = torch.from_numpy(tile).contiguous(memory_format=torch.channels_last)
            expected = model.restore(tiles, [], Conditions()).float().numpy()
        try:
            worst = float(np.abs(graph.restore_arrays(tile) - expected).max())
        except RuntimeError as error:
            raise BackendError(
                f"the graph of {path.name} fails at {size[1]}×{size[0]} pixels "
                f"({one_line(error, 200)})"
            ) from error
        if not worst <= _TOLERANCE:
            raise BackendError(
                f"the graph of {path.name} differs from the model by {255 * worst:.3g} levels of "
                f"255 at {size[1]}×{size[0]} pixels"
            )
