"""Reading the weights of metrics. Nothing that is read here can execute code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hbr.errors import one_line
from hbr.files import sha256
from hbr.metrics.base import MetricError, MetricInfo
from hbr.weights import instead_of_weights

if TYPE_CHECKING:
    from torch import Tensor


def with_weights(info: MetricInfo, *files: Path) -> MetricInfo:
    """The row with these files in its version, for metrics whose values depend on them."""
    return replace(info, version=", ".join([info.version, *(sha256(f)[:8] for f in files)]))


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or of a state dict that torch has saved, on the CPU.

    Raises:
        MetricError: it cannot be read, is of another format, or would execute code.
    """
    import torch
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can raise anything
        unread = f"cannot be read as weights: {one_line(error, 200)}"
        raise MetricError(f"{path} {instead_of_weights(path) or unread}") from None
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise MetricError(f"{path} holds no state dict of tensors")
    return state
