"""Methods as peers: one interface to hbr's models, other networks, programs, folders, baselines.

`MethodConfig` (`config`) says what a method is, `build_method` makes it run. What only reads
configurations loads no torch.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hbr.config import load_yaml
from hbr.evaluation.methods.config import (
    HbrConfig,
    MethodConfig,
    ProgramConfig,
    ResultsFolderConfig,
)
from hbr.evaluation.methods.programs import find_program, settled_values

if TYPE_CHECKING:
    from hbr.evaluation.methods.method import Method

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
    if isinstance(config, ProgramConfig):
        settled_values(find_program(config.program), config)
    from hbr.evaluation.methods.method import Method

    module = importlib.import_module(f"{__name__}.{_KINDS[config.kind]}")
    return Method(partial(module.prepare, config))


@dataclass(frozen=True)
class _MethodFile:
    method: MethodConfig


def read_method(path: str | Path) -> MethodConfig:
    """A method from a YAML file: its `kind` and its settings under the one key `method`.

    Raises:
        hbr.config.ConfigError: the file is missing or wrong.
    """
    return load_yaml(_MethodFile, path).method


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
