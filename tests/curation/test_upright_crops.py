"""Crops that are taller than wide: their place, their pixels, and what reads them afterwards."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hbr.config import ConfigError
from hbr.curation.config import CropConfig, CurationConfig, SharpnessConfig, SizeConfig
from hbr.curation.engines.local import LocalEngine
from hbr.curation.manifest import Manifest
from hbr.curation.pipeline.stages.square import crop_pixels
from hbr.curation.pipeline.store import per_image_settings
from hbr.curation.runs.explanation import explain
from hbr.curation.runs.run import curate
from hbr.curation.runs.run_folder import RunFolder
from hbr.curation.sources.base import Box, ImageRef, SourceImage
from hbr.people.squares import square
from hbr.training.photos import CuratedPeople


@pytest.mark.parametrize(
    ("box", "size", "place"),
    [
        ((40, 10, 60, 90), (200, 200), (30, 10, 40)),  # as tall as the person, half as wide
        ((0, 40, 100, 60), (100, 300), (0, 0, 100)),  # as wide as a lying person, moved inside
        ((10, 0, 90, 100), (100, 100), (25, 0, 50)),  # the photo is too low: as much as it has
        ((0, 0, 30, 300), (90, 301), (0, 0, 90)),  # too narrow: heads are worth more than feet
    ],
)
def test_a_standing_rectangle_holds_the_person(box, size, place) -> None:
    assert square(box, *size, aspect=2) == place


def test_a_rectangle_that_does_not_fit_is_padded_or_refused() -> None:
    box = (0.0, 0.0, 60.0, 100.0)
    assert square(box, 60, 100, aspect=2, narrow="reject") is None
    assert square(box, 60, 100, aspect=2, narrow="reflect") == (0, -10, 60)
    pixels = np.arange(100, dtype=np.uint8)[:, None, None].repeat(60, 1).repeat(3, 2)
    cut = crop_pixels(pixels, 0, -10, 60, CropConfig(edge=60, height=120, narrow="reflect"))
    assert cut.shape == (120, 60, 3)
    assert cut[:12, 0, 0].tolist() == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 1]


def test_the_size_of_a_finished_crop() -> None:
    pixels = np.zeros((300, 200, 3), np.uint8)
    crop = crop_pixels(pixels, 0, 0, 100, CropConfig(edge=512, height=1024))
    assert crop.shape == (1024, 512, 3)


@pytest.mark.parametrize("wrong", [{"height": 300}, {"height": 1024, "mode": "partial"}])
def test_heights_that_make_no_sense(wrong) -> None:
    with pytest.raises(ConfigError, match="height is"):
        CropConfig(edge=512, **wrong)


def test_squares_keep_the_settings_of_earlier_runs() -> None:
    assert "height" not in per_image_settings(CurationConfig())["crop"]
    tall = CurationConfig(crop=CropConfig(edge=64, height=128))
    assert per_image_settings(tall)["crop"]["height"] == 128


@pytest.fixture(scope="module")
def run(tmp_path_factory, listed) -> Path:
    """A photo with two people beside each other, the left one with a nose."""
    folder = tmp_path_factory.mktemp("tall")
    pixels = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    points = (50.0, 30.0, 2.0, *[0.0] * 48)
    left, right = (
        Box(30, 20, 70, 180, label="person", keypoints=points),
        Box(160, 20, 200, 180, label="person"),
    )
    image = SourceImage(
        source="s", key="a.png", ref=ImageRef.file(folder / "a.png"), boxes=(left, right)
    )
    config = CurationConfig(
        sharpness=SharpnessConfig(threshold=0),
        size=SizeConfig(longer=64),
        crop=CropConfig(edge=32, height=64, overlap=0.1),
    )
    config = dataclasses.replace(
        config, splits=dataclasses.replace(config.splits, parts={"train": 1.0})
    )
    curate(config, folder / "out", engine=LocalEngine(workers=0), sources=[listed("s", [image])])
    return folder / "out"


def test_a_run_writes_them_and_says_so(run: Path) -> None:
    rows = sorted(Manifest(run).kept(), key=lambda row: row.x0 or 0)
    # squares of 160 would overlap, these do not
    assert [row.square for row in rows] == [(10, 20, 80), (140, 20, 80)]
    assert [row.crop_persons for row in rows] == [1, 1]
    for file in run.glob("crops/**/*.png"):
        with Image.open(file) as crop:
            assert crop.size == (32, 64)
    assert "2 crops of people, 32x64 pixels" in (run / "README.md").read_text()
    assert any("80x160 px from (10, 20)" in line for line in explain(RunFolder(run), rows[0]))


def test_a_training_sees_their_people_where_they_are(run: Path) -> None:
    people = CuratedPeople(run, "train")
    found = [people[i][0] for i in range(2)]
    (left,) = (person for person in found if person.keypoints)
    assert left.image_size == (80, 160)
    assert left.box == (20, 0, 40, 160)
    assert left.keypoints is not None
    assert left.keypoints[0] == (40, 10, 2)
