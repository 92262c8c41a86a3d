"""What GroupNorm and SiLU take of a decoder's time, and what else would take; prints JSON.

For each shape that a decoder normalises and activates: bfloat16, channels last, CPU, processor
time with OMP_NUM_THREADS=1, least of some rounds in turns. `now` is torch's group_norm, then SiLU
in place. The sums are over all such pairs of a decoder, for one image of 512x512. Errors are those
of float32 to float64, the largest of any shape.

Usage: python benchmarks/norms.py [--models nano full] [--rounds 5] [--no-compile] [--small]
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from decoders import autoencoder_alone
from full_size import build
from inference import best
from machine import machine
from torch import Tensor, nn

from hbr.devices import keep_freed_memory
from hbr.models import OneStepRestorer, load_model
from hbr.models.inference import stripes
from hbr.models.inference.folding import optimize
from hbr.models.inference.layers import ResidualBlock
from hbr.models.inference.restorer import FoldedRestorer
from hbr.models.inference.stripes import Striped

EPS = 1e-6
Shape = tuple[int, ...]  # groups, channels, height, width
Pair = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", default=["nano", "full"], choices=["nano", "full"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-compile", action="store_true", help="without torch.compile")
    parser.add_argument("--small", action="store_true", help="a trial: narrow and small")
    args = parser.parse_args()
    keep_freed_memory()
    stripes.LARGE = 2**62  # nothing in stripes, so that every pair is seen
    pairs: dict[str, Pair] = dict(PAIRS)
    if not args.no_compile:
        pairs["compiled"] = torch.compile(now, dynamic=False)
    made = {name: measured(name, pairs, args.rounds, args.small) for name in args.models}
    print(json.dumps({"what": "norms", **machine(), **made}, indent=1))


def measured(name: str, pairs: Mapping[str, Pair], rounds: int, small: bool) -> dict[str, Any]:
    """Seconds of a decoder, and of its norms with SiLU by every way."""
    model = model_of(name, small)
    latent = model.config.autoencoder.latent
    edge = (64 if small else 512) // latent.factor
    z = torch.randn(1, latent.channels, edge, edge).contiguous(memory_format=torch.channels_last)
    shapes = shapes_of(model, z)
    decoder = best({"": lambda: model.decode(z)}, 2)[""]
    sums, errors = dict.fromkeys(pairs, 0.0), dict.fromkeys(pairs, 0.0)
    rows = []
    for (groups, *shape), times in shapes.items():
        torch.compiler.reset()  # a shape is compiled by itself, and only some are kept
        x = torch.randn(1, *shape).contiguous(memory_format=torch.channels_last)
        weight, bias = torch.rand(2, shape[0]) + 0.5
        exact = now(x.double(), weight.double(), bias.double(), groups)
        with torch.inference_mode():
            made = {key: pair(x, weight, bias, groups) for key, pair in pairs.items()}
        for key, tensor in made.items():
            errors[key] = max(errors[key], float((tensor - exact).abs().max()))
        halved = x.bfloat16(), weight.bfloat16(), bias.bfloat16()
        runs: dict[str, Callable[[], object]] = {
            key: partial(pair, *halved, groups) for key, pair in pairs.items()
        }
        best(runs, 1)
        seconds = best(runs, rounds)
        rows.append({"shape": shape, "count": times, "seconds": seconds})
        for key, value in seconds.items():
            sums[key] += times * value
    return {
        "decoder_seconds": decoder,
        "pairs_seconds": {key: round(value, 4) for key, value in sums.items()},
        "gain_of_decoder": {k: round((sums["now"] - v) / decoder, 4) for k, v in sums.items()},
        "largest_error": {key: float(f"{value:.2g}") for key, value in errors.items()},
        "shapes": rows,
    }


def model_of(name: str, small: bool) -> FoldedRestorer:
    """nano, or the autoencoder of Stable Diffusion with random weights, in bfloat16."""
    if name == "full":
        return optimize(build(autoencoder_alone(None, small)))
    model = load_model("nano", dtype=torch.bfloat16)
    assert isinstance(model, OneStepRestorer)
    return optimize(model)


def shapes_of(model: FoldedRestorer, z: Tensor) -> Counter[Shape]:
    """How often a decoder normalises and then activates each shape."""
    norms = []
    for module in model.decoder.modules():
        if isinstance(module, ResidualBlock):
            norms += [module.norm1, module.norm2]
        elif isinstance(module, Striped):
            norms += [module.norm]
    seen: Counter[Shape] = Counter()

    def count(norm: nn.Module, given: tuple[Tensor], _: Tensor) -> None:
        assert isinstance(norm, nn.GroupNorm)
        seen[(norm.num_groups, *given[0].shape[1:])] += 1

    handles = [norm.register_forward_hook(count) for norm in norms]
    with torch.inference_mode():
        model.decode(z)
    for handle in handles:
        handle.remove()
    return seen


def now(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    """As `ResidualBlock` does."""
    return F.silu(F.group_norm(x, groups, weight, bias, EPS), inplace=True)


def not_in_place(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    """As diffusers does."""
    return F.silu(F.group_norm(x, groups, weight, bias, EPS))


def by_batch_norm(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    """Statistics by rows of the image, then scale and shift of channels, as in stripes."""
    norm = nn.GroupNorm(groups, x.shape[1], EPS, affine=False)
    mean, var = stripes.moments(norm, x)
    y = F.batch_norm(x, mean, var, weight.to(mean.dtype), bias.to(mean.dtype), eps=EPS)
    return F.silu(y, inplace=True)


def by_var_mean(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    """var_mean, then scale and shift of channels by addcmul."""
    var, mean = torch.var_mean(x.unflatten(1, (groups, -1)), dim=(2, 3, 4), correction=0)
    channels = x.shape[1] // groups
    scale = weight * (var + EPS).rsqrt().repeat_interleave(channels, dim=1)
    shift = bias - mean.repeat_interleave(channels, dim=1) * scale
    y = torch.addcmul(shift[:, :, None, None], x, scale[:, :, None, None])
    return F.silu(y.contiguous(memory_format=torch.channels_last), inplace=True)


PAIRS: dict[str, Pair] = {
    "now": now,
    "not_in_place": not_in_place,
    "batch_norm": by_batch_norm,
    "var_mean": by_var_mean,
}


if __name__ == "__main__":
    main()
