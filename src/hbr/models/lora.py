"""LoRA through peft, in OSEDiff's layout: injecting, loading and merging adapters.

The U-Net has three adapters (down blocks, up blocks, the rest), the autoencoder one in its encoder;
names and keys are those of the published checkpoints (`conv_in.lora_A.default_encoder…`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from hbr.models.checkpoint import check_weights
from hbr.models.config import LoRAConfig
from hbr.weights import WeightsError

Targets = Mapping[str, tuple[str, ...]]
"""Adapter → names of its layers."""


def unet_targets(unet: nn.Module) -> Targets:
    """Every convolution and linear layer of the U-Net except its time embeddings (DESIGN §3)."""
    names = [name for name in layer_names(unet) if "time_emb" not in name]
    down = tuple(n for n in names if n.startswith(("conv_in", "down_blocks.")))
    up = tuple(n for n in names if n.startswith(("conv_out", "up_blocks.")))
    rest = tuple(n for n in names if n not in {*down, *up})
    return {"default_encoder": down, "default_decoder": up, "default_others": rest}


def autoencoder_targets(autoencoder: nn.Module) -> Targets:
    """Every convolution and linear layer of the encoder, and the `quant_conv` that follows it."""
    names = layer_names(autoencoder)
    inside = tuple(n for n in names if n.startswith("encoder.") or n == "quant_conv")
    return {"default_encoder": inside}


def inject(
    module: nn.Module,
    targets: Targets,
    config: LoRAConfig,
    *,
    ranks: Mapping[str, int] | None = None,
    alphas: Mapping[str, float] | None = None,
) -> None:
    """Inject adapters into layers of `module`, all active; B is zero, so the output is unchanged.

    Args:
        module: changed in place; its own weights are frozen.
        targets: adapter → names of layers, exact.
        config: rank and alpha.
        ranks: layer → rank, where it differs from the configuration's.
        alphas: layer → alpha, where it differs from the configuration's.

    Raises:
        WeightsError: `module` has no such layer, or it is not a convolution or linear layer.
    """
    known = set(layer_names(module))
    for adapter, names in targets.items():
        if unknown := [name for name in names if name not in known]:
            raise WeightsError(
                f"the LoRA is for a layer that the model does not have: {unknown[0]}"
            )
        if not names:
            continue
        peft_config = LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            init_lora_weights="gaussian",
            # a list would match by suffix; a pattern matches whole names
            target_modules="|".join(map(re.escape, names)),
            rank_pattern={f"^{re.escape(n)}": r for n, r in (ranks or {}).items()},
            alpha_pattern={f"^{re.escape(n)}": a for n, a in (alphas or {}).items()},
        )
        on_meta = next(module.parameters()).is_meta
        inject_adapter_in_model(peft_config, module, adapter, low_cpu_mem_usage=on_meta)
        del module.peft_config  # otherwise peft warns about the next adapter
    for layer in lora_layers(module).values():
        layer.set_adapter(list(targets))  # peft activates only the last one


def activate(module: nn.Module, adapters: Collection[str]) -> None:
    """Activate exactly these adapters; with none, the module is its frozen base.

    All adapters stay trainable; only the active ones get a gradient.
    """
    for layer in lora_layers(module).values():
        active = [name for name in layer.lora_A if name in adapters]
        layer.enable_adapters(bool(active))
        if active:
            layer.set_adapter(active)
    for name, parameter in module.named_parameters():
        if ".lora_" in name:
            parameter.requires_grad_(True)


def lora_layers(module: nn.Module) -> dict[str, LoraLayer]:
    """Layers with an adapter, by name."""
    return {name: m for name, m in module.named_modules() if isinstance(m, LoraLayer)}


def lora_state(module: nn.Module) -> dict[str, Tensor]:
    """The weights of the adapters, named as in the published checkpoints."""
    return {name: t for name, t in module.state_dict().items() if ".lora_" in name}


def load_lora(module: nn.Module, tensors: Mapping[str, Tensor], where: str | Path) -> None:
    """Load the weights of all adapters of `module`.

    `module` has adapters (`inject`); `tensors` are named as by `lora_state`; `where` names their
    source.

    Raises:
        WeightsError: one is missing, unexpected or of the wrong shape; the first is named.
    """
    check_weights(lora_state(module), tensors, where)
    module.load_state_dict(dict(tensors), strict=False)


@torch.no_grad()
def merged_state(module: nn.Module, adapters: Collection[str]) -> dict[str, Tensor]:
    """The weights of `module` with these adapters merged, W + α/r · B A, named as without adapters.

    The module is not changed; other adapters are ignored.
    """
    layers = lora_layers(module)
    state = {}
    for name, tensor in module.state_dict().items():
        if ".lora_" in name:
            continue
        layer = layers.get(name.removesuffix(".weight").removesuffix(".base_layer"))
        if layer is not None and name.endswith(".weight"):
            for adapter in adapters:
                if adapter in layer.lora_A:
                    tensor = tensor + layer.get_delta_weight(adapter).to(tensor.dtype)
        state[name.replace(".base_layer.", ".")] = tensor
    return state


@torch.no_grad()
def merge(module: nn.Module) -> None:
    """Merge every adapter into its layer in place: W + α/r · B A."""
    for name, layer in lora_layers(module).items():
        layer.merge(adapter_names=list(layer.lora_A))
        parent, _, child = name.rpartition(".")
        setattr(module.get_submodule(parent), child, layer.get_base_layer())


def layer_names(module: nn.Module) -> list[str]:
    """Names of the layers that can have an adapter, including those that have one."""
    names = []
    for name, layer in module.named_modules():
        base = layer.get_base_layer() if isinstance(layer, LoraLayer) else layer
        inside = ".lora_" in name or name.endswith(".base_layer")
        if isinstance(base, (nn.Conv2d, nn.Linear)) and not inside:
            names.append(name)
    return names
