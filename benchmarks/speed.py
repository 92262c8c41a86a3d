"""How fast and how large `hbr restore` is with nano; prints JSON.

Model time of one 512x512 image in the precision that "auto" chooses and in float32, the whole
process on one 512x512 file, and the whole process on a 12-megapixel photo (4000x3000) with its
peak memory. Run it on a machine that does nothing else.

Usage: python benchmarks/speed.py [--model nano]
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from machine import machine

import hbr
from hbr.image import Photo, read_photo, write_photo


def model_seconds(model: str, dtype: str, repeats: int = 5) -> float:
    """Median seconds of the network on one 512x512 image, after a warm-up."""
    restorer = hbr.Restorer.from_pretrained(model, dtype=dtype)
    photo = Photo.from_array(_texture(512, 512))
    restorer(photo, color="none")
    times = [restorer(photo, color="none").timings["model"] for _ in range(repeats)]
    return float(np.median(times))


def process(model: str, height: int, width: int) -> dict[str, float]:
    """Seconds and peak memory of `hbr restore` on one JPEG of this size."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.jpg", Path(folder) / "out.png"
        write_photo(Photo.from_array(_texture(height, width)), source)
        hbr_command = str(Path(sys.executable).with_name("hbr"))
        command = [hbr_command, "restore", "-i", str(source), "-o", str(target), "--model", model]
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024**2
    return {"seconds": round(seconds, 2), "peak_gib_so_far": round(peak, 2)}


def _texture(height: int, width: int) -> np.ndarray:
    """A photo of the examples, repeated."""
    example = Path(__file__).parents[1] / "examples/lq/suit.jpg"
    pixels = read_photo(example).pixels
    h, w = pixels.shape[:2]
    return np.tile(pixels, (-(-height // h), -(-width // w), 1))[:height, :width].copy()


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="nano")
    args = parser.parse_args()
    auto = hbr.Restorer.from_pretrained(args.model).dtype
    # children come first the small one, then the large one: the peak is that of all so far
    small = process(args.model, 512, 512)
    large = process(args.model, 3000, 4000)
    seconds = {dtype: round(model_seconds(args.model, dtype), 3) for dtype in {auto, "float32"}}
    result = {
        "benchmark": "speed",
        "model": args.model,
        "dtype": auto,
        "model_512x512_seconds": seconds,
        "speedup_over_float32": round(seconds["float32"] / seconds[auto], 2),
        "process_512x512": small,
        "process_4000x3000": large,
        "threads": torch.get_num_threads(),
        **machine(),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
