"""OSEDiff's published checkpoint: LoRA over Stable Diffusion 2.1-base (Wu et al., NeurIPS 2024)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hbr.config import ConfigError
from hbr.models import lora
from hbr.models.checkpoint import Checkpoint, build
from hbr.models.config import DAPEConfig, LoRAConfig
from hbr.models.files import require_one_step
from hbr.models.importing.reading import load_pickle, published, require_tensors
from hbr.weights import WeightsError

_UNET = {
    "default_encoder": "unet_lora_encoder_modules",
    "default_decoder": "unet_lora_decoder_modules",
    "default_others": "unet_lora_others_modules",
}
_VAE = {"default_encoder": "vae_lora_encoder_modules"}
_VALUES = ("rank_unet", "rank_vae", "state_dict_unet", "state_dict_vae")
KEYS = {*_UNET.values(), *_VAE.values(), *_VALUES}
TRAINED = ("conv_in.base_layer.weight", "conv_in.base_layer.bias")
"""The first convolution of the U-Net, which the published code trains beside its LoRA."""
TEMPLATE = "{tags}, ,"
"""The prompt of the published test script: the tags, then an empty text of the user."""
ALPHA = 8.0  # peft's default, which the published code uses for any rank


def is_osediff(values: Any) -> bool:
    """Whether the content of a file has most keys of an OSEDiff checkpoint."""
    return isinstance(values, dict) and len(KEYS & values.keys()) > len(KEYS) / 2


def import_osediff(source: Path, base: Checkpoint, report: Callable[[str], None]) -> Checkpoint:
    """Merge a published OSEDiff checkpoint into its base.

    A prompt of tags gets the text of the published test script, unless its text was chosen.

    `base` is Stable Diffusion 2.1-base as a checkpoint of hbr.

    Raises:
        WeightsError: the file is unsafe, has another layout, or does not match the base.
    """
    values = load_pickle(source)
    if not isinstance(values, dict):
        raise WeightsError(f"{source} is not an OSEDiff checkpoint: it does not contain a dict")
    if missing := sorted(KEYS - values.keys()):
        raise WeightsError(f"{source} is not an OSEDiff checkpoint: its {missing[0]} is missing")
    if extra := [key for key in values if key not in KEYS]:
        raise WeightsError(f"{source}: {extra[0]!r} is not part of an OSEDiff checkpoint")

    model = build(base, "the base")
    unet = dict(require_tensors(values["state_dict_unet"], f"{source}: state_dict_unet"))
    vae = dict(require_tensors(values["state_dict_vae"], f"{source}: state_dict_vae"))
    _load_trained(model.get_submodule("unet"), unet, source)
    for module, tensors, names, rank in (
        (model.get_submodule("unet"), unet, _UNET, values["rank_unet"]),
        (model.get_submodule("autoencoder"), vae, _VAE, values["rank_vae"]),
    ):
        targets = {
            adapter: _module_names(values[key], key, source) for adapter, key in names.items()
        }
        lora.inject(module, targets, LoRAConfig(_rank(rank, source), ALPHA))
        lora.load_lora(module, tensors, source)
        count = sum(map(len, targets.values()))
        report(f"merging LoRA of rank {rank} on {count} layers of the {type(module).__name__}")
        lora.merge(module)
    card = published(base.card, source, "osediff")
    imported = Checkpoint(base.config, model.state_dict(), card)
    prompt = getattr(base.config, "prompt", None)
    if isinstance(prompt, DAPEConfig) and prompt.template == DAPEConfig().template:
        return with_template(imported, TEMPLATE)
    return imported


def with_template(checkpoint: Checkpoint, template: str) -> Checkpoint:
    """The checkpoint with another text around the tags of the image.

    Raises:
        WeightsError: it is not prompted by tags, or the text has no `{tags}`.
    """
    config = require_one_step(checkpoint.config, "the model")
    if not isinstance(config.prompt, DAPEConfig):
        raise WeightsError(
            "--template is the text around the tags of an image, but the prompt is "
            f"{config.prompt.kind!r}, not 'dape'; a base made with --kind tagger has tags"
        )
    try:
        prompt = dataclasses.replace(config.prompt, template=template)
    except ConfigError as error:
        raise WeightsError(str(error)) from None
    return dataclasses.replace(checkpoint, config=dataclasses.replace(config, prompt=prompt))


@torch.no_grad()
def _load_trained(unet: nn.Module, tensors: dict[str, Tensor], source: Path) -> None:
    for name in TRAINED:
        weight = unet.get_parameter(name.replace(".base_layer", ""))
        if name not in tensors:
            raise WeightsError(f"{source}: the weight {name} is missing")
        if (got := tuple(tensors[name].shape)) != tuple(weight.shape):
            expected = tuple(weight.shape)
            raise WeightsError(f"{source}: {name} is {got}; the base has {expected}")
        weight.copy_(tensors.pop(name))


def _module_names(values: Any, key: str, source: Path) -> tuple[str, ...]:
    if not isinstance(values, (list, tuple)) or not all(isinstance(v, str) for v in values):
        raise WeightsError(f"{source}: {key} must be a list of names")
    return tuple(dict.fromkeys(values))  # the published lists name some twice


def _rank(value: Any, source: Path) -> int:
    if not isinstance(value, int) or value < 1:
        raise WeightsError(f"{source}: the rank is {value!r}; it must be a number of 1 or more")
    return value
