"""What stands between the convolutions of a network: norms, activations, biases and sums.

Each is a pass over activations, and on a GPU the passes take longer than the convolutions. On CUDA
with Triton they are kernels of `hbr.models.inference.triton_passes`, which make fewer; elsewhere
they are torch's.

Shapes: b batch, c channels, h w size.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from types import ModuleType
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def have_kernels(x: Tensor) -> bool:
    """Whether passes over x [b, c, h, w] have kernels of their own."""
    if not x.is_cuda or x.dtype == torch.float64:
        return False
    return not torch.compiler.is_compiling() and _kernels() is not None


def normalise(
    x: Tensor, norm: nn.GroupNorm, before: Tensor | None = None, *, silu: bool = False
) -> Tensor:
    """norm(x + before), with SiLU or without.

    Args:
        x: [b, c, h, w].
        norm: with weight and bias.
        before: [c] that is added to x first, as the bias of the convolution that x comes from.
        silu: whether SiLU follows.
    """
    if have_kernels(x):
        kernels = cast(ModuleType, _kernels())
        return cast(Tensor, kernels.normalise(_last(x), norm, before, silu=silu))
    y = cast(Tensor, norm(x if before is None else x + before.view(-1, 1, 1)))
    return F.silu(y, inplace=True) if silu else y


def add_to(y: Tensor, bias: Tensor, x: Tensor | None = None) -> Tensor:
    """y + bias + x in place of y [b, c, h, w]; x is of its shape, bias [c]."""
    if have_kernels(y) and y.is_contiguous(memory_format=torch.channels_last):
        kernels = cast(ModuleType, _kernels())
        return cast(Tensor, kernels.add_to(y, bias, None if x is None else _last(x)))
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


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


@functools.cache
def _kernels() -> ModuleType | None:
    """The kernels; None where there is no Triton, which comes with torch for CUDA on Linux."""
    if importlib.util.find_spec("triton") is None:
        return None
    return importlib.import_module("hbr.models.inference.triton_passes")
