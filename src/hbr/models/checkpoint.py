"""One safetensors file holds a model: its weights, and its configuration in the metadata."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import init_empty_weights
from safetensors import safe_open
from torch import Tensor, nn

from hbr.config import to_dict
from hbr.models.division import skip_divisions_by_one
from hbr.models.files import (
    Header,
    WeightsError,
    model_format,
    read_header,
    read_tensors,
    write_tensors,
)
from hbr.models.kept_text import fit_texts
from hbr.models.kinds import build_model
from hbr.models.protocol import ModelConfig

__all__ = [
    "Checkpoint",
    "assemble",
    "build",
    "check_weights",
    "empty",
    "load",
    "read_checkpoint",
    "save_checkpoint",
    "write_tensors",
]


@dataclass(frozen=True)
class Checkpoint:
    """What a model file holds.

    Attributes:
        config: of the model.
        tensors: name → weight, as the model's `state_dict` names them.
        card: what else the file says of itself (training, licence, …), text to text.
    """

    config: ModelConfig
    tensors: Mapping[str, Tensor]
    card: Mapping[str, str]


def save_checkpoint(
    path: str | Path,
    config: ModelConfig,
    tensors: Mapping[str, Tensor],
    *,
    dtype: torch.dtype = torch.float32,
    card: Mapping[str, str] | None = None,
) -> Path:
    """Write a model file; an existing one is replaced only by a whole new one.

    Args:
        path: ends in `.safetensors`.
        config: of the model.
        tensors: as the model's `state_dict` gives them.
        dtype: of the floating-point weights in the file.
        card: further metadata.
    """
    plain = {
        name: (t.to(dtype) if t.is_floating_point() else t).detach().cpu().contiguous()
        for name, t in tensors.items()
    }
    metadata = {
        **(card or {}),
        "format": model_format(config),
        "config": json.dumps(to_dict(config)),
    }
    return write_tensors(path, plain, metadata)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a model file.

    Raises:
        WeightsError: it is missing, no safetensors, or not a model of hbr.
    """
    header = read_header(path)
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in header.shapes}
    return Checkpoint(header.config, tensors, header.card)


def build(checkpoint: Checkpoint, where: str | Path = "the checkpoint") -> nn.Module:
    """A model in float32 on the CPU with the checkpoint's weights, every one of them.

    Raises:
        WeightsError: a weight is missing, left over or of another shape; the first is named.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in checkpoint.tensors.items()}
    header = Header(checkpoint.config, shapes, checkpoint.card)
    return assemble(header, checkpoint.tensors.items(), where)


def load(
    path: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> nn.Module:
    """The model of a file, ready to run: in `dtype` on `device`, without a second copy in memory.

    Raises:
        WeightsError: the file is missing, damaged, or does not hold what its configuration needs.
    """
    path = Path(path)
    header = read_header(path)
    tensors = read_tensors(path, header.shapes)
    # on CPUs and on tensor cores convolutions are fastest with the channels last
    return assemble(header, tensors, path, device, dtype, torch.channels_last)


def assemble(
    header: Header,
    tensors: Iterable[tuple[str, Tensor]],
    where: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    layout: torch.memory_format = torch.contiguous_format,
) -> nn.Module:
    """A model that takes each weight over as it comes; its own random ones are never made.

    Args:
        header: the configuration, and what `tensors` will bring.
        tensors: name and weight; copied.
        where: the weights come from, for messages.
        device: of the model.
        dtype: of its floating-point weights.
        layout: of weights with four dimensions.

    Raises:
        WeightsError: a weight is missing, left over or of another shape; the first is named.
    """
    model = empty(header.config)
    fit_texts(model, header.shapes)
    check_weights(
        {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()},
        header.shapes,
        where,
    )
    placed = {
        name: tensor.to(
            device=device,
            dtype=dtype if tensor.is_floating_point() else tensor.dtype,
            memory_format=layout if tensor.dim() == 4 else torch.contiguous_format,
            copy=True,
        )
        for name, tensor in tensors
    }
    model.load_state_dict(placed, assign=True)
    model.to(device)  # buffers that no file holds
    skip_divisions_by_one(model)
    return model.eval().requires_grad_(False)


def empty(config: ModelConfig) -> nn.Module:
    """A model whose parameters take no memory until weights are assigned to them."""
    with init_empty_weights(include_buffers=False):
        return build_model(config)


def check_weights(
    wanted: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]], where: str | Path
) -> None:
    """Compare names and shapes of weights.

    Raises:
        WeightsError: one is missing, of another shape or left over; the first is named.
    """
    for name, shape in wanted.items():
        if name not in given:
            raise WeightsError(f"{where}: the weight {name} is missing")
        if given[name] != shape:
            raise WeightsError(f"{where}: {name} is {given[name]}; the model needs {shape}")
    if extra := [name for name in given if name not in wanted]:
        raise WeightsError(f"{where}: the model has no weight {extra[0]}")
