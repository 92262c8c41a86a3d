"""Loading the weights of the small detection networks from safetensors files."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from hbr.errors import one_line
from hbr.people.types import DetectorError
from hbr.weights import instead_of_weights

Network = TypeVar("Network", bound=nn.Module)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file, in float32.

    Raises:
        DetectorError: it is missing or damaged.
    """
    try:
        return {name: tensor.float() for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        what = instead_of_weights(path) if path.is_file() else None
        raise DetectorError(f"{path} {what or f'cannot be read: {one_line(error, 200)}'}") from None


def fill(network: Network, tensors: dict[str, Tensor], path: Path, device: str) -> Network:
    """Put weights into a network, ready for inference.

    `tensors` has every weight under its name; `path` names their source in messages.

    Raises:
        DetectorError: a name or a shape is another, or a value is not finite.
    """
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        kind = type(network).__name__
        raise DetectorError(f"{path} holds no {kind}: {one_line(error, 200)}") from None
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise DetectorError(f"{path} is damaged: it has weights that are not finite")
    return network.eval().requires_grad_(False).to(device)
