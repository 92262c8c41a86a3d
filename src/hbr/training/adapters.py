"""The LoRA adapters of a fine-tuning: the generator's, and the regularizer's on the same U-Net.

One frozen U-Net serves as three networks: with the generator's adapters it is the generator, with
the regularizer's the regularizer, and without adapters the prior. A first convolution that is
trained itself belongs to the generator alone.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from hbr.models import lora
from hbr.models.exporting.adapters import adapter_of, write_lora
from hbr.models.files import Card
from hbr.training.config import InitConfig, RestorationConfig, TrainConfig
from hbr.training.discriminator import Discriminator

_REGULARIZER = "regularizer"
_DISCRIMINATOR = "discriminator"
_CONV_IN = "conv_in"


def generator_adapters(unet: nn.Module) -> tuple[str, ...]:
    """Return the names of the generator's adapters."""
    return tuple(lora.unet_targets(unet))


def regularizer_adapters(unet: nn.Module) -> tuple[str, ...]:
    """Return the names of the regularizer's adapters."""
    return tuple(_of_regularizer(name) for name in generator_adapters(unet))


def add_adapters(model: nn.Module, config: TrainConfig) -> None:
    """Add the modules that the objective trains in addition to the model.

    These are adapters, with which encoder, decoder and U-Net are frozen, or a discriminator.
    """
    objective = config.objective
    if config.discriminator is not None:
        model.add_module(_DISCRIMINATOR, Discriminator(config.discriminator.width))
    if not isinstance(objective, RestorationConfig) or objective.lora is None:
        return
    unet, autoencoder = model.get_submodule("unet"), model.get_submodule("autoencoder")
    targets = lora.unet_targets(unet)
    lora.inject(autoencoder, lora.autoencoder_targets(autoencoder), objective.lora)
    lora.inject(unet, targets, objective.lora)
    if objective.vsd is not None:
        whole = objective.vsd.regularizer == "whole"
        followed = targets if whole else {"default_others": targets["default_others"]}
        regularizer = {_of_regularizer(name): layers for name, layers in followed.items()}
        lora.inject(unet, regularizer, objective.vsd.lora)
    lora.activate(unet, tuple(targets))
    if objective.train_conv_in:
        _train_conv_in(unet)


def _train_conv_in(unet: nn.Module) -> None:
    """Train the first convolution for the generator; prior and regularizer keep the base's."""
    layer = lora.lora_layers(unet)[_CONV_IN]
    (adapter,) = (name for name in generator_adapters(unet) if name in layer.lora_A)
    conv = layer.get_base_layer()
    assert isinstance(conv, nn.Conv2d)
    conv.requires_grad_(True)
    conv.register_buffer("of_base_weight", conv.weight.detach().clone(), persistent=False)
    assert conv.bias is not None
    conv.register_buffer("of_base_bias", conv.bias.detach().clone(), persistent=False)

    def of_base(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        if adapter in layer.active_adapters and not layer.disable_adapters:
            return output
        weight, bias = conv.get_buffer("of_base_weight"), conv.get_buffer("of_base_bias")
        return conv._conv_forward(inputs[0], weight, bias)

    conv.register_forward_hook(of_base)


def is_of_regularizer(parameter: str) -> bool:
    """Whether a parameter of this name belongs to the regularizer."""
    return f".{_REGULARIZER}_" in parameter


def is_of_discriminator(parameter: str) -> bool:
    """Whether a parameter of this name belongs to the discriminator."""
    return parameter.startswith(f"{_DISCRIMINATOR}.")


def merged_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Return the model's weights with the generator's adapters merged and all others removed."""
    names = {name: None for layer in lora.lora_layers(model).values() for name in layer.lora_A}
    merged = lora.merged_state(model, [name for name in names if _REGULARIZER not in name])
    return {name: tensor for name, tensor in merged.items() if not is_of_discriminator(name)}


def write_generator(path: Path, model: nn.Module, config: TrainConfig, card: Card) -> None:
    """Write the generator's adapters as a LoRA file; do nothing if the training has no adapters.

    Args:
        path: the file, with the extension `.safetensors`.
        model: holds the weights to write.
        config: the training; rank, α and base are written to the file's metadata.
        card: further metadata.
    """
    objective = config.objective
    if not isinstance(objective, RestorationConfig) or objective.lora is None:
        return
    unet, autoencoder = model.get_submodule("unet"), model.get_submodule("autoencoder")
    parts = {
        "unet": adapter_of(
            unet, generator_adapters(unet), (_CONV_IN,) if objective.train_conv_in else ()
        ),
        "autoencoder": adapter_of(autoencoder, tuple(lora.autoencoder_targets(autoencoder))),
    }
    settings = {"rank": str(objective.lora.rank), "alpha": str(objective.lora.alpha)}
    write_lora(path, parts, {**card, **settings, "base": _base(config)})


def _base(config: TrainConfig) -> str:
    """Return what the training started from, without absolute paths."""
    base = config.init.base if isinstance(config.init, InitConfig) else config.init
    if base is None:
        return f"none: {config.start} weights"
    return base.name if base.is_absolute() else base.as_posix()


def _of_regularizer(name: str) -> str:
    return name.replace("default", _REGULARIZER)
