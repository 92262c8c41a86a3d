"""Compile the repeated blocks of a model for a training, by `torch.compile`.

Whole networks take minutes to compile and break where adapters are switched; their residual and
transformer blocks are where the time goes, are alike, and compile one by one.
"""

from __future__ import annotations

from collections.abc import Callable
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
    failed: list[str] = []  # once the compiler fails, no block uses it

    def compile_block(block: nn.Module) -> None:
        plain = block.forward
        fast = torch.compile(plain, dynamic=False, backend=backend)

        def forward(*args: Any, **kwargs: Any) -> Any:
            if block.training and not failed:
                try:
                    return fast(*args, **kwargs)
                except TorchDynamoException as error:
                    # without the advice on which variables to set
                    failed.append(one_line(error).partition(" Set TORCH")[0])
                report(
                    f"compile: the compiler failed ({failed[0]}); the training goes on without it"
                )
            return plain(*args, **kwargs)

        block.forward = forward

    for block in model.modules():
        # a forward pass that was replaced already recomputes its activations
        if isinstance(block, BLOCKS) and "forward" not in vars(block):
            compile_block(block)
