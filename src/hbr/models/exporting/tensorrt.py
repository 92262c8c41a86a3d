"""Building TensorRT engines, for programs that serve models on NVIDIA's GPUs.

An engine runs on the kind of GPU and the version of TensorRT that built it. hbr itself restores
through torch; see docs/models.md for what an engine takes and gives.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from hbr.config import check, check_least
from hbr.devices import choose_device, is_out_of_memory, release_memory, torch_dtype
from hbr.errors import OutOfMemoryError, one_line
from hbr.files import replacing
from hbr.models.exporting.graph import check_exportable, no_graph, trace
from hbr.models.graphs import BackendError
from hbr.models.loading import open_model
from hbr.weights import FoundFile

# In the exporter's opset, convolutions have no bfloat16.
_DTYPES = ("float16", "float32")


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """The tiles that an engine takes, and how it computes.

    Attributes:
        size: edge of the tiles in pixels; None is the size that the model was trained on.
        batch: number of tiles.
        dtype: "float16", "float32", or "auto", float16 if the model runs in it.
    """

    size: int | None = None
    batch: int = 1
    dtype: str = "auto"

    def __post_init__(self) -> None:
        check_least(self, 1, "batch")


def export_engine(
    path: Path,
    out: Path,
    config: EngineConfig,
    fidelity: float | None = None,
    decoder: FoundFile | None = None,
    *,
    device: str = "cuda",
    report: Callable[[str], None] = lambda line: None,
) -> Path:
    """Build a TensorRT engine of a model for tiles of one size.

    Its input `tiles` and its output `restored` are float32 [b, 3, size, size], RGB, in [0, 1],
    the output not clamped; a network that enlarges takes them as in `export_graph`. The
    network is strongly typed: TensorRT computes in the precision of the weights, and the one step
    of a one-step model stays in float32.

    Args:
        path: a model file of hbr.
        out: the file, which is replaced.
        config: of the engine.
        fidelity: of a model with two ends; None is its default.
        decoder: in place of the model's own.
        device: where the model is traced.
        report: called with a line before the work begins.

    Raises:
        BackendError: TensorRT or the GPU is missing, the model cannot be an engine, or building it
            failed.
        ConfigError: size or precision are not the model's.
        OutOfMemoryError: the model and its tiles do not fit.
        OSError: the file cannot be written.
    """
    tensorrt = _tensorrt()
    opened = open_model(path, decoder)
    capabilities = opened.capabilities
    check_exportable(path, capabilities)
    supported = [name for name in _DTYPES if name in capabilities.dtypes]
    dtype = supported[0] if config.dtype == "auto" else config.dtype
    check(dtype in supported, "dtype", dtype, f"auto or one of {', '.join(supported)}")
    size = capabilities.native_size if config.size is None else config.size
    step, least = capabilities.multiple_of, capabilities.min_size
    fits = size >= least and size % step == 0
    check(fits, "size", size, f"a multiple of {step} and at least {least}")
    try:
        place = choose_device(device)
    except ValueError:
        raise BackendError("an engine is built on an NVIDIA GPU, and torch finds none") from None
    model = opened.load(place, torch_dtype(dtype), fidelity)
    report("building the engine takes minutes")
    with tempfile.TemporaryDirectory(prefix="hbr-engine-") as folder:
        graph = Path(folder) / "graph.onnx"
        try:
            trace(model, torch.rand(config.batch, 3, size, size, device=place), graph)
        except Exception as error:  # torch's have no common ancestor
            if is_out_of_memory(error):
                raise OutOfMemoryError(
                    "out of memory; a smaller --size or --batch needs less"
                ) from error
            raise no_graph(path, error) from error
        del model
        release_memory()  # TensorRT needs it
        plan = _build(tensorrt, graph, path.name)
    with replacing(out) as part:
        part.write_bytes(plan)
    return out


def _tensorrt() -> Any:
    """The package, whose functions have the same names in 10 and 11."""
    if find_spec("tensorrt") is None:
        raise BackendError("an engine needs TensorRT: pip install 'hbr[tensorrt]' brings it")
    try:
        return importlib.import_module("tensorrt")
    except (ImportError, OSError) as error:  # such as without libraries of CUDA
        raise BackendError(f"TensorRT cannot be imported: {one_line(error, 200)}") from error


def _build(tensorrt: Any, graph: Path, name: str) -> Any:
    """The serialized engine of a graph, with a buffer of bytes."""
    errors: list[str] = []
    severities = tensorrt.ILogger.Severity

    class Log(tensorrt.ILogger):  # type: ignore[misc]
        """Keeps errors; TensorRT's own logger writes to stdout."""

        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (severities.INTERNAL_ERROR, severities.ERROR):
                errors.append(message)

    log = Log()
    try:
        builder = tensorrt.Builder(log)
        typed = tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
        network = builder.create_network(1 << int(typed))
        parser = tensorrt.OnnxParser(network, log)
        parsed = parser.parse_from_file(str(graph))
        errors += [parser.get_error(i).desc() for i in range(parser.num_errors)]
        config = builder.create_builder_config()
        plan = builder.build_serialized_network(network, config) if parsed else None
    except (RuntimeError, TypeError) as error:  # no driver, or one that is too old
        errors.append(str(error))
        plan = None
    if plan is None:
        why = " ".join(errors[0].split())[:200] if errors else "it does not say why"
        raise BackendError(f"TensorRT cannot build {name}: {why}")
    return plan
