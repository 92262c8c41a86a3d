"""How much a batch of photos takes beyond the model alone; prints JSON.

Photos of one size and format are restored by `run_batch`, as `hbr restore` does after its start:
overlapping, as it is, and one step after the other; and their tiles go through the model alone. The
three take turns in one process, and the best of some rounds counts. Seconds are of the clock, for
an idle machine; with OMP_NUM_THREADS=1 the processor time beside them is worth something on a busy
one too. Then the processor time of each part of a photo. Target: at most 1.1 times the model alone.

Usage: python benchmarks/batch_job.py [--size 1152x864] [--formats jpg png] [--photos 12]
       [--rounds 3] [--model nano] [--small]
"""

import argparse
import functools
import json
import math
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from machine import machine

from hbr.devices import choose_batch
from hbr.image import Photo, read_photo, write_photo
from hbr.image import photo as photo_module
from hbr.restoration import Restorer
from hbr.restoration import restorer as restorer_module
from hbr.restoration.batch import beside, outputs, work
from hbr.restoration.batch.jobs import plan_batch
from hbr.restoration.batch.outputs import Files
from hbr.restoration.batch.running import run_batch
from hbr.restoration.passes import inference, making, transfer
from hbr.restoration.passes.tiling import plan_tiles
from hbr.restoration.pixels.color import to_unit
from hbr.restoration.settings import RestoreSettings

EXAMPLES = Path(__file__).parent.parent / "examples" / "lq"
# where a part of the work is looked up, and how it is called
PARTS: dict[str, tuple[Any, str]] = {
    "hash": (beside, "named_source"),
    "decode": (beside, "read_photo"),
    "tiles": (inference, "to_unit"),
    "blend": (inference._Blend, "add"),
    "blended": (inference._Blend, "finish"),
    "color": (making, "fix_color"),
    "pixels": (photo_module.Photo, "with_pixels"),
    "provenance": (restorer_module, "provenance_of"),
    "recipe": (outputs, "with_recipe"),
    "encode": (outputs, "encode_photo"),
    "write": (work, "write_bytes"),
}


def photos_of(folder: Path, size: tuple[int, int], suffix: str, n: int) -> None:
    """Write photos of a size, each another mosaic of the examples."""
    width, height = size
    parts = [read_photo(path).pixels for path in sorted(EXAMPLES.glob("*.jpg"))]
    for number in range(n):
        rows = []
        while sum(row.shape[0] for row in rows) < height:
            row: list[np.ndarray] = []
            while sum(part.shape[1] for part in row) < width:
                row.append(parts[(number + len(rows) + len(row)) % len(parts)])
            least = min(part.shape[0] for part in row)
            rows.append(np.concatenate([part[:least] for part in row], axis=1)[:, :width])
        pixels = np.ascontiguousarray(np.concatenate(rows)[:height])
        write_photo(Photo.from_array(pixels), folder / f"{number:04}.{suffix}", quality=92)


def timed(run: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the clock and of the processor."""
    began, used = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - began, time.process_time() - used


def model_alone(restorer: Restorer, size: tuple[int, int], n: int) -> Callable[[], object]:
    """What runs the tiles of `n` photos through the model, and nothing else."""
    width, height = size
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    plan = plan_tiles(height, width, restorer.capabilities)
    batches = [
        transfer.TileBatch(
            tiles,
            np.concatenate([to_unit(plan.read(pixels, *tile)) for tile in tiles]),
            [plan.place(*tile) for tile in tiles],
            restorer.conditions(RestoreSettings()),
        )
        for tiles in plan.batches(choose_batch(restorer.device))
    ]

    def run() -> None:
        with torch.inference_mode():
            for _ in range(n):
                for _ in transfer.restored_batches(restorer.model, batches):
                    pass

    return run


def batch(restorer: Restorer, given: Path, out: Path, *, overlap: bool) -> Callable[[], object]:
    """What restores all photos of a folder."""

    def run() -> None:
        shutil.rmtree(out, ignore_errors=True)
        plan = plan_batch([str(given)], str(out))
        with patch.object(work, "_SLOW", work._SLOW if overlap else math.inf):
            begin = beside.PhotoReader.begin if overlap else lambda reader, job: None
            with patch.object(beside.PhotoReader, "begin", begin):
                records = list(run_batch(plan, lambda: restorer, Files(recipe="file")))
        failed = [record.error for record in records if record.status != "restored"]
        assert not failed, failed

    return run


def by_parts(run: Callable[[], object], n: int) -> dict[str, float]:
    """Processor seconds of each part, for one photo; of one thread each."""
    spent: dict[str, float] = defaultdict(float)

    def watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*given: Any, **options: Any) -> Any:
            began = time.thread_time()
            try:
                return function(*given, **options)
            finally:
                spent[name] += time.thread_time() - began

        return call

    patches = [
        patch.object(place, called, watched(name, getattr(place, called)))
        for name, (place, called) in PARTS.items()
    ]
    for each in patches:
        each.start()
    try:
        run()
    finally:
        for each in patches:
            each.stop()
    return {name: round(spent[name] / n, 4) for name in PARTS}


def measure(
    restorer: Restorer, size: tuple[int, int], suffix: str, n: int, rounds: int
) -> dict[str, Any]:
    """The three ways for one format, in turns."""
    with tempfile.TemporaryDirectory() as folder:
        given, out = Path(folder) / "in", Path(folder) / "out"
        photos_of(given, size, suffix, n)
        ways = {
            "model": model_alone(restorer, size, n),
            "overlapping": batch(restorer, given, out, overlap=True),
            "in turns": batch(restorer, given, out, overlap=False),
        }
        ways["model"]()  # warm
        best = dict.fromkeys(ways, (math.inf, math.inf))
        for _ in range(rounds):
            for name, way in ways.items():
                seconds, used = timed(way)
                best[name] = min(best[name][0], seconds), min(best[name][1], used)
        parts = by_parts(ways["in turns"], n)
    clock = {name: round(seconds / n, 4) for name, (seconds, _) in best.items()}
    used = {name: round(seconds / n, 4) for name, (_, seconds) in best.items()}
    return {
        "photos": n,
        "size": size,
        "seconds_a_photo": clock,
        "over_the_model": {
            name: round(clock[name] / clock["model"], 3) for name in ("overlapping", "in turns")
        },
        "processor_seconds_a_photo": used,
        "processor_outside_the_model": round(used["overlapping"] / used["model"] - 1, 3),
        "parts_processor_seconds": parts,
    }


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", default="1152x864", help="WIDTHxHEIGHT of the photos")
    parser.add_argument("--formats", nargs="+", default=["jpg", "png"])
    parser.add_argument("--photos", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--small", action="store_true", help="few small photos, to try this file")
    args = parser.parse_args()
    width, height = (96, 64) if args.small else map(int, args.size.split("x"))
    n, rounds = (3, 1) if args.small else (args.photos, args.rounds)
    restorer = Restorer.from_pretrained(args.model)
    found = {
        suffix: measure(restorer, (width, height), suffix, n, rounds) for suffix in args.formats
    }
    print(json.dumps({"benchmark": "batch job", "model": args.model, **found, **machine()}))


if __name__ == "__main__":
    main()
