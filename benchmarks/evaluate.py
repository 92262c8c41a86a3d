"""How fast `hbr evaluate` is, and how its memory grows; prints JSON.

The real command measures PSNR-Y, SSIM-Y and GMSD of 100, 1,000 and 10,000 pairs of 512x512 PNG
files: pairs a second from start to end, and the peak of the memory of all its processes (their
proportional set size, in which shared pages count once). A hundred pairs are different; the others
are links to them. The baseline is the same work in one process. Run it on a machine that does
nothing else.

Usage: python benchmarks/evaluate.py [--pairs 100 1000 10000] [--workers 2]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from machine import machine

from hbr.image import Photo, read_photo, write_photo

DIFFERENT = 100
EDGE = 512
METRICS = "psnr,ssim,gmsd"


def make_pairs(folder: Path, count: int) -> None:
    """Folders `hq` and `restored` of photographs and what noise makes of them."""
    source = Path(__file__).parents[1] / "examples" / "lq"
    photos = [read_photo(path).pixels for path in sorted(source.glob("*.jpg"))]
    generator = np.random.default_rng(0)
    for part in ("hq", "restored"):
        (folder / part).mkdir(parents=True)
    for number in range(count):
        if number >= DIFFERENT:
            for part in ("hq", "restored"):
                os.link(_file(folder, part, number % DIFFERENT), _file(folder, part, number))
            continue
        whole = photos[number % len(photos)]
        whole = np.tile(whole, (3, 3, 1))
        top, left = generator.integers(0, 200, 2)
        hq = np.ascontiguousarray(whole[top : top + EDGE, left : left + EDGE])
        noise = generator.normal(0, 4, hq.shape)
        restored = np.clip(hq + noise, 0, 255).astype(np.uint8)
        for part, pixels in (("hq", hq), ("restored", restored)):
            write_photo(Photo.from_array(pixels), _file(folder, part, number), png_compression=3)


def _file(folder: Path, part: str, number: int) -> Path:
    return folder / part / f"{number:06}.png"


def measure(folder: Path, workers: int) -> dict[str, float]:
    """Seconds and peak memory of the real command."""
    hbr = str(Path(sys.executable).with_name("hbr"))
    out = folder / f"out-{workers}.json"
    command = [hbr, "evaluate", "-r", str(folder / "restored"), "-g", str(folder / "hq")]
    command += ["-m", METRICS, "--workers", str(workers), "--json", str(out), "--overwrite"]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = [0]
    watch = threading.Thread(target=_watch, args=(process.pid, peak))
    watch.start()
    code = process.wait()
    seconds = time.perf_counter() - began
    watch.join()
    if code:
        raise SystemExit(f"hbr evaluate ended with {code}")
    pairs = len(json.loads(out.read_text())["rows"])
    return {
        "pairs": pairs,
        "workers": workers,
        "seconds": round(seconds, 2),
        "pairs_per_second": round(pairs / seconds, 1),
        "peak_mib": round(peak[0] / 1024**2),
    }


def _watch(pid: int, peak: list[int]) -> None:
    """The peak of the memory of a process and all below it, sampled."""
    while True:
        try:
            top = psutil.Process(pid)
            if top.status() == psutil.STATUS_ZOMBIE:
                return
            total = 0
            for process in (top, *top.children(recursive=True)):
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:
                    continue  # it has just ended
            peak[0] = max(peak[0], total)
        except psutil.NoSuchProcess:
            return
        time.sleep(0.1)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    runs = []
    with tempfile.TemporaryDirectory() as name:
        for count in args.pairs:
            folder = Path(name) / str(count)
            make_pairs(folder, count)
            runs.append(measure(folder, args.workers))
        least = measure(Path(name) / str(args.pairs[0]), 1)
    first, last = runs[0], runs[-1]
    result = {
        "benchmark": "evaluate",
        "metrics": METRICS,
        "size": f"{EDGE}x{EDGE}",
        "runs": runs,
        "baseline": {"what": "one worker", **least},
        "speedup_over_one_worker": round(first["pairs_per_second"] / least["pairs_per_second"], 2),
        "peak_memory_last_over_first": round(last["peak_mib"] / first["peak_mib"], 3),
        **machine(),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
