"""Memory and time of the autoencoder of Stable Diffusion 2.1 in stripes and whole; prints JSON.

The rewrite `stripes` (`hbr.models.inference.stripes`) is left out or applied, all others are
applied. Random weights, bfloat16, CPU. Memory is the peak (ru_maxrss) of a process that encodes and
decodes one batch, and what it had before; each case is a process of its own. Times are of encoder
and decoder in one process, in turns, least of some rounds; with OMP_NUM_THREADS=1 processor time,
for a machine with other work.

Usage: python benchmarks/stripes.py [--sizes 512 1024] [--batch 1] [--rounds 4] [--small]
"""

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import torch
from decoders import autoencoder_alone
from full_size import build
from inference import best
from machine import machine

from hbr.devices import keep_freed_memory, release_freed_memory
from hbr.models.inference.folding import REWRITES, optimize
from hbr.models.inference.restorer import FoldedRestorer

CASES = {"whole": [name for name in REWRITES if name != "stripes"], "stripes": list(REWRITES)}


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024], help="edges in pixels")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=4, help="of times, of the first size")
    parser.add_argument("--small", action="store_true", help="a trial: narrow and small")
    parser.add_argument("--alone", choices=CASES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.small:
        args.sizes, args.rounds = [64], 1
    if args.alone:
        print(json.dumps(memory(args.alone, args.sizes[0], args.batch, args.small)))
        return
    made: dict[str, Any] = {"what": "stripes", "batch": args.batch, **machine()}
    made["peak_mib"] = {
        size: {case: alone(case, size, args.batch, args.small) for case in CASES}
        for size in args.sizes
    }
    made["seconds"] = seconds(args.sizes[0], args.batch, args.rounds, args.small)
    print(json.dumps(made, indent=1))


def memory(case: str, size: int, batch: int, small: bool) -> dict[str, float]:
    """MiB of this process before an image is encoded and decoded, and at most."""
    keep_freed_memory()
    model, image = model_of(case, small), image_of(size, batch)
    with torch.inference_mode():
        model.decode(model.encode(image[..., :64, :64]))
        release_freed_memory()
        before = _peak()
        model.decode(model.encode(image))
    return {"before": before, "peak": _peak()}


def alone(case: str, size: int, batch: int, small: bool) -> Any:
    """`memory` in a process of its own."""
    command = [sys.executable, __file__, "--alone", case, "--batch", str(batch)]
    command += ["--small"] if small else ["--sizes", str(size)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def seconds(size: int, batch: int, rounds: int, small: bool) -> dict[str, float]:
    """Seconds of encoder and decoder in both cases."""
    keep_freed_memory()
    image = image_of(size, batch)
    runs: dict[str, Callable[[], object]] = {}
    for case in CASES:
        model = model_of(case, small)
        with torch.inference_mode():
            z = model.encode(image)
        runs[f"encode.{case}"] = lambda model=model: model.encode(image)
        runs[f"decode.{case}"] = lambda model=model, z=z: model.decode(z)
    return best(runs, rounds)


def model_of(case: str, small: bool) -> FoldedRestorer:
    """Stable Diffusion's autoencoder, and next to no U-Net."""
    return optimize(build(autoencoder_alone(None, small)), CASES[case])


def image_of(size: int, batch: int) -> torch.Tensor:
    """Noise [b, 3, size, size]."""
    image = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    return image.contiguous(memory_format=torch.channels_last)


def _peak() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


if __name__ == "__main__":
    main()
