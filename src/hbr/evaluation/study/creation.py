"""A new study: folders paired by stem, every photo re-encoded under a random id."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hbr.evaluation.pairing import StemRules, find_pictures
from hbr.evaluation.study.design import StudyConfig, treatments
from hbr.evaluation.study.store import (
    DATABASE,
    IMAGES,
    StoredImage,
    Study,
    StudyError,
    write_database,
)
from hbr.files import making_folder, sha256
from hbr.image import PhotoError, read_photo
from hbr.version import __version__

PhotoRole = tuple[str, str]
"""A folder's role (`method`, `lq` or `hq`), and the method."""


@dataclass(frozen=True, kw_only=True)
class StudyPhotos:
    """The photos of a study: folders whose files are paired by stem.

    Attributes:
        methods: name → folder of restored photos.
        lq: degraded photos to show for comparison; scaled (bicubic) to the restored size.
        hq: undamaged photos to show for comparison.
        in_common: take only the stems that every folder has, instead of refusing.
        rules: what is taken off the names; nothing, by default.
        recursive: take the photos in sub-folders too.
    """

    methods: Mapping[str, Path]
    lq: Path | None = None
    hq: Path | None = None
    in_common: bool = False
    rules: StemRules | None = None
    recursive: bool = False

    @property
    def references(self) -> dict[str, Path]:
        """`lq` and `hq`, where they are given."""
        given = {"lq": self.lq, "hq": self.hq}
        return {role: path for role, path in given.items() if path is not None}

    @property
    def folders(self) -> dict[PhotoRole, Path]:
        """Every folder; those of the methods come first."""
        methods = {("method", name): path for name, path in self.methods.items()}
        return methods | {(role, ""): path for role, path in self.references.items()}


def create(
    folder: str | Path,
    photos: StudyPhotos,
    config: StudyConfig,
    *,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Study:
    """Make the study `folder`, whole or not at all.

    Photos are taken in as 8-bit sRGB PNG without any metadata, transparency on white, each under a
    random id; a study made again has other ids and the same orders. `folder` may exist if it is
    empty; `report` is called with the photos that are done, and with their number in all.

    Raises:
        PairingError: a folder without photos, or with two of one stem.
        StudyError: too few methods, unequal stems or sizes, a folder that holds a study; nothing
            is made then.
        PhotoError: a photo that cannot be read.
    """
    folder = Path(os.path.realpath(folder))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StudyError(f"{folder} is there and not empty; choose another folder")
    methods = photos.methods
    if not treatments(config.kind, list(methods)):
        needed = "2 methods or more" if config.kind == "choice" else "a method"
        raise StudyError(f"a study of {config.kind} needs {needed}, there are {len(methods)}")
    found = {
        role: find_pictures(path, photos.rules, recursive=photos.recursive)
        for role, path in photos.folders.items()
    }
    found = _paired(found, photos.folders, photos.in_common)
    stems = tuple(sorted(next(iter(found.values()))))
    with making_folder(folder) as part:
        (part / IMAGES).mkdir()
        images: list[StoredImage] = []
        for stem in stems:
            images += _take_in(stem, found, part / IMAGES)
            report(len(images), len(stems) * len(found))
        sources = {name: str(path) for name, path in {**methods, **photos.references}.items()}
        facts = {"sources": sources, "hbr": __version__}
        write_database(part / DATABASE, config, tuple(methods), stems, facts, images)
    return Study.open(folder)


def _paired(
    found: dict[PhotoRole, dict[str, Path]], folders: Mapping[PhotoRole, Path], in_common: bool
) -> dict[PhotoRole, dict[str, Path]]:
    """The same, all of the same stems."""
    common = set.intersection(*(set(files) for files in found.values()))
    if not common:
        firsts = ", ".join(f"{min(files)} in {folders[key]}" for key, files in found.items())
        raise StudyError(
            f"no stem is in every folder ({firsts}); --strip takes endings such as _out off"
        )
    # The references may hold more than the methods restored.
    every = {stem for (role, _), files in found.items() if role == "method" for stem in files}
    if every != common and not in_common:
        lines = []
        for key, files in found.items():
            if missing := sorted(every - set(files)):
                lines.append(f"{folders[key]} lacks {_some(missing)}")
        raise StudyError(f"{'; '.join(lines)}; --common takes what all have")
    return {key: {stem: files[stem] for stem in common} for key, files in found.items()}


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _take_in(
    stem: str, found: Mapping[PhotoRole, Mapping[str, Path]], out: Path
) -> list[StoredImage]:
    """Every picture of one stem; methods come first, and set the size."""
    from PIL import Image

    images: list[StoredImage] = []
    size: tuple[int, int] | None = None
    for (role, method), files in found.items():
        path = files[stem]
        try:
            photo = read_photo(path)
        except PhotoError as error:
            raise PhotoError(f"{error}; no study was made") from None
        picture = photo.displayed().pil()
        size = size or photo.size
        if role == "lq":
            picture = picture.resize(size[::-1], Image.Resampling.BICUBIC)
        elif photo.size != size:
            (height, width), (h, w) = size, photo.size
            raise StudyError(
                f"{path} is {w}x{h}, the first method's is {width}x{height}; a size would give a "
                "method away, make them equal"
            )
        ident = secrets.token_hex(8)
        picture.save(out / f"{ident}.png", compress_level=4)
        images.append(
            StoredImage(
                id=ident,
                role=role,
                method=method,
                stem=stem,
                width=size[1],
                height=size[0],
                sha256=sha256(path),
            )
        )
    return images
