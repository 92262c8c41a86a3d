"""Prompt extractors and refiners in separate files, beside exports that have no place for them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from torch import nn

from hbr.config import ConfigError
from hbr.errors import one_line
from hbr.models.checkpoint import Checkpoint, empty
from hbr.models.config import RestorerConfig
from hbr.models.files import (
    PROMPT_FORMAT,
    read_metadata,
    read_tensors,
    require_one_step,
    under,
    write_with_config,
)
from hbr.models.kinds import model_config
from hbr.weights import WeightsError

_FORMATS = {"prompt": PROMPT_FORMAT, "refiner": "hbr refiner"}
_WORDS = {"prompt": "a prompt extractor", "refiner": "a refiner"}


def write_part(path: str | Path, checkpoint: Checkpoint, part: str) -> Path:
    """Write a part of a one-step model to a file of its own.

    `part` is "prompt" (of a fixed text, its `embedding`) or "refiner".

    Raises:
        WeightsError: it cannot be written.
    """
    own = under(f"{part}.", checkpoint.tensors)
    return write_with_config(path, _FORMATS[part], checkpoint.config, own)


def load_prompt(path: str | Path) -> nn.Module:
    """Load a prompt extractor in float32: [b, 3, h, w] in [0, 1] → p [b, q, d].

    Raises:
        WeightsError: the file is missing, damaged or of another kind.
    """
    return _read(Path(path), "prompt")[1].float().requires_grad_(False)


def load_refiner(path: str | Path) -> nn.Module:
    """Load a refiner in float32: [b, 3, h, w], about [0, 1] → the same.

    One that sees the input of its model takes it as the second argument.

    Raises:
        WeightsError: the file is missing, damaged or of another kind.
    """
    return _read(Path(path), "refiner")[1].float().requires_grad_(False)


def with_part(checkpoint: Checkpoint, path: Path, part: str) -> Checkpoint:
    """The checkpoint with its "prompt" (the extractor) or "refiner" replaced by that of a file.

    Raises:
        WeightsError: the file is missing, damaged or of another kind, or the width of its prompt
            is not that of the U-Net's cross-attention.
    """
    config, module = _read(path, part)
    ours = require_one_step(checkpoint.config, "the base")
    width = ours.unet.cross_attention_dim
    if part == "prompt" and config.prompt.width != width:
        raise WeightsError(
            f"{path}: its prompt has a width of {config.prompt.width}; the cross-attention of the "
            f"base's U-Net takes {width}"
        )
    theirs = dataclasses.replace(ours, **{part: getattr(config, part)})
    tensors = {n: t for n, t in checkpoint.tensors.items() if not n.startswith(f"{part}.")}
    tensors |= {f"{part}.{name}": t for name, t in module.state_dict().items()}
    return Checkpoint(theirs, tensors, checkpoint.card)


def _read(path: Path, part: str) -> tuple[RestorerConfig, nn.Module]:
    """The configuration of the model that the part comes from, and the part."""
    metadata, shapes = read_metadata(path)
    if metadata.get("format") != _FORMATS[part]:
        raise WeightsError(f"{path} does not contain {_WORDS[part]} of hbr")
    try:
        config = require_one_step(model_config(json.loads(metadata["config"])), path)
        module = empty(config).get_submodule(part)
        tensors = {name: tensor.clone() for name, tensor in read_tensors(path, shapes)}
        module.load_state_dict(tensors, assign=True)
    except (KeyError, json.JSONDecodeError, ConfigError, RuntimeError, AttributeError) as error:
        line = one_line(error, 200)
        raise WeightsError(f"{path}: its configuration or weights are not valid: {line}") from None
    return config, module.eval()
