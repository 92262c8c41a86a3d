"""How fast `hbr degrade` is, and how much memory it takes; prints JSON.

The whole process, start included, on crops of 512x512: with the recipe real-esrgan in as many
processes as there are cores, in one process (the baseline of the ratio), and on a quarter of the
photos, which tells whether memory grows. Then the others once. Run it on a machine that does
nothing else.

Usage: python benchmarks/degrade.py [PHOTOS] [--count 200]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from machine import machine

from hbr.image import Photo, is_photo_name, read_photo, write_photo
from hbr.image.pixels import to_8_bits

PHOTOS = Path("../shared/photos/clothing-co-parsing/val")
EDGE = 512
OTHERS = ("codeformer", "diffbir", "motion-blur")


def write_crops(photos: Path, folder: Path, count: int) -> None:
    """Centre crops of the photos as JPEG; from the second round on they are mirrored or turned."""
    files = sorted(p for p in photos.iterdir() if is_photo_name(p))
    for i in range(count):
        pixels = to_8_bits(read_photo(files[i % len(files)]).pixels)
        h, w = pixels.shape[:2]
        y, x = max(h - EDGE, 0) // 2, max(w - EDGE, 0) // 2
        square = np.rot90(pixels[y : y + EDGE, x : x + EDGE], i // len(files))
        write_photo(Photo.from_array(np.ascontiguousarray(square)), folder / f"{i:05d}.jpg")


def run(hq: Path, count: int, *options: str) -> dict[str, float]:
    """Seconds, photos a second and peak memory of all processes of a run."""
    with tempfile.TemporaryDirectory() as out:
        hbr = str(Path(sys.executable).with_name("hbr"))
        command = [hbr, "degrade", "-i", str(hq), "-o", out, *options]
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        peak = _Peak(process.pid)
        if process.wait() != 0:
            raise SystemExit(f"{command} ended with {process.returncode}")
        seconds = time.perf_counter() - started
        peak.stop()
        made = len(list(Path(out).glob("*.png")))
    if made != count:
        raise SystemExit(f"{made} of {count} photos were made")
    return {
        "photos": count,
        "seconds": round(seconds, 2),
        "photos_a_second": round(count / seconds, 2),
        "peak_mib": round(peak.bytes / 1024**2),
    }


class _Peak(threading.Thread):
    """The most memory that a process and its children held, looked at twenty times a second."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.bytes = 0
        self._process = psutil.Process(pid)
        self._ended = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._ended.wait(0.05):
            try:
                family = [self._process, *self._process.children(recursive=True)]
                self.bytes = max(self.bytes, sum(p.memory_info().rss for p in family))
            except psutil.NoSuchProcess:
                continue

    def stop(self) -> None:
        self._ended.set()
        self.join()


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("photos", type=Path, nargs="?", default=PHOTOS)
    parser.add_argument("--count", type=int, default=200)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        hq, few = Path(folder) / "hq", Path(folder) / "few"
        write_crops(args.photos, hq, args.count)
        quarter = args.count // 4
        write_crops(args.photos, few, quarter)
        whole = run(hq, args.count)
        alone = run(hq, args.count, "--workers", "1")
        part = run(few, quarter)
        others = {name: run(few, quarter, "--recipe", name) for name in OTHERS}
    result = {
        "benchmark": "degrade",
        "recipe": "real-esrgan",
        "size": [EDGE, EDGE],
        "all_cores": whole,
        "one_process": alone,
        "speedup_over_one_process": round(alone["seconds"] / whole["seconds"], 2),
        "quarter_of_the_photos": part,
        "memory_over_that_of_a_quarter": round(whole["peak_mib"] / part["peak_mib"], 2),
        "other_recipes": others,
        **machine(),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
