"""Collecting what the page of a batch shows, photo by photo, within a budget of bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from PIL import Image

from hbr.pages import data_uri
from hbr.restoration.batch.jobs import Job
from hbr.restoration.batch.records import FileRecord

if TYPE_CHECKING:
    from hbr.image import Photo
    from hbr.restoration.result import Restored

EDGE = 1024
"""Longer edge of the pictures of a slider, in pixels."""
MOST_PAIRS = 100
PAIRS_BUDGET = 24_000_000
"""How many photos have a slider, and how large their pictures are altogether, in bytes."""
THUMBNAIL_EDGE = 96
THUMBNAILS_BUDGET = 12_000_000

_QUALITY, _THUMBNAIL_QUALITY = 82, 70


@dataclass(frozen=True, kw_only=True)
class BeforeAfter:
    """A photo before and after, as `data:` addresses, and its (width, height) before."""

    before: str
    after: str
    size: tuple[int, int]


@dataclass(kw_only=True)
class BatchReport:
    """What is known of a batch so far.

    Attributes:
        jobs: all that are to be done; those with a slider are spread evenly over them.
        records: the outcomes, in the order in which they came.
        thumbnails, pairs: pictures, by the output.
    """

    jobs: Sequence[Job]
    records: list[FileRecord] = field(default_factory=list)
    thumbnails: dict[str, str] = field(default_factory=dict)
    pairs: dict[str, BeforeAfter] = field(default_factory=dict)
    _spent: int = 0
    _spent_on_thumbnails: int = 0
    _chosen: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Choose the photos that get a slider."""
        n = max(1, len(self.jobs))
        step = max(1.0, n / MOST_PAIRS)
        places = {int(i * step) for i in range(MOST_PAIRS)}
        self._chosen = {job.output for i, job in enumerate(self.jobs) if i in places}

    def look(self, job: Job, photo: Photo, result: Restored) -> None:
        """Keep the pictures of a photo that was just restored, while there is room."""
        with contextlib.suppress(MemoryError, OSError, ValueError):  # the photo itself is written
            after = result.photo.displayed().pil()
            if self._spent_on_thumbnails < THUMBNAILS_BUDGET:
                small = data_uri(after, edge=THUMBNAIL_EDGE, quality=_THUMBNAIL_QUALITY)
                self._spent_on_thumbnails += len(small)
                self.thumbnails[job.output] = small
            if job.output in self._chosen and self._spent < PAIRS_BUDGET:
                height, width = photo.size
                pair = BeforeAfter(
                    before=_picture(photo.displayed().pil()),
                    after=_picture(after),
                    size=(width, height),
                )
                self._spent += len(pair.before) + len(pair.after)
                self.pairs[job.output] = pair


def _picture(image: Image.Image) -> str:
    return data_uri(image, edge=EDGE, quality=_QUALITY)
