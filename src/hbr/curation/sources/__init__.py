"""Where photos come from: annotated data sets in their own formats, archives, tables, folders.

`open_source(config)` gives a `Source`; going through it gives `SourceImage`s, one at a time,
however many there are. What is wrong with one of them is written in it, and the others follow.
"""

from hbr.curation.sources.base import Box, ImageRef, Source, SourceError, SourceImage
from hbr.curation.sources.configs import SourceConfig
from hbr.curation.sources.opening import guess_source, open_source, open_sources

__all__ = [
    "Box",
    "ImageRef",
    "Source",
    "SourceConfig",
    "SourceError",
    "SourceImage",
    "guess_source",
    "open_source",
    "open_sources",
]
