"""One safetensors file holds a model: its weights, and its configuration in the metadata."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hbr.config import ConfigError, from_dict, to_dict
from hbr.models.config import RestorerConfig
from hbr.models.onestep import OneStepRestorer

FORMAT = "hbr one-step restorer"
IMAGE_ENCODER_FORMAT = "hbr image encoder"

_MAPPED_AT_ONCE = 32


class WeightsError(ValueError):
    """Weights that are missing, of another kind, or damaged; the message says what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """What a model file holds.

    Attributes:
        config: of the model.
        tensors: name → weight, as `OneStepRestorer.state_dict` names them.
        card: what else the file says of itself (training, licence, …), text to text.
    """

    config: RestorerConfig
    tensors: Mapping[str, Tensor]
    card: Mapping[str, str]


def save_checkpoint(
    path: str | Path,
    config: RestorerConfig,
    tensors: Mapping[str, Tensor],
    *,
    dtype: torch.dtype = torch.float32,
    card: Mapping[str, str] | None = None,
) -> Path:
    """Write a model file; an existing one is replaced only by a whole new one.

    Args:
        path: ends in `.safetensors`.
        config: of the model.
        tensors: as `OneStepRestorer.state_dict` gives them.
        dtype: of the floating-point weights in the file.
        card: further metadata.
    """
    plain = {
        name: (t.to(dtype) if t.is_floating_point() else t).detach().cpu().contiguous()
        for name, t in tensors.items()
    }
    metadata = {"format": FORMAT, "config": json.dumps(to_dict(config)), **(card or {})}
    return write_tensors(path, plain, metadata)


def write_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]
) -> Path:
    """Write a safetensors file beside its place, flush it, and move it there."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    try:
        save_file(dict(tensors), name, metadata=metadata)
        with Path(name).open("rb") as file:
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


@dataclass(frozen=True)
class Header:
    """What a model file says before its weights are read.

    Attributes:
        config: of the model.
        shapes: name → shape of each weight.
        card: as `Checkpoint.card`.
    """

    config: RestorerConfig
    shapes: Mapping[str, tuple[int, ...]]
    card: Mapping[str, str]


def read_header(path: str | Path) -> Header:
    """Read a model file's configuration and the shapes of its weights, not the weights.

    Raises:
        WeightsError: it is missing, no safetensors, or not a model of hbr.
    """
    path = Path(path)
    metadata, shapes = read_metadata(path)
    found = metadata.pop("format", None)
    if found == IMAGE_ENCODER_FORMAT:
        raise WeightsError(
            f"{path} holds an image encoder only, no restorer; "
            "`hbr models import RAM.pth --kind ram --base MODEL` puts one into a restorer"
        )
    if found != FORMAT:
        raise WeightsError(f"{path} is no model of hbr; `hbr models import` brings others in")
    try:
        config = from_dict(RestorerConfig, json.loads(metadata.pop("config")))
    except (KeyError, json.JSONDecodeError, ConfigError) as error:
        raise WeightsError(f"{path}: its configuration does not fit: {error}") from None
    return Header(config, shapes, metadata)


def read_metadata(path: Path) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
    """The text and the shapes in the head of any safetensors file.

    Raises:
        WeightsError: it is missing, or no whole safetensors file.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: there is no such model file")
    if path.suffix != ".safetensors":
        raise WeightsError(
            f"{path} is no safetensors file; `hbr models import` brings other formats in"
        )
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
            return dict(file.metadata() or {}), shapes
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path} is damaged or no safetensors file: {error}") from None


def read_tensors(path: Path, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
    """The named tensors of a safetensors file, one after the other, mapped from the file.

    The file is mapped anew every few tensors: pages that were read count as memory of the process
    until their mapping goes, and a model must not be in memory twice while it loads.
    """
    names = list(names)
    for start in range(0, len(names), _MAPPED_AT_ONCE):
        with safe_open(path, framework="pt") as file:
            for name in names[start : start + _MAPPED_AT_ONCE]:
                yield name, file.get_tensor(name)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a model file.

    Raises:
        WeightsError: it is missing, no safetensors, or not a model of hbr.
    """
    header = read_header(path)
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in header.shapes}
    return Checkpoint(header.config, tensors, header.card)


def build(checkpoint: Checkpoint, where: str | Path = "the checkpoint") -> OneStepRestorer:
    """A model in float32 on the CPU with the checkpoint's weights, every one of them.

    Raises:
        WeightsError: a weight is missing, left over or of another shape; the first is named.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in checkpoint.tensors.items()}
    header = Header(checkpoint.config, shapes, checkpoint.card)
    return assemble(header, checkpoint.tensors.items(), where)


def load(
    path: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> OneStepRestorer:
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
) -> OneStepRestorer:
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
    return model.eval().requires_grad_(False)


def empty(config: RestorerConfig) -> OneStepRestorer:
    """A model whose parameters take no memory until weights are assigned to them."""
    with init_empty_weights(include_buffers=False):
        return OneStepRestorer(config)


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


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
