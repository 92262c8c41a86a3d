"""Making a restored file again from its recipe, and saying what differs where the bytes do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hbr.config import ConfigError
from hbr.devices import choose_device
from hbr.errors import ExitCode, HbrError, PhotoError, display_name
from hbr.files import sha256
from hbr.image import Photo, read_photo
from hbr.image.paths import is_photo_name, walk_files
from hbr.image.reading import named_bytes
from hbr.image.recipe_text import recipe_text, with_recipe
from hbr.image.writing import encode_photo
from hbr.models.graph_files import calibration_of
from hbr.models.protocol import IN_TORCH
from hbr.restoration.recipe import (
    SIDECAR,
    NamedFile,
    RestoreRecipe,
    circumstances,
    parse_sidecar,
    sidecar_of,
)
from hbr.restoration.settings import RestoreSettings
from hbr.weights import FoundFile, WeightsError, find_and_hash_model, find_decoder

if TYPE_CHECKING:
    from hbr.restoration.restorer import Restorer

_SUFFIXES = {"jpeg": ".jpg", "tiff": ".tif"}


class ReplayError(HbrError):
    """A file cannot be made again; the message says what is missing."""

    exit_code = ExitCode.NOTHING
    http_status = 422


@dataclass(frozen=True, kw_only=True)
class RecordedFile:
    """What is known of a restored file.

    Attributes:
        file: the file; it may be gone if there is a sidecar.
        recipe: how it was made.
        inside: the recipe as the file has it in its metadata; None if only the sidecar has it.
        sha256: of the file as it was written; None without a sidecar.
    """

    file: Path
    recipe: RestoreRecipe
    inside: str | None
    sha256: str | None


def read_recorded(path: Path, *, max_pixels: int) -> RecordedFile:
    """What is known of a restored photo, by its metadata and its sidecar, or by the sidecar alone.

    Raises:
        PhotoError: it cannot be read.
        ReplayError: it has no recipe.
        ConfigError: the recipe is damaged, or that of a newer hbr.
    """
    file = path.with_name(path.name.removesuffix(SIDECAR))
    sidecar = sidecar_of(file)
    inside = None
    if file.is_file() or file == path:
        inside = recipe_text(read_photo(file, max_pixels=max_pixels, truncated="accept"))
    known: RestoreRecipe | None = None
    digest = None
    if sidecar.is_file() or sidecar == path:
        known, digest = parse_sidecar(_text_of(sidecar), display_name(sidecar))
    if inside is not None:
        recipe = RestoreRecipe.parse(inside, f"the recipe in {display_name(file)}")
        if known is not None and recipe != known:
            digest = None  # the sidecar is that of another file of this name
        return RecordedFile(file=file, recipe=recipe, inside=inside, sha256=digest)
    if known is None:
        raise ReplayError(
            f"{display_name(file)}: holds no recipe and has no sidecar; hbr restore writes one "
            "unless --recipe off"
        )
    return RecordedFile(file=file, recipe=known, inside=None, sha256=digest)


def find_source(recipe: RestoreRecipe, file: Path, given: Path | None) -> Path:
    """The photo that a file was restored from, by its hash.

    Args:
        recipe: of the file.
        file: the file; without `given`, the photo is looked for by its name beside it, one folder
            further up, and in the current folder; if it came without a name, beside it.
        given: the photo, or a folder that it lies in or below.

    Raises:
        ReplayError: it is not there.
    """
    wanted = recipe.source
    others: list[Path] = []
    for path in _candidates(wanted, file, given):
        if sha256(path) == wanted.sha256:
            return path
        others.append(path)
    name = display_name(wanted.name or "the photo")
    if others and (given is not None or others[0].name == wanted.name):
        raise ReplayError(
            f"{display_name(others[0])} is not the photo that {display_name(file)} was made from: "
            f"its SHA-256 is {sha256(others[0])}, that of {name} was {wanted.sha256}; "
            "--source names the right one"
        )
    where = display_name(given) if given else "the folder of the file, above it, or here"
    raise ReplayError(f"{name} is not in {where}; --source names it, or a folder to search")


def _candidates(wanted: NamedFile, file: Path, given: Path | None) -> Iterator[Path]:
    """Files that may be the photo, those of its name first."""
    if given is not None and not given.is_dir():
        yield given
        return
    if given is None:
        folders = dict.fromkeys([file.parent, file.parent / "..", Path()])
        if wanted.name is None:
            near = sorted(path for path in file.parent.iterdir() if is_photo_name(path.name))
        else:
            near = [folder / wanted.name for folder in folders]
        found = (path for path in near if path.is_file())
        yield from (path for path in found if not (file.exists() and path.samefile(file)))
        return
    inside = [given / name for name in sorted(walk_files(given, is_photo_name))]
    yield from sorted(inside, key=lambda path: path.name != wanted.name)


def load_restorer(recipe: RestoreRecipe, model: str | None, decoder: str | None = None) -> Restorer:
    """Load the model of a recipe, on the device of the recipe if this machine has it.

    `model` and `decoder` are files or known names in place of the recipe's.

    Raises:
        ConfigError: a decoder is named, and the file was made without one.
        WeightsError: one is missing, or another than the recipe's.
    """
    from hbr.restoration.restorer import Restorer

    used = recipe.model
    found = _find_used(
        find_and_hash_model, NamedFile(name=used.name, sha256=used.sha256 or ""), model, "model"
    )
    other = None
    if used.decoder is not None:
        other = _find_used(find_decoder, used.decoder, decoder, "decoder")
    elif decoder is not None:
        raise ConfigError(f"decoder is {decoder}, but the file was made without one; leave it out")
    device = used.device
    if used.backend in IN_TORCH:
        try:
            device = str(choose_device(used.device))
        except ValueError:
            device = "auto"
    return Restorer.from_file(found, device, used.dtype, used.fidelity, used.backend, other)


def _find_used(
    find: Callable[[str], FoundFile], used: NamedFile, given: str | None, what: str
) -> FoundFile:
    """The file of a recipe's model or decoder; without a hash it is any of that name."""
    name = given or used.name or ""
    try:
        found = find(name)
    except WeightsError as error:
        if given is None and Path(name).suffix:
            raise WeightsError(f"{name} was a file of its own; --{what} names it") from error
        raise
    if used.sha256 not in ("", found.sha256):
        raise WeightsError(
            f"{name} is another {what} than the one that made the file: its SHA-256 is "
            f"{found.sha256}, that one's was {used.sha256}; --{what} names the right file"
        )
    return found


def replay(record: RecordedFile, source: Path, restorer: Restorer) -> bytes:
    """Make the bytes of a file again.

    Raises:
        PhotoError: the source cannot be read.
        ReplayError: a map that guided the model is missing or another.
    """
    recipe = record.recipe
    encoding = recipe.encoding
    photo = read_photo(
        source,
        max_pixels=recipe.settings.max_pixels,
        page=encoding.page,
        truncated=encoding.truncated,
    )
    restored = restorer(photo, _with_maps(recipe, (record.file.parent, source.parent)))
    carried, _ = with_recipe(restored.photo, record.inside, encoding.format)
    return encode_photo(
        carried,
        "photo" + _SUFFIXES.get(encoding.format, f".{encoding.format}"),
        quality=encoding.quality,
        png_compression=encoding.png_compression,
        lossless=encoding.lossless,
    )


def differences(recipe: RestoreRecipe, restorer: Restorer) -> list[str]:
    """What decides over the last bits and is not as it was, a phrase each."""
    now = circumstances(str(restorer.device), recipe.model.backend)
    versions: dict[str, str] = now["versions"]
    calibration = calibration_of(restorer.rewrites)  # older recipes do not record theirs
    pairs = [
        *((n, recipe.versions[n], v) for n, v in versions.items() if n in recipe.versions),
        ("device", recipe.model.device, str(restorer.device)),
        ("precision", recipe.model.dtype, restorer.dtype),
        ("calibration", recipe.model.calibration or calibration, calibration),
        ("processor", recipe.processor, now["processor"]),
        ("threads", str(recipe.threads), str(now["threads"])),
    ]
    return [f"{name} {then}, here {here}" for name, then, here in pairs if then != here]


def compared(record: RecordedFile, made: bytes, *, max_pixels: int) -> str | None:
    """In what a file differs from the bytes that were made again; None if they are the same.

    `max_pixels` is of the file, as for `read_recorded`.
    """
    if not record.file.is_file():
        same = record.sha256 in (None, NamedFile.of_bytes(made).sha256)
        return None if same else "its bytes had another hash"
    there = record.file.read_bytes()
    if there == made:
        return None
    try:
        old = read_photo(named_bytes(there, "the file"), max_pixels=max_pixels)
    except PhotoError:
        return "the file is damaged"
    new = read_photo(named_bytes(made, "the file"), max_pixels=record.recipe.settings.max_pixels)
    return _in_pixels(old, new)


def _in_pixels(old: Photo, new: Photo) -> str:
    if old.size != new.size or old.bits != new.bits:
        return f"it has {_shape(old)}, made again {_shape(new)}"
    off = np.abs(old.pixels.astype(np.int32) - new.pixels)
    n = int(np.count_nonzero(off.any(axis=2)))
    if not n and not np.array_equal(old.alpha, new.alpha):  # type: ignore[arg-type]
        return "its colours are the same, its transparency is not"
    if not n:
        return "its pixels are the same, its metadata or compression are not"
    return f"{n} of {off.shape[0] * off.shape[1]} pixels differ, by at most {off.max()} levels"


def _shape(photo: Photo) -> str:
    height, width = photo.size
    return f"{width}x{height} pixels of {photo.bits} bits"


def _with_maps(recipe: RestoreRecipe, folders: Sequence[Path]) -> RestoreSettings:
    """The settings, with the files of maps where they lie now."""
    settings = recipe.settings
    found: dict[str, Any] = {}
    named = {"pose": settings.pose, "attention": settings.attention}
    for field, name in {**named, "people": settings.choice.source}.items():
        if name not in recipe.maps:
            continue
        near = [folder / name for folder in (*folders, Path()) if (folder / name).is_file()]
        right = [path for path in near if sha256(path) == recipe.maps[name]]
        if not right:
            what = "another file is there" if near else "it is not there"
            raise ReplayError(f"{name}, the file of {field}, is missing: {what}; put it beside")
        found[field] = str(right[0])
    choice = settings.choice
    if source := found.pop("people", None):
        choice = dataclasses.replace(choice, source=source)
    # the model for the background, if it is a file; the bytes tell whether it is the right one
    near = [folder / choice.background for folder in (*folders, Path())]
    if there := next((str(path) for path in near if path.is_file()), None):
        choice = dataclasses.replace(choice, background=there)
    return dataclasses.replace(settings, choice=choice, **found)


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{display_name(path)}: cannot be read ({error})") from None
