"""Descriptions of models and checks of their files, for `hbr models list | show | verify`.

Only `verify` loads torch, and `describe` for networks of other projects.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hbr.config import from_dict, to_dict
from hbr.files import sha256
from hbr.models.config import ImageEncoderConfig
from hbr.models.files import (
    IMAGE_ENCODER_FORMAT,
    is_of_hbr,
    read_config,
    read_header,
    read_metadata,
    read_tensors,
    shapes_of,
)
from hbr.weights import Entry, KnownFile, WeightsError, entries, find_model, find_weights


@dataclass(frozen=True, kw_only=True)
class Description:
    """What is known about a model; fields that do not apply are empty or None.

    Attributes:
        name, kind, summary, source, licence: as in the catalogue, or as the file says.
        file: where it lies on this machine; None when it is not here.
        size: of the file, in bytes; what the catalogue has for weights that are not here.
        files: what the catalogue knows of each of its files.
        import_with: the command that makes a model file of it.
        assembled_from: names of other weights that it is used with or built from.
        parameters: part → number of weights.
        capabilities: as `hbr.models.Capabilities`.
        config: of the model.
        card: further metadata of the file.
    """

    name: str
    kind: str
    summary: str = ""
    source: str = ""
    licence: str = ""
    file: str | None = None
    size: int | None = None
    files: tuple[KnownFile, ...] = ()
    import_with: str = ""
    assembled_from: tuple[str, ...] = ()
    parameters: Mapping[str, int] = field(default_factory=dict)
    capabilities: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    card: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Verified:
    """The result of checking one file.

    Attributes:
        file: that was read.
        sha256: recomputed.
        pinned: the hash in the catalogue; None if it has none.
        not_finite: first weight with a NaN or an infinity; None if all are finite, or the file is
            not a safetensors file.
    """

    file: str
    sha256: str
    pinned: str | None
    not_finite: str | None = None

    @property
    def ok(self) -> bool:
        """Nothing is wrong with it."""
        return self.not_finite is None and self.sha256.startswith(self.pinned or "")

    @property
    def verdict(self) -> str:
        """The result in one line."""
        if self.not_finite is not None:
            return f"the weight {self.not_finite} is not finite"
        if self.pinned is None:
            return "not pinned"
        return "ok" if self.ok else f"wrong: the catalogue has {self.pinned}"


def overview() -> list[Description]:
    """Every entry of the catalogue, without parameters and configuration."""
    return [_of_entry(entry) for entry in entries().values()]


def describe(name_or_path: str | Path) -> Description:
    """Describe a model of the catalogue or a model file.

    Raises:
        WeightsError: unknown, missing, damaged or of another format.
    """
    entry = entries().get(str(name_or_path))
    if entry is not None:
        known = _of_entry(entry)
        if entry.kind != "restorer" or known.file is None:
            return known
        return _with_insides(known, Path(known.file))
    path = find_model(name_or_path)
    known = Description(name=path.stem, kind="restorer", file=str(path), size=path.stat().st_size)
    return _with_insides(known, path) if is_of_hbr(path) else _with_network(known, path)


def verify(name_or_path: str | Path, place: Path | None = None) -> list[Verified]:
    """Recompute hashes, and check that all weights are finite.

    Args:
        name_or_path: a catalogued name or a safetensors file.
        place: where the files of a catalogued name lie: the folder, or the file if it is one.
            Default: where hbr looks for them.

    Returns:
        One result for each file that exists.

    Raises:
        WeightsError: unknown, missing or unreadable.
    """
    entry = entries().get(str(name_or_path))
    if entry is None:
        return [_verify_file(find_model(name_or_path), None)]
    place = place or entry.find() or find_weights(entry.name)
    known = [f for files in (entry.files, *entry.also) for f in files]
    if place.is_file() and len(entry.files) == 1:
        pinned = {Path(f.path).name: f.sha256 for f in known}
        return [_verify_file(place, pinned.get(place.name, entry.files[0].sha256))]
    # files of a metric that has several lie side by side in `place`
    found = [
        (place / name, f.sha256)
        for f in known
        for name in dict.fromkeys((f.path, Path(f.path).name))
        if (place / name).is_file()
    ]
    if not found:
        names = ", ".join(f.path for f in entry.files)
        raise WeightsError(f"{place} has none of the files of {entry.name}: {names}")
    return [_verify_file(file, pinned) for file, pinned in found]


def _of_entry(entry: Entry) -> Description:
    found = entry.find()
    sizes = [f.size for f in entry.files]
    size = None if None in sizes else sum(s for s in sizes if s is not None)
    if found is not None and found.is_file():
        size = found.stat().st_size
    return Description(
        name=entry.name,
        kind=entry.kind,
        summary=entry.summary,
        source=entry.source,
        licence=entry.licence,
        file=str(found) if found is not None else None,
        size=size,
        files=entry.files,
        import_with=entry.import_with,
        assembled_from=entry.assembled_from,
    )


def _with_insides(known: Description, path: Path) -> Description:
    metadata, shapes = read_metadata(path)
    if metadata.get("format") == IMAGE_ENCODER_FORMAT:
        config = read_config(path, metadata, partial(from_dict, ImageEncoderConfig))
        card = {k: v for k, v in metadata.items() if k not in ("format", "config")}
        return dataclasses.replace(
            known,
            kind="image encoder",
            parameters=count_parameters(shapes),
            config=to_dict(config),
            card=card,
        )
    header = read_header(path)
    capabilities = dataclasses.asdict(header.config.capabilities)
    if header.fidelity is not None:
        capabilities["fidelity"] = header.fidelity
    return dataclasses.replace(
        known,
        licence=known.licence or header.card.get("licence", ""),
        parameters=count_parameters(header.shapes),
        capabilities=capabilities,
        config=to_dict(header.config),
        card=header.card,
    )


def _with_network(known: Description, path: Path) -> Description:
    """A network of another project, as spandrel reads it."""
    from hbr.models.spandrel import read_network

    found = read_network(path)
    return dataclasses.replace(
        known,
        summary=f"{found.descriptor.architecture.name}, a network of another project",
        parameters=count_parameters(shapes_of(found.descriptor.model.state_dict())),
        capabilities=dataclasses.asdict(found.capabilities),
    )


def count_parameters(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Number of weights by part of the model, and "all", from the shapes by name."""
    counts: dict[str, int] = {}
    for name, shape in shapes.items():
        part = name.partition(".")[0]
        counts[part] = counts.get(part, 0) + math.prod(shape)
    return {**counts, "all": sum(counts.values())}


def _verify_file(path: Path, pinned: str | None) -> Verified:
    import torch

    broken = None
    if path.suffix == ".safetensors":
        _, shapes = read_metadata(path)
        for name, tensor in read_tensors(path, shapes):
            if not torch.isfinite(tensor).all():
                broken = name
                break
    return Verified(str(path), sha256(path), pinned, broken)
