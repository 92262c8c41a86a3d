"""The photos that rows come from, found again in the sources."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from hbr.curation.config import CurationConfig
from hbr.curation.pipeline.decoding import PhotoError, decode
from hbr.curation.record import Record
from hbr.curation.sources.base import SourceError, SourceImage
from hbr.curation.sources.opening import open_sources
from hbr.errors import one_line

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


def find_images(config: CurationConfig, keys: Collection[Key]) -> Iterator[tuple[Key, SourceImage]]:
    """What the sources state about some images; they are read until all are found.

    Raises:
        SourceError: a source is not there any more.
    """
    left = set(keys)
    wanted = {source for source, _ in left}
    for source in open_sources(config.sources):
        if source.name not in wanted:
            continue
        for image in source:
            key = (image.source, image.key)
            if key in left:
                left.discard(key)
                yield key, image
                if not any(name == source.name for name, _ in left):
                    break


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
    why = "the sources do not name it any more"
    if config is None or not config.sources:
        why = "the run's folder does not tell where its photos lie"
    else:
        try:
            for key, image in find_images(config, by_key):
                found = read_pixels(image, config.max_pixels)
                for record in by_key.pop(key):
                    changed = None not in (found.sha256, record.image_sha256)
                    if changed and found.sha256 != record.image_sha256:
                        yield record, FoundPhoto(None, found.sha256, "the photo is another one now")
                    else:
                        yield record, found
        except SourceError as error:
            why = one_line(error)
    for records_left in by_key.values():
        for record in records_left:
            yield record, FoundPhoto(None, why=why)
