"""A training that takes seconds: a toy model on the photos of tests/data."""

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from hbr.config import from_dict
from hbr.models.onestep import OneStepRestorer
from hbr.training.adapters import add_adapters
from hbr.training.config import TrainConfig
from hbr.training.data import TrainingPairs
from hbr.training.loop import Trainer
from hbr.training.objectives import Losses
from toy_models import TRAINED as MODEL

ADAPTED = {"kind": "restoration", "lora": {"rank": 2}, "vsd": {"lora": {"rank": 2}}}
# a decoder of half the width for the latents of MODEL
LATENT = {"channels": 8, "factor": 4, "scaling_factor": 1.0}
NARROW = {
    "latent": LATENT,
    "block_out_channels": [16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "mid_attention": False,
    "patch_size": 4,
    "scaling_factor": 1.0,
}
DATA = Path(__file__).parents[1] / "data"


def settings(out, **changes):
    values = {
        "model": MODEL,
        "data": {"sources": [{"photos": str(DATA)}], "workers": 0},
        "validation": {"photos": str(DATA), "count": 1, "crop": 64, "every": 8, "pictures": 1},
        "phases": [{"steps": 5, "crop": 32, "batch": 2}, {"steps": 3, "crop": 64, "batch": 1}],
        "out": str(out),
        "optim": {"lr": 1e-3, "warmup": 2, "decay": 3, "ema": 0.5},
        "precision": "float32",
        "start": "identity",
        "save_every": 8,
    }
    return {**values, **changes}


def distilling(out, base, decoder=NARROW, **changes):
    """A training that distils a decoder of the model file `base`."""
    autoencoder = {**MODEL["autoencoder"], "decoder": decoder}
    objective = {"kind": "decoder", "restored": 0.5, "latent": 0.1, "pruned": decoder is NARROW}
    return settings(
        out,
        **{
            "model": {**MODEL, "autoencoder": autoencoder},
            "objective": objective,
            "start": "random",
            "init": {"base": str(base)},
            "phases": [{"steps": 6, "crop": 32, "batch": 2}],
            **changes,
        },
    )


def rows(out: Path) -> list[dict[str, float]]:
    """The training curves: a row for each step that was written."""
    return [json.loads(line) for line in (out / "curves.jsonl").read_text().splitlines()]


def stop_after(steps: int, values) -> None:
    """Make so many steps of a training and save it, as one that is stopped does."""
    stopped = Trainer(from_dict(TrainConfig, values), report=lambda line: None)
    pairs = TrainingPairs(stopped.config, 0, latents=stopped.latents)
    for step in range(steps):
        stopped._step(stopped._with_latents(pairs.batch(step)))
    stopped.config.out.mkdir()
    stopped._save()


def train(values):
    trainer = Trainer(from_dict(TrainConfig, values), report=lambda line: None)
    return trainer.run()


def adapted(**changes) -> tuple[TrainConfig, OneStepRestorer]:
    """A model with VSD, and its training; no two of its adapters are alike."""
    config = from_dict(TrainConfig, settings(Path("out"), objective=ADAPTED, **changes))
    torch.manual_seed(0)
    model = OneStepRestorer(config.model)
    add_adapters(model, config)
    for name, parameter in model.named_parameters():
        if ".lora_B" in name:  # zeros would make all adapters alike
            torch.nn.init.normal_(parameter, std=0.1)
    return config, model


def gradients_of(model: nn.Module, losses: Losses) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The gradients of both updates of a step, by the names of the weights that have one."""
    found = []
    assert losses.then is not None
    for terms in (lambda: losses.terms, losses.then):
        model.zero_grad()
        torch.stack(list(terms().values())).sum().backward()
        found.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    return found[0], found[1]
