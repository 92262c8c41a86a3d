"""Real photos of people with their boxes, and what a run leaves."""

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hbr.curation.config import (
    CurationConfig,
    MetricConfig,
    OutputConfig,
    QualityConfig,
    SharpnessConfig,
    SizeConfig,
)
from hbr.curation.pipeline.chunk import Task
from hbr.curation.pipeline.plan import Plan, write_plan
from hbr.curation.sources.base import Box, ImageRef, SourceImage


@dataclass(frozen=True)
class Listed:
    """A source of images that are given one by one."""

    name: str
    images: Sequence[SourceImage]

    def __iter__(self):
        return iter(self.images)


@pytest.fixture(scope="session")
def coco(shared: Path) -> dict:
    """The annotations of `coco-cc`."""
    return json.loads((shared / "photos/coco-cc/instances.json").read_text())


@pytest.fixture(scope="session")
def photos(shared: Path, coco: dict) -> list[SourceImage]:
    """48 photos of people, as a source gives them."""
    licences = {licence["id"]: licence["name"] for licence in coco["licenses"]}
    boxes: dict[int, list[Box]] = {}
    for a in coco["annotations"]:
        x, y, w, h = a["bbox"]
        boxes.setdefault(a["image_id"], []).append(Box(x, y, x + w, y + h, label="person"))
    return [
        SourceImage(
            source="coco",
            key=image["file_name"],
            ref=ImageRef.file(shared / "photos/coco-cc/images" / image["file_name"]),
            width=image["width"],
            height=image["height"],
            boxes=tuple(boxes.get(image["id"], ())),
            licence=licences[image["license"]],
        )
        for image in coco["images"][:48]
    ]


@pytest.fixture(scope="session")
def settings() -> CurationConfig:
    """Settings under which something happens at every stage, and quickly."""
    return CurationConfig(
        name="some",
        sharpness=SharpnessConfig(threshold=100),
        size=SizeConfig(longer=128),
        quality=QualityConfig(
            metrics=(
                MetricConfig("detail", 1.6),
                MetricConfig("noise"),
                MetricConfig("clipping", 0.25),
            ),
            top=0.8,
        ),
        output=OutputConfig(("folder", "webdataset", "parquet"), "jpeg", shard=8),
        chunk=5,
    )


@pytest.fixture(scope="session")
def photo_file() -> Callable[..., bytes]:
    """The bytes of a sharp picture, another one for each seed."""

    def make(
        seed: int = 0,
        size: tuple[int, int] = (300, 240),
        format: str = "JPEG",
        mode: str = "RGB",
        **options: object,
    ) -> bytes:
        width, height = size
        rng = np.random.default_rng(seed)
        small = rng.integers(30, 225, (height // 2, width // 2, 3), np.uint8)
        image = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).convert(mode)
        buffer = io.BytesIO()
        image.save(buffer, format, **options)
        return buffer.getvalue()

    return make


@pytest.fixture(scope="session")
def listed() -> type[Listed]:
    """A source of images that are given one by one."""
    return Listed


@pytest.fixture
def plan_of(tmp_path: Path) -> Callable[..., Plan]:
    """A plan of images, this many in a chunk."""

    def write(images: Iterable[SourceImage], size: int = 1) -> Plan:
        return write_plan(tmp_path / "some.parquet", map(Task.of, images), size)

    return write


@pytest.fixture(scope="session")
def digests() -> Callable[..., dict[str, str]]:
    """Hash of every file of a run, but for its work."""
    return _digests


def _digests(folder: Path, *, without: tuple[str, ...] = ("work",)) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] not in without
    }
