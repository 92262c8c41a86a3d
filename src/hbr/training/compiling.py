"""Compile the repeated blocks of a model for a training, by `torch.compile`.

Whole networks take minutes to compile and break where adapters are switched; their residual and
transformer blocks are where the time goes, are alike, and compile one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import nn
from torch._dynamo.exc import TorchDynamoException

from hbr.errors import one_line
from hbr.models.rrdbnet import RRDB
from hbr.models.swinir import SwinBlock

BLOCKS = (ResnetBlock2D, BasicTransformerBlock, SwinBlock, RRDB)
"""The blocks that are compiled."""

# A block is compiled anew for each shape, for each set of adapters, with and without gradients;
# torch stops at 8 by default, and blocks of one class count together.
_VARIANTS = 128


@dataclass
class _Compiler:
    """The state that the blocks of a model share: once the compiler fails, none uses it."""

    report: Callable[[str], None]
    backend: str | Callable[..., Any]
    works: bool = True

    def compile(self, block: nn.Module) -> None:
        """Compile the forward pass of a block, for training only."""
        plain = block.forward
        fast = torch.compile(plain, dynamic=False, backend=self.backend)

        def forward(*args: Any, **kwargs: Any) -> Any:
            if self.works and block.training:
                try:
                    return fast(*args, **kwargs)
                except TorchDynamoException as error:
                    self.fail(error)
            return plain(*args, **kwargs)

        block.forward = forward

    def fail(self, error: Exception) -> None:
        """Go on without the compiler."""
        self.works = False
        reason = one_line(error).partition(" Set TORCH")[0]  # and what variables to set for more
        self.report(f"compile: the compiler failed ({reason}); the training goes on without it")


def compile_blocks(
    model: nn.Module, report: Callable[[str], None], backend: str | Callable[..., Any] = "inductor"
) -> None:
    """Compile the blocks of a model when they are first called.

    Only their forward pass in training mode is compiled, so that validations, which have other
    sizes, compile nothing. Names and weights of the model stay as they are.

    Args:
        model: changed in place; its adapters are in place already.
        report: called with one line if the compiler is missing or fails; the blocks run without it
            from then on.
        backend: of `torch.compile`.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _VARIANTS)
    compiler = _Compiler(report, backend)
    for block in model.modules():
        # a forward pass that was replaced already recomputes its activations
        if isinstance(block, BLOCKS) and "forward" not in vars(block):
            compiler.compile(block)
