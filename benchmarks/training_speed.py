"""Speed and memory of whole training steps, by the options that make them faster; prints JSON.

Two trainings from random weights: a diffusion prior of HQ latents (recipe nano/prior), and a
restorer (nano/restorer, all weights); with --full, the prior at the size of Stable Diffusion 2.1
alone. A step is what `hbr train` does: photos are read, cropped and degraded, the
weights and their average are updated. Each case runs in a process of its own, all cases of a round
in turn; warm-up steps, in which blocks are compiled and latents encoded, are not timed.

crops_a_second is by the clock, crops_a_cpu_second by the processor's time of the process, which
tells more where others work on the machine. The peak is what is resident on a CPU, without what a
process has before the training, and what is allocated on a GPU. Ratios are to the case "plain" of
the same run.

Usage: python benchmarks/training_speed.py [--photos FOLDER] [--crop 128] [--batch 4] [--steps 6]
           [--rounds 2] [--cases prior/plain,prior/latents] [--full | --small]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from machine import machine
from training_memory import status

from hbr.apps.cli.recipes import recipe_file
from hbr.training.config import TrainConfig
from hbr.training.data import TrainingPairs
from hbr.training.loop import Trainer
from hbr.training.recipe import load_recipe

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PHOTOS = Path(__file__).parents[1] / "examples" / "lq"
WARM_UP, SEEN = 3, 12  # steps

OPTIONS = {
    "plain": [],
    "latents": ["data.latents={cache: CACHE, crops: 1}"],
    "checkpointing": ["memory.checkpointing=true"],
    "compiled": ["compile=true"],
    "degraded on the device": ["data.device=auto"],
}
FULL = [
    "model={kind: one-step, prompt: {kind: text}}",
    "objective={kind: diffusion, prompt_drop: 0}",
]


def cases() -> list[str]:
    """Names of the cases: training/option."""
    names = [f"{training}/{option}" for training in ("prior", "restorer") for option in OPTIONS]
    # restorers need no latents of HQ, and on a CPU crops are degraded where they always are
    left_out = {"restorer/latents"}
    if DEVICE == "cpu":
        left_out |= {name for name in names if name.endswith("on the device")}
    return [name for name in names if name not in left_out]


def config(name: str, args: argparse.Namespace, folder: Path) -> TrainConfig:
    """The configuration of a case."""
    training, option = name.split("/")
    settings = [
        f"data.sources=[{{photos: {args.photos}}}]",
        "data.workers=0",
        f"validation={{photos: {args.photos}, crop: {args.crop}}}",
        f"phases=[{{steps: 100000, crop: {args.crop}, batch: {args.batch}}}]",
        "init=null",
        "start=random",
        f"out={folder / 'out'}",
        *(setting.replace("CACHE", str(folder / "latents")) for setting in OPTIONS[option]),
        *(FULL if args.full else []),
    ]
    return load_recipe(recipe_file(f"nano/{training}"), settings)


def measure(name: str, args: argparse.Namespace) -> dict[str, object]:
    """Seconds of some steps by clock and processor, of their data too, and the peak of memory."""
    before = status("VmRSS")
    said: list[str] = []
    times = []
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(config(name, args, Path(folder)), DEVICE, report=said.append)
        at_once = trainer.config.data.device == "cpu" or DEVICE == "cpu"
        pairs = TrainingPairs(trainer.config, 0, latents=trainer.latents, degraded=at_once)
        if trainer.latents is not None:  # the latents of most crops of the fixed set
            for step in range(SEEN):
                trainer._with_latents(pairs.batch(step).to(trainer.device))
        batches = iter(pairs)
        for step in range(WARM_UP + args.steps):
            marks = [(time.perf_counter(), time.process_time())]
            crops = next(batches)
            marks.append((time.perf_counter(), time.process_time()))
            trainer._step(trainer._with_latents(crops.to(trainer.device)))
            if DEVICE == "cuda":
                torch.cuda.synchronize()
            marks.append((time.perf_counter(), time.process_time()))
            if step >= WARM_UP:
                times.append([b - a for x, y in pairwise(marks) for a, b in zip(x, y, strict=True)])
    peak = torch.cuda.max_memory_allocated() if DEVICE == "cuda" else status("VmHWM") - before
    told = [line for line in said if line.startswith("compile")]
    return {"times": times, "peak": peak, "told": told}


def summary(found: list[dict[str, Any]], batch: int) -> dict[str, Any]:
    """A case as it is printed, of its rounds."""
    columns = zip(*(row for one in found for row in one["times"]), strict=True)
    data, data_cpu, update, update_cpu = (median(column) for column in columns)
    told = {line for one in found for line in one["told"]}
    return {
        "seconds": {"data": round(data, 4), "update": round(update, 4)},
        "cpu_seconds": {"data": round(data_cpu, 4), "update": round(update_cpu, 4)},
        "crops_a_second": round(batch / (data + update), 3),
        "crops_a_cpu_second": round(batch / (data_cpu + update_cpu), 3),
        "peak_gb": round(max(one["peak"] for one in found) / 1e9, 3),
        **({"told": sorted(told)} if told else {}),
    }


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=Path, default=PHOTOS)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=6, help="timed, a round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--full", action="store_true", help="the prior at SD 2.1's size")
    parser.add_argument("--small", action="store_true", help="to rehearse: a step, not compiled")
    parser.add_argument("--cases", help="names, parted by commas; the others are left out")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.small:
        args.crop, args.batch, args.steps, args.rounds = 32, 1, 1, 1
    if args.case is not None:
        print(json.dumps(measure(args.case, args)))
        return
    names = args.cases.split(",") if args.cases else cases()
    if args.small:
        names = [name for name in names if not name.endswith("/compiled")]
    if args.full:
        names = [name for name in names if name.startswith("prior/")]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(args.rounds):
        for name in names:
            command = [sys.executable, __file__, *sys.argv[1:], "--case", name]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
            found[name].append(json.loads(done.stdout))
    results = {name: summary(each, args.batch) for name, each in found.items()}
    for name, result in results.items():
        plain = results.get(f"{name.partition('/')[0]}/plain")
        if plain is not None:
            key = "crops_a_second" if DEVICE == "cuda" else "crops_a_cpu_second"
            result["times_as_fast_as_plain"] = round(result[key] / plain[key], 3)
    result = {
        "benchmark": "training speed",
        "device": DEVICE,
        "crop": args.crop,
        "batch": args.batch,
        "cases": results,
    }
    print(json.dumps({**result, **machine()}, indent=1))


if __name__ == "__main__":
    main()
