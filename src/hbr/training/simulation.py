"""A training step without numbers: the bytes of its tensors at their most, and its computations.

The code that trains is run on torch's fake tensors, which have shapes, types and lives, but no
values. The bytes of each count from its making to its end; only what the libraries underneath take
for themselves is not seen.

Shapes: b crops at once, s edge of a crop in pixels.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from hbr.metrics.dists import DISTS
from hbr.metrics.lpips import LPIPS
from hbr.models.checkpoint import empty
from hbr.models.config import DAPEConfig
from hbr.training.config import PhaseConfig, TrainConfig
from hbr.training.data import Pair, seeded
from hbr.training.losses import needed_networks
from hbr.training.objectives import build_objective
from hbr.training.random_state import RandomState
from hbr.training.start import prepare

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Simulated:
    """What one pass over some crops takes: both updates of a step, but for the optimizer.

    Attributes:
        weights: bytes of all weights and buffers, the networks of the losses included.
        passing: bytes of the gradients and activations where, together, they are most.
        flops: of multiplications and additions in matrix products, convolutions and attention.
    """

    weights: int
    passing: int
    flops: int


class Meter(TorchDispatchMode):
    """Counts bytes of living tensors and floating-point operations while it is active.

    Attributes:
        now, peak: bytes.
        flops: so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = self.flops = 0
        self._alive: dict[int, int] = {}

    def count(self, tensors: Iterable[Any]) -> None:
        """Count tensors that were made before."""
        for tensor in tensors:
            if not isinstance(tensor, Tensor):
                continue
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key not in self._alive:
                self._alive[key] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._ended, key)

    def _ended(self, key: int) -> None:
        self.now -= self._alive.pop(key)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run the operation; count what it made."""
        made = function(*args, **(kwargs or {}))
        self.count(tree_iter(made))
        packet = function._overloadpacket
        if packet in flop_registry:
            self.flops += flop_registry[packet](*args, **(kwargs or {}), out_val=made)
        elif packet in _ATTENTION:
            count, n = _ATTENTION[packet]
            self.flops += count(*(tensor.shape for tensor in args[:n]))
        return made


# torch's counter knows the kernels of GPUs only
_ATTENTION: dict[Any, tuple[Callable[..., int], int]] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: (sdpa_flop_count, 3),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        sdpa_backward_flop_count,
        4,
    ),
}


def simulate(
    config: TrainConfig, phase: PhaseConfig, crops: int, device: Device = "cuda"
) -> Simulated:
    """Run a step of `phase` without numbers.

    Args:
        config: the training; no photo and no weights are looked for.
        phase: gives the crop's edge and the loss.
        crops: b, how many pass at once.
        device: whose rules of autocast hold.
    """
    model = empty(config.model)
    prepare(model, config, build_objective(config).parts)
    with torch.device("meta"):
        kinds = {"lpips": lambda: LPIPS("vgg"), "dists": DISTS}
        networks = {key: kinds[key[0]]() for key in needed_networks(config)}
    objective = build_objective(config, networks)
    meter = Meter()
    with ExitStack() as modes:
        modes.enter_context(FakeTensorMode())
        for module in (model, *networks.values()):
            _without_numbers(module)
            meter.count([*module.parameters(), *module.buffers()])
        weights = meter.now
        modes.enter_context(meter)
        if device == "cuda" and config.precision == "bfloat16":
            _compute_norms_in_float32(model)
        if isinstance(config.one_step.prompt, DAPEConfig):
            _leave_out_tags(model, config.one_step.prompt)
        model.train()
        hq, lq = (torch.empty(crops, 3, phase.crop, phase.crop) for _ in range(2))
        with _autocast(config):
            loss = phase.loss or config.loss
            losses = objective.losses(model, Pair(hq, lq), loss, RandomState(seeded(0)))
        _way_back(model, losses.terms)
        if losses.then is not None:
            with _autocast(config):
                following = losses.then()
            _way_back(model, following)
    return Simulated(weights, meter.peak - weights, meter.flops)


def _way_back(model: nn.Module, terms: dict[str, Tensor]) -> None:
    model.zero_grad(set_to_none=True)
    torch.stack(list(terms.values())).sum().backward()


def _autocast(config: TrainConfig) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bfloat16")


def _compute_norms_in_float32(model: nn.Module) -> None:
    """As autocast does on CUDA, and not on CPUs; most activations stand before or behind a norm.

    Fake tensors are the CPU's, since those of CUDA need a torch that was built with it.
    """
    for module in model.modules():
        if isinstance(module, (nn.GroupNorm, nn.LayerNorm)):
            module.register_forward_pre_hook(lambda _, given: (given[0].float(), *given[1:]))


def _leave_out_tags(model: nn.Module, prompt: DAPEConfig) -> None:
    """Give a prompt of its shape: words cannot be without numbers, and finding them is little."""
    shape = (prompt.n_queries, prompt.width)
    model.get_submodule("prompt").forward = lambda image: torch.zeros(len(image), *shape)


def _without_numbers(module: nn.Module) -> None:
    """Put fake tensors in the place of a module's own."""
    weights: dict[nn.Parameter, nn.Parameter] = {}  # a weight in two places stays one
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                if weight not in weights:
                    like = torch.empty(weight.shape, dtype=weight.dtype)
                    weights[weight] = nn.Parameter(like, weight.requires_grad)
                part._parameters[name] = weights[weight]
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
