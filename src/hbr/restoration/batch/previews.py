"""What a sampling in many steps has come to so far, as a file beside each output."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hbr.errors import display_name
from hbr.image import Photo, write_photo

if TYPE_CHECKING:
    from torch import Tensor

    from hbr.restoration.batch.jobs import Job

log = logging.getLogger(__name__)


class Previews:
    """Writes a JPEG every few steps of the photo that is being restored.

    Of the output `NAME.png` it is `NAME.preview.jpg`, which each later one replaces, and which is
    removed when the next photo begins or the batch ends, however it ends. Those that are kept are
    called `NAME.step-010.jpg`, by their step, and stay. They are the model's z̃_0, decoded, without
    the colour fix.
    """

    def __init__(self, every: int, *, keep: bool = False) -> None:
        """Write after each `every` steps, from 1."""
        self._every, self._keep = every, keep
        self._target: Path | None = None
        self._written: Path | None = None

    def start(self, job: Job) -> None:
        """The photo that the next steps belong to; without previews if there is such a file."""
        self.close()
        self._target = job.target
        if not self._keep and (path := self._path("preview")).exists():
            log.warning("%s is there already; no preview is written", display_name(path))
            self._target = None

    def __call__(self, done: int, total: int, image: Callable[[], Tensor]) -> None:
        """Write the picture of a step, if it is its turn; the last one is the result's.

        Raises:
            hbr.errors.OutputError: the file cannot be written.
        """
        if self._target is None or done % self._every or done == total:
            return
        pixels = image()[0].permute(1, 2, 0).float().cpu().numpy()
        path = self._path(f"step-{done:03d}" if self._keep else "preview")
        write_photo(Photo.from_array(pixels), path)
        self._written = None if self._keep else path

    def _path(self, kind: str) -> Path:
        assert self._target is not None
        return self._target.with_name(f"{self._target.stem}.{kind}.jpg")

    def close(self) -> None:
        """Remove the file that is not kept."""
        if self._written is not None:
            self._written.unlink(missing_ok=True)
            self._written = None
