"""Decoders in files of their own, and models with the decoder of such a file in place of theirs."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from hbr.config import ConfigError, from_dict
from hbr.errors import one_line
from hbr.models.autoencoder_config import STABLE_DIFFUSION, DecoderConfig
from hbr.models.checkpoint import check_weights
from hbr.models.config import RestorerConfig
from hbr.models.decoders import MARK, NO_MARK, build_decoder, latent_mark, same_latents
from hbr.models.diffbody.config import DiffBodyConfig
from hbr.models.files import (
    Card,
    Header,
    is_model_format,
    read_config,
    read_header,
    read_metadata,
    read_tensors,
    shapes_of,
    write_with_config,
)
from hbr.models.importing.reading import load_weights
from hbr.models.protocol import ModelConfig
from hbr.weights import WeightsError

FORMAT = "hbr decoder"

OWN = "autoencoder.decoder."
POST_QUANT = "autoencoder.post_quant_conv."
_REFINER = "refiner."
_GROUPS = 32
"""Of the norms of published decoders, whose weights do not tell it."""


@dataclass(frozen=True)
class DecoderFile:
    """The content of a decoder's file.

    Attributes:
        config: of the decoder.
        tensors: name → weight, as `build_decoder(config)` names them.
        guessed: the file does not say which latents it decodes; it is taken for Stable Diffusion's.
    """

    config: DecoderConfig
    tensors: Mapping[str, Tensor]
    guessed: bool = False


def read_decoder(path: Path) -> DecoderFile:
    """Read a decoder.

    Args:
        path: a file of `write_decoder`; a model file of hbr that was trained with a decoder in
            place of its own; TAESD, as its author or as diffusers names the weights; or a decoder
            of diffusers' `AutoencoderKL` at another width, as VOSR's `sd21_lwdecoder.pth`.

    Raises:
        WeightsError: it is missing, damaged, or contains no such decoder.
    """
    if path.suffix == ".safetensors":
        metadata, shapes = read_metadata(path)
        kind = metadata.get("format", "")
        if kind == FORMAT:
            config = read_config(path, metadata, partial(from_dict, DecoderConfig))
            return _checked(path, DecoderFile(config, dict(read_tensors(path, shapes))))
        if is_model_format(kind):
            return _of_model(path)
    tensors = {
        name.removeprefix("decoder."): tensor
        for name, tensor in load_weights(path).items()
        if not name.startswith("encoder.")
    }
    if all(re.match(r"\d+\.", name) for name in tensors):  # TAESD's author counts the clamp too
        tensors = {re.sub(r"^\d+", _layer_name, name): tensor for name, tensor in tensors.items()}
    shapes = shapes_of(tensors)
    try:
        config = _tiny_config(shapes) if "layers.0.weight" in shapes else _kl_config(shapes)
    except (KeyError, IndexError, ConfigError, ValueError) as error:
        raise WeightsError(
            f"{path} contains no decoder that hbr knows ({one_line(error, 100)}); it must be a "
            "decoder of hbr, TAESD or a decoder of an AutoencoderKL"
        ) from None
    return _checked(path, DecoderFile(config, {**tensors, MARK: NO_MARK}, guessed=True))


def write_decoder(path: Path, decoder: DecoderFile, card: Card | None = None) -> Path:
    """Write a decoder to a file of its own, atomically.

    Raises:
        WeightsError: it cannot be written.
    """
    return write_with_config(path, FORMAT, decoder.config, decoder.tensors, card)


def with_decoder(
    path: Path, header: Header, decoder: DecoderFile, name: str
) -> tuple[Header, Header]:
    """The header of a model with another decoder, and that of what is left of the model then.

    The decoder makes the image alone: no refiner is left. `name` is that of the decoder, for
    messages.

    Raises:
        ConfigError: the model has no latents, or the decoder is for others.
    """
    latent, theirs = header.config.capabilities.latent, decoder.config.latent
    if latent is None:
        raise ConfigError(
            f"decoder is {name}, but {path.name} has no latents to decode; leave it out"
        )
    remedy = "leave it out, or distil one for this model (`hbr train distill/nano` is an example)"
    if latent != theirs:
        raise ConfigError(
            f"decoder is {name}, for latents of {theirs}; those of {path.name} have {latent}: "
            f"{remedy}"
        )
    if not same_latents(read_mark(path, header), decoder.tensors[MARK]):
        raise ConfigError(
            f"decoder is {name}, which was trained for the latents of another model than "
            f"{path.name}: {remedy}"
        )
    kept = {name: shape for name, shape in header.shapes.items() if not is_replaced(name)}
    added = {OWN + name: shape for name, shape in shapes_of(decoder.tensors).items()}
    config = _swapped(header.config, decoder.config)
    changed = dataclasses.replace(header, config=config, shapes={**kept, **added})
    return changed, dataclasses.replace(header, shapes=kept)


def read_mark(path: Path, header: Header) -> Tensor:
    """The mark of a model's latents (`hbr.models.decoders.latent_mark`)."""
    if OWN + MARK in header.shapes:
        return dict(read_tensors(path, [OWN + MARK]))[OWN + MARK]
    names = (f"{POST_QUANT}weight", f"{OWN}conv_in.weight")
    if not all(name in header.shapes for name in names):
        return torch.zeros(1)  # the model will not load, and says why
    found = dict(read_tensors(path, names))
    return latent_mark(*(found[name] for name in names))


def _swapped(config: ModelConfig, decoder: DecoderConfig) -> ModelConfig:
    assert isinstance(config, RestorerConfig | DiffBodyConfig)
    autoencoder = dataclasses.replace(config.autoencoder, decoder=decoder)
    if isinstance(config, DiffBodyConfig):
        return dataclasses.replace(config, autoencoder=autoencoder)
    return dataclasses.replace(config, autoencoder=autoencoder, refiner=None)


def is_replaced(name: str) -> bool:
    """Whether a weight of a model, by its name, is left out when its decoder is replaced."""
    return name.startswith((OWN, POST_QUANT, _REFINER))


def _of_model(path: Path) -> DecoderFile:
    header = read_header(path)
    config = header.config
    own = isinstance(config, RestorerConfig | DiffBodyConfig) and config.autoencoder.decoder
    if not own:
        raise WeightsError(
            f"{path} is a model with its own decoder; a decoder for others is one that was trained "
            "in its place (objective decoder)"
        )
    names = [name for name in header.shapes if name.startswith(OWN)]
    tensors = {name.removeprefix(OWN): t.clone() for name, t in read_tensors(path, names)}
    return _checked(path, DecoderFile(own, tensors))


def _checked(path: Path, decoder: DecoderFile) -> DecoderFile:
    with torch.device("meta"):
        wanted = build_decoder(decoder.config).state_dict()
    check_weights(wanted, decoder.tensors, path)
    return decoder


def _layer_name(number: re.Match[str]) -> str:
    return f"layers.{int(number[0]) - 1}"


def _tiny_config(shapes: Mapping[str, tuple[int, ...]]) -> DecoderConfig:
    """Of TAESD's weights: convolution, then blocks, upsampling and convolution for each level."""
    width, channels = shapes["layers.0.weight"][:2]
    blocks = {int(n.split(".")[1]) for n in shapes if n.endswith(".conv.0.weight")}
    numbers = {int(name.split(".")[1]) for name in shapes}
    levels = len(numbers - blocks) - 1  # the last convolution of each
    return DecoderConfig(
        kind="tiny",
        latent=dataclasses.replace(STABLE_DIFFUSION, channels=channels, factor=2 ** (levels - 1)),
        block_out_channels=(width,) * levels,
        layers_per_block=(len(blocks) - 1) // max(1, levels - 1) - 1,
        mid_attention=False,
        scaling_factor=1.0,
    )


def _kl_config(shapes: Mapping[str, tuple[int, ...]]) -> DecoderConfig:
    """Of the weights of diffusers' decoder."""
    first = "up_blocks.{}.resnets.{}.conv1.weight".format
    levels = sum(first(i, 0) in shapes for i in range(16))
    resnets = sum(first(0, i) in shapes for i in range(16))
    widths = tuple(shapes[first(i, 0)][0] for i in reversed(range(levels)))
    return DecoderConfig(
        latent=dataclasses.replace(
            STABLE_DIFFUSION, channels=shapes["conv_in.weight"][1], factor=2 ** (levels - 1)
        ),
        block_out_channels=widths,
        layers_per_block=resnets - 1,
        norm_num_groups=_GROUPS,
        mid_attention=any(name.startswith("mid_block.attentions.") for name in shapes),
    )
