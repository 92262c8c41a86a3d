"""WebDataset: tars in which files with the same stem, one after the other, are one sample."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hbr.archives import COMPRESSED, read_part, tar_members
from hbr.curation.sources.base import ImageRef, SourceError, SourceImage
from hbr.curation.sources.disk_tables import SeenKeys
from hbr.curation.sources.paths import badly_named, broken
from hbr.curation.sources.row_reader import RowReader
from hbr.image import is_photo_name

# Larger files do not describe one image.
MAX_JSON = 16 << 20


@dataclass(frozen=True)
class TarSource:
    """Images in tars, with a `.json` beside each, or without.

    Attributes:
        name: of the source.
        tars: the files; images are read from their places in them, so they must not be compressed.
        reader: reads the JSON.
    """

    name: str
    tars: tuple[Path, ...]
    reader: RowReader

    def __iter__(self) -> Iterator[SourceImage]:
        """The images in the order of the tars; a cut tar gives what was whole, then a record."""
        for path in self.tars:
            if path.name.lower().endswith(COMPRESSED):
                said = f"{path.name}: decompress it first; images are read from their places"
                yield broken(self.name, path.name, said)
                continue
            try:
                with SeenKeys() as seen:
                    yield from self._tar(path, seen)
            except tarfile.TarError as error:
                said = f"{path.name} is cut or no tar: {error}"
                yield broken(self.name, f"{path.name}:end", said)
            except OSError as error:
                raise SourceError(f"{path}: {error.strerror or error}") from None

    def _tar(self, path: Path, seen: SeenKeys) -> Iterator[SourceImage]:
        image: tarfile.TarInfo | None = None
        sidecar: dict[str, Any] = {}
        stem = None
        for member in tar_members(path):
            if (new := _stem(member.name)) != stem:
                if image is not None:
                    yield self._image(path, image, sidecar, seen)
                stem, image, sidecar = new, None, {}
            if is_photo_name(member.name):
                if image is not None:
                    yield self._image(path, image, sidecar, seen)
                image = member
            elif member.name.lower().endswith(".json"):
                sidecar = _sidecar(path, member)
        if image is not None:
            yield self._image(path, image, sidecar, seen)

    def _image(
        self, path: Path, member: tarfile.TarInfo, sidecar: dict[str, Any], seen: SeenKeys
    ) -> SourceImage:
        key = f"{path.name}/{member.name}"
        if bad := badly_named(self.name, key):
            return bad
        if seen.again(key):
            place = f"{key}#{member.offset_data}"
            return broken(self.name, place, f"{key}: a second file of that name in the tar")
        ref = ImageRef(path=str(path.absolute()), offset=member.offset_data, size=member.size)
        error = sidecar.pop("_error", None)
        return SourceImage(
            source=self.name, key=key, ref=ref, **self.reader.read(sidecar), error=error
        )


def _stem(name: str) -> str:
    folder, _, file = name.rpartition("/")
    return f"{folder}/{file.split('.')[0]}"


def _sidecar(path: Path, member: tarfile.TarInfo) -> dict[str, Any]:
    """The JSON object; `_error` says what is wrong with it."""
    try:
        data = json.loads(read_part(path, member.offset_data, min(member.size, MAX_JSON)))
    except (OSError, ValueError, RecursionError):
        return {"_error": f"{member.name} is no JSON"}
    return data if isinstance(data, dict) else {"_error": f"{member.name} is no JSON object"}
