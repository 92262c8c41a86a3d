"""What a training starts from: the weights of a model, or an identity."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from hbr.config import ConfigError
from hbr.models.catalogue import find_model
from hbr.models.checkpoint import build, read_checkpoint
from hbr.models.config import RestorerConfig
from hbr.models.identity import start_at_identity, whiten
from hbr.models.onestep import OneStepRestorer
from hbr.training.config import AutoencodingConfig, TrainConfig
from hbr.training.data import TrainingPairs


def load_initial_weights(
    model: OneStepRestorer, name_or_path: Path, config: RestorerConfig
) -> None:
    """Load the weights to start from; where the prompts differ in kind, the model keeps its own."""
    path = find_model(name_or_path)
    checkpoint = read_checkpoint(path)
    same_prompt = type(checkpoint.config.prompt) is type(config.prompt)
    theirs = replace(checkpoint.config, name=config.name)
    if (theirs if same_prompt else replace(theirs, prompt=config.prompt)) != config:
        raise ConfigError(f"init: {path} is a model of another configuration")
    given = build(checkpoint, path).state_dict()
    own = model.state_dict()
    model.load_state_dict(
        {n: given[n] if same_prompt or not n.startswith("prompt.") else own[n] for n in own}
    )


def begin_at_identity(model: OneStepRestorer, config: TrainConfig) -> None:
    """Set weights so that the model, or its autoencoder alone, gives its input back."""
    alone = isinstance(config.objective, AutoencodingConfig)
    start_at_identity(model, one_step=not alone)
    if alone:
        pairs = TrainingPairs(config, 0)
        for_measure = min(8, config.steps)
        whiten(model, torch.cat([pairs.batch(step).hq for step in range(for_measure)]))


def freeze(model: nn.Module, name: str) -> None:
    """Leave a part of the model, such as "autoencoder", out of the training."""
    try:
        model.get_submodule(name).requires_grad_(False)
    except AttributeError:
        raise ConfigError(f"freeze: the model has no part {name!r}") from None
