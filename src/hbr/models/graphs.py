"""Models as ONNX graphs, which ONNX Runtime runs on the CPU in float32, without torch.

`hbr.models.graph_files` has what lies on disk, `hbr.models.exporting.graph` makes it.

Shapes: b tiles, t_h t_w a tile in pixels.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hbr.errors import ExitCode, HbrError, one_line
from hbr.models.protocol import Backend, Capabilities
from hbr.processes import threads

GRAPH = "graph.onnx"
TILES, RESTORED = "tiles", "restored"
"""Names of the input and of the output of a graph."""

# Sessions of other tile sizes hold the weights once more.
_SESSIONS = 3


class BackendError(HbrError, ValueError):
    """A backend is not installed, cannot run this model, or its files are missing or damaged."""

    exit_code = ExitCode.USAGE
    http_status = 503


def check_installed(*packages: str) -> None:
    """Check that packages of the extra `onnx` are installed.

    Raises:
        BackendError: one is not.
    """
    for package in packages or ("onnxruntime",):
        if find_spec(package) is None:
            raise BackendError(
                f"the backend onnx needs {package}: pip install 'hbr[onnx]' brings it"
            )


class GraphModel:
    """A graph in place of a model; see `hbr.models.protocol.ArrayModel`."""

    device, dtype = "cpu", "float32"
    backend: Backend = "onnx"

    def __init__(self, folder: Path, capabilities: Capabilities) -> None:
        """Take the graph of a folder; nothing is loaded before the first tile."""
        self.capabilities = capabilities
        self._folder = folder
        self._sessions: OrderedDict[tuple[int, int], Any] = OrderedDict()

    def restore_arrays(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Restore tiles [b, 3, t_h, t_w] in [0, 1], each by itself; not clamped.

        Raises:
            BackendError: the graph cannot be loaded.
            RuntimeError: ONNX Runtime failed, as when memory runs out.
        """
        session = self._session(tiles.shape[2], tiles.shape[3])
        try:
            done = [session.run([RESTORED], {TILES: tile[None]})[0] for tile in tiles]
        except Exception as error:  # its errors have no common ancestor
            raise RuntimeError(f"ONNX Runtime: {one_line(error, 300)}") from error
        return np.concatenate(done)

    def _session(self, height: int, width: int) -> Any:
        """The graph for tiles of one size: the same whether it lies ready or is optimised now."""
        if (height, width) not in self._sessions:
            while len(self._sessions) >= _SESSIONS:
                self._sessions.popitem(last=False)
            ready = self._folder / ready_name(height, width)
            try:
                if ready.is_file():
                    session = open_session(ready, optimise=False)
                else:
                    session = open_session(self._folder / GRAPH, size=(height, width))
            except Exception as error:
                raise BackendError(
                    f"the graph in {self._folder} cannot be loaded: {one_line(error, 300)}; "
                    "`hbr warmup` makes it again"
                ) from None
            self._sessions[height, width] = session
        self._sessions.move_to_end((height, width))
        return self._sessions[height, width]


def open_session(
    graph: Path,
    *,
    size: tuple[int, int] | None = None,
    optimise: bool = True,
    portable: bool = False,
    save: Path | None = None,
) -> Any:
    """ONNX Runtime's session for a graph, on the threads that the process may use.

    Args:
        graph: the file.
        size: (t_h, t_w) of the tiles, which makes the graph faster to load and to run.
        optimise: for this processor.
        portable: only in ways that suit all processors.
        save: where to write the optimised graph.
    """
    import onnxruntime

    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads()
    # idle threads sleep, as hbr has them do in torch
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    level = levels.ORT_ENABLE_EXTENDED if portable else levels.ORT_ENABLE_ALL
    options.graph_optimization_level = level if optimise else levels.ORT_DISABLE_ALL
    for name, edge in zip(("h", "w"), size or (), strict=False):
        options.add_free_dimension_override_by_name(name, edge)
    if save is not None:
        options.optimized_model_filepath = os.fspath(save)
    return onnxruntime.InferenceSession(
        os.fspath(graph), options, providers=["CPUExecutionProvider"]
    )


def ready_name(height: int, width: int) -> str:
    """The name of a graph for tiles of one size."""
    return f"{height}x{width}.onnx"
