"""A training that takes seconds: a toy model on the photos of tests/data."""

from pathlib import Path

import torch
from torch import Tensor, nn

from hbr.config import from_dict
from hbr.models.onestep import OneStepRestorer
from hbr.training.adapters import add_adapters
from hbr.training.config import TrainConfig
from hbr.training.loop import Trainer
from hbr.training.objectives import Losses
from toy_models import TRAINED as MODEL

ADAPTED = {"kind": "restoration", "lora": {"rank": 2}, "vsd": {"lora": {"rank": 2}}}
DATA = Path(__file__).parents[1] / "data"


def settings(out, **changes):
    values = {
        "model": MODEL,
        "data": {"sources": [{"photos": str(DATA)}], "workers": 0},
        "validation": {"photos": str(DATA), "count": 3, "crop": 128, "every": 8, "pictures": 1},
        "phases": [{"steps": 5, "crop": 32, "batch": 2}, {"steps": 3, "crop": 64, "batch": 1}],
        "out": str(out),
        "optim": {"lr": 1e-3, "warmup": 2, "decay": 3, "ema": 0.5},
        "precision": "float32",
        "start": "identity",
        "save_every": 2,
    }
    return {**values, **changes}


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
