"""The one list of known weights (`catalogue.yaml`): source, licence, size and SHA-256 of each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import yaml

from hbr.config import from_dict
from hbr.download import KnownFile, weights_folder, weights_folders
from hbr.files import sha256
from hbr.models.files import WeightsError

PACKAGE = Path(__file__).parent.parent

_FOREIGN = (".pkl", ".pickle", ".pth", ".pt", ".bin", ".ckpt")


@dataclass(frozen=True)
class Entry:
    """Weights that hbr knows of.

    Attributes:
        name: what `--model` and `hbr models show` take.
        kind: what it is; `--model` runs restorers only.
        summary: one line for people.
        source: where it comes from.
        licence: SPDX name where there is one.
        files: what it consists of.
        embedded: it ships inside the package.
        import_with: the command that makes a model file of it.
    """

    name: str
    kind: Literal["restorer", "base", "lora", "image encoder", "tag list"]
    summary: str
    source: str
    licence: str
    files: tuple[KnownFile, ...]
    embedded: bool = False
    import_with: str = ""

    @property
    def file(self) -> Path:
        """The embedded model file."""
        return PACKAGE / self.files[0].path

    @property
    def installed(self) -> bool:
        """The weights are on this machine, where hbr looks for them."""
        return self.embedded and self.file.is_file()


@cache
def entries() -> dict[str, Entry]:
    """Every entry of the catalogue, by name, in the catalogue's order."""
    rows = yaml.safe_load(Path(__file__).with_name("catalogue.yaml").read_text(encoding="utf-8"))
    found = [from_dict(Entry, row, f"catalogue[{i}]") for i, row in enumerate(rows)]
    return {entry.name: entry for entry in found}


def available() -> list[str]:
    """Names that `load_model` takes on this machine."""
    return [e.name for e in entries().values() if e.kind == "restorer" and e.installed]


def find_fetched(name: str, *, whole: bool = True) -> Path:
    """The folder into which `hbr models fetch` has put the files of a catalogued name.

    Args:
        name: in the catalogue.
        whole: every file must be there, not only the first.

    Raises:
        WeightsError: a file is missing; the message says how to get it.
    """
    files = entries()[name].files if whole else entries()[name].files[:1]
    missing = files[0].path
    for folder in (place / name for place in weights_folders()):
        absent = [file.path for file in files if not (folder / file.path).is_file()]
        if not absent:
            return folder
        missing = absent[0] if folder.is_dir() else missing
    how = f"`hbr models fetch {name}` gets them from {entries()[name].source}"
    if any(file.url is None for file in files):
        how = f"put them into {weights_folder() / name}, from {entries()[name].source}"
    raise WeightsError(f"the weights {name} are not on this machine ({missing}); {how}")


def find_model(name_or_path: str | Path, *, check_hash: bool = True) -> Path:
    """The model file of a catalogued name or of a path.

    Args:
        name_or_path: a name of the catalogue, or a path to a file.
        check_hash: read an embedded file whole and compare its SHA-256 with the catalogue.

    Raises:
        WeightsError: unknown, not installed, of a format that must be imported first, or with
            another hash than the catalogue's; the message says what to do.
    """
    name = str(name_or_path)
    path = Path(name_or_path)
    if name in entries():
        return _embedded_file(entries()[name], check_hash)
    if path.is_dir():
        raise WeightsError(
            f"{path} is a folder; a Stable Diffusion 2.1-base folder comes in with "
            f"`hbr models import {path} --kind diffusers -o OUT.safetensors`"
        )
    if path.suffix.lower() in _FOREIGN:
        raise WeightsError(
            f"{path} is no safetensors file and may run code when it is loaded; bring it in with "
            f"`hbr models import {path} --kind KIND -o {path.with_suffix('.safetensors').name}`"
            " (osediff and lora need --base FOLDER too)"
        )
    if path.is_file():
        return path
    if path.suffix == ".safetensors" or len(path.parts) > 1:
        raise WeightsError(f"{path}: there is no such model file")
    names = ", ".join(available()) or "none is installed"
    raise WeightsError(f"no model is called {name!r}; known: {names}; or give a .safetensors file")


def _embedded_file(entry: Entry, check_hash: bool) -> Path:
    if entry.kind != "restorer":
        raise WeightsError(
            f"{entry.name} is no restorer but {_article(entry.kind)}; "
            f"`hbr models fetch {entry.name}` gets it from {entry.source}; "
            f"then run `{entry.import_with}` and give the result as the model"
        )
    if not entry.installed:
        raise WeightsError(f"{entry.name}: its weights are not in this installation ({entry.file})")
    pinned = entry.files[0].sha256
    if check_hash and pinned is not None and (got := sha256(entry.file)) != pinned:
        raise WeightsError(
            f"{entry.file} is damaged or was changed: its SHA-256 is {got}, the catalogue has "
            f"{pinned}; install hbr anew"
        )
    return entry.file


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
