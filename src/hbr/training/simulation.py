"""Simulate a training step with fake tensors to measure its peak memory and FLOPs.

The training code runs on torch's fake tensors, which have shapes, types and lifetimes, but no
values. The bytes of each count from its creation to its release; the libraries' own workspaces are
not included.

Shapes: b micro-batch, s size of a crop in pixels.
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
from hbr.models.config import DAPEConfig, RestorerConfig, TextEncoderConfig
from hbr.models.diffbody.config import DiffBodyConfig
from hbr.models.protocol import Conditions
from hbr.models.rrdbnet import RRDBNet
from hbr.models.rrdbnet_config import RRDBNetConfig
from hbr.training.config import PhaseConfig, TrainConfig
from hbr.training.data import Pair, seeded
from hbr.training.decoding import TeacherDecoder, teacher_config
from hbr.training.losses import needed_networks
from hbr.training.objectives import build_objective
from hbr.training.random_state import RandomState
from hbr.training.start import prepare

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Simulated:
    """The cost of both updates of a step on one micro-batch, without the optimizer.

    Attributes:
        weights: bytes of all weights and buffers, including the losses' networks.
        passing: peak bytes of gradients and activations together.
        flops: FLOPs of matrix products, convolutions and attention.
    """

    weights: int
    passing: int
    flops: int


class Meter(TorchDispatchMode):
    """Counts the bytes of live tensors and the FLOPs while it is active.

    Attributes:
        now, peak: current and peak bytes.
        flops: FLOPs so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = self.flops = 0
        self._alive: dict[int, int] = {}

    def count(self, tensors: Iterable[Any]) -> None:
        """Add tensors to the live ones."""
        for tensor in tensors:
            if not isinstance(tensor, Tensor):
                continue
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key not in self._alive:
                self._alive[key] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._released, key)

    def _released(self, key: int) -> None:
        self.now -= self._alive.pop(key)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run the operation and count its outputs."""
        out = function(*args, **(kwargs or {}))
        self.count(tree_iter(out))
        packet = function._overloadpacket
        if packet in flop_registry:
            self.flops += flop_registry[packet](*args, **(kwargs or {}), out_val=out)
        elif packet in _ATTENTION:
            count, n = _ATTENTION[packet]
            self.flops += count(*(tensor.shape for tensor in args[:n]))
        return out


# torch's counter only knows the GPU kernels
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
    """Simulate a step of `phase`.

    Args:
        config: the training; neither photos nor weights are needed.
        phase: determines the crop size and the loss.
        crops: b, the micro-batch size.
        device: device type whose autocast rules apply.
    """
    model = empty(config.model)
    prepare(model, config, build_objective(config).parts)
    with torch.device("meta"):
        kinds: dict[str, Callable[[], nn.Module]] = {
            "lpips": lambda: LPIPS("vgg"),
            "dists": DISTS,
            "teacher": lambda: RRDBNet(RRDBNetConfig()),
            "decoder": lambda: TeacherDecoder(*teacher_config(config)),
        }
        networks = {key: kinds[key[0]]() for key in needed_networks(config)}
    objective = build_objective(config, networks)
    meter = Meter()
    with ExitStack() as modes:
        modes.enter_context(FakeTensorMode())
        for module in (model, *networks.values()):
            _make_fake(module)
            meter.count([*module.parameters(), *module.buffers()])
        weights = meter.now
        modes.enter_context(meter)
        if device == "cuda" and config.precision == "bfloat16":
            _compute_norms_in_float32(model)
        match config.model:
            case RestorerConfig(prompt=DAPEConfig() as prompt):
                _answer_zeros(model.get_submodule("prompt"), prompt.n_queries, prompt.width)
            case DiffBodyConfig(text=TextEncoderConfig() as text):
                _answer_zeros(model.get_submodule("text"), text.length, text.width)
        model.train()
        pair = _pair(config, crops, phase.crop)
        with _autocast(config):
            loss = phase.loss or config.loss
            losses = objective.losses(model, pair, loss, RandomState(seeded(0)))
        _backward(model, losses.terms)
        if losses.then is not None:
            with _autocast(config):
                second = losses.then()
            _backward(model, second)
    return Simulated(weights, meter.peak - weights, meter.flops)


def _pair(config: TrainConfig, crops: int, size: int) -> Pair:
    """A batch with all that a training of this configuration has."""
    hq, lq = (torch.empty(crops, 3, size, size) for _ in range(2))
    model = config.model
    if not isinstance(model, RestorerConfig | DiffBodyConfig):
        return Pair(hq=hq, lq=lq)
    channels = {"pose": 3, "attention": 1, "parts": 6} if isinstance(model, DiffBodyConfig) else {}
    maps = {name: torch.empty_like(hq[:, :1]).expand(-1, n, -1, -1) for name, n in channels.items()}
    latents: tuple[Tensor, ...] = ()
    if config.data.latents is not None:  # known, as after the first time that the crops were seen
        z = model.autoencoder.latent
        cells = size // z.factor
        latents = tuple(torch.empty(crops, z.channels, cells, cells))
    return Pair(hq=hq, lq=lq, conditions=Conditions(maps=maps), latents=latents)


def _backward(model: nn.Module, terms: dict[str, Tensor]) -> None:
    model.zero_grad(set_to_none=True)
    torch.stack(list(terms.values())).sum().backward()


def _autocast(config: TrainConfig) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bfloat16")


def _compute_norms_in_float32(model: nn.Module) -> None:
    """Compute norms in float32, as autocast does on CUDA but not on CPUs.

    Most activations are inputs or outputs of a norm. Fake CUDA tensors need a torch built with
    CUDA, so the simulation uses CPU tensors.
    """
    for module in model.modules():
        if isinstance(module, (nn.GroupNorm, nn.LayerNorm)):
            module.register_forward_pre_hook(lambda _, given: (given[0].float(), *given[1:]))


def _answer_zeros(module: nn.Module, tokens: int, width: int) -> None:
    """Return a prompt of zeros: tags and tokens depend on values, and computing them is cheap."""
    module.forward = lambda given: torch.zeros(len(given), tokens, width)


def _make_fake(module: nn.Module) -> None:
    """Replace the tensors of a module by fake ones."""
    weights: dict[nn.Parameter, nn.Parameter] = {}  # keeps shared weights shared
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
