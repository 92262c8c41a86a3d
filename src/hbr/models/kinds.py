"""Every kind of model: its configuration, and how it is built.

A new kind is one entry of `KINDS`. Its configuration is a frozen dataclass that satisfies
`ModelConfig`, with a field `kind`; what `build` returns is a `torch.nn.Module` that satisfies
`Model`. Files, training and `hbr.Restorer` then take it as they take the others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from hbr.config import check, from_dict
from hbr.lazy import importing
from hbr.models.config import RestorerConfig
from hbr.models.diffbody.config import DiffBodyConfig
from hbr.models.protocol import ModelConfig
from hbr.models.rrdbnet_config import RRDBNetConfig
from hbr.models.swinir_config import SwinIRConfig

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ModelKind:
    """A kind of model.

    Attributes:
        config: the class of its configurations.
        build: makes a module with random weights; imports the module's code only when called.
    """

    config: type[Any]
    build: Callable[[Any], nn.Module]


def _class(module: str, name: str, *, large: bool = False) -> Callable[[Any], nn.Module]:
    def build(config: Any) -> nn.Module:
        with importing(module) if large else contextlib.nullcontext():
            found = importlib.import_module(module)
        return cast("nn.Module", getattr(found, name)(config))

    return build


KINDS = {
    "one-step": ModelKind(
        RestorerConfig, _class("hbr.models.onestep", "OneStepRestorer", large=True)
    ),
    "rrdbnet": ModelKind(RRDBNetConfig, _class("hbr.models.rrdbnet", "RRDBNet")),
    "swinir": ModelKind(SwinIRConfig, _class("hbr.models.swinir", "SwinIR")),
    "diffbody": ModelKind(
        DiffBodyConfig, _class("hbr.models.diffbody.model", "DiffBody", large=True)
    ),
}
"""Kind → what it is. Configurations that name no kind are "one-step"."""


def build_model(config: ModelConfig) -> nn.Module:
    """A model of this configuration with random weights; it satisfies `Model`."""
    return KINDS[config.kind].build(config)


def model_config(values: Any, where: str = "") -> ModelConfig:
    """The configuration of a model from plain values, by their `kind`.

    Args:
        values: a mapping as YAML or JSON gives it.
        where: the dotted path of `values`, for messages.

    Raises:
        ConfigError: the kind is unknown, or the values do not fit it.
    """
    kind = "one-step"
    if isinstance(values, dict) and "kind" in values:
        kind = values["kind"]
        known = isinstance(kind, str) and kind in KINDS
        name = f"{where}.kind" if where else "kind"
        check(known, name, kind, f"one of {', '.join(KINDS)}")
        if "kind" not in {field.name for field in dataclasses.fields(KINDS[kind].config)}:
            values = {key: value for key, value in values.items() if key != "kind"}
    return cast(ModelConfig, from_dict(KINDS[kind].config, values, where))
