"""Speed and memory of a one-step restorer of Stable Diffusion 2.1 size on a GPU; prints JSON.

Random weights in bfloat16, channels last, with Swin-L HFIE, rewritten as `hbr restore` does. One
image and a batch of 512x512, each eager and as one CUDA graph; the parts as graphs, and the
kernels that take longest; a photo of 2048x2048 through tiles, from pixels to pixels. With
--compile, in place of parts, kernels and photo: all but the prompt through torch.compile. Beside
them, what the card itself does in the same run: a large matrix product and a large copy. Times are
medians of CUDA events after a warm-up. A part that fails is written down as its error. Targets:
12 ms or less for one image, 90 images a second at batch 16, 0.4 s for 2048x2048.

Usage: python benchmarks/gpu_inference.py [--batches 1 16] [--compile] [--detector] [--small]
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
from full_size import build, parts_of, small
from machine import machine

from hbr.models import RestorerConfig
from hbr.models.inference.folding import optimize
from hbr.models.inference.recorded import RecordedModel
from hbr.models.inference.restorer import FoldedRestorer
from hbr.restoration import Restorer


class Timer:
    """Milliseconds of work on a device; on the CPU by the clock."""

    def __init__(self, device: str, repeats: int) -> None:
        self.device, self.repeats = device, repeats

    def __call__(self, work: Callable[[], object]) -> float:
        """Median of some runs after two of warm-up."""
        for _ in range(2):
            work()
        return round(median(self._once(work) for _ in range(self.repeats)), 3)

    def _once(self, work: Callable[[], object]) -> float:
        if self.device == "cpu":
            started = time.perf_counter()
            work()
            return (time.perf_counter() - started) * 1000
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        work()
        ended.record()
        torch.cuda.synchronize()
        return began.elapsed_time(ended)


def peak_of(device: str, timer: Timer, edge: int) -> dict[str, float]:
    """What the device reaches: TFLOP/s of a bf16 matrix product, GB/s of a copy."""
    a, b = (torch.randn(edge, edge, dtype=torch.bfloat16, device=device) for _ in range(2))
    copied = torch.empty(edge * edge * 8, dtype=torch.uint8, device=device)
    target = torch.empty_like(copied)
    product, copy = timer(lambda: a @ b), timer(lambda: target.copy_(copied))
    return {
        "matmul_tflops": round(2 * edge**3 / product / 1e9, 1),
        "copy_gb_a_second": round(2 * copied.numel() / copy / 1e6, 1),
    }


def captured(model: Callable[..., object], image: torch.Tensor) -> Callable[[], object]:
    """The whole path as one CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            model(image)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        model(image)
    return graph.replay


def graph_of(run: Callable[[], object], image: torch.Tensor) -> Callable[[], object]:
    """A part of the path as a CUDA graph; on a CPU as it is."""
    return captured(lambda _: run(), image) if image.device.type == "cuda" else run


def ways(
    model: FoldedRestorer, image: torch.Tensor, timer: Timer, compiled: bool
) -> dict[str, Any]:
    """Milliseconds of one batch, each way."""

    found: dict[str, Any] = {"eager": timer(lambda: model(image))}
    on_gpu = image.device.type == "cuda"
    if on_gpu:
        found["graph"] = attempt(lambda: timer(captured(model, image)))
    if compiled:
        compiled_model = torch.compile(model.forward, dynamic=False)
        # the prompt takes little time and has much Python, which is not compiled

        def run(image: torch.Tensor) -> object:
            return compiled_model(image, model.prompt(image))

        found["compiled"] = attempt(lambda: timer(lambda: run(image)))
        if on_gpu:
            found["compiled, graph"] = attempt(lambda: timer(captured(run, image)))
    return found


def kernels(work: Callable[[], object], device: str) -> dict[str, float]:
    """Milliseconds of those that take longest in one run; operators where there are none."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device == "cuda":
        activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiled:
        work()
        if device == "cuda":
            torch.cuda.synchronize()
    spent: dict[str, float] = defaultdict(float)
    for event in profiled.key_averages():
        spent[event.key[:80]] += (
            event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
        ) / 1000
    return {name: round(spent[name], 3) for name in sorted(spent, key=lambda n: -spent[n])[:15]}


def attempt(work: Callable[[], Any]) -> Any:
    """The result, or the error in one line."""
    try:
        return work()
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def large_photo(model: FoldedRestorer, edge: int) -> dict[str, Any]:
    """Seconds of a photo through tiles; the first run is the warm-up."""
    whole = RecordedModel(model) if model.device.type == "cuda" else model
    restorer = Restorer(whole, name="random weights", sha256="")
    pixels = np.random.default_rng(0).integers(0, 256, (edge, edge, 3), dtype=np.uint8)
    restored = [restorer(pixels, color="none") for _ in range(3)][-1]
    return {
        "edge": edge,
        "seconds": {name: round(t, 3) for name, t in restored.timings.items()},
        "tiles": restored.provenance["tiles"],
        "batch": restored.provenance["batch"],
    }


def detector_speed(device: str, timer: Timer, batch: int, edge: int) -> dict[str, Any]:
    """Photos a second of RT-DETR with ResNet-50 at random weights, 640x640, float32."""
    from transformers import RTDetrConfig, RTDetrForObjectDetection

    model = RTDetrForObjectDetection(RTDetrConfig()).eval().to(device)
    photos = torch.rand(batch, 3, edge, edge, device=device)
    each = timer(lambda: model(photos))
    return {"batch": batch, "ms": each, "photos_a_second": round(batch / each * 1000, 1)}


@torch.inference_mode()
def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Everything, part by part."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    timer = Timer(device, 1 if args.small else 10)
    edge, batches = (128, [1, 2]) if args.small else (512, args.batches)
    torch.backends.cudnn.benchmark = True
    model = optimize(build(small() if args.small else RestorerConfig()).to(device))
    result: dict[str, Any] = {
        "peak": attempt(lambda: peak_of(device, timer, edge * 8 if args.small else 8192))
    }
    for batch in batches:
        image = torch.rand(batch, 3, edge, edge, device=device)
        image = image.contiguous(memory_format=torch.channels_last)
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        found = ways(model, image, timer, args.compile)
        numbers = [ms for ms in found.values() if isinstance(ms, float)]
        result[f"batch_{batch}"] = {
            "ms": found,
            "images_a_second": round(batch / min(numbers) * 1000, 1),
            "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2) if numbers else None,
        }
        if not args.compile:
            result[f"batch_{batch}"] |= {
                "parts_ms": {
                    name: attempt(lambda run=run, image=image: timer(graph_of(run, image)))
                    for name, run in parts_of(model, image).items()
                },
                "kernels_ms": attempt(lambda image=image: kernels(lambda: model(image), device)),
            }
    if not args.compile:
        result["photo"] = attempt(lambda: large_photo(model, 4 * edge))
    if args.detector:
        result["detector"] = attempt(lambda: detector_speed(device, timer, batches[-1], 640))
    return result


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16], help="images of a batch")
    parser.add_argument("--compile", action="store_true", help="torch.compile, and no parts")
    parser.add_argument("--detector", action="store_true", help="a detector of people too")
    parser.add_argument("--small", action="store_true", help="toy width, to try this file")
    args = parser.parse_args()
    if not (args.small or torch.cuda.is_available()):
        sys.exit("gpu_inference.py needs a CUDA device, and torch sees none; --small tries it")
    result = {"benchmark": "inference on a GPU", "dtype": "bfloat16", **measure(args)}
    print(json.dumps({**result, **machine()}, indent=1))


if __name__ == "__main__":
    main()
