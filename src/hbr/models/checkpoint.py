"""Model files: one safetensors file with the weights, and the configuration in its metadata."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn

from hbr.models.fidelity import read_weights
from hbr.models.files import Card, Header, model_format, read_header, shapes_of, write_with_config
from hbr.models.kinds import build_model
from hbr.models.protocol import ModelConfig
from hbr.models.text_buffer import fit_text_buffers
from hbr.weights import WeightsError

# of the division with which diffusers ends every residual and attention block; where it is 1, these
# passes over full-size activations take a twelfth of the time of a large autoencoder
_FACTORS = ("output_scale_factor", "rescale_output_factor")


@dataclass(frozen=True)
class Checkpoint:
    """The content of a model file.

    Attributes:
        config: of the model.
        tensors: name → weight, as the model's `state_dict` names them.
        card: further metadata.
    """

    config: ModelConfig
    tensors: Mapping[str, Tensor]
    card: Card


def save_checkpoint(
    path: str | Path,
    config: ModelConfig,
    tensors: Mapping[str, Tensor],
    *,
    dtype: torch.dtype = torch.float32,
    card: Card | None = None,
) -> Path:
    """Write a model file atomically.

    `path` ends in `.safetensors`; `dtype` is that of the floating-point weights in the file.
    """
    plain = {
        name: (t.to(dtype) if t.is_floating_point() else t).detach().cpu()
        for name, t in tensors.items()
    }
    return write_with_config(path, model_format(config), config, plain, card)


def read_checkpoint(path: str | Path, fidelity: float | None = None) -> Checkpoint:
    """Read a model file.

    Args:
        path: of the file.
        fidelity: of a file with two ends, see `hbr.models.fidelity`; None is the file's default.

    Raises:
        ConfigError: the fidelity is not in [0, 1], or the file has one end.
        WeightsError: it is missing, not a safetensors file, or not a model of hbr.
    """
    header = read_header(path)
    return Checkpoint(header.config, dict(read_weights(Path(path), header, fidelity)), header.card)


def build(checkpoint: Checkpoint, where: str | Path = "the checkpoint") -> nn.Module:
    """Build a model in float32 on the CPU with the checkpoint's weights.

    Raises:
        WeightsError: a weight is missing, unexpected or of the wrong shape; the first is named.
    """
    shapes = shapes_of(checkpoint.tensors)
    header = Header(config=checkpoint.config, shapes=shapes, card=checkpoint.card)
    return assemble(header, checkpoint.tensors.items(), where)


def load(
    path: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    fidelity: float | None = None,
) -> nn.Module:
    """Load the model of a file in `dtype` on `device`, without a second copy in memory.

    `dtype` is that of the floating-point weights; `fidelity` of a file with two ends
    (`hbr.models.fidelity`), None its default.

    Raises:
        ConfigError: the fidelity is not in [0, 1], or the file has one end.
        WeightsError: the file is missing, damaged, or lacks weights that its configuration needs.
    """
    path = Path(path)
    header = read_header(path)
    tensors = read_weights(path, header, fidelity)
    return assemble(header, tensors, path, device, dtype, torch.channels_last)


def assemble(
    header: Header,
    tensors: Iterable[tuple[str, Tensor]],
    where: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    layout: torch.memory_format = torch.contiguous_format,
) -> nn.Module:
    """Build a model from weights as they arrive, without ever initialising its own.

    The tensors are copied; `header` gives the configuration and their shapes. `dtype` is that of
    the floating-point weights, `layout` that of weights with four dimensions: with the channels
    last, convolutions are fastest on CPUs and GPUs. `where` names the source in messages.

    Raises:
        WeightsError: a weight is missing, unexpected or of the wrong shape; the first is named.
    """
    model = empty(header.config)
    fit_text_buffers(model, header.shapes)
    check_shapes(shapes_of(model.state_dict()), header.shapes, where)
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
    model.to(device)  # buffers that are not in the file
    skip_unit_scaling(model)
    return model.eval().requires_grad_(False)


class One:
    """1 as a divisor: `x / One()` is x itself, not a copy."""

    def __rtruediv__(self, x: Any) -> Any:
        """Return x."""
        return x


def skip_unit_scaling(model: nn.Module) -> None:
    """Make every block of diffusers skip its division where it divides by 1; same numbers."""
    for module in model.modules():
        for name in _FACTORS:
            factor = getattr(module, name, None)
            if isinstance(factor, (int, float)) and factor == 1:
                setattr(module, name, One())


def empty(config: ModelConfig) -> nn.Module:
    """A model on the meta device: its parameters take no memory until weights are assigned."""
    with init_empty_weights(include_buffers=False):
        return build_model(config)


def check_weights(
    wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], where: str | Path
) -> None:
    """Check the names and shapes of weights; see `check_shapes`."""
    check_shapes(shapes_of(wanted), shapes_of(given), where)


def check_shapes(
    wanted: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]], where: str | Path
) -> None:
    """Check the names and shapes of weights.

    Raises:
        WeightsError: one is missing, unexpected or of the wrong shape; the first is named.
    """
    for name, shape in wanted.items():
        if name not in given:
            raise WeightsError(f"{where}: the weight {name} is missing")
        if given[name] != shape:
            raise WeightsError(f"{where}: {name} is {given[name]}; the model needs {shape}")
    if extra := [name for name in given if name not in wanted]:
        raise WeightsError(f"{where}: the model has no weight {extra[0]}")
