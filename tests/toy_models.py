"""Restorers of the real class at toy size: configurations, and files with random weights."""

import dataclasses
from pathlib import Path
from typing import Any

import torch

from hbr.config import from_dict
from hbr.models import Capabilities, OneStepRestorer, RestorerConfig, save_checkpoint
from hbr.models.config import TextPromptConfig
from hbr.models.hfie import ImageEncoder
from hbr.models.identity import start_at_identity
from hbr.models.importing.ram import read_image_encoder
from hbr.models.rrdbnet import RRDBNet
from hbr.models.rrdbnet_config import RRDBNetConfig

# every part that the published models have
CONFIG = from_dict(
    RestorerConfig,
    {
        "name": "toy",
        "native_size": 64,
        "autoencoder": {
            "block_out_channels": [16, 16],
            "layers_per_block": 1,
            "norm_num_groups": 8,
        },
        "unet": {
            "block_out_channels": [16, 32],
            "attention": [True, True],
            "attention_head_dim": [1, 2],
            "layers_per_block": 1,
            "cross_attention_dim": 32,
            "norm_num_groups": 8,
        },
        "prompt": {
            "kind": "hfie",
            "n_queries": 4,
            "width": 32,
            "heads": 2,
            "encoder": {
                "image_size": 64,
                "embed_dim": 16,
                "depths": [2, 2],
                "num_heads": [2, 2],
                "window_size": 4,
                "proj_dim": 16,
            },
        },
    },
)
FIXED_PROMPT = dataclasses.replace(CONFIG, prompt=TextPromptConfig(n_queries=4, width=32))

# a network that enlarges four times
RRDBNET = RRDBNetConfig(blocks=1, width=4, growth=2, native_size=64, name="toy")

# What a tile plan asks of a model. A native size of 256 makes an overlap of 32.
SIZES = Capabilities(multiple_of=8, min_size=16, native_size=256, dtypes=("float32",))

# nano's kind of model, as a training takes it
TRAINED: dict[str, Any] = {
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


def build(config: RestorerConfig = CONFIG) -> OneStepRestorer:
    """A restorer with random weights, the same each time."""
    torch.manual_seed(0)
    return OneStepRestorer(config).eval().requires_grad_(False)


def write(file: Path, config: RestorerConfig = CONFIG, **more: Any) -> Path:
    """The model file of such a restorer."""
    return save_checkpoint(file, config, build(config).state_dict(), **more)


def write_rrdbnet(file: Path) -> Path:
    """The model file of a network that enlarges, with random weights, the same each time."""
    torch.manual_seed(0)
    return save_checkpoint(file, RRDBNET, RRDBNet(RRDBNET).state_dict())


def write_identity(file: Path) -> Path:
    """The model file of a restorer whose output is its input; its tiles are multiples of 16."""
    values = {
        **TRAINED,
        "autoencoder": {
            **TRAINED["autoencoder"],
            "latent_channels": 12,
            "norm_num_groups": 2,
            "patch_size": 2,
        },
        "unet": {
            "block_out_channels": [16] * 4,
            "attention": [False] * 4,
            "attention_head_dim": [1] * 4,
            "layers_per_block": 1,
            "cross_attention_dim": 16,
            "norm_num_groups": 8,
        },
        "prompt": {"kind": "text", "n_queries": 1, "width": 16},
    }
    config = from_dict(RestorerConfig, values)
    assert config.multiple_of == 16
    torch.manual_seed(0)
    model = OneStepRestorer(config)
    start_at_identity(model)
    torch.nn.init.zeros_(model.unet.conv_out.weight)  # ε = 0: not near the identity, but at it
    return save_checkpoint(file, config, model.state_dict())


def load_image_encoder(path: Path) -> ImageEncoder:
    """The encoder of a file of `hbr models import --kind ram`."""
    config, tensors = read_image_encoder(path)
    encoder = ImageEncoder(config)
    encoder.load_state_dict(tensors)
    return encoder.eval()
