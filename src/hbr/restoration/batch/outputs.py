"""Restored photos as files: how they are written, with their recipe inside or beside."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hbr.errors import display_name
from hbr.image import DEFAULT_MAX_PIXELS
from hbr.image.notes import Truncated
from hbr.image.recipe_text import with_recipe
from hbr.image.writing import encode_photo, format_of
from hbr.restoration.batch.jobs import Job
from hbr.restoration.recipe import Encoding, NamedFile, RecipePlace, RestoreRecipe, sidecar_text

if TYPE_CHECKING:
    from hbr.restoration.result import Restored

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Files:
    """How files are read and written.

    Attributes:
        quality: 1 to 100, of JPEG, WebP and AVIF.
        png_compression: 0 to 9.
        max_pixels: larger photos are refused.
        strict: photos about which there is a warning are refused.
        truncated: `accept` reads what is there of a photo that is cut short.
        lossless: outputs are written without loss, or refused.
        page: of TIFF files, from 1; None refuses those of several pages.
        keep_times: outputs get the times of their inputs.
        recipe: where the recipe of each output goes: into the `file` (`hbr.image.recipe_text`), a
            `sidecar` beside it, `both`, or nowhere (`off`). A stream has no sidecar.
    """

    quality: int = 95
    png_compression: int = 4
    max_pixels: int = DEFAULT_MAX_PIXELS
    strict: bool = False
    truncated: Truncated = "refuse"
    lossless: bool = False
    page: int | None = None
    keep_times: bool = False
    recipe: RecipePlace = "off"

    def encoding(self, name: Path) -> Encoding:
        """How the output of this name is written."""
        return Encoding(
            format=format_of(name),
            quality=self.quality,
            png_compression=self.png_compression,
            lossless=self.lossless,
            page=self.page,
            truncated=self.truncated,
        )


def named_source(job: Job) -> NamedFile | None:
    """The photo of a job by its hash; None if it cannot be read, which reading it will tell."""
    try:
        if job.stdin is None:
            # reading a pipe would block
            return NamedFile.of(job.source) if job.source.is_file() else None
        data = job.stdin.read()
        job.stdin.seek(0)
        return NamedFile.of_bytes(data)
    except (OSError, ValueError):
        return None


def encode_restored(
    result: Restored, target: Path, source: NamedFile | None, files: Files
) -> tuple[bytes, str | None]:
    """The bytes of a restored photo, and the text of its sidecar if it gets one.

    The suffix of `target` decides the format; without a `source`, no recipe is written.

    Raises:
        PhotoError: a format or size that cannot be written.
    """
    encoding = files.encoding(target)
    recipe: RestoreRecipe | None = None
    if source is not None and files.recipe != "off":
        recipe = RestoreRecipe.of(source, result.provenance, result.settings, encoding)
    inside = recipe.text() if recipe and files.recipe in ("file", "both") else None
    photo, has_it = with_recipe(result.photo, inside, encoding.format)
    if inside and not has_it and encoding.format != "bmp":
        log.warning("%s: its metadata leaves no room for its recipe", display_name(target))
    data = encode_photo(
        photo,
        target,
        quality=files.quality,
        png_compression=files.png_compression,
        lossless=files.lossless,
        strict=files.strict,
    )
    if recipe is None or files.recipe not in ("sidecar", "both"):
        return data, None
    changed = bool(result.provenance["tiles"])
    return data, sidecar_text(recipe, target.name, data, restored=changed)
