"""Exporting a model as an ONNX graph, which `hbr.models.graphs` runs without torch.

Shapes: b tiles, t_h t_w a tile in pixels.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from hbr.errors import one_line
from hbr.files import replacing
from hbr.models.graphs import (
    GRAPH,
    RESTORED,
    TILES,
    BackendError,
    GraphModel,
    check_installed,
    check_of_hbr,
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
    capabilities, model = _write_portable(path, fidelity, folder, decoder)
    native = capabilities.native_size
    try:
        ready = folder / ready_name(native, native)
        open_session(folder / GRAPH, size=(native, native), save=ready)
    except Exception as error:  # ONNX Runtime's have no common ancestor
        raise no_graph(path, error) from error
    _compare(path, model, GraphModel(folder, capabilities))
    return capabilities


def export_graph(
    path: Path, out: Path, fidelity: float | None = None, decoder: FoundFile | None = None
) -> Path:
    """Write the graph of a model file as a file for other programs.

    Its input `tiles`, float32 [1, 3, t_h, t_w] in [0, 1], RGB, may have any size whose edges are
    multiples of `capabilities.multiple_of`; its output `restored` has the same size and is not
    clamped. A network that enlarges takes its input with every pixel repeated, as `Model.restore`
    does. The graph is compared with the model at two sizes before it is written.

    Args:
        path, fidelity, decoder: as for `write_graph`.
        out: the file, which is replaced.

    Raises:
        BackendError: ONNX or ONNX Runtime is missing, or the model cannot be a graph.
        OSError: the file cannot be written.
    """
    check_installed("onnx", "onnx", "onnxruntime", what="an ONNX file")
    with tempfile.TemporaryDirectory(prefix="hbr-graph-") as place:
        folder = Path(place)
        capabilities, model = _write_portable(path, fidelity, folder, decoder)
        _compare(path, model, GraphModel(folder, capabilities))
        with replacing(out) as part:
            shutil.copyfile(folder / GRAPH, part)
    return out


def _write_portable(
    path: Path, fidelity: float | None, folder: Path, decoder: FoundFile | None
) -> tuple[Capabilities, Model]:
    """Write `GRAPH` for tiles of any size; return what it supports, and the model in torch."""
    opened = open_model(path, decoder)
    check_exportable(path, opened.capabilities)
    model = opened.load(torch.device("cpu"), torch.float32, fidelity)
    size = sum(p.numel() for p in cast(nn.Module, model).state_dict().values()) * 4
    if size > _LARGEST:
        raise BackendError(f"{path.name} is too large for a graph")
    native, step = opened.capabilities.native_size, opened.capabilities.multiple_of
    raw = folder / "raw.onnx"
    try:
        trace(model, torch.rand(1, 3, native + step, native + 2 * step), raw, any_size=True)
        open_session(raw, portable=True, save=folder / GRAPH)
        raw.unlink()
    except Exception as error:  # of torch or ONNX Runtime; theirs have no common ancestor
        raise no_graph(path, error) from error
    return replace(opened.capabilities, dtypes=("float32",)), model


def no_graph(path: Path, error: Exception) -> BackendError:
    """The error that a model file cannot be made a graph, for this reason."""
    return BackendError(f"{path.name} cannot be made a graph: {one_line(error, 200)}")


def check_exportable(path: Path, capabilities: Capabilities) -> None:
    """Check that a model is one of hbr that restores a tile by the tile alone, in one pass.

    Raises:
        BackendError: it is not.
    """
    check_of_hbr(path)
    if capabilities.samples or capabilities.takes_prompt:
        why = "restores in many steps" if capabilities.samples else "makes texts of what it sees"
        raise BackendError(f"{path.name} {why} and cannot be a graph")


class _Tile(nn.Module):
    """A model as a function of one tile."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, tiles: Tensor) -> Tensor:
        return self.model.restore(tiles, [], Conditions()).float()


def trace(model: Model, tiles: Tensor, out: Path, *, any_size: bool = False) -> None:
    """Write the graph of a model, traced with example tiles, float32 [b, 3, t_h, t_w].

    Its result is float32 too. With `any_size`, t_h and t_w are free; those of the example should
    occur nowhere else in the model. Weights of more than 2 GiB go into files beside it.
    """
    free = {2: "h", 3: "w"}
    with _quietly(), torch.no_grad():
        torch.onnx.export(
            _Tile(model),
            (tiles,),
            os.fspath(out),  # files beside it need a path that is a string
            dynamo=False,  # the other exporter needs onnxscript
            opset_version=_OPSET,
            input_names=[TILES],
            output_names=[RESTORED],
            dynamic_axes={TILES: free, RESTORED: free} if any_size else None,
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
        except (BackendError, RuntimeError) as error:
            raise BackendError(
                f"the graph of {path.name} fails at {size[1]}×{size[0]} pixels "
                f"({one_line(error.__cause__ or error, 200)})"
            ) from error
        if not worst <= _TOLERANCE:
            raise BackendError(
                f"the graph of {path.name} differs from the model by {255 * worst:.3g} levels of "
                f"255 at {size[1]}×{size[0]} pixels"
            )
