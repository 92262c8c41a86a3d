"""How `hbr curate --engine ray` grows with its workers; prints JSON.

Stages a to e, as in benchmarks/curation.py: all of it is work for the CPU. Rates are from when the
workers have done two chunks each to the last part on disk; Ray's start is `start_seconds`.
`scaling` is the rate of all workers over that of one, times as many. The processes of
`--engine local` come with it: what they do not reach, for want of cores or of memory's speed, Ray
cannot either.

Run it on a machine that does nothing else. Ray runs on this machine alone; with `--address`, on the
cluster that answers there, and in a `--folder` that its machines share.

Usage: python benchmarks/curation_ray.py [--images 6000] [--workers 2]
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from curation import Repeated, photos
from hbr.curation.config import CurationConfig, OutputConfig, SizeConfig
from hbr.curation.engines.local import LocalEngine
from hbr.curation.engines.ray import RayEngine
from hbr.curation.pipeline.chunk import Task
from hbr.curation.pipeline.plan import write_plan
from hbr.curation.pipeline.store import Store
from hbr.processes import cores


def rate(
    engine: LocalEngine | RayEngine, workers: int, count: int, source: Repeated, out: Path
) -> dict[str, float]:
    """Images a second, once all workers are at work."""
    config = CurationConfig(size=SizeConfig(longer=128), output=OutputConfig((), "jpeg"), chunk=64)
    Store(out, config).create()

    plan = write_plan(out / "plan.parquet", map(Task.of, source), config.chunk)
    began = time.perf_counter()
    moments = []
    images = 0
    for done in engine.run(config, out, plan):
        images += done.images
        moments.append((time.perf_counter(), images))
    (first, before), (last, after) = moments[2 * workers - 1], moments[-1]
    return {
        "workers": workers,
        "images": count,
        "images_per_second": round((after - before) / (last - first), 1),
        "start_seconds": round(moments[0][0] - began, 1),
    }


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--workers", type=int, default=cores())
    parser.add_argument("--address", help="of a cluster that runs, as `hbr curate` takes it")
    parser.add_argument("--folder", type=Path, help="shared by the machines of that cluster")
    args = parser.parse_args()
    from machine import machine  # it loads torch, which no process of a run does

    result: dict[str, object] = {"benchmark": "curation_ray"}
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        (folder / "in").mkdir()
        source = Repeated("coco", photos(folder / "in"), args.images)
        for kind in ("local", "ray"):
            rates = []
            for workers in sorted({1, args.workers}):
                engine = (
                    LocalEngine(workers)
                    if kind == "local"
                    else RayEngine(address=args.address, workers=workers)
                )
                out = folder / f"{kind}{workers}"
                rates.append(rate(engine, workers, args.images, source, out))
            one, many = (found["images_per_second"] for found in (rates[0], rates[-1]))
            result[kind] = {"rates": rates, "scaling": round(many / (args.workers * one), 3)}
    print(json.dumps({**result, **machine()}, indent=1))


if __name__ == "__main__":
    main()
