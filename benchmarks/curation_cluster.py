"""Four million images on 1, 8 and 64 GPUs, simulated; prints the costs and a Markdown table.

What a core costs is measured here, on the photos of coco-cc under the settings of PERSONA without
its detector and metrics: CPU milliseconds of the stages for an image, of the driver for an image,
and of the passes over the whole set for a row. What a GPU costs is an assumption, and an argument.

Usage: python benchmarks/curation_cluster.py [--images 4000000] [--detect-ms 8] [--unlabelled 0.022]
           [--metrics-ms 45] [--crops 0.11] [--storage 2000] [--cores 16] [--rows 20000]
"""

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

from curation_simulation import Cluster, Costs, simulate

from curation import SHARED, Pictures, write_pictures
from hbr.config import load_yaml
from hbr.curation.config import (
    BoxesConfig,
    CropConfig,
    CurationConfig,
    MetricConfig,
    OutputConfig,
    QualityConfig,
    SharpnessConfig,
    SizeConfig,
)
from hbr.curation.engines.local import LocalEngine
from hbr.curation.runs.estimate import estimate_run
from hbr.curation.runs.run import curate
from hbr.curation.sources.configs import CocoConfig

PERSONA = Path(__file__).parents[1] / "src/hbr/recipes/curation/persona.yaml"


def stages(sample: int) -> tuple[float, float]:
    """CPU milliseconds for an image that gives no crop, and what a crop adds."""
    source = CocoConfig(annotations=SHARED / "instances.json", name="coco")
    config = dataclasses.replace(
        load_yaml(CurationConfig, PERSONA),
        sources=(source,),
        boxes=BoxesConfig(),
        quality=QualityConfig(),
    )
    plan = estimate_run(config, sample=sample)
    of_crops = sum(s.ms for s in plan.stages if s.name in ("resize", "phash", "encode"))
    total = sum(s.ms_per_image for s in plan.stages)
    return total - of_crops * plan.crops / plan.sample, of_crops


def driver(rows: int) -> tuple[float, float]:
    """CPU milliseconds of the driver for an image, and of the whole set for a row."""
    config = CurationConfig(
        sharpness=SharpnessConfig(threshold=0),
        size=SizeConfig(longer=8),
        crop=CropConfig(edge=32),
        quality=QualityConfig(
            metrics=(MetricConfig("contrast"), MetricConfig("detail")), top=1 / 3
        ),
        output=OutputConfig(("webdataset",), "jpeg"),
    )
    marks: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pictures(folder / "pictures.bin", rows)
        source = Pictures("made", folder / "pictures.bin", rows)
        began = time.process_time()
        curate(
            config,
            folder / "out",
            engine=LocalEngine(1),
            report=lambda p: marks.setdefault(p.doing, time.process_time()),
            sources=[source],
        )
        end = time.process_time()
    return 1e3 * (marks["set"] - began) / rows, 1e3 * (end - marks["set"]) / rows


def main() -> None:
    """Measure, simulate, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=4_000_000)
    parser.add_argument("--detect-ms", type=float, default=8.0, help="of a GPU, for an image")
    parser.add_argument("--unlabelled", type=float, default=0.022, help="share the detector sees")
    parser.add_argument("--metrics-ms", type=float, default=45.0, help="of a GPU, for a crop")
    parser.add_argument("--crops", type=float, default=0.11, help="for an image, to the metrics")
    parser.add_argument("--storage", type=float, default=2000.0, help="megabytes a second")
    parser.add_argument("--cores", type=int, default=16, help="for each GPU")
    parser.add_argument("--rows", type=int, default=20_000, help="that the driver is measured on")
    args = parser.parse_args()
    image_ms, crop_ms = stages(64)
    driver_ms, row_ms = driver(args.rows)
    print(f"measured: {image_ms:.1f} ms of a core for an image, {crop_ms:.1f} more for each crop;")
    print(f"{driver_ms:.2f} ms of the driver for an image; {row_ms:.2f} ms at the end for a row\n")
    costs = Costs(
        cpu_ms=image_ms + args.crops * crop_ms,
        gpu_ms=args.detect_ms * args.unlabelled,
        crop_gpu_ms=args.metrics_ms,
        crops=args.crops,
        driver_ms=driver_ms,
        row_ms=row_ms,
    )
    print("| GPUs | hours | until the last crop | bound by | cores | GPUs | storage | driver |")
    print("|---:|---:|---:|---|---:|---:|---:|---:|")
    for gpus in (1, 8, 64):
        out = simulate(args.images, costs, Cluster(gpus, args.cores, args.storage))
        busy = " | ".join(f"{out.busy[n]:.0%}" for n in ("cores", "GPUs", "storage", "driver"))
        print(f"| {gpus} | {out.hours:.1f} | {out.crops_hours:.1f} | {out.bound_by} | {busy} |")


if __name__ == "__main__":
    main()
