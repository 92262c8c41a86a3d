"""One safetensors file holds a model: its weights, and its configuration in the metadata."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hbr.config import ConfigError, from_dict, to_dict
from hbr.models.config import RestorerConfig
from hbr.models.onestep import OneStepRestorer

FORMAT = "hbr one-step restorer"


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


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> Path:
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


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a model file.

    Raises:
        WeightsError: it is missing, no safetensors, or not a model of hbr.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: there is no such model file")
    if path.suffix != ".safetensors":
        raise WeightsError(
            f"{path} is no safetensors file; `hbr models import` brings other formats in"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path} is damaged or no safetensors file: {error}") from None
    if metadata.pop("format", None) != FORMAT:
        raise WeightsError(f"{path} is no model of hbr; `hbr models import` brings others in")
    try:
        config = from_dict(RestorerConfig, json.loads(metadata.pop("config")))
    except (KeyError, json.JSONDecodeError, ConfigError) as error:
        raise WeightsError(f"{path}: its configuration does not fit: {error}") from None
    return Checkpoint(config, tensors, metadata)


def build(checkpoint: Checkpoint, where: str | Path = "the checkpoint") -> OneStepRestorer:
    """A model in float32 on the CPU with the checkpoint's weights, every one of them.

    Raises:
        WeightsError: a weight is missing, left over or of another shape; the first is named.
    """
    model = OneStepRestorer(checkpoint.config)
    wanted = model.state_dict()
    for name, tensor in wanted.items():
        if name not in checkpoint.tensors:
            raise WeightsError(f"{where}: the weight {name} is missing")
        got = tuple(checkpoint.tensors[name].shape)
        if got != tuple(tensor.shape):
            raise WeightsError(f"{where}: {name} is {got}; the model needs {tuple(tensor.shape)}")
    if extra := [name for name in checkpoint.tensors if name not in wanted]:
        raise WeightsError(f"{where}: the model has no weight {extra[0]}")
    model.load_state_dict(dict(checkpoint.tensors))
    return model.eval().requires_grad_(False)


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
