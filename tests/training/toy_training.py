"""A training that takes seconds: a toy model on the photos of tests/data."""

from pathlib import Path

from hbr.config import from_dict
from hbr.training.config import TrainConfig
from hbr.training.loop import Trainer

DATA = Path(__file__).parents[1] / "data"
MODEL = {
    "name": "toy",
    "native_size": 64,
    "timestep": 199,
    "autoencoder": {
        "block_out_channels": [32],
        "layers_per_block": 1,
        "latent_channels": 8,
        "norm_num_groups": 4,
        "mid_attention": False,
        "patch_size": 4,
        "scaling_factor": 1.0,
    },
    "unet": {
        "block_out_channels": [8, 16],
        "attention": [False, True],
        "attention_head_dim": [1, 1],
        "layers_per_block": 1,
        "cross_attention_dim": 16,
        "norm_num_groups": 4,
    },
    "prompt": {
        "kind": "hfie",
        "n_queries": 4,
        "width": 16,
        "heads": 2,
        "encoder": {
            "image_size": 32,
            "embed_dim": 8,
            "depths": [1, 1],
            "num_heads": [1, 2],
            "window_size": 4,
            "proj_dim": 16,
        },
    },
}


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
