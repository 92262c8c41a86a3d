"""A training that takes seconds: a toy model on the photos of tests/data."""

from pathlib import Path

from hbr.config import from_dict
from hbr.training.config import TrainConfig
from hbr.training.loop import Trainer
from toy_models import TRAINED as MODEL

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
