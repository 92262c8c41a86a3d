"""What a training starts from: published weights, a model of hbr, or an identity."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hbr.config import ConfigError, first_difference, to_dict
from hbr.models.checkpoint import build, read_checkpoint
from hbr.models.config import (
    DAPEConfig,
    HFIEConfig,
    PromptConfig,
    RestorerConfig,
    ScheduleConfig,
    TextPromptConfig,
)
from hbr.models.dape import DAPE
from hbr.models.files import read_header, read_tensors, require_one_step
from hbr.models.hfie import HFIE
from hbr.models.identity import start_at_identity, whiten
from hbr.models.importing.base import load_diffusers_base
from hbr.models.importing.ram import import_ram, read_image_encoder
from hbr.models.importing.tagger import import_tagger
from hbr.models.text import TextEncoder, TextPrompt, load_text_encoder
from hbr.training.adapters import add_adapters
from hbr.training.config import (
    AutoencodingConfig,
    InitConfig,
    RestorationConfig,
    TrainConfig,
    VSDConfig,
)
from hbr.training.data import TrainingPairs
from hbr.training.memory import checkpoint_blocks
from hbr.weights import entries, find_model, find_weights


def load_initial_weights(
    model: nn.Module, config: TrainConfig, report: Callable[[str], None] = lambda line: None
) -> None:
    """Load the weights of `config.init`; where the prompts differ in kind, the model keeps its own.

    Args:
        model: changed in place; on the CPU, in float32.
        config: of the training.
        report: told what of a file is left out.

    Raises:
        ConfigError: they are of other sizes than `config.model` says; the first is named.
        WeightsError: they are missing, damaged or another model's; the message says what to do.
    """
    init = config.init
    base = init.base if isinstance(init, InitConfig) else init
    if base is not None:
        place = _base(config)
        if place.is_dir():
            _load_folder(model, config.one_step, place)
        else:
            fidelity = init.fidelity if isinstance(init, InitConfig) else None
            _load_model(model, config.one_step, place, fidelity)
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
    """The negative prompt of the distillation, [q, d] in float32; None where none is asked for.

    Raises:
        ConfigError: nothing that the training starts from has a text encoder of this width.
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
    """Set weights so that the model, or its autoencoder alone, gives its input back."""
    alone = isinstance(config.objective, AutoencodingConfig)
    start_at_identity(model, one_step=not alone)
    if alone:
        pairs = TrainingPairs(config, 0)
        for_measure = min(8, config.phases[0].steps)  # crops of one size
        whiten(model, torch.cat([pairs.batch(step).hq for step in range(for_measure)]))


def prepare(model: nn.Module, config: TrainConfig, parts: tuple[str, ...]) -> None:
    """Make a model with its weights ready for training: adapters, checkpoints, what is frozen.

    Args:
        model: changed in place.
        config: the training.
        parts: of the model, that its objective trains.

    Raises:
        ConfigError: `freeze` names a part that the model does not have.
    """
    add_adapters(model, config)
    if config.memory.checkpointing:
        checkpoint_blocks(model)
    untrained = {name for name, _ in model.named_children()} - {*parts}
    for name in (*config.freeze, *sorted(untrained)):
        freeze(model, name)


def freeze(model: nn.Module, name: str) -> None:
    """Leave a part of the model, such as "autoencoder", out of the training."""
    try:
        model.get_submodule(name).requires_grad_(False)
    except AttributeError:
        raise ConfigError(f"freeze: the model has no part {name!r}") from None


def _base(config: TrainConfig) -> Path:
    """The folder in diffusers layout, or the model file of hbr, that `init` begins with."""
    match config.init:
        case InitConfig(base=Path() as base):
            known = entries().get(str(base))
            if known is not None and known.kind == "base":
                return find_weights(known.name)
            return base if base.is_dir() else find_model(base)
        case Path() as file:
            return find_model(file)
    raise ConfigError("init.base is missing")


def _file(value: Path) -> Path:
    """A path as it is; a catalogued name as the first of its files."""
    known = entries().get(str(value))
    if known is None:
        return value
    found = find_weights(known.name, whole=False)
    return found / known.files[0].path if found.is_dir() else found


def _load_folder(model: nn.Module, ours: RestorerConfig, folder: Path) -> None:
    base = load_diffusers_base(folder)
    for name, theirs, wanted in (
        ("autoencoder", base.autoencoder, ours.autoencoder),
        ("unet", base.unet, ours.unet),
        ("schedule", ScheduleConfig(), ours.schedule),
    ):
        _must_agree(theirs, wanted, name, f"init: {folder} is a model of another configuration")
    own = model.state_dict()
    model.load_state_dict({**own, **base.tensors})


def _load_model(model: nn.Module, ours: RestorerConfig, path: Path, fidelity: float | None) -> None:
    checkpoint = read_checkpoint(path, fidelity)
    theirs = require_one_step(checkpoint.config, path)
    parts = ["autoencoder", "unet", "schedule", "timestep"]
    same_prompt = type(theirs.prompt) is type(ours.prompt)
    if same_prompt and not isinstance(ours.prompt, TextPromptConfig):
        parts.append("prompt")
    for part in parts:
        what = f"init: {path} is a model of another configuration"
        _must_agree(getattr(theirs, part), getattr(ours, part), part, what)
    same_prompt = same_prompt and theirs.prompt == ours.prompt
    given = build(checkpoint, path).state_dict()
    own = {n: t for n, t in model.state_dict().items() if n.startswith("prompt.")}
    rest = {n: t for n, t in given.items() if not n.startswith("prompt.")}
    model.load_state_dict(given if same_prompt else {**rest, **own})


def _load_text(model: nn.Module, config: TrainConfig) -> None:
    """What a prompt of texts takes from the base: its text encoder, or what that says."""
    wanted, place = config.one_step.prompt, _base(config)
    match wanted, model.prompt:
        case TextPromptConfig(text=text), TextPrompt() as prompt:
            if not place.is_dir():
                there = require_one_step(read_header(place).config, place)
                if there.prompt == wanted:
                    return  # it came with the model
            encoder = _text_encoder(place)
            if encoder is None and not text.strip():
                return  # zeros
            width = config.one_step.unet.cross_attention_dim
            p = _embed(text, "model.prompt.text", width, encoder, place)
            if p.shape != prompt.embedding.shape:
                ours, theirs = ("×".join(map(str, x.shape)) for x in (prompt.embedding, p))
                raise ConfigError(
                    f"model.prompt is {ours}; the text encoder of {place} gives {theirs}"
                )
            prompt.embedding.copy_(p)
        case DAPEConfig(text=here), DAPE() as prompt if place.is_dir():
            found, encoder = load_text_encoder(place)
            what = f"init: {place} has another text encoder"
            _must_agree(found, here, "prompt.text", what)
            prompt.text.load_state_dict(encoder.state_dict())


def _load_image_encoder(
    model: nn.Module, wanted: PromptConfig, init: InitConfig, report: Callable[[str], None]
) -> None:
    assert init.image_encoder is not None
    path = _file(init.image_encoder)
    what = f"init.image_encoder: {path} is another one"
    match wanted, model.prompt:
        case HFIEConfig(encoder=ours), HFIE() as hfie:
            if path.suffix == ".safetensors":
                theirs, tensors = read_image_encoder(path)
            else:
                theirs, tensors = import_ram(path, report)
            _must_agree(theirs, ours, "prompt.encoder", what)
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
            _must_agree(found, tagger, "prompt.tagger", what)
            dape.tagger.load_state_dict(tensors)
        case _:
            raise ConfigError(f"init.image_encoder is {path}; the prompt of a text sees no image")


def _embed(text: str, field: str, width: int, encoder: TextEncoder | None, place: Path) -> Tensor:
    """The prompt of a text [q, d], by the text encoder of what the training starts from."""
    if encoder is None:
        raise ConfigError(f"{field} is {text!r}; it needs a text encoder, which {place} lacks")
    p: Tensor = encoder([text])[0].cpu()
    if p.shape[1] != width:
        raise ConfigError(
            f"{field}: the text encoder gives {p.shape[1]} channels, the U-Net takes {width}"
        )
    return p


def _text_encoder(place: Path) -> TextEncoder | None:
    """The text encoder of a folder, or of a model file that has one."""
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


def _must_agree(theirs: Any, ours: Any, name: str, what: str) -> None:
    """Raise `ConfigError` at the first field in which two configurations differ."""
    if (found := first_difference(to_dict(theirs), to_dict(ours), name)) is not None:
        field, there, here = found
        hint = ", the width of its prompt" if field == "unet.cross_attention_dim" else ""
        raise ConfigError(f"{what}: {field} is {there!r} there{hint}, {here!r} in `model`")
