"""Exporting a one-step model as a diffusers folder, with its prompt and refiner beside it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import DDPMScheduler

from hbr.config import to_dict
from hbr.files import making_folder, write_text
from hbr.models.checkpoint import read_checkpoint
from hbr.models.config import RestorerConfig
from hbr.models.exporting.card import about, model_card, usage_with_diffusers
from hbr.models.files import model_format, require_one_step, under, write_tensors
from hbr.models.importing.base import EXPORTED, PROMPT_FILE, REFINER_FILE
from hbr.models.networks import build_autoencoder, build_unet
from hbr.models.part_files import write_part
from hbr.weights import WeightsError

_WEIGHTS = "diffusion_pytorch_model.safetensors"


def export_folder(model: Path, out: Path) -> Path:
    """Write a one-step model as a diffusers folder, from which `hbr models import` restores it.

    `AutoencoderKL`, `UNet2DConditionModel` and `DDPMScheduler` of diffusers load their parts with
    `from_pretrained(folder, subfolder=…)`; README.md in the folder has the few lines that run them.
    As in the model file, adapters are merged and the weights are the averaged ones.

    Raises:
        WeightsError: `model` is missing, damaged, of another kind, or has another decoder.
        OSError: `out` is not empty, or cannot be written.
    """
    checkpoint = read_checkpoint(model)
    config = require_one_step(checkpoint.config, model)
    if config.autoencoder.decoder is not None:
        raise WeightsError(
            f"{model} has another decoder than its autoencoder's; a diffusers folder has no place "
            "for it: export the model that the decoder was trained on"
        )
    with torch.device("meta"):
        vae = build_autoencoder(config.autoencoder)
        unet = build_unet(config.unet, config.autoencoder.latent_channels)
    vae.register_to_config(sample_size=config.native_size // config.autoencoder.patch_size)
    unet.register_to_config(sample_size=config.native_size // config.autoencoder.factor)
    with making_folder(out) as folder:
        for name, part, module in (("vae", "autoencoder", vae), ("unet", "unet", unet)):
            module.save_config(folder / name)
            own = under(f"{part}.", checkpoint.tensors)
            write_tensors(folder / name / _WEIGHTS, own, {"format": "pt"})
        if config.refiner is not None:
            write_part(folder / REFINER_FILE, checkpoint, "refiner")
        _scheduler(config).save_config(folder / "scheduler")
        write_part(folder / PROMPT_FILE, checkpoint, "prompt")
        # what the files of diffusers have no place for
        beside = {"format": model_format(config), "config": to_dict(config)}
        beside |= {"card": dict(checkpoint.card)}
        write_text(folder / EXPORTED, json.dumps(beside, indent=1) + "\n")
        card = model_card(about(model), usage=usage_with_diffusers(config))
        write_text(folder / "README.md", card)
    return out


def _scheduler(config: RestorerConfig) -> DDPMScheduler:
    schedule = config.schedule
    return DDPMScheduler(
        num_train_timesteps=schedule.steps,
        beta_start=schedule.beta_start,
        beta_end=schedule.beta_end,
        beta_schedule="scaled_linear",
        prediction_type="epsilon",
        clip_sample=False,
    )
