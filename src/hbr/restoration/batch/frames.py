"""Frames of a video: the same colours in all of them.

AdaIN takes its statistics from one photo. From frame to frame they move, with what is in the
picture, and so do the colours: the video flickers. Here the statistics are those of several frames,
spread over all, and give one map of colours for every frame. The wavelet colour fix needs none of
this: it takes the low frequencies of each frame, which are as steady as the video.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hbr.errors import HbrError, display_name, one_line
from hbr.image import Photo, is_photo_name, read_photo
from hbr.image.search import spread
from hbr.restoration.batch.outputs import Files
from hbr.restoration.pixels.color import color_map
from hbr.restoration.pixels.inputs import resized_pixels
from hbr.restoration.settings import ColorMap, RestoreSettings

if TYPE_CHECKING:
    from hbr.restoration.result import Restored

log = logging.getLogger(__name__)

N_MEASURED = 5


def with_steady_colors(
    restore: Callable[..., Restored], settings: RestoreSettings, files: Files
) -> Callable[[Photo], Restored]:
    """Restore photos of which those in one folder are the frames of one video."""

    @functools.cache
    def map_of(folder: Path) -> ColorMap | None:
        return measure(folder, restore, settings, files)

    def steady(photo: Photo) -> Restored:
        colors = None if photo.path is None else map_of(photo.path.parent)
        return restore(photo, color_map=colors)

    return steady


def measure(
    folder: Path, restore: Callable[..., Restored], settings: RestoreSettings, files: Files
) -> ColorMap | None:
    """The map of colours for the frames of a folder, by some of them; None if none can be read.

    It depends on the files in the folder alone, not on which of them are to be restored, so that a
    run that resumes or does one part of them gives the same bytes.
    """
    frames = sorted(path for path in folder.iterdir() if is_photo_name(path) and path.is_file())
    targets, sources = [], []
    for path in spread(frames, N_MEASURED):
        try:
            photo = read_photo(path, max_pixels=files.max_pixels, truncated=files.truncated)
            result = restore(photo, color="none", gate="off")
        except (HbrError, OSError, ValueError) as error:
            log.warning(
                "%s: does not count for the colours: %s", display_name(path), one_line(error)
            )
            continue
        targets.append(result.photo.pixels)
        sources.append(resized_pixels(photo, settings))
    return color_map(targets, sources) if targets else None
