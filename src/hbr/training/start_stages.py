"""Initialise a DiffBody model part by part: Stable Diffusion, stage 1, and the control branch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from hbr.config import ConfigError, first_difference, to_dict
from hbr.models.checkpoint import build, check_weights, read_checkpoint
from hbr.models.config import RestorerConfig, ScheduleConfig
from hbr.models.diffbody.config import DiffBodyConfig
from hbr.models.diffbody.control import copy_encoder, split_first_convolution
from hbr.models.importing.base import find_base, load_diffusers_base
from hbr.models.importing.reading import load_safetensors
from hbr.models.swinir_config import SwinIRConfig
from hbr.models.text import load_text_encoder
from hbr.training.config import InitConfig
from hbr.weights import find_model


def load_stages(model: Any, config: DiffBodyConfig, init: InitConfig) -> None:
    """Load the parts that `init` names; the control branch begins as a copy of the U-Net.

    Args:
        model: a DiffBody, modified in place; on the CPU, in float32.
        config: of the model.
        init: a diffusers folder with a text encoder, or a DiffBody model, as `base`; files of the
            other parts.

    Raises:
        ConfigError: a part does not fit `config`; the message names the first difference.
        WeightsError: a file is missing, damaged or of another model.
    """
    if init.base is not None:
        _load_base(model, config, init.base, init.fidelity)
    if init.stage1 is not None:
        path = find_model(init.stage1)
        checkpoint = read_checkpoint(path)
        if not isinstance(checkpoint.config, SwinIRConfig):
            raise ConfigError(f"init.stage1: {path} is a model of kind {checkpoint.config.kind}")
        # names are for display, and tiles are the restorer's
        shown = {"name": config.stage1.name, "native_size": config.stage1.native_size}
        theirs = {**to_dict(checkpoint.config), **shown}
        must_agree(theirs, config.stage1, "stage1", f"init.stage1: {path}")
        model.stage1.load_state_dict(build(checkpoint, path).state_dict())
    if init.control is not None:
        weights, _ = load_safetensors(init.control)
        split = split_first_convolution(weights, config.autoencoder.latent_channels)
        check_weights(model.control.state_dict(), split, init.control)
        model.control.load_state_dict(split)


def _load_base(
    model: nn.Module, config: DiffBodyConfig, base: Path, fidelity: float | None
) -> None:
    place = find_base(base)
    if not place.is_dir():
        _load_all_but_control(model, config, place, fidelity)
        return
    found = load_diffusers_base(place)
    if config.text is None:
        raise ConfigError(f"init: {place} has a text encoder; model.text must not be null")
    text, encoder = load_text_encoder(place)
    for name, theirs in (
        ("autoencoder", found.autoencoder),
        ("unet", found.unet),
        ("schedule", ScheduleConfig()),
        ("text", text),
    ):
        must_agree(theirs, getattr(config, name), name, f"init: {place}")
    tensors = {f"text.{name}": t for name, t in encoder.state_dict().items()}
    model.load_state_dict({**model.state_dict(), **found.tensors, **tensors})
    copy_encoder(model.get_submodule("control"), model.get_submodule("unet"))


def _load_all_but_control(
    model: nn.Module, config: DiffBodyConfig, path: Path, fidelity: float | None
) -> None:
    """Load a DiffBody model, such as one whose body parts were trained, or a diffusion prior."""
    checkpoint = read_checkpoint(path, fidelity)
    theirs = checkpoint.config
    shared: tuple[str, ...] = ("autoencoder", "unet", "schedule")
    if isinstance(theirs, DiffBodyConfig):
        shared += ("stage1", "text", "parts")
    elif not isinstance(theirs, RestorerConfig) or config.text is not None:
        raise ConfigError(
            f"init.base: {path} is a model of kind {theirs.kind}; a diffusers folder with a text "
            "encoder (sd-2.1-base) or a model of kind diffbody is needed"
        )
    for name in shared:
        ours = getattr(config, name)
        must_agree(getattr(theirs, name), ours, name, f"init.base: {path}")
    # as `build` does it: texts are of any length
    given = build(checkpoint, path).state_dict()
    own = model.state_dict()
    taken = {n: t for n, t in given.items() if n in own and not n.startswith("control.")}
    model.load_state_dict({**own, **taken})
    copy_encoder(model.get_submodule("control"), model.get_submodule("unet"))


def must_agree(theirs: Any, ours: Any, name: str, where: str, what: str = "configuration") -> None:
    """Raise `ConfigError` for the first field in which two configurations differ."""
    if (found := first_difference(to_dict(theirs), to_dict(ours), name)) is not None:
        field, there, here = found
        hint = ", the width of its prompt" if field == "unet.cross_attention_dim" else ""
        raise ConfigError(
            f"{where} has a different {what}: {field} is {there!r} there{hint}, {here!r} in `model`"
        )
