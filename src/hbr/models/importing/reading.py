"""Reading tensors from foreign files without running code that they may contain."""

from __future__ import annotations

import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hbr.config import ConfigError, from_dict
from hbr.errors import one_line
from hbr.files import sha256
from hbr.models.files import Card
from hbr.weights import WeightsError, instead_of_weights

T = TypeVar("T")


def load_pickle(path: Path) -> Any:
    """Load a torch file of tensors and plain containers.

    Raises:
        WeightsError: it is missing or damaged, or contains anything that would run code.
    """
    _must_be_file(path)
    try:
        # memory-mapped: the largest files are gigabytes, of which only a part is needed
        mapped = zipfile.is_zipfile(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old pickle formats
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        if what := instead_of_weights(path):
            raise WeightsError(f"{path} {what}") from None
        found = re.search(r"(?:GLOBAL|global:?|class) ([\w.]+)", str(error))
        what = f" (it asks for {found[1]})" if found else ""
        raise WeightsError(
            f"{path} was refused: it contains more than tensors and could run code{what}; "
            "get these weights as safetensors, or from their publisher"
        ) from None
    except Exception as error:  # a damaged file can raise anything
        damaged = f"is damaged or not a torch file: {one_line(error, 200)}"
        raise WeightsError(f"{path} {instead_of_weights(path) or damaged}") from None


def load_weights(path: Path) -> dict[str, Tensor]:
    """The named tensors of a safetensors or torch file, however deep a torch file nests them.

    Raises:
        WeightsError: the file is missing, damaged or unsafe, or has no named tensors, or several
            sets of them; the message says what it contains.
    """
    if path.suffix == ".safetensors":
        return load_safetensors(path)[0]
    values = load_pickle(path)
    tensors = find_tensors(values)
    if not tensors:
        raise WeightsError(f"{path} has no weights that hbr finds: {contents(values)}")
    return tensors


# where training code puts the weights, the first of them that is there; others are taken if they
# are the only ones
_WRAPPERS = (
    *("model", "state_dict", "params_ema", "params", "params-ema", "model_state_dict"),
    *("model_ema", "ema", "ema_state_dict", "module", "net", "network", "weights"),
)
# what wrappers of modules put in front of all names
_PREFIXES = ("module.", "_orig_mod.")
_DEEPEST = 4


def find_tensors(values: Any, depth: int = 0) -> dict[str, Tensor]:
    """The named tensors in the content of a torch file; nothing if there are none, or several sets.

    A wrapper of a known name is opened first; else the tensors themselves count, or those in the
    only place that has more.
    """
    if not isinstance(values, dict) or depth > _DEEPEST:
        return {}
    if not all(isinstance(name, str) for name in values):
        return {}
    for name in _WRAPPERS:
        if found := find_tensors(values.get(name), depth + 1):
            return found
    here = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    inside = [found for value in values.values() if (found := find_tensors(value, depth + 1))]
    if sum(map(len, inside)) > len(here):
        return inside[0] if len(inside) == 1 else {}
    return _without_prefix(here)


def _without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _PREFIXES:
        if tensors and all(name.startswith(prefix) for name in tensors):
            return _without_prefix({n.removeprefix(prefix): t for n, t in tensors.items()})
    return tensors


def contents(values: Any, shown: int = 8) -> str:
    """What the content of a torch file is, in a few words."""
    if not isinstance(values, dict):
        return f"it contains a {type(values).__name__}, not named weights"
    if not values:
        return "it contains an empty dict"
    listed = [f"{name} ({_what(value)})" for name, value in list(values.items())[:shown]]
    more = f" and {len(values) - shown} more" if len(values) > shown else ""
    return f"it contains {', '.join(listed)}{more}"


def _what(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"tensor {tuple(value.shape)}"
    if isinstance(value, dict):
        tensors = sum(isinstance(inside, Tensor) for inside in value.values())
        many = "tensor" if tensors == 1 else "tensors"
        return f"{tensors} {many}" if tensors else f"dict of {len(value)}"
    if isinstance(value, (list, tuple)):
        return f"list of {len(value)}"
    return f"{value!r:.20}" if isinstance(value, (int, float, str)) else type(value).__name__


def load_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The memory-mapped tensors and the metadata of any safetensors file.

    Raises:
        WeightsError: it is missing, damaged or not a safetensors file.
    """
    _must_be_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        damaged = f"is damaged or not a safetensors file: {error}"
        raise WeightsError(f"{path} {instead_of_weights(path) or damaged}") from None


def load_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        WeightsError: it is missing or not a JSON object.
    """
    _must_be_file(path)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise WeightsError(f"{path} contains a {type(values).__name__}; it must be a JSON object")
    return values


def made_config(cls: type[T], fields: dict[str, Any], where: str | Path) -> T:
    """The configuration of these fields, which were read off weights or settings of others.

    Raises:
        WeightsError: they do not fit; `where` names their source.
    """
    try:
        return from_dict(cls, fields)
    except ConfigError as error:
        raise WeightsError(f"{where}: {error}") from None


def require_tensors(values: Any, where: str) -> dict[str, Tensor]:
    """Check that `values` maps names to tensors, and return it.

    Raises:
        WeightsError: it does not.
    """
    if not isinstance(values, dict):
        raise WeightsError(f"{where} is {type(values).__name__}; it must map names to tensors")
    for name, tensor in values.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise WeightsError(f"{where}: {name!r} is {type(tensor).__name__}, not a tensor")
    return values


def check_finite(tensors: Mapping[str, Tensor], where: str | Path) -> None:
    """Check that there is no NaN and no infinity.

    Raises:
        WeightsError: there is one; the first weight is named.
    """
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise WeightsError(
                f"{where}: the weight {name} has values that are not finite (NaN or infinity); "
                "the file is broken, get another copy or an earlier checkpoint"
            )


def describe_size(path: Path) -> str:
    """The size of a file, or of all files of a folder, in readable units."""
    files = [f for f in path.rglob("*") if f.is_file()] if path.is_dir() else [path]
    size = float(sum(f.stat().st_size for f in files if f.exists()))
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def origin(source: Path, file: Path, **more: str) -> dict[str, str]:
    """The entries of a card that say where the weights come from."""
    return {"source": source.name, "source_sha256": sha256(file), **more}


def published(base: Card, source: Path, kind: str) -> dict[str, str]:
    """The card of a model with published weights of this kind on a base with that card."""
    card = {**base, **origin(source, source, kind=kind), "trained": "by its publisher"}
    card["base"] = base.get("source", "an hbr model")
    return card


def _must_be_file(path: Path) -> None:
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "there is no such file"
        raise WeightsError(f"{path}: {what}")
