"""`Restored`: a restored photo and how it came about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from hbr.image import Photo, write_photo
from hbr.image.recipe_text import with_recipe
from hbr.image.writing import format_of
from hbr.restoration.recipe import Encoding, NamedFile, RestoreRecipe
from hbr.restoration.settings import PersonProvenance, Provenance, RestoreSettings

if TYPE_CHECKING:
    from torch import Tensor

_ENCODED = ("quality", "png_compression", "lossless")


@dataclass(frozen=True, eq=False, kw_only=True)
class Restored:
    """A restored photo and how it came about.

    Attributes:
        photo: pixels at the depth of the input, with its alpha, profile and metadata.
        timings: seconds for "read" (with resizing), "model" (tiles and blending), "color" (with
            putting the pixels back into the photo) and "total"; where people are restored for
            themselves also for "locate" (finding them) and "paste".
        provenance: what it takes to make the same bytes again.
        settings: with which it was made; what was "auto", as it was decided.
        people: those who were found, by number; none where nobody was looked for.
    """

    photo: Photo
    timings: Mapping[str, float]
    provenance: Provenance
    settings: RestoreSettings
    people: tuple[PersonProvenance, ...] = ()

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

    def save(self, path: str | Path, *, recipe: bool = True, **flags: Any) -> Path:
        """Write the photo, atomically; `flags` are those of `hbr.image.write_photo`.

        Args:
            path: where to.
            recipe: whether a photo that came from a file carries the recipe that `hbr replay`
                makes it from again.
            **flags: `format`, `quality` and others.

        Raises:
            hbr.image.PhotoError: it cannot be written.
        """
        kind = format_of(Path(path), flags.get("format"))
        text = None
        if recipe and self.photo.path is not None and self.photo.path.is_file():
            chosen = {name: flags[name] for name in _ENCODED if name in flags}
            encoding = Encoding(format=kind, **chosen)
            source = NamedFile.of(self.photo.path)
            text = RestoreRecipe.of(source, self.provenance, self.settings, encoding).text()
        return write_photo(with_recipe(self.photo, text, kind)[0], path, **flags)
