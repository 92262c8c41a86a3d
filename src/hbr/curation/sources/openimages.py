"""Open Images v4 to v7: CSV files of boxes, images, class names, and the hierarchy of classes.

They lie in one folder, of any versions and subsets together, and are recognised by their header
lines:

    boxes           ImageID, LabelName, XMin … : parts of width and height
    images          ImageID, Rotation, License, Author … : the lists of image ids
    image labels    ImageID, Source, LabelName, Confidence: whether annotators saw a person
    class names     *class-descriptions*.csv; those of v4 and v5 have no header line
    hierarchy       *hierarchy*.json: what stands below a person's label is a person

They are read once into tables on disk (`disk_tables`), so that their rows may come in any order.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hbr.curation.sources.base import Box, ImageRef, SourceError, SourceImage
from hbr.curation.sources.configs import OpenImagesConfig
from hbr.curation.sources.disk_tables import BoxIndex, IndexedImage, on_disk
from hbr.curation.sources.labels import Role, Vocabulary
from hbr.curation.sources.paths import unused
from hbr.people.values import flag, identifier, number, open_text, text

SUFFIXES = (".jpg", ".jpeg", ".png")
SUBSETS = ("", "train", "validation", "test")
# More than these are counted only.
MAX_PROBLEMS = 1000

Roles = dict[str, tuple[str, Role]]


def read_openimages(
    name: str, config: OpenImagesConfig, images: Path, vocabulary: Vocabulary
) -> Iterator[SourceImage]:
    """The images in the order of their ids, then the errors of the files.

    `images` is the folder of images, `{ImageID}.jpg`, in it or in train, validation and test.
    """
    files = sorted(p for p in config.annotations.iterdir() if p.is_file())
    tables = [p for p in files if p.suffix == ".csv" and "class-descriptions" not in p.name]
    with on_disk(BoxIndex) as index:
        reading = _Reading(index, _roles(files, vocabulary))
        for path in tables:
            reading.read(path)
        if not reading.found_boxes:
            raise SourceError(f"{config.annotations}: no file with the columns of boxes")
        root = images.absolute()
        folders = [f"{root / s}/" for s in SUBSETS if (root / s).is_dir()]
        for image in index.images(by_id=True):
            if image.labelled or config.unlabelled:
                yield _image(name, image, images.name, folders)
        for place, problem in reading.finish():
            yield unused(name, place, problem)


def _image(source: str, image: IndexedImage, folder: str, folders: Sequence[str]) -> SourceImage:
    """An image, which may lie in one of the folders; `folder` is what errors call them."""
    subset = image.name or ""
    key, ref = f"{subset}{image.id}", None
    # without folders of this machine
    error: str | None = f"{image.id}: named by the annotations, but not in the folder {folder}"
    if re.fullmatch(r"[\w-]+", image.id) is None:
        error = f"{image.id!r} is no image id"
    else:
        # plain text: this is done for millions
        names = (f"{place}{image.id}{suffix}" for place in folders for suffix in SUFFIXES)
        if found := next(filter(os.path.isfile, names), None):
            ref, error = ImageRef(path=found), None
    return SourceImage(
        source=source,
        key=key,
        ref=ref,
        boxes=image.boxes if image.labelled else None,
        licence=image.licence,
        attribution=image.attribution,
        error=error,
        rotation=image.rotation,
    )


class _Reading:
    """The state while the files are read."""

    def __init__(self, index: BoxIndex, roles: Roles) -> None:
        self.found_boxes = False
        self._index = index
        self._roles = roles
        self._problems: list[tuple[str, str]] = []
        self._more_problems = 0

    def read(self, path: Path) -> None:
        """Take the rows of a CSV file; those of a kind that is not needed are left."""
        line, take = 1, None
        try:
            with open_text(path, newline="") as file:
                rows = csv.reader(file)
                head = next(rows, [])
                take = self._taker(set(head))
                if take is None:
                    return
                for row in rows:
                    line = rows.line_num
                    said = None
                    if len(row) == len(head):
                        said = take(dict(zip(head, row, strict=True)))
                    elif row:
                        said = f"{len(row)} columns instead of {len(head)}; it may be cut"
                    if said is not None:
                        self._problem(path, line, said)
        except csv.Error as error:
            self._problem(path, line, f"no CSV: {error}")

    def finish(self) -> Iterator[tuple[str, str]]:
        """Where and what was wrong."""
        yield from self._problems
        if self._more_problems:
            yield "more problems", f"{self._more_problems} more rows that cannot be used"

    def _taker(self, head: set[str]) -> Any:
        if {"ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax"} <= head:
            self.found_boxes = True
            return self._box
        if "ImageID" in head and head & {"Rotation", "OriginalURL"}:
            return self._image
        if {"ImageID", "Source", "LabelName", "Confidence"} <= head:
            return self._image_label
        return None

    def _box(self, row: dict[str, str]) -> str | None:
        """Add a box; returns what is wrong with it, if anything."""
        if (id := identifier(row["ImageID"])) is None:
            return "no ImageID"
        self._index.mark_labelled(id)
        if (known := self._roles.get(row["LabelName"])) is None:
            return None
        label, role = known
        flags = {c: flag(row.get(c)) for c in ("IsGroupOf", "IsDepiction", "IsInside")}
        if unclear := [c for c, value in flags.items() if value is None]:
            return f"{unclear[0]} is {row[unclear[0]]!r}, not 0 or 1"
        group, depiction, inside = flags.values()
        score = number(row.get("Confidence"))
        box = Box(
            *(number(row[c]) for c in ("XMin", "YMin", "XMax", "YMax")),
            label=label,
            kind="head" if role == "head" else "full",
            score=score if score == score else None,
            crowd=bool(group) or role == "crowd",
            ignore=bool(depiction) or bool(inside) or role == "ignore",
            normalised=True,
        )
        self._index.add_box(id, box)
        return None

    def _image_label(self, row: dict[str, str]) -> None:
        known = self._roles.get(row["LabelName"])
        seen_none = "verification" in row["Source"] and number(row["Confidence"]) == 0
        if known is not None and known[1] == "person" and seen_none:
            self._index.mark_labelled(identifier(row["ImageID"]) or "")

    def _image(self, row: dict[str, str]) -> None:
        rotation = number(row.get("Rotation"))
        subset = row.get("Subset")
        who = [text(row.get(c)) for c in ("Author", "AuthorProfileURL", "OriginalLandingURL")]
        self._index.list_image(
            identifier(row["ImageID"]) or "",
            f"{subset}/" if subset in SUBSETS[1:] else "",
            licence=text(row.get("License")),
            attribution=", ".join(part for part in who if part) or None,
            rotation=int(rotation) if rotation in (90, 180, 270) else 0,
        )

    def _problem(self, path: Path, line: int, problem: str) -> None:
        if len(self._problems) < MAX_PROBLEMS:
            place = f"{path.name}:line {line}"
            self._problems.append((place, f"{path.name}, line {line}: {problem}"))
        else:
            self._more_problems += 1


def _roles(files: list[Path], vocabulary: Vocabulary) -> Roles:
    """What each label id means: (words, role)."""
    words: dict[str, str] = {}
    for path in files:
        if path.suffix == ".csv" and "class-descriptions" in path.name:
            try:
                with open_text(path, newline="") as file:
                    words.update((row[0], row[1]) for row in csv.reader(file) if len(row) >= 2)
            except (OSError, ValueError, csv.Error) as error:
                raise SourceError(f"{path}: no list of classes: {error}") from None
    # the names of files that lack descriptions are ids, which the vocabulary may hold too
    roles: Roles = {
        id: (words.get(id, id), role)
        for id in words
        if (role := vocabulary.role(words[id]) or vocabulary.role(id))
    }
    if not words:
        roles = {id: (id, role) for id, role in vocabulary.roles.items() if id.startswith("/m/")}
    for path in files:
        if path.suffix == ".json" and "hierarchy" in path.name:
            try:
                with open_text(path) as file:
                    _inherit(json.load(file), None, roles, words)
            except (OSError, ValueError, TypeError, RecursionError):
                raise SourceError(f"{path}: no hierarchy of classes in JSON") from None
    return roles


def _inherit(node: Any, role: Role | None, roles: Roles, words: dict[str, str]) -> None:
    """Give what is below a label in the hierarchy its role; parts of it are something else."""
    if not isinstance(node, dict):
        return
    id = str(node.get("LabelName"))
    if role is not None and id not in roles:
        roles[id] = (words.get(id, id), role)
    for child in node.get("Subcategory", ()):
        _inherit(child, roles[id][1] if id in roles else role, roles, words)
    for part in node.get("Part", ()):
        _inherit(part, None, roles, words)
