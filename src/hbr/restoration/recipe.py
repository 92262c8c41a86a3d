"""What it takes to make a restored file again, as plain data and as the text in the file.

A recipe names no folder: of files it has the name and the SHA-256. It says nothing of the time, so
the same photo and settings give the same bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hbr.config import ConfigError, check, from_dict, to_dict
from hbr.devices import processor_name
from hbr.errors import one_line
from hbr.files import sha256
from hbr.image.notes import Truncated
from hbr.image.recipe_text import BEGINNING
from hbr.models.graph_files import calibration_of
from hbr.models.protocol import IN_TORCH, Backend
from hbr.processes import threads
from hbr.restoration.settings import NOBODY, DecoderProvenance, Provenance, RestoreSettings
from hbr.version import __version__, installed_version

RecipePlace = Literal["file", "sidecar", "both", "off"]
SIDECAR = ".hbr.json"
"""What the name of a sidecar has behind that of its photo."""

_EDITION = 1
_COMPUTES = {"openvino": "openvino", "onnx": "onnxruntime"}  # the others compute in torch


@dataclass(frozen=True, kw_only=True)
class NamedFile:
    """A file by its name without folders, None of a stream, and its SHA-256."""

    name: str | None = None
    sha256: str

    @classmethod
    def of(cls, path: Path) -> NamedFile:
        """A file on disk."""
        return cls(name=path.name, sha256=sha256(path))

    @classmethod
    def of_bytes(cls, data: bytes) -> NamedFile:
        """Bytes in memory."""
        return cls(sha256=hashlib.sha256(data).hexdigest())


@dataclass(frozen=True, kw_only=True)
class UsedModel:
    """The model of a restoration, by its catalogued name or that of its file.

    Attributes:
        decoder: in place of its own.
        calibration: of a model in 8 bits (`hbr.models.graph_files.calibration_of`).
    """

    name: str
    sha256: str | None = None
    fidelity: float | None = None
    decoder: NamedFile | None = None
    calibration: str | None = None
    device: str = "cpu"
    dtype: str = "float32"
    backend: Backend = "eager"


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How a photo was read and its result written; see `hbr.restoration.batch.outputs.Files`.

    Attributes:
        format: of the result, as `hbr.image.Photo.format`.
        quality, png_compression, lossless: of the result.
        page, truncated: of the photo.
    """

    format: str
    quality: int = 95
    png_compression: int = 4
    lossless: bool = False
    page: int | None = None
    truncated: Truncated = "refuse"


@dataclass(frozen=True, kw_only=True)
class RestoreRecipe:
    """What it takes to make the same bytes again.

    Attributes:
        hbr_recipe: edition of this form.
        source: the photo.
        model: that restored it.
        settings: what was "auto" as it was decided.
        encoding: of the file.
        maps: the files that `settings` names, by their names.
        versions: of hbr and the packages that compute.
        threads: of the CPU.
        processor: kernels of the CPU, as torch names them, or the name of the GPU; the name of the
            CPU where the model ran without torch.
    """

    hbr_recipe: int = _EDITION
    source: NamedFile
    model: UsedModel
    settings: RestoreSettings
    encoding: Encoding
    maps: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    threads: int = 1
    processor: str = ""

    def __post_init__(self) -> None:
        wanted = f"{_EDITION}; a newer hbr wrote this recipe"
        check(self.hbr_recipe == _EDITION, "hbr_recipe", self.hbr_recipe, wanted)

    @classmethod
    def of(
        cls,
        source: NamedFile,
        provenance: Mapping[str, Any] | Provenance,
        settings: RestoreSettings,
        encoding: Encoding,
    ) -> RestoreRecipe:
        """The recipe of what was just restored in this process."""
        named = (settings.pose, settings.attention, settings.choice.source)
        files = [Path(p) for p in named if _is_file(p)]
        pose, attention, people = (_bare(p) for p in named)
        background = _bare(settings.choice.background)
        used: DecoderProvenance | None = provenance["decoder"]
        return cls(
            source=source,
            model=UsedModel(
                name=Path(provenance["model"]).name,
                sha256=provenance["sha256"],
                fidelity=provenance["fidelity"],
                decoder=used and NamedFile(name=Path(used["name"]).name, sha256=used["sha256"]),
                calibration=calibration_of(provenance["rewrites"]),
                device=provenance["device"],
                dtype=provenance["dtype"],
                backend=provenance["backend"],
            ),
            settings=dataclasses.replace(
                settings,
                pose=pose,
                attention=attention,
                choice=dataclasses.replace(settings.choice, source=people, background=background),
            ),
            encoding=encoding,
            maps={file.name: sha256(file) for file in files},
            **circumstances(provenance["device"], provenance["backend"]),
        )

    @classmethod
    def parse(cls, text: str, where: str) -> RestoreRecipe:
        """The recipe of a text.

        Raises:
            ConfigError: it is none, or that of a newer hbr.
        """
        try:
            return from_dict(cls, json.loads(text), where)
        except json.JSONDecodeError as error:
            raise ConfigError(f"{where} is no JSON: {one_line(error)}") from None

    def text(self) -> str:
        """One line of ASCII, without what is None or empty."""
        text = json.dumps(as_json(self), separators=(",", ":"))
        assert text.startswith(BEGINNING)
        return text


def as_json(recipe: RestoreRecipe) -> dict[str, Any]:
    """Plain values, without what is None or empty."""
    values = dict(_said(to_dict(recipe)))
    if recipe.settings.people == "off":
        values["settings"] = {
            k: v for k, v in values["settings"].items() if k not in ("people", "choice")
        }
    return values


def circumstances(device: str, backend: Backend) -> dict[str, Any]:
    """What of this process decides over the last bits of a result, as fields of a recipe."""
    computes = _COMPUTES.get(backend, "torch")
    packages = {n: installed_version(n) or "unknown" for n in (computes, "numpy", "pillow")}
    versions = {"hbr": __version__, **packages}
    if backend not in IN_TORCH:
        return {"versions": versions, "threads": threads(), "processor": processor_name()}
    import torch

    processor = torch.backends.cpu.get_cpu_capability()
    if device.startswith("cuda"):
        processor = torch.cuda.get_device_name(device)
    return {
        "versions": versions,
        "threads": torch.get_num_threads(),
        "processor": processor if device != "mps" else "mps",
    }


def sidecar_of(photo: Path) -> Path:
    """Where the sidecar of a photo lies."""
    return photo.with_name(photo.name + SIDECAR)


def sidecar_text(recipe: RestoreRecipe, photo: str, data: bytes, *, restored: bool) -> str:
    """A manifest of assertions in the form of C2PA, as JSON, not signed.

    `data` are the bytes of the photo; `restored` says whether its pixels were made anew.
    """
    made = {
        "action": "c2pa.edited" if restored else "c2pa.transcoded",
        "softwareAgent": {"name": "hbr", "version": __version__},
        "parameters": {"model": recipe.model.name, "model_sha256": recipe.model.sha256},
    }
    if restored:
        made["digitalSourceType"] = (
            "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
        )
    manifest = {
        "claim_generator": f"hbr/{__version__}",
        "title": photo,
        "format": f"image/{recipe.encoding.format}",
        "ingredients": [
            {
                "title": recipe.source.name,
                "relationship": "parentOf",
                "hash": {"alg": "sha256", "hash": recipe.source.sha256},
            }
        ],
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": [made]}},
            {
                "label": "c2pa.hash.data",
                "data": {"alg": "sha256", "hash": hashlib.sha256(data).hexdigest()},
            },
            {"label": "org.hbr.recipe", "data": as_json(recipe)},
        ],
    }
    return json.dumps(manifest, indent=1) + "\n"


def parse_sidecar(text: str, where: str) -> tuple[RestoreRecipe, str]:
    """The recipe in a sidecar, and the SHA-256 of the photo that it belongs to.

    Raises:
        ConfigError: it is no sidecar of hbr.
    """
    try:
        found = {a["label"]: a["data"] for a in json.loads(text)["assertions"]}
        recipe, digest = found["org.hbr.recipe"], found["c2pa.hash.data"]["hash"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{where} holds no recipe of hbr ({one_line(error)})") from None
    return from_dict(RestoreRecipe, recipe, where), str(digest)


def _said(value: Any) -> Any:
    """Plain values without what is None or empty."""
    if isinstance(value, dict):
        return {k: _said(v) for k, v in value.items() if v is not None and v != {}}
    return value


def _is_file(given: str) -> bool:
    return given not in ("auto", "none", NOBODY) and Path(given).is_file()


def _bare(given: str) -> str:
    return Path(given).name if _is_file(given) else given
