"""Reading and writing model files: header, tensors one by one, and atomic writes.

The header is read without torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from safetensors import SafetensorError, safe_open

from hbr.config import ConfigError, check, to_dict
from hbr.files import replacing
from hbr.models.config import RestorerConfig
from hbr.models.kinds import model_config
from hbr.models.protocol import ModelConfig
from hbr.weights import FOREIGN_NETWORKS, WeightsError, instead_of_weights

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

IMAGE_ENCODER_FORMAT = "hbr image encoder"
PROMPT_FORMAT = "hbr prompt"

SHARP = "sharp."
"""Begins the names of the differences to the sharp end (`hbr.models.fidelity`)."""

_MAPPED_AT_ONCE = 32

Card = Mapping[str, str]
"""What a model file says of itself besides its configuration; any key may be there. Known ones:

* licence, trained_on, steps: of a training, from its recipe.
* source, source_sha256, kind: of an import: name and hash of the file, and kind of the import.
* trained: by whom, or that it is untrained; base: what published weights were merged into.
* image_encoder, tagger: files from which parts were taken.
"""


@dataclass(frozen=True, kw_only=True)
class Header:
    """The header of a model file.

    Attributes:
        config: of the model.
        shapes: name → shape of each weight.
        card: further metadata.
        fidelity: of a file with two ends, its default (`hbr.models.fidelity`); else None.
        sharp: names of the weights that differ between the ends.
    """

    config: ModelConfig
    shapes: Mapping[str, tuple[int, ...]]
    card: Card
    fidelity: float | None = None
    sharp: frozenset[str] = frozenset()


def model_format(config: ModelConfig) -> str:
    """What the metadata of a model file says as its `format`."""
    return f"hbr {config.kind} restorer"


def is_model_format(text: str) -> bool:
    """Whether a `format` is that of a model file, of whatever kind."""
    return re.fullmatch(r"hbr \S+ restorer", text) is not None


def is_of_hbr(path: Path) -> bool:
    """Whether a model file is to be read as one of hbr, and not as one of another project.

    Of hbr are safetensors files whose metadata name a format of hbr, and those that name none but
    are damaged, so that reading them says what is wrong.
    """
    if path.suffix != ".safetensors":
        return path.suffix.lower() not in FOREIGN_NETWORKS
    try:
        metadata, _ = read_metadata(path)
    except WeightsError:
        return True
    return metadata.get("format", "").startswith("hbr ")


def require_one_step(config: ModelConfig, where: str | Path) -> RestorerConfig:
    """The configuration of a one-step model, which alone has the parts that some formats hold.

    Raises:
        WeightsError: it is a model of another kind.
    """
    if not isinstance(config, RestorerConfig):
        raise WeightsError(f"{where} is a model of kind {config.kind}; a one-step model is needed")
    return config


def read_header(path: str | Path) -> Header:
    """Read a model file's configuration and the shapes of its weights, but not the weights.

    Raises:
        WeightsError: it is missing, not a safetensors file, or not a model of hbr.
    """
    path = Path(path)
    metadata, shapes = read_metadata(path)
    found = metadata.pop("format", "")
    if found == IMAGE_ENCODER_FORMAT:
        raise WeightsError(
            f"{path} contains only an image encoder, not a restorer; "
            "`hbr models import RAM.pth --kind ram --base MODEL` puts one into a restorer"
        )
    if not is_model_format(found):
        raise WeightsError(f"{path} is not a model of hbr; `hbr models import` converts others")
    config = read_config(path, metadata, model_config)
    del metadata["config"]
    if "fidelity" not in metadata:
        return Header(config=config, shapes=shapes, card=metadata)
    fidelity, sharp = _two_ends(path, metadata.pop("fidelity"), shapes)
    plain = {name: shape for name, shape in shapes.items() if not name.startswith(SHARP)}
    return Header(config=config, shapes=plain, card=metadata, fidelity=fidelity, sharp=sharp)


def read_config(path: Path, metadata: Mapping[str, str], make: Callable[[Any], T]) -> T:
    """The configuration in the metadata of a file of hbr, which `make` makes of plain values.

    Raises:
        WeightsError: it is missing or not valid.
    """
    try:
        return make(json.loads(metadata["config"]))
    except (KeyError, json.JSONDecodeError, ConfigError) as error:
        raise WeightsError(f"{path}: its configuration is not valid: {error}") from None


def write_with_config(
    path: str | Path,
    kind: str,
    config: Any,
    tensors: Mapping[str, Tensor],
    card: Card | None = None,
) -> Path:
    """Write a file of hbr atomically: tensors, and in its metadata its format and configuration.

    Raises:
        WeightsError: it cannot be written.
    """
    metadata = {**(card or {}), "format": kind, "config": json.dumps(to_dict(config))}
    return write_tensors(path, tensors, metadata)


def _two_ends(
    path: Path, default: str, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[float, frozenset[str]]:
    """The default of a file with two ends, and the names of the weights that differ."""
    sharp = {n.removeprefix(SHARP): s for n, s in shapes.items() if n.startswith(SHARP)}
    for name, shape in sharp.items():
        if shapes.get(name) != shape:
            raise WeightsError(f"{path}: {SHARP}{name} is {shape}; the other end differs")
    try:
        fidelity = float(default)
        check(0 <= fidelity <= 1, "fidelity", fidelity, "in [0, 1]")
    except ValueError as error:
        raise WeightsError(f"{path}: its default fidelity is not valid: {error}") from None
    return fidelity, frozenset(sharp)


def read_metadata(path: Path) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
    """The metadata and the shapes in the header of any safetensors file.

    Raises:
        WeightsError: it is missing, or not a complete safetensors file.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: there is no such model file")
    if path.suffix != ".safetensors":
        raise WeightsError(
            f"{path} is not a safetensors file; `hbr models import` converts other formats"
        )
    try:
        with safe_open(path, framework="np") as file:
            names = list(file.keys())
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
            return dict(file.metadata() or {}), shapes
    except (SafetensorError, OSError, ValueError) as error:
        damaged = f"is damaged or not a safetensors file: {error}"
        raise WeightsError(f"{path} {instead_of_weights(path) or damaged}") from None


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """The shapes of tensors, by the same names."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, by what follows it."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def read_tensors(path: Path, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
    """Iterate over the named tensors of a safetensors file, memory-mapped.

    The file is mapped again every few tensors: pages that have been read count towards the memory
    of the process until they are unmapped, and a model must not be in memory twice while it loads.
    """
    names = list(names)
    for start in range(0, len(names), _MAPPED_AT_ONCE):
        with safe_open(path, framework="pt") as file:
            for name in names[start : start + _MAPPED_AT_ONCE]:
                yield name, file.get_tensor(name)


def write_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]
) -> Path:
    """Write a safetensors file atomically; the same content gives the same bytes.

    Raises:
        WeightsError: it cannot be written, as on a full disk; an existing file is unchanged.
    """
    from safetensors.torch import save_file

    path = Path(path)
    try:
        with replacing(path) as part:
            part.touch()
            mode = part.stat().st_mode
            plain = {name: tensor.contiguous() for name, tensor in tensors.items()}
            save_file(plain, part, metadata=metadata)
            _sort_metadata(part)
            part.chmod(mode)  # safetensors makes the file readable by its owner only
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be written: {error}") from None
    return path


def _sort_metadata(path: Path) -> None:
    """Sort the metadata of a safetensors file in place: each process writes another order."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        if metadata := header.get("__metadata__"):
            header["__metadata__"] = dict(sorted(metadata.items()))
        file.seek(8)
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":"))
        file.write(text.encode().ljust(size))
