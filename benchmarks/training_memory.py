"""Memory of a training step on the CPU, measured and computed; prints JSON.

Peak resident memory of child processes that make two steps of one crop in float32 with random
weights, less what Python and torch take after a toy's steps: a network of Stable Diffusion 2.1's
kind at half the width (U-Net 160/320/640/640, 256x256). First the U-Net's share, by an autoencoder
that is next to nothing: one frozen U-Net with two sets of adapters, as hbr trains, against the
three U-Nets that variational score distillation has in the published code. Then the whole network:
plain, with checkpointing, and with a quarter of each latent decoded. Then DiffBody's control branch
over such a network, without words: plain, and with checkpointing. Beside each stands what
`hbr train --plan` computes for it (`hbr.training.cost`), and the same for the full size (512x512,
bf16 autocast on CUDA), which is computed only.

Children let freed memory go at once (MALLOC_*), so that what is measured is what lives.

Usage: python benchmarks/training_memory.py [--small] [--measured-only] [--only control]
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch
from machine import machine

from hbr.metrics.lpips import LPIPS
from hbr.models import RestorerConfig, lora
from hbr.models.config import (
    AutoencoderConfig,
    HFIEConfig,
    ImageEncoderConfig,
    LoRAConfig,
    TextPromptConfig,
    UNetConfig,
)
from hbr.models.diffbody.config import DiffBodyConfig
from hbr.models.kinds import build_model
from hbr.models.networks import build_unet
from hbr.models.onestep import OneStepRestorer
from hbr.models.protocol import Conditions
from hbr.models.schedule import alphas_cumprod, one_step
from hbr.models.swinir_config import SwinIRConfig
from hbr.models.vsd import guided, regularizer_loss, vsd_gradient, vsd_loss
from hbr.training.config import (
    ConditionsConfig,
    ControlConfig,
    DataConfig,
    LossConfig,
    MemoryConfig,
    PhaseConfig,
    PhotoSourceConfig,
    RestorationConfig,
    TrainConfig,
    ValidationConfig,
    VSDConfig,
)
from hbr.training.cost import plan
from hbr.training.data import Pair, seeded
from hbr.training.losses import needed_networks
from hbr.training.objectives import build_objective
from hbr.training.random_state import RandomState
from hbr.training.start import prepare
from hbr.training.state import TrainState

HALF = UNetConfig(block_out_channels=(160, 320, 640, 640), attention_head_dim=(5, 10, 20, 20))
TOY = UNetConfig(block_out_channels=(32, 32, 32, 32), attention_head_dim=(1, 1, 1, 1))
NEXT_TO_NOTHING = AutoencoderConfig(
    block_out_channels=(32, 32, 32, 32), layers_per_block=1, mid_attention=False
)
SMALLER_SWIN = ImageEncoderConfig(
    image_size=96, embed_dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24), window_size=3
)


def training(
    model: RestorerConfig, size: int, memory: MemoryConfig, precision: str = "float32"
) -> TrainConfig:
    """The paper's recipe for a model; no photo is ever looked for."""
    nowhere = Path("nowhere")
    whole = model.autoencoder is not NEXT_TO_NOTHING
    return TrainConfig(
        model=model,
        data=DataConfig(sources=(PhotoSourceConfig(photos=nowhere),)),
        validation=ValidationConfig(photos=nowhere),
        phases=(PhaseConfig(1000, size, 1),),
        out=nowhere,
        objective=RestorationConfig(lora=LoRAConfig(), vsd=VSDConfig()),
        loss=LossConfig(l1=0.0, mse=4.0, lpips=2.0 if whole else 0.0),
        freeze=("prompt.encoder",) if whole else (),
        memory=memory,
        precision=precision,
    )


def controlling(model: DiffBodyConfig, size: int, memory: MemoryConfig) -> TrainConfig:
    """A training of the control branch; no photo is ever looked for."""
    nowhere = Path("nowhere")
    sources = (PhotoSourceConfig(photos=nowhere),)
    return TrainConfig(
        model=model,
        data=DataConfig(sources=sources, conditions=ConditionsConfig()),
        validation=ValidationConfig(photos=nowhere),
        phases=(PhaseConfig(1000, size, 1),),
        out=nowhere,
        objective=ControlConfig(),
        memory=memory,
        precision="float32",
    )


def cases(*, small: bool) -> dict[str, TrainConfig]:
    """What is measured."""
    unet = TOY if small else HALF
    widths = (32, 32, 32, 32) if small else (64, 128, 256, 256)
    size = 128 if small else 256
    alone = RestorerConfig(autoencoder=NEXT_TO_NOTHING, unet=unet, prompt=TextPromptConfig())
    whole = RestorerConfig(
        autoencoder=AutoencoderConfig(block_out_channels=widths),
        unet=unet,
        prompt=HFIEConfig(encoder=SMALLER_SWIN),
    )
    body = DiffBodyConfig(
        stage1=SwinIRConfig(depths=(2, 2), num_heads=(6, 6)),
        autoencoder=whole.autoencoder,
        unet=unet,
        text=None,
        parts=None,
    )
    plain, checkpointed = MemoryConfig(), MemoryConfig(checkpointing=True)
    return {
        "unet": training(alone, size, plain),
        "unet, three": training(alone, size, plain),
        "unet, checkpointing": training(alone, size, checkpointed),
        "unet, checkpointing, three": training(alone, size, checkpointed),
        "whole": training(whole, size, plain),
        "whole, checkpointing": training(whole, size, checkpointed),
        "whole, checkpointing, crop": training(
            whole, size, replace(checkpointed, decode_crop=size // 2)
        ),
        "control": controlling(body, size, plain),
        "control, checkpointing": controlling(body, size, checkpointed),
    }


def full_size() -> dict[str, TrainConfig]:
    """What is computed only."""
    alone = RestorerConfig(
        autoencoder=NEXT_TO_NOTHING, unet=UNetConfig(), prompt=TextPromptConfig()
    )
    whole = RestorerConfig()
    checkpointed = MemoryConfig(checkpointing=True)
    return {
        "unet": training(alone, 512, MemoryConfig(), "bfloat16"),
        "unet, checkpointing": training(alone, 512, checkpointed, "bfloat16"),
        "whole": training(whole, 512, MemoryConfig(), "bfloat16"),
        "whole, checkpointing": training(whole, 512, checkpointed, "bfloat16"),
        "whole, checkpointing, crop": training(
            whole, 512, replace(checkpointed, decode_crop=256), "bfloat16"
        ),
    }


def status(name: str) -> int:
    """Bytes of a line of this process's status, such as VmHWM: the peak of what is resident."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status has no {name}; this needs Linux")


def make_steps(config: TrainConfig, *, three: bool, steps: int = 2) -> None:
    """Steps of random numbers."""
    torch.manual_seed(0)
    if three:  # the generator's adapters alone
        assert isinstance(config.objective, RestorationConfig)
        config = replace(config, objective=replace(config.objective, vsd=None))
    model = build_model(config.model)
    objective = build_objective(config, {key: LPIPS("vgg") for key in needed_networks(config)})
    prepare(model, config, objective.parts)
    state = TrainState(model, config)
    size = config.phases[0].crop
    hq, lq, pose = torch.rand(3, 1, 3, size, size)
    pair = Pair(hq=hq, lq=lq, conditions=Conditions(maps={"pose": pose, "attention": pose[:, :1]}))
    others = ThreeUNets(config) if three else None
    for step in range(steps):
        draws = RandomState(seeded(0, step))
        if others is not None:
            others.step(model, pair, state, draws)
            continue
        losses = objective.losses(model, pair, config.loss, draws)
        for terms in filter(None, (lambda losses=losses: losses.terms, losses.then)):
            state.optimizer.zero_grad(set_to_none=True)
            torch.stack(list(terms().values())).sum().backward()
            state.optimizer.step()
        state.update_average()


class ThreeUNets:
    """Prior and regularizer as U-Nets of their own, as the published code has them."""

    def __init__(self, config: TrainConfig) -> None:
        channels = config.model.autoencoder.latent_channels
        self.prior = build_unet(config.model.unet, channels).requires_grad_(False)
        self.regularizer = build_unet(config.model.unet, channels)
        lora.inject(self.regularizer, lora.unet_targets(self.regularizer), LoRAConfig())
        if config.memory.checkpointing:
            self.regularizer.enable_gradient_checkpointing()
        self.regularizer.train()
        trained = [p for p in self.regularizer.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained)
        self.average = [p.detach().clone() for p in trained]

    def step(
        self, model: OneStepRestorer, pair: Pair, state: TrainState, draws: RandomState
    ) -> None:
        """Both updates of a step."""
        p = model.prompt(pair.lq)
        z_l = model.encode(pair.lq)
        z_h = one_step(z_l, model.predict(z_l, p), model.alpha_bar)
        loss = 4 * torch.nn.functional.mse_loss(model.decode(z_h), pair.hq)
        alpha_bar = alphas_cumprod(model.config.schedule)
        gradient = vsd_gradient(
            z_h,
            draws.noise(z_h),
            draws.timesteps((20, 980), z_h),
            alpha_bar,
            frozen=guided(
                lambda z, t: self.prior(z, t, p).sample,
                lambda z, t: self.prior(z, t, torch.zeros_like(p)).sample,
                7.5,
            ),
            finetuned=lambda z, t: self.regularizer(z, t, p).sample,
        )
        state.optimizer.zero_grad(set_to_none=True)
        (loss + vsd_loss(z_h, gradient)).backward()
        state.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        z, p = z_h.detach(), p.detach()
        t, noise = draws.timesteps((0, 1000), z), draws.noise(z)
        regularizer_loss(
            z, noise, t, alpha_bar, lambda z, t: self.regularizer(z, t, p).sample
        ).backward()
        self.optimizer.step()
        state.update_average()


def measured(name: str, *, small: bool) -> int:
    """Peak of a child that makes the steps of a case, less what it had before."""
    command = [sys.executable, __file__, "--case", name, *(["--small"] if small else [])]
    environment = {
        **os.environ,
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
    return int(done.stdout)


def saved(one: float, three: float) -> float:
    """Share of the three U-Nets' memory that one saves."""
    return round(1 - one / three, 3)


def computed(config: TrainConfig, device: str, *, three: bool = False) -> int:
    """What the cost model says."""
    found = plan(config, device=device)
    return found.peak + (2 * found.unet_bytes if three else 0)


def main() -> None:
    """Measure, compute, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true", help="toy width, to try this file")
    parser.add_argument("--measured-only", action="store_true", help="leave the full size out")
    parser.add_argument("--only", default="", help="cases whose names begin so")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    known = cases(small=args.small)
    if args.case is not None:
        # what is imported and set up at the first step is not the training's
        make_steps(cases(small=True)["unet"], three=False)
        before = status("VmRSS")
        make_steps(known[args.case], three=args.case.endswith("three"))
        print(status("VmHWM") - before)
        return

    gb: dict[str, dict[str, float]] = {}
    for name, config in known.items():
        if not name.startswith(args.only):
            continue
        found = measured(name, small=args.small)
        model = computed(config, "cpu", three=name.endswith("three"))
        gb[name] = {
            "measured": round(found / 1e9, 3),
            "computed": round(model / 1e9, 3),
            "measured_over_computed": round(found / model, 3),
        }
    result: dict[str, object] = {
        "benchmark": "training memory",
        "crop": known["unet"].phases[0].crop,
        "batch": 1,
        "precision": "float32",
        "gb": gb,
        "saved_by_one_unet": {
            how: {
                kind: saved(gb[how][kind], gb[f"{how}, three"][kind])
                for kind in ("measured", "computed")
            }
            for how in ("unet", "unet, checkpointing")
            if f"{how}, three" in gb
        },
    }
    if not args.measured_only:
        whole = {name: computed(config, "cuda") for name, config in full_size().items()}
        more = 2 * plan(full_size()["unet"]).unet_bytes
        result["full_size_computed"] = {
            "crop": 512,
            "batch": 1,
            "precision": "bfloat16",
            "gb": {name: round(peak / 1e9, 2) for name, peak in whole.items()},
            "saved_by_one_unet": {
                how: saved(whole[how], whole[how] + more) for how in ("unet", "unet, checkpointing")
            },
        }
    print(json.dumps({**result, **machine()}, indent=1))


if __name__ == "__main__":
    main()
