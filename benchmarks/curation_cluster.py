"""Four million images on 1, 8 and 64 GPUs, simulated from stage costs; prints a Markdown table.

The milliseconds of cores come from `hbr curate plan` or from benchmarks/curation.py, as JSON with
`cpu_ms_per_image`; those of GPUs are assumptions until somebody gives measured ones.

Usage: python benchmarks/curation_cluster.py [--images 4000000] [--cpu-ms 14] [--crops 0.5]
           [--detect-ms 8] [--unlabelled 0.022] [--metrics-ms 45] [--storage 2000] [--cores 16]
"""

import argparse

from hbr.curation.simulation import Cluster, Costs, simulate


def main() -> None:
    """Simulate, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=4_000_000)
    parser.add_argument("--cpu-ms", type=float, default=14.0, help="of a core, for an image")
    parser.add_argument("--crops", type=float, default=0.5, help="for an image, to the metrics")
    parser.add_argument("--detect-ms", type=float, default=8.0, help="of a GPU, for an image")
    parser.add_argument("--unlabelled", type=float, default=0.022, help="share the detector sees")
    parser.add_argument("--metrics-ms", type=float, default=45.0, help="of a GPU, for a crop")
    parser.add_argument("--storage", type=float, default=2000.0, help="megabytes a second")
    parser.add_argument("--cores", type=int, default=16, help="for each GPU")
    args = parser.parse_args()
    costs = Costs(args.cpu_ms, args.detect_ms * args.unlabelled, args.metrics_ms, args.crops)
    print("| GPUs | hours | of these, the crops | bound by | cores | GPUs | storage | driver |")
    print("|---:|---:|---:|---|---:|---:|---:|---:|")
    for gpus in (1, 8, 64):
        out = simulate(args.images, costs, Cluster(gpus, args.cores, args.storage))
        busy = " | ".join(f"{out.busy[n]:.0%}" for n in ("cores", "GPUs", "storage", "driver"))
        print(f"| {gpus} | {out.hours:.1f} | {out.crops_hours:.1f} | {out.bound_by} | {busy} |")


if __name__ == "__main__":
    main()
