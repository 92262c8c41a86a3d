"""How fast `hbr curate` works, and in how much memory; prints JSON.

Throughput is of stages a to e: labels given, 640x480 JPEGs in, JPEG 95 crops of 512x512 out, one
process a core and one thread each, from the start of the processes to the last part on disk. With
it come the CPU milliseconds of each stage, which `hbr curate plan` reckons with, and those of the
measures that need no weights. Memory is that of all processes together at their peak, for sets of
growing numbers of rows, each a small picture of its own that goes through every stage.

Run it on a machine that does nothing else.

Usage: python benchmarks/curation.py [--images 4000] [--rows 1000,10000,100000] [--workers 2]
"""

import argparse
import contextlib
import dataclasses
import io
import json
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from hbr.curation.config import (
    CropConfig,
    CurationConfig,
    MetricConfig,
    OutputConfig,
    QualityConfig,
    SharpnessConfig,
    SizeConfig,
)
from hbr.curation.engines.local import LocalEngine
from hbr.curation.pipeline.chunk import Chunk, Task
from hbr.curation.pipeline.stages.measures import MEASURES
from hbr.curation.pipeline.store import Store, add_costs
from hbr.curation.runs.run import curate
from hbr.curation.sources.base import Box, ImageRef, SourceImage
from hbr.processes import cores

SHARED = Path(__file__).parents[2] / "shared/photos/coco-cc"
SIZE = (640, 480)
PLACE = 2048


@dataclasses.dataclass(frozen=True)
class Repeated:
    """Some images again and again, each time under another key."""

    name: str
    images: tuple[SourceImage, ...]
    count: int

    def __iter__(self) -> Iterator[SourceImage]:
        """As many as are asked for."""
        for i in range(self.count):
            image = self.images[i % len(self.images)]
            yield dataclasses.replace(image, source=self.name, key=f"{i:08d}")


def photos(folder: Path) -> tuple[SourceImage, ...]:
    """The photos of coco-cc at 640x480, with their boxes of people."""
    told = json.loads((SHARED / "instances.json").read_text())
    boxes: dict[int, list[list[float]]] = {}
    for annotation in told["annotations"]:
        boxes.setdefault(annotation["image_id"], []).append(annotation["bbox"])
    out = []
    for image in told["images"]:
        path = folder / image["file_name"]
        picture = Image.open(SHARED / "images" / image["file_name"]).convert("RGB")
        across, down = SIZE[0] / image["width"], SIZE[1] / image["height"]
        picture.resize(SIZE, Image.Resampling.LANCZOS).save(path, quality=90)
        people = tuple(
            Box(x * across, y * down, (x + w) * across, (y + h) * down, label="person")
            for x, y, w, h in boxes.get(image["id"], ())
        )
        width, height = SIZE
        out.append(
            SourceImage(
                source="coco",
                key=path.name,
                ref=ImageRef.file(path),
                width=width,
                height=height,
                boxes=people,
            )
        )
    return tuple(out)


def throughput(count: int, workers: int, folder: Path) -> dict[str, object]:
    """Images a second through stages a to e, and what each stage costs."""
    config = CurationConfig(size=SizeConfig(longer=128), output=OutputConfig((), "jpeg"))
    (folder / "in").mkdir()
    source = Repeated("coco", photos(folder / "in"), count)
    out = folder / "out"
    Store(out, config).create()
    tasks = [Task.of(image) for image in source]
    chunks = [Chunk.of(tasks[i : i + config.chunk]) for i in range(0, count, config.chunk)]
    costs: dict[str, tuple[int, float]] = {}
    crops = 0
    began = time.perf_counter()
    for done in LocalEngine(workers).run(config, out, chunks):
        add_costs(costs, done.costs)
        crops += sum(n for (stage, _), n in done.counts.items() if stage == "quality")
    seconds = time.perf_counter() - began
    return {
        "images": count,
        "crops": crops,
        "workers": workers,
        "images_per_second": round(count / seconds, 1),
        "cpu_ms_per_image": round(1e3 * sum(s for _, s in costs.values()) / count, 2),
        "cpu_ms_each": {stage: round(1e3 * s / max(n, 1), 3) for stage, (n, s) in costs.items()},
    }


def measures() -> dict[str, float]:
    """CPU milliseconds of each measure on a crop of 512x512."""
    image = sorted((SHARED / "images").glob("*.jpg"))[0]
    crop = np.asarray(Image.open(image).convert("RGB").resize((512, 512)))
    out = {}
    for name, measure in MEASURES.items():
        measure.of(crop)
        began = time.process_time()
        for _ in range(50):
            measure.of(crop)
        out[name] = round(1e3 * (time.process_time() - began) / 50, 3)
    return out


def memory(rows: int, workers: int, folder: Path) -> dict[str, object]:
    """The peak of all processes together over a whole run, outputs included."""
    folder.mkdir()
    write_pictures(folder / "pictures.bin", rows)
    process = multiprocessing.get_context("spawn").Process(
        target=small_run, args=(rows, workers, folder)
    )
    began, peak = time.perf_counter(), 0
    process.start()
    watched = psutil.Process(process.pid)
    while process.is_alive():
        peak = max(peak, in_use(watched))
        time.sleep(0.05)
    seconds = time.perf_counter() - began
    assert process.exitcode == 0
    return {
        "rows": rows,
        "peak_mib": round(peak / 2**20),
        "rows_per_second": round(rows / seconds),
    }


def in_use(process: psutil.Process) -> int:
    """Bytes of memory of a process and its children."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            total += one.memory_info().rss
    return total


def small_run(rows: int, workers: int, folder: Path) -> None:
    """Curate small pictures; a process of its own, so that its memory can be told."""
    config = CurationConfig(
        sharpness=SharpnessConfig(threshold=0),
        size=SizeConfig(longer=8),
        crop=CropConfig(edge=32),
        quality=QualityConfig(metrics=(MetricConfig("contrast"), MetricConfig("detail")), top=0.5),
        output=OutputConfig(("webdataset",), "jpeg"),
    )
    source = Pictures("made", folder / "pictures.bin", rows)
    summary = curate(config, folder / "out", engine=LocalEngine(workers), sources=[source])
    assert summary.rows == rows


def write_pictures(path: Path, count: int) -> None:
    """Different JPEGs of 48x32 in one file, each in a place of the same size."""
    with path.open("wb") as file:
        for i in range(count):
            rng = np.random.default_rng(i)
            small = Image.fromarray(rng.integers(0, 256, (8, 12, 3), np.uint8))
            buffer = io.BytesIO()
            small.resize((48, 32), Image.Resampling.BICUBIC).save(buffer, "JPEG")
            file.write(buffer.getvalue().ljust(PLACE, b"\0"))


@dataclasses.dataclass(frozen=True)
class Pictures:
    """The pictures of such a file."""

    name: str
    path: Path
    count: int

    def __iter__(self) -> Iterator[SourceImage]:
        """One after the other."""
        person = (Box(8, 0, 40, 32, label="person"),)
        for i in range(self.count):
            ref = ImageRef(path=str(self.path), offset=i * PLACE, size=PLACE)
            yield SourceImage(
                source=self.name, key=f"{i:08d}", ref=ref, width=48, height=32, boxes=person
            )


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--rows", default="1000,10000,100000")
    parser.add_argument("--workers", type=int, default=cores())
    args = parser.parse_args()
    from machine import machine  # it loads torch, which no process of a run does

    result: dict[str, object] = {"benchmark": "curation"}
    with tempfile.TemporaryDirectory() as folder:
        result["memory"] = [
            memory(rows, args.workers, Path(folder) / f"rows{rows}")
            for rows in map(int, args.rows.split(","))
        ]
    with tempfile.TemporaryDirectory() as folder:
        result["stages_a_to_e"] = throughput(args.images, args.workers, Path(folder))
    result["cpu_ms_of_measures"] = measures()
    print(json.dumps({**result, **machine()}, indent=1))


if __name__ == "__main__":
    main()
