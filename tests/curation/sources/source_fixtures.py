"""What tests of sources share: a photo's bytes, and reading a source at once."""

from pathlib import Path

from hbr.curation.sources.base import SourceImage
from hbr.curation.sources.configs import SourceConfig
from hbr.curation.sources.opening import open_source

JPEG = (Path(__file__).parents[2] / "data" / "purple.jpg").read_bytes()


def read(config: SourceConfig) -> list[SourceImage]:
    return list(open_source(config))


def photos(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(JPEG)
    return folder
