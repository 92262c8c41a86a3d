"""LoRA files of diffusers, peft and kohya: safetensors with `unet.….lora_A.weight` and the like."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from hbr.models import lora
from hbr.models.checkpoint import Checkpoint, build
from hbr.models.config import LoRAConfig
from hbr.models.importing.lora_settings import NETWORKS, rank_of, read_settings
from hbr.models.importing.reading import check_finite, load_pickle, load_safetensors, published
from hbr.weights import WeightsError

T = TypeVar("T")

_ADAPTER = "default"
_KEY = re.compile(
    r"(?P<module>.+?)\.(?:lora_(?P<ab>[AB])(?:\.(?!weight$)[^.]+)?|lora[._](?P<way>down|up))\.weight"
)
# kohya joins module names with _
_PARTS = {
    **{f"{prefix}.": network for prefix, network in NETWORKS.items()},
    **{f"lora_{prefix}_": network for prefix, network in NETWORKS.items()},
}
# layers that were trained themselves, in files of hbr
_WHOLE = re.compile(r"modules_to_save\.(?P<part>unet|vae)\.(?P<name>.+\.(weight|bias))")
_OTHER_NETWORKS = re.compile(
    r"(lora_te\d?_|te\d?\.|text_encoder(_\d)?\.|text_model\.|transformer\.|controlnet\.)"
)
_OUT = {"to_out": "to_out.0"}
# diffusers before 0.20 kept the attention layers in its processors
_PROCESSOR = re.compile(r"\.processor\.(to_q|to_k|to_v|to_out)_lora\.(down|up)\.")


@dataclass
class _Part:
    """The LoRA of one network: layer → matrix or α; and whole weights by name."""

    a: dict[str, Tensor] = field(default_factory=dict)
    b: dict[str, Tensor] = field(default_factory=dict)
    alpha: dict[str, float] = field(default_factory=dict)
    whole: dict[str, Tensor] = field(default_factory=dict)


def import_lora(
    source: Path, base: Checkpoint, report: Callable[[str], None], alpha: float | None = None
) -> Checkpoint:
    """Merge a LoRA file into a base.

    Args:
        source: `.safetensors` with keys `unet.LAYER.lora_A.weight` (or `lora.down`), `vae.LAYER…`
            for the autoencoder; without a prefix the U-Net is meant; kohya's `lora_unet_LAYER…` by
            diffusers' names of layers. α comes from `LAYER.alpha`, or from what the file or its
            folder state (`lora_settings`); otherwise α is the rank, as in diffusers, and a warning
            says so.
            Weights `modules_to_save.unet.LAYER…` replace the base's.
        base: the model that the LoRA was trained on.
        report: called with each line of progress.
        alpha: α of all layers, in place of all that is stated.

    Raises:
        WeightsError: the file is damaged, is no plain LoRA, or does not match the base.
    """
    if source.suffix != ".safetensors":
        load_pickle(source)  # raises its own error if the file is unsafe or damaged
        raise WeightsError(f"{source}: a LoRA must be a safetensors file")
    tensors, metadata = load_safetensors(source)
    parts = _sort(tensors, source)
    check_finite(tensors, source)
    settings, warnings = read_settings(source, metadata)
    for line in warnings:
        report(f"warning: {line}")
    model = build(base, "the base")
    for name, part in parts.items():
        module = model.get_submodule(name)
        part = _with_names_of(module, part, source)
        _replace(module, part.whole, source)
        if not part.a:
            continue
        stated = settings[name]
        # α in the file comes before settings, `alpha` before all
        ranks = {layer: rank_of(a, layer, source) for layer, a in part.a.items()}
        scales = {
            layer: stated.scale(layer, rank, part.alpha.get(layer) if alpha is None else alpha)
            for layer, rank in ranks.items()
        }
        unstated = [n for n in part.a if n not in part.alpha and stated.alpha_of(n) is None]
        if alpha is None and unstated:
            report(
                f"warning: {source} does not state α for {len(unstated)} layers of the "
                f"{type(module).__name__}; α is taken to be the rank (--alpha states another)"
            )
        default = LoRAConfig(rank=1, alpha=1.0)
        targets = {_ADAPTER: tuple(scales)}
        alphas = {layer: scale * ranks[layer] for layer, scale in scales.items()}
        lora.inject(module, targets, default, ranks=ranks, alphas=alphas)
        named = {f"{layer}.lora_A.{_ADAPTER}.weight": a for layer, a in part.a.items()}
        named |= {f"{layer}.lora_B.{_ADAPTER}.weight": b for layer, b in part.b.items()}
        lora.load_lora(module, named, source)
        low, high = min(scales.values()), max(scales.values())
        at = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        report(f"merging LoRA on {len(ranks)} layers of the {type(module).__name__}, scale {at}")
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
        if whole := _WHOLE.fullmatch(name):
            part = parts.setdefault(_PARTS[f"{whole['part']}."], _Part())
            part.whole[whole["name"]] = tensor
            continue
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


@torch.no_grad()
def _replace(module: nn.Module, whole: Mapping[str, Tensor], source: Path) -> None:
    """Put whole weights in place of those of `module`, by name."""
    there = dict(module.named_parameters())
    for name, tensor in whole.items():
        if name not in there or there[name].shape != tensor.shape:
            found = "no such weight" if name not in there else list(there[name].shape)
            raise WeightsError(
                f"{source}: modules_to_save has {name} {list(tensor.shape)}; the base has {found}"
            )
        there[name].copy_(tensor)


def _with_names_of(module: nn.Module, part: _Part, source: Path) -> _Part:
    """The part with its layers named as in `module`, which must have all of them."""
    known = set(lora.layer_names(module))
    joined = {name.replace(".", "_"): name for name in known}

    def renamed(values: dict[str, T]) -> dict[str, T]:
        return {
            layer if layer in known else joined.get(layer, layer): values[layer] for layer in values
        }

    part = _Part(renamed(part.a), renamed(part.b), renamed(part.alpha), part.whole)
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
