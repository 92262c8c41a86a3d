"""WebDataset: tars in which files of one key, one after the other, are one sample.

The key is the name up to the first dot. Within a sample, a photo and a JSON belong together if what
lies between the first and the last dot is the same: `22.05.jpg` and `22.05.json`; `000.json` is of
all photos of its sample that have none of their own.
"""

from __future__ import annotations

import itertools
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hbr.archives import COMPRESSED, read_part, tar_members
from hbr.curation.sources.base import ImageRef, SourceError, SourceImage
from hbr.curation.sources.disk_tables import SeenKeys, on_disk
from hbr.curation.sources.paths import badly_named, broken, unused
from hbr.curation.sources.row_reader import RowReader
from hbr.image import is_photo_name
from hbr.image.search import LeftOut
from hbr.people.values import clean

# Larger files do not describe one image.
MAX_JSON = 16 << 20


@dataclass(frozen=True)
class TarReader:
    """Images in tars, with a `.json` beside each, or without.

    Attributes:
        tars: the files; images are read from their places in them, so they must not be compressed.
        rows: reads the JSON.
    """

    tars: tuple[Path, ...]
    rows: RowReader

    def read(self) -> Iterator[SourceImage]:
        """The images in the order of the tars; a cut tar gives what was whole, then a record."""
        for path in self.tars:
            if path.name.lower().endswith(COMPRESSED):
                said = f"{path.name}: decompress it first; images are read from their places"
                yield broken(self.rows.source, path.name, said)
                continue
            try:
                with on_disk(SeenKeys) as seen:
                    yield from self._tar(path, seen)
            except tarfile.TarError as error:
                said = f"{path.name} is cut or no tar: {error}"
                yield broken(self.rows.source, f"{path.name}:end", said)
            except OSError as error:
                raise SourceError(f"{path}: {error.strerror or error}") from None

    def _tar(self, path: Path, seen: SeenKeys) -> Iterator[SourceImage]:
        left_out = LeftOut()
        with on_disk(SeenKeys) as samples, on_disk(SeenKeys) as told:
            for key, sample in itertools.groupby(_files(path), lambda file: file.key):
                files = list(sample)
                photos = [file for file in files if is_photo_name(file.member.name)]
                for file in files:
                    left_out.add_name(f"{path.name}/{file.member.name}")
                sidecars = [file for file in files if file.rest.lower().split(".")[-1] == "json"]
                again = samples.again(key) and (bool(sidecars) or told.holds(key))
                if sidecars:
                    told.again(key)
                yield from self._sample(path, photos, sidecars, again, seen)
        left_out.say()

    def _sample(
        self,
        path: Path,
        photos: Sequence[_File],
        sidecars: Sequence[_File],
        again: bool,
        seen: SeenKeys,
    ) -> Iterator[SourceImage]:
        """The photos of a sample, each with its JSON; `again`: a part of it came before."""
        left = set(range(len(sidecars)))
        alone: list[str] = []
        for photo in photos:
            own = _own(photo, sidecars)
            left.difference_update(own)
            alone += [] if own else [photo.member.name]
            yield from self._image(path, photo, [sidecars[i] for i in own], again, seen)
        # further JSON beside photos that have theirs is not missed
        if left and (alone or (again and not photos)):
            lost = sidecars[min(left)].member
            beside = f"{alone[0]} has another name" if alone else "no photo is beside it"
            hint = "; its sample is in two places of the tar, sort the tar by name" if again else ""
            said = f"{path.name}/{lost.name} describes no photo: {beside}{hint}"
            yield unused(self.rows.source, f"{path.name}/{lost.name}#{lost.offset_data}", said)

    def _image(
        self, path: Path, photo: _File, sidecars: Sequence[_File], again: bool, seen: SeenKeys
    ) -> Iterator[SourceImage]:
        member = photo.member
        key = f"{path.name}/{member.name}"
        if bad := badly_named(self.rows.source, key):
            yield bad
            return
        if seen.again(key):
            place = f"{key}#{member.offset_data}"
            yield broken(self.rows.source, place, f"{key}: a second file of that name in the tar")
            return
        row: dict[str, Any] = {}
        error = None
        if len(sidecars) > 1:
            names = " and ".join(file.member.name for file in sidecars[:2])
            error = f"{key}: {names} both describe it"
        elif sidecars:
            row, error = _read_json(path, sidecars[0].member)
        elif again:
            error = f"{key}: its sample is in two places of the tar; sort the tar by name"
        place = str(path.absolute())
        ref = ImageRef(path=place, offset=member.offset_data, size=member.size)
        yield from self.rows.images(key, ref, row, error)


@dataclass(frozen=True)
class _File:
    """A member of a tar, by the rule of WebDataset.

    Attributes:
        member: with its whole name.
        key: of its sample: folders, and the name up to the first dot.
        rest: what follows that dot: `jpg`, `05.json`.
    """

    member: tarfile.TarInfo
    key: str
    rest: str

    @property
    def stem(self) -> str:
        """What tells files of one kind apart within the sample: `05` of `22.05.json`."""
        return self.rest.rpartition(".")[0]


def _own(photo: _File, sidecars: Sequence[_File]) -> list[int]:
    """Which JSON describes a photo: `000.jpg.json`, else `000.json` of the same stem or of all."""
    for stem in (photo.rest, photo.stem, ""):
        if own := [i for i, file in enumerate(sidecars) if file.stem == stem]:
            return own
    return []


def _files(path: Path) -> Iterator[_File]:
    """The members that belong to samples; names without a dot, and hidden ones, do not."""
    for member in tar_members(path):
        folder, slash, file = member.name.rpartition("/")
        first, dot, rest = file.partition(".")
        if first and dot:
            yield _File(member, clean(f"{folder}{slash}{first}"), rest)


def _read_json(path: Path, member: tarfile.TarInfo) -> tuple[dict[str, Any], str | None]:
    """The JSON object, and what is wrong with it."""
    try:
        data = json.loads(read_part(path, member.offset_data, min(member.size, MAX_JSON)))
    except (OSError, ValueError, RecursionError):
        return {}, f"{member.name} is no JSON"
    return (data, None) if isinstance(data, dict) else ({}, f"{member.name} is no JSON object")
