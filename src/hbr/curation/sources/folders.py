"""Plain folders of photos, without annotations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hbr.curation.sources.base import ImageRef, SourceImage
from hbr.curation.sources.paths import badly_named, walk


@dataclass(frozen=True)
class FolderSource:
    """The photos below a folder, or one photo.

    Attributes:
        name: of the source.
        images: the folder, or the file.
        licence, attribution: of all of them, if one is known.
    """

    name: str
    images: Path
    licence: str | None = None
    attribution: str | None = None

    def __iter__(self) -> Iterator[SourceImage]:
        """The photos in the order of their names."""
        single = self.images.is_file()
        names = [self.images.name] if single else walk(self.images)
        folder = self.images.parent if single else self.images
        for name in names:
            if bad := badly_named(self.name, name):
                yield bad
                continue
            ref = ImageRef.file(folder / name)
            licence, attribution = self.licence, self.attribution
            yield SourceImage(
                source=self.name, key=name, ref=ref, licence=licence, attribution=attribution
            )
