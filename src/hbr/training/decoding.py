"""Distillation of a decoder: the teacher's, and how the student begins.

Shapes: b batch, c latent channels, h w latent size, s size of the image. Images are in [0, 1].
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from hbr.models.autoencoder_config import AutoencoderConfig
from hbr.models.checkpoint import read_checkpoint
from hbr.models.config import RefinerConfig
from hbr.models.decoder_files import OWN, POST_QUANT, DecoderFile, is_replaced, write_decoder
from hbr.models.decoders import MARK, latent_mark
from hbr.models.files import Card, read_header, require_one_step, under
from hbr.models.importing.base import find_base, load_diffusers_base
from hbr.models.networks import build_autoencoder, decode
from hbr.models.pruning import fold_post_quant, prune_decoder
from hbr.models.refiner import Refiner
from hbr.training.config import DecodingConfig, InitConfig, TrainConfig
from hbr.weights import WeightsError


class TeacherDecoder(nn.Module):
    """From a latent to the image as a model makes it, its refiner included; random weights."""

    def __init__(self, config: AutoencoderConfig, refiner: RefinerConfig | None) -> None:
        super().__init__()
        self.config = config
        self.autoencoder = build_autoencoder(config)
        del self.autoencoder.encoder, self.autoencoder.quant_conv
        self.refiner = None if refiner is None else Refiner(refiner)

    def forward(self, z: Tensor, encoded: Tensor | None = None) -> Tensor:
        """[b, c, h, w] → [b, 3, s, s], about [0, 1], not clamped.

        `encoded` [b, 3, s, s] is what z was encoded from, for a refiner that sees it.
        """
        image = decode(self.autoencoder, self.config, z)
        return image if self.refiner is None else cast(Tensor, self.refiner(image, encoded))


def teacher_config(config: TrainConfig) -> tuple[AutoencoderConfig, RefinerConfig | None]:
    """The teacher's autoencoder and refiner, by the header of `init.base`.

    A base that cannot be had here, or is in diffusers layout, is taken to have the autoencoder that
    is trained, and no refiner.

    Raises:
        WeightsError: the base is not a one-step model.
    """
    init = config.init
    assert isinstance(init, InitConfig)
    assert init.base is not None
    place = None
    with contextlib.suppress(WeightsError):
        place = find_base(init.base)
    if place is None or place.is_dir():
        return dataclasses.replace(config.one_step.autoencoder, decoder=None), None
    theirs = require_one_step(read_header(place).config, place)
    return theirs.autoencoder, theirs.refiner


def load_teacher_decoder(init: InitConfig, device: str | torch.device) -> TeacherDecoder:
    """Load the decoder of `init.base`, frozen, in float32.

    Raises:
        WeightsError: the base is missing, damaged, or not a one-step model.
    """
    config, refiner, tensors = _read_base(init)
    with torch.device("meta"):
        teacher = TeacherDecoder(config, refiner)
    theirs = {name: tensor.float() for name, tensor in tensors.items() if is_replaced(name)}
    teacher.load_state_dict(theirs, assign=True)
    return teacher.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def begin_student(model: Any, config: TrainConfig, given: Mapping[str, Tensor]) -> None:
    """Let the decoder of a model begin as `objective.pruned` says, and mark its latents.

    `model` is modified in place; `given` are the weights of the teacher's model.

    Raises:
        ConfigError: it is to begin with the teacher's channels, and its structure is another one.
    """
    objective, student = config.objective, model.autoencoder.decoder
    assert isinstance(objective, DecodingConfig)
    weight, bias = (given[f"{POST_QUANT}{name}"] for name in ("weight", "bias"))
    own = under(OWN, given)
    made = {MARK: latent_mark(weight, own["conv_in.weight"])}
    if objective.pruned:
        narrow = config.one_step.autoencoder.decoding
        wide = dataclasses.replace(config.one_step.autoencoder, decoder=None).decoding
        made |= prune_decoder(fold_post_quant(own, weight, bias), wide, narrow)
    student.load_state_dict({**student.state_dict(), **made})


def without_decoder(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a model but for what another decoder replaces."""
    return {name: tensor for name, tensor in tensors.items() if not is_replaced(name)}


def write_student(path: Path, model: nn.Module, config: TrainConfig, card: Card) -> None:
    """Write the decoder to a file of its own; do nothing if the training is of something else."""
    if not isinstance(config.objective, DecodingConfig):
        return
    decoder = config.one_step.autoencoder.decoder
    assert decoder is not None
    dtype = getattr(torch, config.weights)
    state = model.get_submodule("autoencoder.decoder").state_dict()
    tensors = {name: tensor.to(dtype).cpu() for name, tensor in state.items()}
    write_decoder(path, DecoderFile(decoder, tensors), card)


def _read_base(
    init: InitConfig,
) -> tuple[AutoencoderConfig, RefinerConfig | None, Mapping[str, Tensor]]:
    assert init.base is not None
    place = find_base(init.base)
    if place.is_dir():
        base = load_diffusers_base(place)
        return base.autoencoder, None, base.tensors
    checkpoint = read_checkpoint(place, init.fidelity)
    theirs = require_one_step(checkpoint.config, place)
    return theirs.autoencoder, theirs.refiner, checkpoint.tensors
