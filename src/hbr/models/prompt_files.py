"""Prompt extractors in separate files, beside exports that have no place for them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from torch import nn

from hbr.config import ConfigError, to_dict
from hbr.errors import one_line
from hbr.models.checkpoint import Checkpoint, empty
from hbr.models.config import RestorerConfig
from hbr.models.files import (
    PROMPT_FORMAT,
    read_metadata,
    read_tensors,
    require_one_step,
    write_tensors,
)
from hbr.models.kinds import model_config
from hbr.weights import WeightsError

_PART = "prompt."


def write_prompt(path: str | Path, checkpoint: Checkpoint) -> Path:
    """Write the prompt extractor of a model; for a fixed text, its `embedding`.

    Raises:
        WeightsError: it cannot be written.
    """
    tensors = {
        name.removeprefix(_PART): tensor.contiguous()
        for name, tensor in checkpoint.tensors.items()
        if name.startswith(_PART)
    }
    config = json.dumps(to_dict(checkpoint.config))
    return write_tensors(path, tensors, {"format": PROMPT_FORMAT, "config": config})


def load_prompt(path: str | Path) -> nn.Module:
    """Load a prompt extractor in float32: [b, 3, h, w] in [0, 1] → p [b, q, d].

    Raises:
        WeightsError: the file is missing, damaged or of another kind.
    """
    return _read(Path(path))[1].float().requires_grad_(False)


def with_prompt(checkpoint: Checkpoint, path: Path) -> Checkpoint:
    """The checkpoint with its prompt extractor replaced by that of a file.

    Raises:
        WeightsError: the file is missing, damaged or of another kind, or its width is not that of
            the U-Net's cross-attention.
    """
    config, module = _read(path)
    ours = require_one_step(checkpoint.config, "the base")
    width = ours.unet.cross_attention_dim
    if config.prompt.width != width:
        raise WeightsError(
            f"{path}: its prompt has a width of {config.prompt.width}; the cross-attention of the "
            f"base's U-Net takes {width}"
        )
    others = {n: t for n, t in checkpoint.tensors.items() if not n.startswith(_PART)}
    named = {f"{_PART}{name}": tensor for name, tensor in module.state_dict().items()}
    theirs = dataclasses.replace(ours, prompt=config.prompt)
    return Checkpoint(theirs, {**others, **named}, checkpoint.card)


def _read(path: Path) -> tuple[RestorerConfig, nn.Module]:
    """The configuration of the model that it comes from, and the extractor."""
    metadata, shapes = read_metadata(path)
    if metadata.get("format") != PROMPT_FORMAT:
        raise WeightsError(f"{path} does not contain a prompt extractor of hbr")
    try:
        config = require_one_step(model_config(json.loads(metadata["config"])), path)
        module = empty(config).get_submodule("prompt")
        tensors = {name: tensor.clone() for name, tensor in read_tensors(path, shapes)}
        module.load_state_dict(tensors, assign=True)
    except (KeyError, json.JSONDecodeError, ConfigError, RuntimeError) as error:
        line = one_line(error, 200)
        raise WeightsError(f"{path}: its configuration or weights are not valid: {line}") from None
    return config, module.eval()
