"""Initialise a training: from published weights, an hbr model, or as an identity."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hbr.config import ConfigError, to_dict
from hbr.models.checkpoint import Checkpoint, build, read_checkpoint
from hbr.models.config import (
    DAPEConfig,
    HFIEConfig,
    PromptConfig,
    RestorerConfig,
    ScheduleConfig,
    TextPromptConfig,
)
from hbr.models.dape import DAPE
from hbr.models.diffbody.config import DiffBodyConfig
from hbr.models.files import read_header, read_tensors, require_one_step
from hbr.models.hfie import HFIE
from hbr.models.identity import start_at_identity, whiten
from hbr.models.importing.base import find_base, load_diffusers_base
from hbr.models.importing.ram import import_ram, read_image_encoder
from hbr.models.importing.tagger import import_tagger
from hbr.models.text import TextEncoder, TextPrompt, load_text_encoder
from hbr.training.adapters import add_adapters
from hbr.training.config import (
    AutoencodingConfig,
    DecodingConfig,
    InitConfig,
    RestorationConfig,
    TrainConfig,
    VSDConfig,
)
from hbr.training.data import TrainingPairs
from hbr.training.decoding import begin_student, without_decoder
from hbr.training.start_stages import load_stages, must_agree
from hbr.weights import entries, find_model, find_weights


def load_initial_weights(
    model: nn.Module, config: TrainConfig, report: Callable[[str], None] = lambda line: None
) -> None:
    """Load the weights of `config.init`; prompts of a different kind are not loaded.

    Args:
        model: modified in place; on the CPU, in float32.
        config: the training.
        report: called with a line about each part of a file that is not used.

    Raises:
        ConfigError: the weights do not fit `config.model`; the message names the first difference.
        WeightsError: the weights are missing, damaged or of another model.
    """
    init = config.init
    if not isinstance(config.model, RestorerConfig):
        _load_other(model, config)
        return
    base = init.base if isinstance(init, InitConfig) else init
    if base is not None:
        given = _read_weights(config, _base(config))
        distils = isinstance(config.objective, DecodingConfig)
        loaded = without_decoder(given) if distils else given
        model.load_state_dict({**model.state_dict(), **loaded})
        if distils:
            begin_student(model, config, given)
        if isinstance(init, InitConfig) and init.difference is not None:
            _add_difference(model, config.model, *init.difference)
        _load_text(model, config)
    if isinstance(init, InitConfig) and init.image_encoder is not None:
        _load_image_encoder(model, config.one_step.prompt, init, report)
    if isinstance(model.prompt, DAPE):
        for part, kept in (
            ("image_encoder: a RAM checkpoint", model.prompt.tagger.list),
            ("base with a text encoder, as sd-2.1-base", model.prompt.text.tokenizer),
        ):
            if not kept.data.numel():
                raise ConfigError(f"the prompt `dape` needs init.{part}")


def embed_negative(model: nn.Module, config: TrainConfig) -> Tensor | None:
    """Embed the negative prompt of the distillation: float32 [q, d], or None without one.

    Raises:
        ConfigError: `init` has no text encoder of the U-Net's width.
    """
    match config.objective:
        case RestorationConfig(vsd=VSDConfig(negative_prompt=str(text))):
            place = _base(config)
            inside = model.prompt.text if isinstance(model.prompt, DAPE) else None
            encoder = inside or _text_encoder(place)
            width = config.one_step.unet.cross_attention_dim
            return _embed(text, "objective.vsd.negative_prompt", width, encoder, place)
    return None


def begin_at_identity(model: Any, config: TrainConfig) -> None:
    """Initialise the model, or only its autoencoder, to return its input."""
    alone = isinstance(config.objective, AutoencodingConfig)
    start_at_identity(model, one_step=not alone)
    if alone:
        pairs = TrainingPairs(config, 0)
        n_batches = min(8, config.phases[0].steps)  # within a phase crops have one size
        whiten(model, torch.cat([pairs.batch(step).hq for step in range(n_batches)]))


def prepare(model: nn.Module, config: TrainConfig, parts: tuple[str, ...] | None) -> None:
    """Prepare a model for training: add adapters, enable checkpointing, freeze parts.

    `model` is modified in place; `parts` are those that the objective trains, None all.

    Raises:
        ConfigError: `freeze` names an unknown part.
    """
    add_adapters(model, config)
    if config.memory.checkpointing is True:  # what "auto" is, the trainer decides
        checkpoint_blocks(model)
    for name in (*config.freeze, *sorted(_untrained(model, parts or ("",)))):
        freeze(model, name)


def checkpoint_blocks(model: nn.Module) -> None:
    """Enable activation checkpointing in every part of the model that supports it.

    Only the inputs of blocks are kept (Chen et al. 2016). The backward pass must recompute the same
    values: the adapters active in the forward pass must be active in the backward pass.
    """
    for part in (model, *model.children()):
        if enable := getattr(part, "enable_gradient_checkpointing", None):
            enable()


def _untrained(part: nn.Module, trained: tuple[str, ...]) -> Iterator[str]:
    """The parts of a model outside the trained ones; the name "" is that of all."""
    for name, child in part.named_children():
        if "" in trained or name in trained:
            continue
        inside = tuple(n.partition(".")[2] for n in trained if n.startswith(f"{name}."))
        if inside:
            yield from (f"{name}.{other}" for other in _untrained(child, inside))
        else:
            yield name


def freeze(model: nn.Module, name: str) -> None:
    """Freeze a part of the model, such as "autoencoder"."""
    try:
        model.get_submodule(name).requires_grad_(False)
    except AttributeError:
        raise ConfigError(f"freeze: the model has no part {name!r}") from None


def _base(config: TrainConfig) -> Path:
    """Return the diffusers folder or hbr model file of `init`."""
    match config.init:
        case InitConfig(base=Path() as base):
            return find_base(base)
        case Path() as file:
            return find_model(file)
    raise ConfigError("init.base is missing")


def _file(value: Path) -> Path:
    """Return a path unchanged, and for a known name the first of its files."""
    known = entries().get(str(value))
    if known is None:
        return value
    found = find_weights(known.name, whole=False)
    return found / known.files[0].path if found.is_dir() else found


def _load_other(model: nn.Module, config: TrainConfig) -> None:
    """Load the parts of a DiffBody model, or all weights of a model file of the same kind."""
    if isinstance(config.model, DiffBodyConfig) and isinstance(config.init, InitConfig):
        load_stages(model, config.model, config.init)
        return
    place = _base(config)
    checkpoint = read_checkpoint(place, _fidelity(config))
    ours = {**to_dict(config.model), "name": checkpoint.config.name}
    must_agree(checkpoint.config, ours, "model", f"init: {place}")
    model.load_state_dict(build(checkpoint, place).state_dict())


def _read_weights(config: TrainConfig, place: Path) -> Mapping[str, Tensor]:
    """Read a folder or a model file that fits `model`; a teacher's has its own decoder."""
    ours, distils = config.one_step, isinstance(config.objective, DecodingConfig)
    if distils:
        ours = replace(ours, autoencoder=replace(ours.autoencoder, decoder=None))
    if place.is_dir():
        return _read_folder(ours, place)
    return _read_model(ours, place, _fidelity(config), refined=not distils)


def _fidelity(config: TrainConfig) -> float | None:
    return config.init.fidelity if isinstance(config.init, InitConfig) else None


def _read_folder(ours: RestorerConfig, folder: Path) -> Mapping[str, Tensor]:
    base = load_diffusers_base(folder)
    for name, theirs, wanted in (
        ("autoencoder", base.autoencoder, ours.autoencoder),
        ("unet", base.unet, ours.unet),
        ("schedule", ScheduleConfig(), ours.schedule),
    ):
        must_agree(theirs, wanted, name, f"init: {folder}")
    return base.tensors


def _read_model(
    ours: RestorerConfig, path: Path, fidelity: float | None, *, refined: bool
) -> Mapping[str, Tensor]:
    checkpoint = _with_input(read_checkpoint(path, fidelity), ours)
    theirs = require_one_step(checkpoint.config, path)
    parts = ["autoencoder", "unet", "schedule", "timestep"]
    if refined and theirs.refiner is not None:  # a model without one can start one
        parts.append("refiner")
    same_prompt = type(theirs.prompt) is type(ours.prompt)
    if same_prompt and not isinstance(ours.prompt, TextPromptConfig):
        parts.append("prompt")
    for part in parts:
        must_agree(getattr(theirs, part), getattr(ours, part), part, f"init: {path}")
    same_prompt = same_prompt and theirs.prompt == ours.prompt
    given = build(checkpoint, path).state_dict()
    if not same_prompt:
        given = {n: t for n, t in given.items() if not n.startswith("prompt.")}
    return given


def _with_input(checkpoint: Checkpoint, ours: RestorerConfig) -> Checkpoint:
    """The checkpoint with a refiner that sees the input where ours does; it ignores it at first."""
    theirs = checkpoint.config
    if not isinstance(theirs, RestorerConfig) or theirs.refiner is None or ours.refiner is None:
        return checkpoint
    if theirs.refiner.sees_input or not ours.refiner.sees_input:
        return checkpoint
    name = "refiner.conv_in.weight"
    narrow = checkpoint.tensors[name]
    wide = torch.cat([narrow, torch.zeros_like(narrow)], dim=1)
    config = replace(theirs, refiner=replace(theirs.refiner, sees_input=True))
    return replace(checkpoint, config=config, tensors={**checkpoint.tensors, name: wide})


def _add_difference(model: nn.Module, config: RestorerConfig, before: Path, after: Path) -> None:
    """Add what another training changed, from `before` to `after`, to the weights it trained."""
    found = (_with_input(read_checkpoint(find_model(file)), config) for file in (before, after))
    old, new = (checkpoint.tensors for checkpoint in found)
    own = model.state_dict()
    for name, tensor in new.items():
        shapes = {tuple(t.shape) for t in (tensor, old.get(name), own.get(name)) if t is not None}
        if len(shapes) != 1 or name not in old or name not in own:
            raise ConfigError(
                f"init.difference: {name} of {after} does not match {before} and `model`"
            )
        own[name].add_(tensor.to(own[name]) - old[name].to(own[name]))


def _load_text(model: nn.Module, config: TrainConfig) -> None:
    """Load the text encoder of the base into the prompt, or embed the fixed text with it."""
    wanted, place = config.one_step.prompt, _base(config)
    match wanted, model.prompt:
        case TextPromptConfig(text=text), TextPrompt() as prompt:
            if not place.is_dir():
                theirs = require_one_step(read_header(place).config, place)
                if theirs.prompt == wanted:
                    return  # loaded with the model
            encoder = _text_encoder(place)
            if encoder is None and not text.strip():
                return  # zeros
            width = config.one_step.unet.cross_attention_dim
            p = _embed(text, "model.prompt.text", width, encoder, place)
            if p.shape != prompt.embedding.shape:
                expected, got = ("×".join(map(str, x.shape)) for x in (prompt.embedding, p))
                raise ConfigError(
                    f"model.prompt is {expected}; the text encoder of {place} gives {got}"
                )
            prompt.embedding.copy_(p)
        case DAPEConfig(text=here), DAPE() as prompt if place.is_dir():
            found, encoder = load_text_encoder(place)
            must_agree(found, here, "prompt.text", f"init: {place}", "text encoder")
            prompt.text.load_state_dict(encoder.state_dict())


def _load_image_encoder(
    model: nn.Module, wanted: PromptConfig, init: InitConfig, report: Callable[[str], None]
) -> None:
    assert init.image_encoder is not None
    path = _file(init.image_encoder)
    what = f"init.image_encoder: {path}"
    match wanted, model.prompt:
        case HFIEConfig(encoder=ours), HFIE() as hfie:
            if path.suffix == ".safetensors":
                theirs, tensors = read_image_encoder(path)
            else:
                theirs, tensors = import_ram(path, report)
            must_agree(theirs, ours, "prompt.encoder", what)
            hfie.encoder.load_state_dict(tensors)
        case DAPEConfig(tagger=tagger), DAPE() as dape:
            found, tensors = import_tagger(
                path,
                dape=init.dape and _file(init.dape),
                tags=init.tags,
                thresholds=init.thresholds,
                heads=tagger.heads,
                report=report,
            )
            must_agree(found, tagger, "prompt.tagger", what)
            dape.tagger.load_state_dict(tensors)
        case _:
            raise ConfigError(f"init.image_encoder is {path}; a text prompt does not use an image")


def _embed(text: str, field: str, width: int, encoder: TextEncoder | None, place: Path) -> Tensor:
    """Embed a text with the text encoder of `init`: [q, d]."""
    if encoder is None:
        raise ConfigError(f"{field} is {text!r}; it needs a text encoder, which {place} lacks")
    p: Tensor = encoder([text])[0].cpu()
    if p.shape[1] != width:
        raise ConfigError(
            f"{field}: the text encoder gives {p.shape[1]} channels, the U-Net takes {width}"
        )
    return p


def _text_encoder(place: Path) -> TextEncoder | None:
    """Load the text encoder of a folder or model file; None if it has none."""
    if place.is_dir():
        return load_text_encoder(place)[1]
    header = read_header(place)
    prompt = require_one_step(header.config, place).prompt
    if not isinstance(prompt, DAPEConfig):
        return None
    encoder, head = TextEncoder(prompt.text), "prompt.text."
    names = [name for name in header.shapes if name.startswith(head)]
    encoder.load_state_dict({n.removeprefix(head): t for n, t in read_tensors(place, names)})
    return encoder.eval()
