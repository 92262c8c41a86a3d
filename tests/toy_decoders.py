"""Decoders of Stable Diffusion's latents at toy size, in the layouts of the published files."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import save_file
from torch import Tensor, nn

import toy_models
from hbr.config import from_dict
from hbr.models import RestorerConfig
from hbr.models.autoencoder_config import AutoencoderConfig
from hbr.weights import entries

LEVELS = 4  # 8×8 pixels to a cell, as in Stable Diffusion

CONFIG: RestorerConfig = dataclasses.replace(
    toy_models.FIXED_PROMPT,
    autoencoder=from_dict(
        AutoencoderConfig,
        {"block_out_channels": [8] * LEVELS, "layers_per_block": 1, "norm_num_groups": 4},
    ),
)


def write_known(folder: Path) -> None:
    """TAESD and VOSR's decoder where `hbr fetch` puts them below a folder of weights."""
    for name, write, model in (
        ("taesd", write_author, taesd()),
        ("sd21-lwdecoder", write_light, light()),
    ):
        file = folder / name / entries()[name].files[0].path
        file.parent.mkdir(parents=True)
        write(file, model)


def taesd(width: int = 6, channels: int = 4) -> AutoencoderTiny:
    torch.manual_seed(1)
    widths = (width,) * LEVELS
    return AutoencoderTiny(
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
        latent_channels=channels,
    ).eval()


def light(width: int = 32) -> AutoencoderKL:
    """An autoencoder whose decoder is VOSR's in small: 32 groups, and nothing before it."""
    torch.manual_seed(2)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * LEVELS,
        up_block_types=("UpDecoderBlock2D",) * LEVELS,
        block_out_channels=(width,) * LEVELS,
        layers_per_block=2,
        use_post_quant_conv=False,
    ).eval()


def author_names(decoder: nn.Module) -> dict[str, Tensor]:
    """As TAESD's author names the weights: one layer, the clamp, stands before the others."""
    named = {}
    for name, tensor in decoder.state_dict().items():
        _, number, rest = name.split(".", 2)
        named[f"{int(number) + 1}.{rest}"] = tensor
    return named


def write_author(file: Path, model: AutoencoderTiny) -> Path:
    named = author_names(model.decoder)
    if file.suffix == ".pth":
        torch.save(named, file)
    else:
        save_file(named, file)
    return file


def write_diffusers(file: Path, model: AutoencoderTiny) -> Path:
    """`diffusion_pytorch_model.safetensors`, with the encoder."""
    save_file(model.state_dict(), file, metadata={"format": "pt"})
    return file


def write_light(file: Path, model: AutoencoderKL, **more: Any) -> Path:
    """As VOSR's training code saves it."""
    config = {"in_channels": 4, "out_channels": 3, "layers_per_block": 2}
    widths = {"block_out_channels": list(model.config.block_out_channels)}
    state = model.decoder.state_dict()
    torch.save({"model_state_dict": state, "config": {**config, **widths}, **more}, file)
    return file
