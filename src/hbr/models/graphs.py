"""Models as ONNX graphs, which ONNX Runtime or OpenVINO runs on the CPU, without torch.

`hbr.models.graph_files` has what lies on disk, `hbr.models.exporting.graph` makes it.

Shapes: b tiles, t_h t_w a tile in pixels.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hbr.devices import has_slow_bfloat16
from hbr.errors import ExitCode, HbrError, one_line
from hbr.models.files import is_of_hbr
from hbr.models.protocol import Backend, Capabilities
from hbr.processes import threads

GRAPH, INT8_GRAPH = "graph.onnx", "int8.onnx"
TILES, RESTORED = "tiles", "restored"
"""Names of the input and of the output of a graph."""

Runner = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Restores one tile [1, 3, t_h, t_w] of one size, with values as `GraphModel.restore_arrays`."""

# The packages that a backend needs; the extra that brings them has its name.
_PACKAGES: dict[str, tuple[str, ...]] = {"onnx": ("onnxruntime",), "openvino": ("openvino",)}
_NAMES = {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}
# Sessions of other tile sizes hold the weights once more.
_SESSIONS = 3


class BackendError(HbrError, ValueError):
    """A backend is not installed, cannot run this model, or its files are missing or damaged."""

    exit_code = ExitCode.USAGE
    http_status = 503


def check_of_hbr(path: Path) -> None:
    """Check that a file is a model file of hbr, as those that can be graphs are.

    Raises:
        BackendError: it is not.
    """
    if not is_of_hbr(path):
        raise BackendError(f"{path.name} is no model file of hbr and cannot be a graph")


def check_installed(backend: Backend, *packages: str, what: str = "") -> None:
    """Check that the packages of a backend are installed.

    Args:
        backend: its name is that of the extra that brings them.
        packages: others of that extra; none are those that run a graph.
        what: needs them, for the message, if not the backend.

    Raises:
        BackendError: one is not.
    """
    what = what or f"the backend {backend}"
    for package in packages or _PACKAGES[backend]:
        if find_spec(package) is None:
            raise BackendError(f"{what} needs {package}: pip install 'hbr[{backend}]' brings it")


class GraphModel:
    """A graph in place of a model; see `hbr.models.protocol.ArrayModel`."""

    device = "cpu"

    def __init__(
        self,
        folder: Path,
        capabilities: Capabilities,
        backend: Backend = "onnx",
        dtype: str = "float32",
        rewrites: tuple[str, ...] = (),
    ) -> None:
        """Take the graph of a folder; nothing is loaded before the first tile.

        Args:
            folder: of the graph (`hbr.models.graph_files`).
            capabilities: of the model.
            backend: "onnx" or "openvino".
            dtype: "float32"; with OpenVINO also "bfloat16" or "int8".
            rewrites: what distinguishes the graph from its model, for the provenance.
        """
        self.rewrites = rewrites
        self.capabilities, self.backend, self.dtype = capabilities, backend, dtype
        self._folder = folder
        self._runners: OrderedDict[tuple[int, int], Runner] = OrderedDict()

    def restore_arrays(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Restore tiles [b, 3, t_h, t_w] in [0, 1], each by itself; not clamped.

        Raises:
            BackendError: the graph cannot be loaded.
            RuntimeError: the backend failed, as when memory runs out.
        """
        run = self._runner(tiles.shape[2], tiles.shape[3])
        try:
            return np.concatenate([run(tile[None]) for tile in tiles])
        except Exception as error:  # their errors have no common ancestor
            raise RuntimeError(f"{_NAMES[self.backend]}: {one_line(error, 300)}") from error

    def _runner(self, height: int, width: int) -> Runner:
        """The graph for tiles of one size: the same whether it lies ready or is optimised now."""
        if (height, width) not in self._runners:
            while len(self._runners) >= _SESSIONS:
                self._runners.popitem(last=False)
            try:
                runner = self._open(height, width)
            except Exception as error:
                raise BackendError(
                    f"the graph in {self._folder} cannot be loaded: {one_line(error, 300)}; "
                    "`hbr warmup` makes it again"
                ) from error
            self._runners[height, width] = runner
        self._runners.move_to_end((height, width))
        return self._runners[height, width]

    def _open(self, height: int, width: int) -> Runner:
        if self.backend == "openvino":
            graph = self._folder / (INT8_GRAPH if self.dtype == "int8" else GRAPH)
            return compiled_graph(graph, (height, width), self.dtype)
        ready = self._folder / ready_name(height, width)
        if ready.is_file():
            session = open_session(ready, optimise=False)
        else:
            session = open_session(self._folder / GRAPH, size=(height, width))
        return lambda tile: session.run([RESTORED], {TILES: tile})[0]


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
        portable: only to what every reader of ONNX files knows.
        save: where to write the optimised graph.
    """
    import onnxruntime

    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads()
    # idle threads sleep, as hbr has them do in torch
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    level = levels.ORT_ENABLE_BASIC if portable else levels.ORT_ENABLE_ALL
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


def compiled_graph(graph: Path, size: tuple[int, int], dtype: str) -> Runner:
    """A graph compiled by OpenVINO for tiles of one size, on the threads of this process.

    Args:
        graph: the file.
        size: (t_h, t_w) of the tiles.
        dtype: "float32", "bfloat16", or "int8" for a quantised graph, whose other layers compute in
            bfloat16 where the processor is faster in it.
    """
    import openvino

    core = openvino.Core()
    model = core.read_model(os.fspath(graph))
    model.reshape({TILES: [1, 3, *size]})
    fast = dtype == "bfloat16" or (dtype == "int8" and openvino_is_faster_in_bfloat16())
    compiled = core.compile_model(
        model,
        "CPU",
        {
            "INFERENCE_NUM_THREADS": threads(),
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_PRECISION_HINT": "bf16" if fast else "f32",
        },
    )
    request = compiled.create_infer_request()
    return lambda tile: np.array(request.infer([tile])[0])


def openvino_is_faster_in_bfloat16() -> bool:
    """Whether the processor has bfloat16, by what OpenVINO says, and is not slower in it."""
    import openvino

    found = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "BF16" in found and not has_slow_bfloat16()
