"""The photos that rows come from, found again in the sources."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from hbr.config import ConfigError
from hbr.curation.config import CurationConfig
from hbr.curation.pipeline.decoding import decode
from hbr.curation.record import Record
from hbr.curation.sources.base import SourceError, SourceImage
from hbr.curation.sources.configs import SourceConfig
from hbr.curation.sources.opening import open_source, with_names
from hbr.errors import one_line
from hbr.image import PhotoError

Key = tuple[str, str]
"""(source, key)."""


@dataclass(frozen=True)
class FoundPhoto:
    """A photo, or why there is none.

    Attributes:
        pixels: [h, w, 3] uint8, upright; None where it cannot be had.
        sha256: of its bytes.
        why: one line, where there are no pixels.
    """

    pixels: np.ndarray | None
    sha256: str | None = None
    why: str | None = None


def find_images(config: SourceConfig, keys: Collection[str]) -> Iterator[SourceImage]:
    """What a source states about the images of these keys; it is read until all are found.

    Raises:
        SourceError: the source is not there any more.
        ConfigError: its table of labels is not.
    """
    left = set(keys)
    for image in open_source(config) if left else ():
        if image.key in left:
            left.discard(image.key)
            yield image
            if not left:
                return


def read_pixels(image: SourceImage, max_pixels: int) -> FoundPhoto:
    """The upright pixels of an image, or why there are none."""
    if image.ref is None:
        return FoundPhoto(None, why=image.error or "its place is not known")
    try:
        data = image.ref.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        decoded = decode(data, image.key, rotation=image.rotation, max_pixels=max_pixels)
    except (SourceError, PhotoError, MemoryError) as error:
        return FoundPhoto(None, why=one_line(error) or "out of memory")
    return FoundPhoto(decoded.pixels, digest)


def photos_of(
    config: CurationConfig | None, records: Collection[Record]
) -> Iterator[tuple[Record, FoundPhoto]]:
    """Each record with its photo, one photo in memory at a time.

    Records whose photo is not in the sources any more come with the reason, at the end.
    """
    by_key: dict[Key, list[Record]] = {}
    for record in records:
        by_key.setdefault((record.source, record.key), []).append(record)
    config = config or CurationConfig()
    unreadable: dict[str, str] = {}
    for source in with_names(config.sources):
        try:
            for image in find_images(source, [key for name, key in by_key if name == source.name]):
                found = read_pixels(image, config.max_pixels)
                for record in by_key.pop((source.name, image.key)):
                    if len({found.sha256, record.image_sha256} - {None}) > 1:
                        yield record, FoundPhoto(None, found.sha256, "the photo is another one now")
                    else:
                        yield record, found
        except (SourceError, ConfigError) as error:
            unreadable[source.name] = one_line(error)
    why = "the run's folder does not tell where its photos lie"
    if config.sources:
        why = "the sources do not name it any more"
    for (name, _), records_left in by_key.items():
        for record in records_left:
            yield record, FoundPhoto(None, why=unreadable.get(name, why))
