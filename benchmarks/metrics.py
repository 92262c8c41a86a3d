"""What metrics cost; prints JSON.

CPU milliseconds of one core for each metric that needs no weights on a pair of 512x512, beside
those of scikit-image's SSIM on the same pair; and how many pairs of PNG files a second are read and
measured with PSNR, SSIM and GMSD by one process of one thread a core. Run it on a machine that does
nothing else.

Usage: python benchmarks/metrics.py [--pairs 100] [--processes 2]
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import torch
from machine import machine
from skimage.metrics import structural_similarity

from hbr.image import Photo, read_photo, write_photo
from hbr.metrics import METRICS, load_metric
from hbr.metrics.brisque import brisque_features
from hbr.metrics.natural import grey_levels
from hbr.metrics.niqe import fit_niqe, niqe

QUICK = ("psnr-y", "ssim-y", "gmsd")


def one_thread() -> None:
    """Other processes have the other cores."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def milliseconds(work: Callable[[], object], repeats: int = 7) -> float:
    """Median CPU milliseconds, after a warm-up that fills caches."""
    work()
    times = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        times.append((time.process_time() - started) * 1000)
    return round(float(np.median(times)), 2)


def costs(pixels: np.ndarray, damaged: np.ndarray) -> dict[str, float]:
    """CPU milliseconds of each metric on one pair."""
    image, reference = (Photo.from_array(p).tensor() for p in (damaged, pixels))
    found = {
        name: milliseconds(partial(load_metric(name), image, reference))
        for name, info in METRICS.items()
        if info.function is not None and info.kind != "person"
    }
    noise = torch.rand(8, 3, 512, 512, generator=torch.Generator().manual_seed(0))
    model = fit_niqe(noise.split(1), "noise")
    found["niqe"] = milliseconds(lambda: niqe(image, model))
    found["brisque, its features"] = milliseconds(lambda: brisque_features(grey_levels(image)[0]))
    found["scikit-image: SSIM of three channels"] = milliseconds(
        lambda: structural_similarity(
            pixels,
            damaged,
            channel_axis=-1,
            gaussian_weights=True,
            use_sample_covariance=False,
            sigma=1.5,
        )
    )
    return found


def measure(files: list[tuple[str, str]]) -> float:
    """Read pairs and compute the quick metrics; CPU seconds."""
    metrics = [load_metric(name) for name in QUICK]
    started = time.process_time()
    for pair in files:
        image, reference = (read_photo(file).tensor() for file in pair)
        for metric in metrics:
            metric(image, reference)
    return time.process_time() - started


def throughput(pixels: np.ndarray, damaged: np.ndarray, pairs: int, processes: int) -> dict:
    """Pairs a second over all processes, warm."""
    with tempfile.TemporaryDirectory() as folder:
        names = [str(Path(folder) / name) for name in ("restored.png", "reference.png")]
        for name, picture in zip(names, (damaged, pixels), strict=True):
            write_photo(Photo.from_array(picture), name)
        share = [(names[0], names[1])] * (pairs // processes)
        context = get_context("spawn")
        with ProcessPoolExecutor(processes, context, initializer=one_thread) as pool:
            list(pool.map(measure, [share[:2]] * processes * 4))
            started = time.perf_counter()
            cpu = sum(pool.map(measure, [share] * processes))
            seconds = time.perf_counter() - started
    done = len(share) * processes
    return {
        "metrics": QUICK,
        "pairs": done,
        "processes": processes,
        "pairs_per_second": round(done / seconds, 1),
        "cpu_milliseconds_per_pair": round(cpu / done * 1000, 1),
    }


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    one_thread()
    example = Path(__file__).parents[1] / "examples/lq/suit.jpg"
    small = read_photo(example).pixels
    large = cv2.resize(small, (512, 512), interpolation=cv2.INTER_CUBIC).astype(np.float64)
    # grain, because files of smooth pictures are small and quickly read
    grain = np.random.default_rng(0).normal(0, 5, large.shape)
    pixels = np.clip(large + grain, 0, 255).astype(np.uint8)
    damaged = cv2.GaussianBlur(pixels, (0, 0), 1.5)
    found = costs(pixels, damaged)
    baseline = found["scikit-image: SSIM of three channels"]
    result = {
        "benchmark": "metrics",
        "size": "512x512",
        "cpu_milliseconds": found,
        "ssim_rgb_speedup_over_scikit_image": round(baseline / found["ssim-rgb"], 2),
        "png_pairs": throughput(pixels, damaged, args.pairs, args.processes),
        **machine(),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
