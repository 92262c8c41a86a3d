"""Methods as peers: one interface to hbr's models, other networks, programs, folders, baselines.

`MethodConfig` says what a method is, `build_method` makes it run. Names are resolved on first use:
what only reads configurations loads no torch.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hbr.config import ConfigError, check, from_dict, load_yaml
from hbr.evaluation.methods.base import Method, MethodError, MethodOutcome, Report
from hbr.evaluation.methods.config import (
    BaselineConfig,
    HbrConfig,
    MethodConfig,
    ProgramConfig,
    ProgramSpec,
    ResultsFolderConfig,
    SpandrelConfig,
)

__all__ = [
    "BaselineConfig",
    "HbrConfig",
    "Method",
    "MethodConfig",
    "MethodError",
    "MethodOutcome",
    "ProgramConfig",
    "ProgramSpec",
    "Report",
    "ResultsFolderConfig",
    "SpandrelConfig",
    "build_method",
    "method_at",
    "read_method",
]

# kind → its module here
_KINDS = {
    "hbr": "own",
    "spandrel": "spandrel",
    "program": "program",
    "folder": "folder",
    "baseline": "baseline",
}


def build_method(config: MethodConfig) -> Method:
    """The method that the configuration describes.

    What it needs (weights, programs, extras) is looked for when it runs and has something to do:
    results that are all there need nothing.

    Raises:
        MethodError: a program that is not known.
        hbr.config.ConfigError: a program's YAML is wrong, or does not fit its configuration.
    """
    module = importlib.import_module(f"{__name__}.{_KINDS[config.kind]}")
    if isinstance(config, ProgramConfig):
        program: Method = module.ProgramMethod(config)
        return program
    from hbr.evaluation.methods.in_process import InProcessMethod

    return InProcessMethod(partial(module.prepare, config))


@dataclass(frozen=True)
class _Unread:
    method: dict[str, Any]


@dataclass(frozen=True)
class _MethodFile:
    method: MethodConfig


def read_method(path: str | Path) -> MethodConfig:
    """A method from a YAML file: its `kind` and its settings under the one key `method`.

    Raises:
        hbr.config.ConfigError: the file is missing or wrong.
    """
    values = load_yaml(_Unread, path).method
    try:
        check("kind" in values, "method.kind", values.get("kind"), f"one of {', '.join(_KINDS)}")
        return from_dict(_MethodFile, {"method": values}).method
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def method_at(place: str) -> MethodConfig:
    """The method that a path stands for, by the kind of file.

    A model file of hbr (`.safetensors`) is run by hbr, a YAML file is read by `read_method`, and
    anything else is a folder of results.

    Raises:
        hbr.config.ConfigError: the YAML file is missing or wrong.
    """
    path = Path(place)
    if path.suffix in (".yaml", ".yml") and not path.is_dir():
        return read_method(path)
    if path.suffix == ".safetensors" and not path.is_dir():
        return HbrConfig(model=place)
    return ResultsFolderConfig(folder=path)
