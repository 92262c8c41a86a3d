"""LoRA files of diffusers, peft and kohya: safetensors with `unet.….lora_A.weight` and the like."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from hbr.models import lora
from hbr.models.checkpoint import Checkpoint, build
from hbr.models.config import LoRAConfig
from hbr.models.importing.reading import load_json, load_pickle, load_safetensors, published
from hbr.weights import WeightsError

T = TypeVar("T")

_ADAPTER = "default"
_KEY = re.compile(
    r"(?P<module>.+?)\.(?:lora_(?P<ab>[AB])(?:\.(?!weight$)[^.]+)?|lora[._](?P<way>down|up))\.weight"
)
# kohya joins module names with _
_PARTS = {
    "unet.": "unet",
    "vae.": "autoencoder",
    "autoencoder.": "autoencoder",
    "lora_unet_": "unet",
    "lora_vae_": "autoencoder",
}
_OTHER_NETWORKS = re.compile(
    r"(lora_te\d?_|te\d?\.|text_encoder(_\d)?\.|text_model\.|transformer\.|controlnet\.)"
)
_OUT = {"to_out": "to_out.0"}
# diffusers before 0.20 kept the attention layers in its processors
_PROCESSOR = re.compile(r"\.processor\.(to_q|to_k|to_v|to_out)_lora\.(down|up)\.")


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
            for the autoencoder; without a prefix the U-Net is meant; kohya's `lora_unet_LAYER…` by
            diffusers' names of layers. α comes from `LAYER.alpha`, from the file's metadata as
            diffusers writes it, or from peft's `adapter_config.json` beside it; otherwise α is the
            rank, as in diffusers.
        base: the model that the LoRA was trained on.
        report: called with each line of progress.

    Raises:
        WeightsError: the file is damaged, or does not match the base.
    """
    if source.suffix != ".safetensors":
        load_pickle(source)  # raises its own error if the file is unsafe or damaged
        raise WeightsError(f"{source}: a LoRA must be a safetensors file")
    tensors, metadata = load_safetensors(source)
    parts = _sort(tensors, source)
    settings = _settings(source, metadata)
    model = build(base, "the base")
    for name, part in parts.items():
        module = model.get_submodule(name)
        part = _with_names_of(module, part, source)
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
    card = published(base.card, source, "lora")
    return Checkpoint(base.config, model.state_dict(), card)


def _sort(tensors: Mapping[str, Tensor], source: Path) -> dict[str, _Part]:
    if others := [name for name in tensors if _OTHER_NETWORKS.match(name)]:
        raise WeightsError(
            f"{source}: {len(others)} of its {len(tensors)} keys are for other networks than "
            f"U-Net and autoencoder, such as {others[0]}; models of hbr have only these two"
        )
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
            raise WeightsError(f"{source}: {name} is not a LoRA key of a U-Net or autoencoder")
    if not parts:
        raise WeightsError(f"{source} does not contain a LoRA")
    for part in parts.values():
        if lonely := sorted((set(part.a) ^ set(part.b)) | (set(part.alpha) - set(part.a))):
            raise WeightsError(f"{source}: {lonely[0]} lacks a matrix of its LoRA")
    return parts


def _with_names_of(module: nn.Module, part: _Part, source: Path) -> _Part:
    """The part with its layers named as in `module`, which must have all of them."""
    known = set(lora.layer_names(module))
    joined = {name.replace(".", "_"): name for name in known}

    def renamed(values: dict[str, T]) -> dict[str, T]:
        return {
            layer if layer in known else joined.get(layer, layer): values[layer] for layer in values
        }

    part = _Part(renamed(part.a), renamed(part.b), renamed(part.alpha))
    if others := [layer for layer in part.a if layer not in known]:
        raise WeightsError(
            f"{source}: {len(others)} of its {len(part.a)} layers are not in the base; the first "
            f"layer that the model does not have: {others[0]}"
        )
    return part


def _network(name: str) -> tuple[str, str]:
    name = name.removeprefix("base_model.model.")
    name = _PROCESSOR.sub(lambda m: f".{_OUT.get(m[1], m[1])}.lora.{m[2]}.", name)
    for prefix, network in _PARTS.items():
        if name.startswith(prefix):
            return network, name.removeprefix(prefix)
    return "unet", name


def _settings(source: Path, metadata: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Rank and α settings by network, from the file or from peft's file beside it."""
    beside = source.with_name("adapter_config.json")
    settings: dict[str, dict[str, Any]] = {}
    if text := metadata.get("lora_adapter_metadata"):
        try:
            values = dict(json.loads(text))
        except (ValueError, TypeError):
            raise WeightsError(f"{source}: its lora_adapter_metadata is not JSON") from None
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
