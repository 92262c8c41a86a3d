"""Memory and speed of training the full size (Stable Diffusion 2.1-base) on a GPU; prints JSON.

Random weights, bf16 autocast, crops of 512x512, the paper's recipe with LPIPS: peak memory of a
step of one crop with checkpointing, beside what `hbr train --plan` computes for it; then crops a
second at batch 16, the medians of some steps after a warm-up. Target: 12 GB or less at batch 1.

Usage: python benchmarks/training_gpu.py [--batch 16] [--steps 5] [--small]
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from statistics import median

import torch
from machine import machine
from training_memory import cases, full_size

from hbr.metrics.lpips import LPIPS
from hbr.models.onestep import OneStepRestorer
from hbr.training.config import PhaseConfig, TrainConfig
from hbr.training.cost import plan
from hbr.training.data import Pair, seeded
from hbr.training.losses import needed_networks
from hbr.training.objectives import build_objective
from hbr.training.random_state import RandomState
from hbr.training.start import prepare
from hbr.training.state import TrainState

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def seconds_of_steps(config: TrainConfig, steps: int) -> list[float]:
    """Seconds of each of some steps of random numbers."""
    torch.manual_seed(0)
    with torch.device(DEVICE):
        model = OneStepRestorer(config.model)
        networks = {key: LPIPS("vgg") for key in needed_networks(config)}
    objective = build_objective(config, networks)
    prepare(model, config, objective.parts)
    model = model.to(DEVICE, memory_format=torch.channels_last)
    model.train()
    state = TrainState(model, config)
    phase = config.phases[0]
    shape = (phase.batch, 3, phase.crop, phase.crop)
    pair = Pair(hq=torch.rand(shape, device=DEVICE), lq=torch.rand(shape, device=DEVICE))
    times = []
    for step in range(steps):
        _synchronize()
        started = time.perf_counter()
        with torch.autocast(DEVICE, torch.bfloat16):
            losses = objective.losses(model, pair, config.loss, RandomState(seeded(0, step)))
        _update(state, losses.terms)
        assert losses.then is not None
        with torch.autocast(DEVICE, torch.bfloat16):
            following = losses.then()
        _update(state, following)
        state.update_average()
        _synchronize()
        times.append(time.perf_counter() - started)
    return times


def _synchronize() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def _update(state: TrainState, terms: dict[str, torch.Tensor]) -> None:
    state.optimizer.zero_grad(set_to_none=True)
    torch.stack(list(terms.values())).sum().backward()
    state.optimizer.step()


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=16, help="crops a step, for the speed")
    parser.add_argument("--steps", type=int, default=5, help="timed, after two of warm-up")
    parser.add_argument("--small", action="store_true", help="toy width, to try this file")
    args = parser.parse_args()
    if DEVICE == "cpu" and not args.small:
        sys.exit("training_gpu.py needs a CUDA device, and torch sees none; --small tries it")
    known = cases(small=True) if args.small else full_size()
    one = replace(known["whole, checkpointing"], precision="bfloat16")
    seconds_of_steps(one, 3)
    peak = {
        "allocated": torch.cuda.max_memory_allocated(),
        "reserved": torch.cuda.max_memory_reserved(),
        "computed": plan(one).peak,
    }
    if DEVICE == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    crop = one.phases[0].crop
    many = replace(one, phases=(PhaseConfig(1000, crop, args.batch),))
    step = median(seconds_of_steps(many, args.steps + 2)[2:])
    result = {
        "benchmark": "training on a GPU",
        "crop": crop,
        "peak_gb_batch_1": {name: round(n / 1e9, 2) for name, n in peak.items()},
        "batch": args.batch,
        "seconds_a_step": round(step, 3),
        "crops_a_second": round(args.batch / step, 2),
        "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2),
    }
    print(json.dumps({**result, **machine()}, indent=1))


if __name__ == "__main__":
    main()
