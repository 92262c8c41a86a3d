"""Speed and memory of a one-step restorer of Stable Diffusion 2.1 size on the CPU; prints JSON.

The weights are random, in bfloat16, as `hbr.models.load_model(..., dtype=torch.bfloat16)` has them.
One 512x512 image, best of two runs after a warm-up, and the same by parts. `--baseline` runs the
same parts the plain way (float32, channels first) afterwards, one at a time; the peak of memory is
taken before that. Target on 2 cores: 9 s or less, 4 GB or less. Run it on a machine that does
nothing else.

Usage: python benchmarks/full_size.py [--baseline] [--size 512] [--small]
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from machine import machine
from torch import Tensor, nn

from hbr.models import OneStepRestorer, RestorerConfig
from hbr.models.checkpoint import assemble, empty
from hbr.models.config import AutoencoderConfig, HFIEConfig, ImageEncoderConfig, UNetConfig
from hbr.models.files import Header
from hbr.models.schedule import one_step

Part = Callable[[], Tensor]


def small() -> RestorerConfig:
    """The same network at toy width, to try this file."""
    encoder = ImageEncoderConfig(image_size=96, embed_dim=16, depths=(2, 2), num_heads=(2, 2))
    return RestorerConfig(
        autoencoder=AutoencoderConfig(block_out_channels=(32, 32, 32, 32), layers_per_block=1),
        unet=replace(
            UNetConfig(), block_out_channels=(32, 32, 32, 32), attention_head_dim=(1,) * 4
        ),
        prompt=HFIEConfig(encoder=replace(encoder, window_size=12)),
    )


def build(config: RestorerConfig) -> OneStepRestorer:
    """A restorer with random weights that never were in float32."""
    shapes = {name: tuple(t.shape) for name, t in empty(config).state_dict().items()}
    header = Header(config, shapes, {})
    return assemble(
        header, _random(shapes), "random weights", "cpu", torch.bfloat16, torch.channels_last
    )


def _random(shapes: dict[str, tuple[int, ...]]) -> Iterator[tuple[str, Tensor]]:
    torch.manual_seed(0)
    for name, shape in shapes.items():
        tensor = torch.empty(shape, dtype=torch.bfloat16)
        if len(shape) > 1:
            bound = tensor[0].numel() ** -0.5  # keeps activations finite
            tensor.uniform_(-bound, bound)
        else:
            tensor.fill_(1.0 if name.endswith("weight") else 0.0)
        yield name, tensor


def parts(model: OneStepRestorer, image: Tensor) -> dict[str, Part]:
    """The network's four parts, each with what the ones before give it."""
    with torch.inference_mode():
        p = model.prompt(image)
        z_l = model.encode(image)
        epsilon = model.predict(z_l, p)
        z_h = one_step(z_l, epsilon, model.alpha_bar)
    return {
        "prompt": lambda: model.prompt(image),
        "encode": lambda: model.encode(image),
        "unet": lambda: model.predict(z_l, p),
        "decode": lambda: model.decode(z_h),
    }


@torch.inference_mode()
def seconds(run: Part, repeats: int = 2) -> float:
    """Best of some runs."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        result = run()
        times.append(time.perf_counter() - started)
        if not torch.isfinite(result).all():
            sys.exit("the random network's output is not finite")
    return min(times)


def plain_seconds(model: OneStepRestorer, runs: dict[str, Part]) -> dict[str, float]:
    """The parts in float32 with channels first; takes the model's weights apart for it."""
    modules: dict[str, tuple[nn.Module, ...]] = {
        "prompt": (model.prompt,),
        "encode": (model.autoencoder,),
        "unet": (model.unet,),
        "decode": (model.autoencoder,),
    }
    times = {}
    for name, run in runs.items():
        for module in modules[name]:
            for tensor in (*module.parameters(), *module.buffers()):
                if tensor.is_floating_point():
                    tensor.data = tensor.data.float().contiguous()
        model.unet.conv_in.float()  # tells the model which precision its input must have
        seconds(run, 1)
        times[name] = seconds(run)
    return times


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--baseline", action="store_true", help="the plain float32 way, too")
    parser.add_argument("--size", type=int, default=512, help="edge of the image, in pixels")
    parser.add_argument("--small", action="store_true", help="toy width, to try this file")
    args = parser.parse_args()

    started = time.perf_counter()
    config = small() if args.small else RestorerConfig()
    model = build(config)
    building = time.perf_counter() - started
    torch.manual_seed(1)
    image = torch.rand(1, 3, args.size, args.size)
    with torch.inference_mode():
        model(image)
    whole = seconds(lambda: model(image))
    runs = parts(model, image)
    by_part = {name: seconds(run) for name, run in runs.items()}
    result = {
        "benchmark": "full size",
        "image": [args.size, args.size],
        "parameters": sum(p.numel() for p in model.parameters()),
        "dtype": "bfloat16",
        "seconds": round(whole, 3),
        "parts": {name: round(t, 3) for name, t in by_part.items()},
        "building_seconds": round(building, 2),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2),
    }
    if args.baseline:
        plain = plain_seconds(model, runs)
        total = sum(plain.values())
        result["plain_float32"] = {name: round(t, 3) for name, t in plain.items()}
        result["plain_float32_seconds"] = round(total, 3)
        result["speedup_over_plain_float32"] = round(total / sum(by_part.values()), 2)
    print(json.dumps({**result, **machine()}, indent=1))


if __name__ == "__main__":
    main()
