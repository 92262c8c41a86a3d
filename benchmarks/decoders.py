"""What another decoder costs in PSNR, and saves in arithmetic and time; prints JSON.

Time and FLOPs need no weights: those of Stable Diffusion's decoder, of VOSR's at half the width
and of TAESD are of random weights at full size, rewritten for inference, in bfloat16, on the CPU.
They take turns, and the best round counts. With OMP_NUM_THREADS=1 times are processor time, for a
machine with other work. PSNR needs weights, and is measured for the decoders that are given with
their model: of the restored photo to the undamaged one, and to what the model's own decoder makes.

--cut says how near a decoder of a width, cut from that of nano at its faithful end or of random
weights, is to it before the first step of a training: PSNR of four encoded and decoded photos.

Usage: python benchmarks/decoders.py [--decoder FILE …] [--model nano] [--fidelity 1]
       [--cut WIDTH …] [--count 20] [--rounds 2] [--size 512] [--small]
"""

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from inference import flops
from machine import machine
from nano_quality import tensor_of

import hbr
from hbr.image import read_photo
from hbr.metrics import psnr
from hbr.models import OneStepRestorer, RestorerConfig, load_model
from hbr.models.autoencoder_config import AutoencoderConfig, DecoderConfig
from hbr.models.config import TextPromptConfig, UNetConfig
from hbr.models.decoders import build_decoder
from hbr.models.inference.folding import optimize
from hbr.models.inference.restorer import FoldedRestorer
from hbr.models.pruning import fold_post_quant, prune_decoder

PHOTOS = Path("../shared/photos/clothing-co-parsing")
PUBLISHED = {
    "sd21-lwdecoder": DecoderConfig(),
    "taesd": DecoderConfig(kind="tiny", block_out_channels=(64,) * 4, scaling_factor=1.0),
}


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--decoder", action="append", default=[], help="a file, for --model")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--fidelity", type=float)
    parser.add_argument("--cut", type=int, nargs="+", default=[], metavar="WIDTH")
    parser.add_argument("--count", type=int, default=20, help="photos of val-lq")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--size", type=int, default=512, help="edge of the image, in pixels")
    parser.add_argument("--small", action="store_true", help="a trial: narrow, few, small")
    args = parser.parse_args()
    if args.small:
        args.size, args.count, args.rounds = 64, 1, 1
    made: dict[str, Any] = {"what": "decoders", "size": args.size, **machine()}
    made["full_size"] = measured(full_size(args.small), args.size, args.rounds)
    if args.decoder:
        made["model"], made["fidelity"], made["photos"] = args.model, args.fidelity, args.count
        restorers = {
            name: hbr.Restorer.from_pretrained(
                args.model, device="cpu", fidelity=args.fidelity, decoder=name
            )
            for name in (None, *args.decoder)
        }
        models = {name or "own": restorer.model for name, restorer in restorers.items()}
        made["of_model"] = measured(models, args.size, args.rounds)
        for name, numbers in compared(restorers, args.count, args.size).items():
            made["of_model"][name] |= numbers
    if args.cut:
        made["cut"] = {width: begun(width) for width in args.cut}
    json.dump(made, sys.stdout, indent=1)
    sys.stdout.write("\n")


def autoencoder_alone(decoder: DecoderConfig | None, small: bool) -> RestorerConfig:
    """Stable Diffusion's autoencoder, or its encoder and another decoder; next to no U-Net."""
    own = AutoencoderConfig(block_out_channels=(32,) * 4) if small else AutoencoderConfig()
    return RestorerConfig(
        autoencoder=dataclasses.replace(own, decoder=decoder),
        unet=UNetConfig(
            block_out_channels=(32,),
            attention=(False,),
            attention_head_dim=(1,),
            cross_attention_dim=32,
        ),
        prompt=TextPromptConfig(n_queries=1, width=32),
    )


def full_size(small: bool) -> dict[str, FoldedRestorer]:
    """Models with Stable Diffusion's autoencoder by their decoders."""
    models = {}
    for name, decoder in {"own": None, **PUBLISHED}.items():
        torch.manual_seed(0)
        model = OneStepRestorer(autoencoder_alone(decoder, small)).eval().requires_grad_(False)
        model = model.to(torch.bfloat16).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        models[name] = optimize(model)
    return models


def measured(models: dict[str, Any], size: int, rounds: int) -> dict[str, dict[str, Any]]:
    """GFLOP, weights and seconds of the step from the latent to the image."""
    clock: Callable[[], float] = time.perf_counter
    if os.environ.get("OMP_NUM_THREADS") == "1":
        clock = time.process_time
    latent = models["own"].config.autoencoder.latent
    edge = size // latent.factor
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(1, latent.channels, edge, edge, generator=generator)
    z = z.contiguous(memory_format=torch.channels_last)
    seconds: dict[str, list[float]] = {name: [] for name in models}
    with torch.inference_mode():
        for i in range(rounds + 1):
            for name, model in models.items():
                began = clock()
                model.decode(z)
                if i or rounds == 1:  # the first round warms up
                    seconds[name].append(clock() - began)
    numbers = {}
    for name, model in models.items():
        weights = [p for part in (model.decoder, model.picture) for p in part.parameters()]
        numbers[name] = {
            "gflop": flops(lambda model=model: model.decode(z)),
            "million_weights": round(sum(p.numel() for p in weights) / 1e6, 2),
            "seconds": round(min(seconds[name]), 4),
        }
    for name in models:
        own, other = numbers["own"], numbers[name]
        other["times_less_work"] = round(own["gflop"] / other["gflop"], 2)
        other["times_faster"] = round(own["seconds"] / other["seconds"], 2)
    return numbers


def compared(
    restorers: dict[str | None, hbr.Restorer], count: int, size: int
) -> dict[str, dict[str, float]]:
    """PSNR in dB (RGB, means over photos): to the undamaged photo, and to the own decoder's."""
    sums: dict[str, list[tuple[float, float]]] = {name or "own": [] for name in restorers}
    for lq in sorted((PHOTOS / "val-lq").iterdir())[:count]:
        damaged = read_photo(lq).pixels
        edge = min(size, *damaged.shape[:2])
        top, left = ((n - edge) // 2 for n in damaged.shape[:2])
        damaged = damaged[top : top + edge, left : left + edge]
        whole = read_photo(next((PHOTOS / "val").glob(f"{lq.stem}.*"))).pixels
        y, x = ((n - edge) // 2 for n in whole.shape[:2])
        hq = tensor_of(whole[y : y + edge, x : x + edge])
        made = {name or "own": tensor_of(r(damaged).pixels) for name, r in restorers.items()}
        for name, image in made.items():
            to_own = float("inf") if name == "own" else float(psnr(image, made["own"]))
            sums[name].append((float(psnr(image, hq)), to_own))
    return {
        name: {"psnr": round(float(to_hq), 2), "psnr_to_own": round(float(to_own), 2)}
        for name, (to_hq, to_own) in ((n, np.mean(rows, axis=0)) for n, rows in sums.items())
    }


@torch.no_grad()
def begun(width: int) -> dict[str, float]:
    """PSNR to nano's decoder with its refiner, of one that begins at this width."""
    model = cast(OneStepRestorer, load_model("nano", fidelity=1.0))
    own, wide = model.autoencoder, model.config.autoencoder.decoding
    files = sorted((PHOTOS / "val").iterdir())[:4]
    photos = torch.cat([tensor_of(read_photo(file).pixels[100:356, 100:356]) for file in files])
    z = model.encode(photos)
    wanted = model.decode(z, photos).clamp(0, 1)
    narrow = dataclasses.replace(wide, block_out_channels=(width,))
    torch.manual_seed(0)
    decoder = build_decoder(narrow)

    def near() -> float:
        image = F.pixel_shuffle(decoder(z), narrow.patch_size) * 0.5 + 0.5
        return round(float(psnr(image.clamp(0, 1), wanted).mean()), 1)

    random = near()
    post_quant = own.post_quant_conv.weight, own.post_quant_conv.bias
    weights = fold_post_quant(own.decoder.state_dict(), *post_quant)
    cut = prune_decoder(weights, wide, narrow)
    decoder.load_state_dict({**decoder.state_dict(), **cut})
    return {"random": random, "cut": near()}


if __name__ == "__main__":
    main()
