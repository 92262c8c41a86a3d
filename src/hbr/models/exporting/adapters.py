"""LoRA files for diffusers and peft: safetensors with `unet.LAYER.lora_A.weight` and so on.

B is multiplied by α/r, and α is written as r, so that programs compute the same whether they read
α or not. Layers that were trained themselves, beside their LoRA, are there as
`modules_to_save.unet.LAYER.weight`, after peft's word for them; diffusers does not read these.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hbr.models import lora
from hbr.models.files import Card, write_tensors

WHOLE = "modules_to_save."
"""The prefix of the weights of layers that were trained themselves."""

PARTS = {"unet": "unet", "autoencoder": "vae"}
"""Parts of the model → their names in diffusers."""


@dataclass(frozen=True)
class Adapter:
    """The LoRA of one network.

    Attributes:
        a: layer → A, [r, in] or [r, in, k, k].
        b: layer → B including the scale, [out, r] or [out, r, 1, 1].
        whole: name of a weight → its trained value, which replaces the base's.
    """

    a: Mapping[str, Tensor]
    b: Mapping[str, Tensor]
    whole: Mapping[str, Tensor] = field(default_factory=dict)


@torch.no_grad()
def adapter_of(module: nn.Module, names: Collection[str], trained: Collection[str] = ()) -> Adapter:
    """Combine the adapters of these names on `module`; no layer may have two of them.

    Args:
        module: with adapters (`hbr.models.lora.inject`).
        names: of the adapters.
        trained: layers with an adapter that were trained themselves too.
    """
    a: dict[str, Tensor] = {}
    b: dict[str, Tensor] = {}
    for layer, found in lora.lora_layers(module).items():
        here = [name for name in names if name in found.lora_A]
        assert len(here) <= 1, f"{layer} carries {here}"
        for name in here:
            a[layer] = found.lora_A[name].weight.detach()
            b[layer] = found.lora_B[name].weight.detach() * found.scaling[name]
    whole = {
        f"{layer}.{name}": tensor.detach()
        for layer in trained
        for name, tensor in lora.lora_layers(module)[layer].get_base_layer().state_dict().items()
    }
    return Adapter(a, b, whole)


def write_lora(path: str | Path, parts: Mapping[str, Adapter], card: Card | None = None) -> Path:
    """Write a LoRA file for `load_lora_adapter` of diffusers and for `hbr models import`.

    `path` ends in `.safetensors`; `parts` are "unet", "autoencoder" or both.

    Raises:
        WeightsError: it cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    settings: dict[str, Any] = {}
    for part, adapter in parts.items():
        prefix = PARTS[part]
        for layer in adapter.a:
            tensors[f"{prefix}.{layer}.lora_A.weight"] = adapter.a[layer]
            tensors[f"{prefix}.{layer}.lora_B.weight"] = adapter.b[layer]
        tensors |= {f"{WHOLE}{prefix}.{name}": tensor for name, tensor in adapter.whole.items()}
        ranks = {layer: matrix.shape[0] for layer, matrix in adapter.a.items()}
        rank = max(ranks.values())
        other = {f"^{layer}$": r for layer, r in ranks.items() if r != rank}
        values = {
            "r": rank,
            "lora_alpha": rank,
            "rank_pattern": other,
            "alpha_pattern": other,
            "target_modules": sorted(ranks),
        }
        settings |= {f"{prefix}.{name}": value for name, value in values.items()}
    metadata = {**(card or {}), "format": "pt", "lora_adapter_metadata": json.dumps(settings)}
    plain = {name: t.detach().float().cpu() for name, t in tensors.items()}
    return write_tensors(path, plain, metadata)
