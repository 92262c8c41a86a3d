"""Load the recipe of a training as its configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hbr.config import ConfigError, from_dict, read_yaml, to_dict
from hbr.models.files import read_header
from hbr.training.config import TrainConfig
from hbr.weights import entries, find_model


def load_recipe(path: str | Path, settings: Sequence[str] = ()) -> TrainConfig:
    """Read a recipe; without `model`, the model is configured as the one that `init` names.

    Args:
        path: a YAML file.
        settings: changes to it, `KEY=VALUE` each, as `hbr.config.read_yaml` takes them.

    Raises:
        ConfigError: the file is missing, damaged, or does not fit `TrainConfig`.
        WeightsError: the model that `init` names is missing or damaged.
    """
    values = read_yaml(path, settings)
    if isinstance(values, dict) and "model" not in values:
        model = _model_of(values.get("init"))
        values |= {} if model is None else {"model": model}
    try:
        return from_dict(TrainConfig, values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _model_of(init: Any) -> dict[str, Any] | None:
    """The configuration of the model that a training starts from; None without a model of hbr."""
    base = init.get("base") if isinstance(init, dict) else init
    known = entries().get(str(base))
    if not isinstance(base, str) or Path(base).is_dir() or (known and known.kind == "base"):
        return None
    return to_dict(read_header(find_model(base)).config)
