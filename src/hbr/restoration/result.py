"""`Restored`: a restored photo and how it came about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from torch import Tensor

from hbr.image import Photo, write_photo
from hbr.restoration.settings import Provenance, RestoreSettings


@dataclass(frozen=True, eq=False)
class Restored:
    """A restored photo and how it came about.

    Attributes:
        photo: pixels at the depth of the input, with its alpha, profile and metadata.
        timings: seconds for "read" (with resizing), "model" (tiles and blending), "color" (with
            putting the pixels back into the photo) and "total".
        provenance: what it takes to make the same bytes again.
        settings: with which it was made; what was "auto", as it was decided.
        people: the people that were found; none are looked for yet.
    """

    photo: Photo
    timings: Mapping[str, float]
    provenance: Provenance
    settings: RestoreSettings
    people: tuple[Any, ...] = ()

    @property
    def image(self) -> PIL.Image.Image:
        """An 8-bit PIL image in sRGB, `RGB`, or `RGBA` if there is alpha."""
        return self.photo.pil()

    @property
    def pixels(self) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """[H, W, 3] RGB in sRGB, uint8, or uint16 if the input had more than 8 bits."""
        return self.photo.pixels

    @property
    def tensor(self) -> Tensor:
        """[1, 3, H, W] float32 in [0, 1]."""
        return self.photo.tensor()

    def save(self, path: str | Path, **flags: Any) -> Path:
        """Write the photo, atomically; `flags` are those of `hbr.image.write_photo`.

        Raises:
            hbr.image.PhotoError: it cannot be written.
        """
        return write_photo(self.photo, path, **flags)
