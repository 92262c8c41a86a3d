"""Reading tensors from foreign files without running code that they may contain."""

from __future__ import annotations

import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hbr.errors import one_line
from hbr.files import sha256
from hbr.models.files import Card
from hbr.weights import WeightsError, instead_of_weights


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
