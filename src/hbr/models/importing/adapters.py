"""LoRA files of diffusers and peft: safetensors with `unet.….lora_A.weight` and the like."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from hbr.models import lora
from hbr.models.checkpoint import Checkpoint, build
from hbr.models.config import LoRAConfig
from hbr.models.files import WeightsError
from hbr.models.importing.reading import load_json, load_pickle, load_safetensors, origin

_ADAPTER = "default"
_KEY = re.compile(
    r"(?P<module>.+?)\.(?:lora_(?P<ab>[AB])(?:\.(?!weight$)[^.]+)?|lora[._](?P<way>down|up))\.weight"
)
_PARTS = {"unet.": "unet", "vae.": "autoencoder", "autoencoder.": "autoencoder"}


@dataclass
class _Part:
    """The LoRA of one network: layer → matrix or α."""

    a: dict[str, Tensor] = field(default_factory=dict)
    b: dict[str, Tensor] = field(default_factory=dict)
    alpha: dict[str, float] = field(default_factory=dict)


def import_lora(source: Path, base: Checkpoint, report: Callable[[str], None]) -> Checkpoint:
    """Merge a LoRA file into a base.

    Args:
        source: `.safetensors` with keys `unet.LAYER.lora_A.weight` (or `lora.down`), `vae.LAYER…`
            for the autoencoder; without a prefix the U-Net is meant. α comes from `LAYER.alpha`,
            from the file's metadata as diffusers writes them, or from peft's `adapter_config.json`
            beside it; where none says it, α is the rank, as diffusers takes it.
        base: what the LoRA was trained over.
        report: called with a line of progress at a time.

    Raises:
        WeightsError: the file is damaged, or not for a base like this one.
    """
    if source.suffix != ".safetensors":
        load_pickle(source)  # refuses what is unsafe or damaged with its own words
        raise WeightsError(f"{source}: a LoRA must be a safetensors file")
    tensors, metadata = load_safetensors(source)
    parts = _sort(tensors, source)
    settings = _settings(source, metadata)
    model = build(base, "the base")
    for name, part in parts.items():
        module = getattr(model, name)
        ranks = {layer: a.shape[0] for layer, a in part.a.items()}
        alphas = {
            layer: part.alpha.get(layer, _alpha(settings.get(name, {}), layer, rank))
            for layer, rank in ranks.items()
        }
        default = LoRAConfig(rank=1, alpha=1.0)
        targets = {_ADAPTER: tuple(ranks)}
        lora.inject(module, targets, default, ranks=ranks, alphas=alphas)
        named = {f"{layer}.lora_A.{_ADAPTER}.weight": a for layer, a in part.a.items()}
        named |= {f"{layer}.lora_B.{_ADAPTER}.weight": b for layer, b in part.b.items()}
        lora.load_lora(module, named, source)
        report(f"merging LoRA on {len(ranks)} layers of the {type(module).__name__}")
        lora.merge(module)
    card = {**base.card, **origin(source, source, kind="lora"), "trained": "by its publisher"}
    card["base"] = base.card.get("source", "an hbr model")
    return Checkpoint(base.config, model.state_dict(), card)


def _sort(tensors: Mapping[str, Tensor], source: Path) -> dict[str, _Part]:
    parts: dict[str, _Part] = {}
    for name, tensor in tensors.items():
        network, rest = _network(name)
        part = parts.setdefault(network, _Part())
        if rest.endswith(".alpha") and tensor.numel() == 1:
            part.alpha[rest.removesuffix(".alpha")] = float(tensor)
        elif found := _KEY.fullmatch(rest):
            is_a = found["ab"] == "A" or found["way"] == "down"
            (part.a if is_a else part.b)[found["module"]] = tensor
        else:
            raise WeightsError(f"{source}: {name} is no key of a LoRA for a U-Net or autoencoder")
    if not parts:
        raise WeightsError(f"{source} holds no LoRA")
    for part in parts.values():
        if lonely := sorted((set(part.a) ^ set(part.b)) | (set(part.alpha) - set(part.a))):
            raise WeightsError(f"{source}: {lonely[0]} lacks a matrix of its LoRA")
    return parts


def _network(name: str) -> tuple[str, str]:
    name = name.removeprefix("base_model.model.")
    for prefix, network in _PARTS.items():
        if name.startswith(prefix):
            return network, name.removeprefix(prefix)
    return "unet", name


def _settings(source: Path, metadata: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Network → what the file, or peft's own file beside it, says of rank and α."""
    beside = source.with_name("adapter_config.json")
    settings: dict[str, dict[str, Any]] = {}
    if text := metadata.get("lora_adapter_metadata"):
        try:
            values = dict(json.loads(text))
        except (ValueError, TypeError):
            raise WeightsError(f"{source}: its lora_adapter_metadata is no JSON") from None
        for key, value in values.items():
            prefix, _, name = key.partition(".")
            network = _PARTS.get(f"{prefix}.", prefix)
            settings.setdefault(network, {})[name] = value
    elif source.name.startswith("adapter_model") and beside.is_file():
        settings = dict.fromkeys(("unet", "autoencoder"), load_json(beside))
    for values in settings.values():
        for name in ("use_rslora", "use_dora"):
            if values.get(name):
                raise WeightsError(f"{source}: {name} is on; hbr merges plain LoRA only")
    return settings


def _alpha(settings: Mapping[str, Any], layer: str, rank: int) -> float:
    patterns = settings.get("alpha_pattern") or {}
    for pattern, alpha in patterns.items():
        if re.fullmatch(rf"(.*\.)?({pattern})", layer):
            return float(alpha)
    return float(settings.get("lora_alpha") or rank)
