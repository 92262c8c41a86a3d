"""The one list of known weights (`catalogue.yaml`), and where they lie on this machine."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from hbr.config import check, from_dict, read_yaml
from hbr.files import sha256
from hbr.weights.download import ByteProgress, fetch, weights_folder, weights_folders
from hbr.weights.mistaken import instead_of_weights
from hbr.weights.sources import DownloadError, KnownFile, WeightsError, check_file

PACKAGE = Path(__file__).parent.parent

WeightsKind = Literal[
    "restorer",
    "base",
    "lora",
    "image encoder",
    "tag list",
    "detector",
    "segmenter",
    "face embedding",
    "pose",
    "decoder",
    "captioner",
    "metric",
]

# Checked whenever they are used; the others are large, and checked when they are fetched.
_SMALL: tuple[WeightsKind, ...] = ("metric", "detector", "segmenter", "face embedding", "decoder")

FOREIGN_NETWORKS = (".pth", ".pt", ".ckpt")
"""Suffixes of files that may hold a network of another project, besides `.safetensors`."""

_FOREIGN = (".pkl", ".pickle", ".bin", *FOREIGN_NETWORKS)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Weights that hbr knows of.

    Attributes:
        name: what `hbr fetch`, `hbr models show`, and for restorers `--model` take.
        kind: what it is; `--model` runs restorers only, "metric" is what a metric or a loss needs.
        summary: one line for people.
        source: where it comes from.
        licence: SPDX name where there is one.
        files: what it consists of.
        also: other sets of files that hold the same weights; any one of them does.
        embedded: it ships inside the package.
        bundle: what `hbr fetch` takes for this and others that are used together.
        package: folder within an installed package that ships them.
        home: who looks for them: "hbr", or a package that reads torch's cache.
        hub: its name on the Hugging Face hub, where a package that reads it downloads it by itself.
        import_with: the command that makes a model file of it.
        assembled_from: names of other weights that it is used with or built from.
        assembled_size: of a model that `hbr fetch` makes of `assembled_from`, about, in bytes.
    """

    name: str
    kind: WeightsKind
    summary: str
    source: str
    licence: str
    files: tuple[KnownFile, ...]
    also: tuple[tuple[KnownFile, ...], ...] = ()
    embedded: bool = False
    bundle: str | None = None
    package: str | None = None
    home: Literal["hbr", "torch"] = "hbr"
    hub: str | None = None
    import_with: str = ""
    assembled_from: tuple[str, ...] = ()
    assembled_size: int | None = None

    def __post_init__(self) -> None:
        check(bool(self.files), "files", self.files, "one file or more")

    @property
    def file(self) -> Path:
        """The embedded model file."""
        return PACKAGE / self.files[0].path

    @property
    def installed(self) -> bool:
        """The weights are on this machine, where hbr looks for them."""
        return self.find() is not None

    @property
    def folder(self) -> Path:
        """Where fetched files go."""
        if self.home == "torch":
            return weights_folders()[-1].parent  # torch's hub folder
        return weights_folder() / self._subfolder

    @property
    def obtain(self) -> str:
        """How to come by them, as the end of a sentence."""
        if self.embedded:
            return "install hbr anew"
        if self.package is not None:
            return f"install {self.package.partition('/')[0]} anew, which ships them"
        if self.assembled_size is not None:
            parts = ", ".join(self.assembled_from)
            return f"`hbr fetch {self.name}` gets {parts} and makes it of them ({self.licence})"
        if not self.can_be_fetched:
            files = " and ".join(f.path for f in self.files)
            return f"get {files} ({self.source}) and put it into {self.folder}"
        return f"`hbr fetch {self.name}` gets them (licence: {self.licence})"

    @property
    def can_be_fetched(self) -> bool:
        """There is a set of files each of which has a source, or all its parts are looked for."""
        if self.assembled_size is not None:
            return True
        return any(all(f.all_sources for f in files) for files in (self.files, *self.also))

    def check_source(self) -> None:
        """Raise `DownloadError` if it is not on this machine and cannot be fetched."""
        if not self.can_be_fetched and self.find() is None:
            raise DownloadError(f"{self.name} has no address of its own; {self.obtain}")

    def find(self, folder: Path | None = None, *, whole: bool = True) -> Path | None:
        """The file, or the folder of several, where it lies on this machine; None if it is not.

        `folder` is searched first; with `whole`, every file must be there, not only the first.
        """
        for place in self._places(folder):
            for files in (self.files, *self.also):
                wanted = files if whole else files[:1]
                if all((place / f.path).is_file() for f in wanted):
                    first = place / files[0].path
                    return first if len(files) == 1 else self._folder_of(place)
        return None

    @property
    def _subfolder(self) -> str:
        """Files of metrics lie side by side; other weights have a folder each."""
        return "" if self.kind == "metric" else self.name

    def _folder_of(self, place: Path) -> Path:
        return (place / self.files[0].path).parent if self.kind == "metric" else place

    def _places(self, folder: Path | None) -> list[Path]:
        if self.embedded:
            return [PACKAGE]
        if self.home == "torch":
            return [self.folder]
        if self.package is not None:
            package, _, inside = self.package.partition("/")
            spec = importlib.util.find_spec(package)  # finds, does not import
            return [
                Path(root) / inside for root in (spec and spec.submodule_search_locations) or ()
            ]
        given = [folder] if folder is not None else []
        return [*given, *(place / self._subfolder for place in weights_folders())]


@cache
def entries() -> dict[str, Entry]:
    """Every entry of the catalogue, by name, in the catalogue's order."""
    rows = read_yaml(Path(__file__).with_name("catalogue.yaml"))
    found = [from_dict(Entry, row, f"catalogue[{i}]") for i, row in enumerate(rows)]
    return {entry.name: entry for entry in found}


def available() -> list[str]:
    """Names that `load_model` takes on this machine."""
    return [e.name for e in entries().values() if e.kind == "restorer" and e.installed]


def find_weights(
    name: str, user: str | None = None, given: Path | None = None, *, whole: bool = True
) -> Path:
    """Where catalogued weights lie, their size and SHA-256 checked where those are known.

    Args:
        name: in the catalogue.
        user: who needs them; for messages.
        given: a file, taken as it is, or a folder that is looked into first. The others, in order:
            those of HBR_WEIGHTS, hbr's cache, torch's cache.
        whole: every file must be there, not only the first.

    Returns:
        The file; the folder where there are several.

    Raises:
        WeightsError: they are missing, or not the ones that they should be; the message says what
            to do.
    """
    entry = entries()[name]
    if given is not None and not given.is_dir():
        if not given.is_file():
            raise WeightsError(f"{given}: there is no such file for {user or name}")
        return given
    found = entry.find(given, whole=whole)
    if found is None:
        who = f"{user} needs the weights {name}, which" if user else f"the weights {name}"
        raise WeightsError(f"{who} are not on this machine ({_missing(entry)}); {entry.obtain}")
    if entry.kind in _SMALL:
        _check_files(entry, found)
    return found


def fetch_weights(
    entry: Entry,
    folder: Path,
    *,
    progress: Callable[[str], AbstractContextManager[ByteProgress]],
    report: Callable[[str], None],
) -> list[Path]:
    """Bring the files of an entry into `folder`, one after the other; see `fetch`.

    Args:
        entry: of the catalogue.
        folder: made if missing.
        progress: called with the path of each file, for what is told of its download.
        report: called with a line for each source that fails, which says what is tried next.

    Raises:
        DownloadError: as `fetch` for the last source of all, or there is no source.
    """
    sets = [s for s in (entry.files, *entry.also) if all(f.all_sources for f in s)]
    if not sets:
        raise DownloadError(f"{entry.name} has no address of its own; {entry.obtain}")

    def fetch_all(files: Sequence[KnownFile]) -> list[Path]:
        found = []
        for known in files:
            with progress(known.path) as moved:
                found.append(fetch(known, folder, progress=moved, report=report))
        return found

    for files, following in itertools.pairwise(sets):
        try:
            return fetch_all(files)
        except DownloadError as error:
            report(f"{error}; next: {following[0].all_sources[0]}")
    return fetch_all(sets[-1])


def find_model(name_or_path: str | Path, *, check_hash: bool = True) -> Path:
    """The model file of a catalogued name or of a path.

    Args:
        name_or_path: a name of the catalogue, or a path to a file.
        check_hash: read a catalogued file whole and compare its SHA-256 with the catalogue.

    Returns:
        a file of hbr, or one that `hbr.models.loading.open_model` reads as that of another project.

    Raises:
        WeightsError: unknown, not installed, of a format that must be imported first, or with
            another hash than the catalogue's; the message says what to do.
    """
    name = str(name_or_path)
    path = Path(name_or_path)
    if name in entries():
        found = _catalogued_model(entries()[name])
        if check_hash and entries()[name].files[0].sha256 is not None:
            _check_pinned(entries()[name], found, sha256(found))
        return found
    if path.is_dir():
        raise WeightsError(
            f"{path} is a folder; a Stable Diffusion 2.1-base folder comes in with "
            f"`hbr models import {path} --kind diffusers -o OUT.safetensors`"
        )
    if path.is_file() and (what := instead_of_weights(path)):
        raise WeightsError(f"{path} {what}")
    if path.suffix.lower() in FOREIGN_NETWORKS and path.is_file():
        return path
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


@dataclass(frozen=True)
class FoundFile:
    """A file that was found by a name.

    Attributes:
        name: of the catalogue, or the path that was given, as text.
        path: where it lies.
        sha256: of its bytes.
    """

    name: str
    path: Path
    sha256: str


def find_decoder(name_or_path: str | Path) -> FoundFile:
    """A decoder's file by its catalogued name or its path.

    Raises:
        WeightsError: unknown or not on this machine; the message says what to do.
    """
    name, path = str(name_or_path), Path(name_or_path)
    known = [entry.name for entry in entries().values() if entry.kind == "decoder"]
    if name in known:
        path = find_weights(name)
    elif not path.is_file():
        raise WeightsError(
            f"no decoder is called {name!r}; known: {', '.join(known)}; or give a file"
        )
    return FoundFile(name, path, sha256(path))


def find_and_hash_model(name_or_path: str | Path) -> FoundFile:
    """The model file of a catalogued name or of a path; it is read once for its hash.

    Raises:
        WeightsError: as for `find_model`.
    """
    path = find_model(name_or_path, check_hash=False)
    digest = sha256(path)
    if entry := entries().get(str(name_or_path)):
        _check_pinned(entry, path, digest)
    name = name_or_path if isinstance(name_or_path, str) else name_or_path.stem
    return FoundFile(name, path, digest)


def _check_pinned(entry: Entry, file: Path, digest: str) -> None:
    if entry.files[0].sha256 not in (None, digest):
        how = entry.obtain if entry.embedded else f"delete it, then {entry.obtain}"
        raise WeightsError(
            f"{file} is damaged or was changed: its SHA-256 is {digest}, the catalogue has "
            f"{entry.files[0].sha256}; {how}"
        )


def _catalogued_model(entry: Entry) -> Path:
    if entry.kind == "decoder":
        raise WeightsError(
            f"{entry.name} is a decoder, not a model: `--decoder {entry.name}` puts it in place of "
            "the decoder of a model on the same latents (--model)"
        )
    if entry.kind != "restorer":
        then = f"then run `{entry.import_with}` and give the result as the model"
        raise WeightsError(
            f"{entry.name} is no restorer but {_article(entry.kind)}; `hbr fetch {entry.name}` "
            f"gets it from {entry.source}{f'; {then}' if entry.import_with else ''}"
        )
    if entry.embedded and not entry.installed:
        raise WeightsError(f"{entry.name}: its weights are not in this installation ({entry.file})")
    return find_weights(entry.name)


def _missing(entry: Entry) -> str:
    """The first file that is missing; of a folder that is there in part, the first one there."""
    for place in entry._places(None):
        absent = [f.path for f in entry.files if not (place / f.path).is_file()]
        if len(absent) < len(entry.files):
            return absent[0]
    return entry.files[0].path


def _check_files(entry: Entry, found: Path) -> None:
    for files in (entry.files, *entry.also):
        names = {Path(f.path).name: f for f in files}
        paths = [found] if found.is_file() else [found / name for name in names]
        if not all(path.name in names and path.is_file() for path in paths):
            continue
        try:
            for path in paths:
                check_file(path, names[path.name])
        except DownloadError as error:
            raise WeightsError(f"{error}; delete it, then {entry.obtain}") from None
        return


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
