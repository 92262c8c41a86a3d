"""What stands between the convolutions of a network: norms, activations, biases and sums.

Each is a pass over activations, and on a GPU the passes take longer than the convolutions. On CUDA
with Triton they are kernels of `hbr.models.inference.triton_norms`, which need fewer passes;
elsewhere, and where Triton cannot compile them, they are torch's.

Shapes: b batch, c channels, h w size.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
from collections.abc import Callable
from types import ModuleType
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hbr.devices import is_out_of_memory
from hbr.errors import one_line

log = logging.getLogger(__name__)


def is_traced() -> bool:
    """Whether the network runs to be compiled or exported."""
    return torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export()


def have_kernels(x: Tensor) -> bool:
    """Whether passes over x [b, c, h, w] have kernels of their own."""
    if not x.is_cuda or x.dtype == torch.float64 or is_traced():
        return False
    return _kernels() is not None and not _failed


def normalise(
    x: Tensor, norm: nn.GroupNorm, conv_bias: Tensor | None = None, *, silu: bool = False
) -> Tensor:
    """norm(x + conv_bias), with SiLU or without.

    Args:
        x: [b, c, h, w].
        norm: with weight and bias.
        conv_bias: [c] of the convolution that x comes from; it is added first.
        silu: whether SiLU follows.
    """
    if have_kernels(x):
        made = _tried(x, lambda k: k.normalise(_channels_last(x), norm, conv_bias, silu=silu))
        if made is not None:
            return made
    y = cast(Tensor, norm(x if conv_bias is None else x + conv_bias.view(-1, 1, 1)))
    return F.silu(y, inplace=True) if silu else y


def add_to(y: Tensor, bias: Tensor, x: Tensor | None = None) -> Tensor:
    """y + bias + x in place of y [b, c, h, w]; x is of its shape, bias [c]."""
    if have_kernels(y) and y.is_contiguous(memory_format=torch.channels_last):
        made = _tried(y, lambda k: k.add_to(y, bias, None if x is None else _channels_last(x)))
        if made is not None:
            return made
    y.add_(bias.view(-1, 1, 1))
    return y if x is None else y.add_(x)


class Normalised(nn.Module):
    """A `GroupNorm` [b, c, h, w] → the same shape, with SiLU or without, by `normalise`."""

    def __init__(self, norm: nn.GroupNorm, *, silu: bool) -> None:
        super().__init__()
        self.norm, self.silu = norm, silu

    def forward(self, x: Tensor) -> Tensor:
        """Of activations [b, c, h, w]."""
        return normalise(x, self.norm, silu=self.silu)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


_failed: list[str] = []
"""Why kernels are not used any more."""


def _tried(x: Tensor, run: Callable[[Any], Tensor]) -> Tensor | None:
    """What a kernel makes on x's device; None if Triton cannot compile it, as without `gcc`."""
    try:
        with torch.cuda.device_of(x):
            return run(_kernels())
    except Exception as error:  # of Triton, of the compiler or of the driver
        if is_out_of_memory(error):
            raise
        _failed.append(one_line(error, 200))
        log.warning("Triton compiles no kernels (%s); torch's take longer", _failed[0])
        return None


@functools.cache
def _kernels() -> ModuleType | None:
    """The kernels; None where there is no Triton, which comes with torch for CUDA on Linux."""
    if importlib.util.find_spec("triton") is None:
        return None
    return importlib.import_module("hbr.models.inference.triton_norms")
