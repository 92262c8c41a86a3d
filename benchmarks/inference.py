"""How fast one-step models restore on the CPU; writes JSON and one page.

Each model is compared with (a) the plain path of the public code (`plain_path.py`: diffusers and
peft, float32, separate adapters, tile by tile), in turns in the same process and with the same
weights, whole and by parts; and (b) the floor: its multiplications at the machine's measured peak
in any precision, or its bytes at the measured speed of a copy. Then latency and memory against
size, throughput against batch, scaling with cores, `hbr restore` as a process, every backend, and
what a thousand images of 512x512 take. "full" is Stable Diffusion 2.1's size with Swin-L and random
weights. Times are the best of some rounds; with OMP_NUM_THREADS=1 they are processor time, for a
machine with other work.

Usage: python benchmarks/inference.py [--models nano full] [--sizes 256 512 1024 2048 4096]
       [--batches 1 2 4 8 16 32] [--price PER_HOUR] [--out benchmarks/results] [--small]
"""

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from full_size import build, parts_of, small
from inference_page import write_page
from machine import machine
from plain_path import Numbers, PlainRestorer
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from hbr.devices import choose_dtype, keep_freed_memory, release_freed_memory, torch_dtype
from hbr.errors import HbrError
from hbr.image import Photo, read_photo, write_photo
from hbr.models import OneStepRestorer, RestorerConfig, load_model
from hbr.models.checkpoint import assemble
from hbr.models.config import HFIEConfig
from hbr.models.files import Header
from hbr.models.inference.folding import optimize
from hbr.models.inference.restorer import FoldedRestorer
from hbr.models.lora import merged_state
from hbr.models.protocol import BACKENDS
from hbr.models.schedule import alphas_cumprod
from hbr.restoration import Restorer

ROUNDS = 3
PEAK_ROUNDS, PEAK_EDGE = 9, 2048  # of the products that show what the machine does
SLOW = 5.0  # what takes longer than these seconds is measured once
PARTS = ("prompt", "encode", "denoise", "decode")


def numbers_of(config: RestorerConfig) -> Numbers:
    """What the plain path is built from."""
    prompt, a, u = config.prompt, config.autoencoder, config.unet
    assert isinstance(prompt, HFIEConfig)
    levels, channels = len(a.block_out_channels), 3 * a.patch_size**2
    swin = prompt.encoder
    return Numbers(
        autoencoder={
            "in_channels": channels,
            "out_channels": channels,
            "down_block_types": ("DownEncoderBlock2D",) * levels,
            "up_block_types": ("UpDecoderBlock2D",) * levels,
            "block_out_channels": a.block_out_channels,
            "layers_per_block": a.layers_per_block,
            "latent_channels": a.latent_channels,
            "norm_num_groups": a.norm_num_groups,
            "mid_block_add_attention": a.mid_attention,
        },
        unet={
            "in_channels": a.latent_channels,
            "out_channels": a.latent_channels,
            "down_block_types": _blocks(u.attention, "CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": _blocks(u.attention[::-1], "CrossAttnUpBlock2D", "UpBlock2D"),
            "block_out_channels": u.block_out_channels,
            "layers_per_block": u.layers_per_block,
            "attention_head_dim": u.attention_head_dim,
            "cross_attention_dim": u.cross_attention_dim,
            "norm_num_groups": u.norm_num_groups,
            "use_linear_projection": u.use_linear_projection,
        },
        swin={
            "image_size": swin.image_size,
            "patch_size": 4,
            "embed_dim": swin.embed_dim,
            "depths": list(swin.depths),
            "num_heads": list(swin.num_heads),
            "window_size": swin.window_size,
        },
        projected=swin.proj_dim,
        queries=(prompt.n_queries, prompt.width),
        heads=prompt.heads,
        timestep=config.timestep,
        alpha_bar=float(alphas_cumprod(config.schedule)[config.timestep]),
        patch_size=a.patch_size,
        scaling=a.scaling_factor,
        refiner=None if config.refiner is None else vars(config.refiner),
    )


def _blocks(attention: tuple[bool, ...], with_it: str, without: str) -> tuple[str, ...]:
    return tuple(with_it if wanted else without for wanted in attention)


def state_of(plain: PlainRestorer) -> dict[str, Tensor]:
    """The weights of the plain path by hbr's names, adapters merged."""
    state = {}
    for name in ("autoencoder", "unet"):
        merged = merged_state(getattr(plain, name), ["default"])
        state.update({f"{name}.{key}": tensor for key, tensor in merged.items()})
    for key, tensor in plain.prompt.state_dict().items():
        inside = key.startswith(("swin.", "image_proj."))
        state[f"prompt.encoder.{key}" if inside else f"prompt.{key}"] = tensor
    if plain.refiner is not None:
        refiner = plain.refiner.state_dict()
        state.update({f"refiner.{key}": tensor for key, tensor in refiner.items()})
    return state


def load_plain(plain: PlainRestorer, model: OneStepRestorer) -> None:
    """Give the plain path, without adapters, the weights of a model."""
    state = {name: tensor.float() for name, tensor in model.state_dict().items()}
    state = {name.replace("prompt.encoder.", "prompt."): t for name, t in state.items()}
    plain.load_state_dict(state)


def folded_of(config: RestorerConfig, state: dict[str, Tensor]) -> FoldedRestorer:
    """hbr's model for inference, in the precision that suits this machine."""
    header = Header(
        config=config, shapes={name: tuple(tensor.shape) for name, tensor in state.items()}, card={}
    )
    model = assemble(
        *(header, state.items(), "the plain path", "cpu", chosen_dtype(), torch.channels_last)
    )
    assert isinstance(model, OneStepRestorer)
    return optimize(model)


def chosen_dtype() -> torch.dtype:
    """What `--dtype auto` stands for."""
    return torch_dtype(choose_dtype("auto", torch.device("cpu")))


def pair(name: str, rank: int = 4) -> tuple[FoldedRestorer, PlainRestorer, RestorerConfig]:
    """A model of hbr and the plain path with the same weights."""
    torch.manual_seed(0)
    if name == "nano":
        model = load_model("nano")
        assert isinstance(model, OneStepRestorer)
        plain = PlainRestorer(numbers_of(model.config), rank=0)
        load_plain(plain, model)
        return folded_of(model.config, model.state_dict()), plain, model.config
    config = config_of(name)
    plain = PlainRestorer(numbers_of(config), rank)
    return folded_of(config, state_of(plain)), plain, config


def config_of(name: str) -> RestorerConfig:
    """The model of a name."""
    return small() if name == "small" else RestorerConfig()


def clock() -> float:
    """Seconds; with one thread those of the processor, which other work leaves alone."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def best(runs: dict[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """Seconds of each, the best of some rounds that take turns."""
    times: dict[str, float] = {}
    with torch.inference_mode():
        for at in range(rounds):
            for key, run in runs.items():
                if at and times[key] > SLOW:
                    continue
                started = clock()
                run()
                times[key] = min(times.get(key, float("inf")), clock() - started)
    return {key: round(seconds, 4) for key, seconds in times.items()}


def peaks() -> dict[str, float]:
    """What the machine does: large products and a convolution in GFLOP/s, a large copy in GB/s."""
    n = PEAK_EDGE
    a, b = torch.randn(2, n, n)
    ah, bh = a.bfloat16(), b.bfloat16()
    source = torch.zeros(2**27, dtype=torch.uint8)
    target = torch.empty_like(source)
    x = torch.randn(1, 256, 64, 64).contiguous(memory_format=torch.channels_last)
    kernel = torch.randn(256, 256, 3, 3).contiguous(memory_format=torch.channels_last)
    xh, kernel_h = x.bfloat16(), kernel.bfloat16()
    convolution = 2 * kernel.numel() * 64**2
    runs: dict[str, tuple[float, Callable[[], object]]] = {
        "float32": (2 * n**3, lambda: a @ b),
        "bfloat16": (2 * n**3, lambda: ah @ bh),
        "float32_convolution": (convolution, lambda: F.conv2d(x, kernel, padding=1)),
        "bfloat16_convolution": (convolution, lambda: F.conv2d(xh, kernel_h, padding=1)),
    }
    seconds = best(
        {**{key: run for key, (_, run) in runs.items()}, "copy": lambda: target.copy_(source)},
        PEAK_ROUNDS,
    )
    made = {f"{key}_gflops": round(work / seconds[key] / 1e9, 1) for key, (work, _) in runs.items()}
    return {**made, "copy_gb_s": round(2 * len(source) / seconds["copy"] / 1e9, 1)}


def flops(run: Callable[[], object]) -> float:
    """Multiplications and additions of convolutions, products and attention, in GFLOP."""
    counter, fake = FlopCounterMode(display=False), FakeTensorMode(allow_non_fake_inputs=True)
    # as products of matrices, since the counter does not know torch's attention on CPUs
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), fake, counter:
        run()
    return round(counter.get_total_flops() / 1e9, 2)


def compare(name: str) -> dict[str, Any]:
    """hbr and the plain path in turns, and the floor of each part."""
    keep_freed_memory()
    model, plain, config = pair(name)
    release_freed_memory()
    edge = config.native_size
    image = torch.rand(1, 3, edge, edge)
    ours = parts_of(model, image.contiguous(memory_format=torch.channels_last))
    theirs = parts_of(plain, image)
    with torch.inference_mode():
        made, exact = ours["whole"](), theirs["whole"]()
    error = (made - exact).double().square().mean()
    spread = exact.double().quantile(0.999) - exact.double().quantile(0.001)
    turns = (("hbr", ours), ("plain", theirs))
    seconds = best({f"{who}.{key}": run for who, runs in turns for key, run in runs.items()})
    machine_peaks = peaks()
    fastest = max(v for key, v in machine_peaks.items() if key.endswith("gflops"))
    result: dict[str, Any] = {"image": [edge, edge], "dtype": str(chosen_dtype())}
    result |= {"peaks": machine_peaks, "parts": {}}
    for key in ("whole", *PARTS):
        work, plain_work = flops(ours[key]), flops(theirs[key])
        floor = work / fastest
        result["parts"][key] = {
            "seconds": seconds[f"hbr.{key}"],
            "plain_seconds": seconds[f"plain.{key}"],
            "speedup": round(seconds[f"plain.{key}"] / seconds[f"hbr.{key}"], 2),
            "gflop": work,
            "plain_gflop": plain_work,
            "floor_seconds": round(floor, 4),
            "times_floor": round(seconds[f"hbr.{key}"] / floor, 2),
        }
    result["bytes_floor_seconds"] = round(
        sum(p.numel() * p.element_size() for p in model.parameters())
        / (machine_peaks["copy_gb_s"] * 1e9 / 2),
        4,
    )
    result["psnr_to_plain_of_its_spread"] = round(float(10 * (spread**2 / error).log10()), 1)
    result["savings"] = [vars(saving) for saving in model.savings]
    return result


def restorer_of(name: str) -> Restorer:
    """hbr's restorer alone, as `hbr restore` has it."""
    if name == "nano":
        return Restorer.from_pretrained("nano", device="cpu")
    keep_freed_memory()
    model = Restorer(optimize(build(config_of(name), chosen_dtype())))
    release_freed_memory()
    return model


def latency(name: str, size: int) -> dict[str, Any]:
    """Seconds of one image of this size through tiles, and the process's peak of memory."""
    restorer = restorer_of(name)
    pixels = (torch.rand(size, size, 3) * 255).byte().numpy()
    rounds = ROUNDS if size <= 1024 else 1
    restorer(pixels[:256, :256], color="none")
    seconds = best({"": lambda: restorer(pixels, color="none")}, rounds)[""]
    return {"size": size, "seconds": seconds, "peak_gib": peak_gib()}


def throughput(name: str, batches: list[int]) -> list[dict[str, float]]:
    """Images of the native size a second, by the number in a batch."""
    restorer = restorer_of(name)
    edge = restorer.capabilities.native_size
    rows = []
    for batch in batches:
        image = torch.rand(batch, 3, edge, edge).contiguous(memory_format=torch.channels_last)
        seconds = best({"": lambda image=image: restorer.model(image)}, 2)[""]  # type: ignore[misc]
        rows.append({"batch": batch, "images_per_second": round(batch / seconds, 3)})
    return rows


def backends(name: str) -> list[dict[str, Any]]:
    """Seconds of one tile of the native size in each backend that is installed, in turns."""
    runs: dict[str, Callable[[], object]] = {}
    for backend, dtype in itertools.product(BACKENDS, ("float32", "bfloat16", "int8")):
        try:
            restorer = Restorer.from_pretrained(name, "cpu", dtype, backend=backend)
        except (HbrError, ValueError) as error:  # not installed, not compiled, not calibrated
            print(f"{backend}, {dtype}: {error}", file=sys.stderr)
            continue
        edge = restorer.capabilities.native_size
        pixels = (torch.rand(edge, edge, 3) * 255).byte().numpy()
        runs[f"{backend}.{dtype}"] = partial(restorer, pixels, color="none")
    for run in runs.values():
        run()
    return [
        {**dict(zip(("backend", "dtype"), key.split("."), strict=True)), "seconds": seconds}
        for key, seconds in best(runs).items()
    ]


def process(height: int, width: int) -> dict[str, Any]:
    """Seconds and peak of memory of `hbr restore` on one JPEG of this size."""
    example = read_photo(Path(__file__).parents[1] / "examples/lq/suit.jpg").pixels
    h, w = example.shape[:2]
    pixels = np.tile(example, (-(-height // h), -(-width // w), 1))[:height, :width].copy()
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.jpg", Path(folder) / "out.png"
        write_photo(Photo.from_array(pixels), source)
        hbr_command = str(Path(sys.executable).with_name("hbr"))
        command = [hbr_command, "restore", "-i", str(source), "-o", str(target)]
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    return {"size": [height, width], "seconds": round(seconds, 2), "peak_gib": round(peak, 2)}


def peak_gib() -> float:
    """The most memory that this process has had."""
    status = Path("/proc/self/status").read_text()
    return round(int(status.split("VmHWM:")[1].split()[0]) / 2**20, 2)


def alone(*arguments: object, threads: int | None = None) -> Any:
    """One measurement in a process of its own."""
    command = [sys.executable, __file__, "--alone", *map(str, arguments)]
    environment = {**os.environ, **({"OMP_NUM_THREADS": str(threads)} if threads else {})}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def measure(name: str, sizes: list[int], batches: list[int], price: float | None) -> dict[str, Any]:
    """Everything about one model."""
    cores = len(os.sched_getaffinity(0))
    result: dict[str, Any] = {"benchmark": "inference", "model": name, **machine()}
    result["compared"] = alone("compare", name)
    result["sizes"] = [alone("latency", name, size) for size in sizes]
    result["batches"] = alone("throughput", name, *batches)
    result["threads"] = [
        {"threads": n, **alone("latency", name, 512, threads=n)} for n in range(1, cores + 1)
    ]
    if name == "nano":
        photos = ((512, 512), (3000, 4000))
        result["processes"] = [alone("process", *size) for size in photos]
        result["backends"] = alone("backends", name)
    seconds = result["compared"]["parts"]["whole"]["seconds"]
    hours = 1000 * seconds / 3600
    result["thousand_images"] = {"hours": round(hours, 4), "core_hours": round(hours * cores, 4)}
    if price is not None:
        result["thousand_images"]["cost"] = round(hours * price, 4)
    return result


MEASUREMENTS: dict[str, Callable[..., Any]] = {
    "backends": backends,
    "compare": compare,
    "latency": lambda name, size: latency(name, int(size)),
    "process": lambda height, width: process(int(height), int(width)),
    "throughput": lambda name, *batches: throughput(name, [int(b) for b in batches]),
}


def main() -> None:
    """Measure, and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", default=["nano", "full"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[256, 512, 1024, 2048, 4096])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--price", type=float, help="of the machine, an hour")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--small", action="store_true", help="toy sizes, to try this file")
    parser.add_argument("--alone", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        what, *arguments = args.alone
        print(json.dumps(MEASUREMENTS[what](*arguments)))
        return
    if args.small:
        args.models, args.sizes, args.batches = ["small"], [128, 256], [1, 2]
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.models:
        result = measure(name, args.sizes, args.batches, args.price)
        text = json.dumps(result, indent=1)
        (args.out / f"inference-{name}.json").write_text(text + "\n")
        print(text)
    write_page(args.out)


if __name__ == "__main__":
    main()
