"""A DiffBody of a few thousand weights, on the toy Stable Diffusion of the goldens."""

from pathlib import Path
from typing import Any

import torch

from hbr.config import to_dict
from hbr.models.diffbody.config import DiffBodyConfig, PartNetworkConfig
from hbr.models.diffbody.control import copy_encoder
from hbr.models.diffbody.model import DiffBody
from hbr.models.importing.base import load_diffusers_base
from hbr.models.swinir_config import SwinIRConfig
from hbr.models.text import load_text_encoder

STAGE1 = SwinIRConfig(
    embed_dim=8,
    depths=(2,),
    num_heads=(2,),
    window_size=4,
    unshuffle=4,
    upscale=4,
    width=8,
    native_size=64,
    name="stage1",
)
PARTS = PartNetworkConfig(
    embedding_size=4, hidden_sizes=(4, 8), depths=(1, 1), layer_type="basic", dim=6
)


def toy_config(base: Path, **changes: Any) -> DiffBodyConfig:
    found = load_diffusers_base(base)
    text, _ = load_text_encoder(base)
    values = {
        "stage1": STAGE1,
        "autoencoder": found.autoencoder,
        "unet": found.unet,
        "text": text,
        "parts": PARTS,
        "native_size": 64,
        "name": "toy",
    }
    return DiffBodyConfig(**{**values, **changes})


def toy_model(base: Path, **changes: Any) -> DiffBody:
    """Random stage 1 and parts; autoencoder, U-Net and text encoder of the goldens."""
    torch.manual_seed(0)
    model = DiffBody(toy_config(base, **changes))
    model.load_state_dict(load_diffusers_base(base).tensors, strict=False)
    model.text = load_text_encoder(base)[1]
    copy_encoder(model.control, model.unet)
    if model.parts is not None:  # as sure of its parts as a trained network
        model.parts.classify.weight.data.mul_(30)
    return model.eval().requires_grad_(False)


def toy_values(base: Path, **changes: Any) -> dict[str, Any]:
    """The configuration as plain values, for recipes."""
    return to_dict(toy_config(base, **changes))
