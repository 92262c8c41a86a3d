"""SHHQ, DeepFashion and Market-1501, in the file layouts that their makers publish."""

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from source_fixtures import read

from hbr.config import ConfigError
from hbr.curation.config import CurationConfig, SharpnessConfig, SizeConfig, SplitsConfig
from hbr.curation.engines.local import LocalEngine
from hbr.curation.manifest import Manifest
from hbr.curation.runs.run import curate
from hbr.curation.sources.base import SourceError, SourceImage
from hbr.curation.sources.configs import (
    DeepFashionConfig,
    FolderConfig,
    Market1501Config,
    ShhqConfig,
)
from hbr.curation.sources.opening import guess_source
from hbr.people.types import N_KEYPOINTS
from hbr.training.config import PhotoSourceConfig, ValidationConfig
from hbr.training.photos import open_photos

LEFT_EYE, RIGHT_EYE, LEFT_HIP, RIGHT_ANKLE = 1, 2, 11, 16


def noise(seed: int, width: int = 64, height: int = 128) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def put(folder: Path, *names: str) -> None:
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(noise(i))


def points_of(image: SourceImage) -> list[tuple[float, ...]]:
    assert image.boxes is not None
    (box,) = image.boxes
    assert box.keypoints is not None
    assert len(box.keypoints) == 3 * N_KEYPOINTS
    return [box.keypoints[i : i + 3] for i in range(0, 3 * N_KEYPOINTS, 3)]


@pytest.fixture
def shhq(tmp_path: Path) -> Path:
    put(tmp_path, "no_segment/000001.png", "no_segment/000002.png", "segments/000001.png")
    points = [(float(i), 100.0 + i) for i in range(25)]
    points[9] = (0.0, 0.0)  # the right hip is not seen
    numbers = " ".join(f"{x:g} {y:g}" for x, y in points)
    nothing = " ".join(["0 0"] * 25)  # a person of whom no point was found
    lines = f"000001.png {numbers}\n000002.png 1 2 3\n000002.png {nothing}\n"
    (tmp_path / "keypoints.txt").write_text(lines)
    return tmp_path


def test_shhq_is_the_photos_with_background(shhq: Path) -> None:
    config = guess_source(shhq)
    assert config == ShhqConfig(path=shhq)
    first, second = read(config)
    assert (first.key, second.key) == ("000001.png", "000002.png")
    assert first.ref is not None
    assert first.ref.path == str((shhq / "no_segment/000001.png").resolve())
    (box,) = first.boxes or ()
    assert (box.in_pixels(512, 1024), box.keypoints) == ((0, 0, 512, 1024), None)
    assert "no redistribution" in (first.licence or "")


def test_key_points_of_shhq_are_put_into_coco_s_order(shhq: Path) -> None:
    bad, first, second = read(ShhqConfig(path=shhq, keypoints=shhq / "keypoints.txt"))
    assert bad.entry
    assert bad.error == "keypoints.txt:line 2: a name and 25 points were expected"
    points = points_of(first)
    # the numbers of BODY_25: 15 and 16 are the right and the left eye, 11 the right ankle
    assert points[RIGHT_EYE] == (15, 115, 2)
    assert points[LEFT_EYE] == (16, 116, 2)
    assert points[LEFT_HIP] == (12, 112, 2)
    assert points[RIGHT_ANKLE] == (11, 111, 2)
    # nose at (0, 100); the right hip is missing
    assert points[0] == (0, 100, 2)
    assert points[12] == (0, 0, 0)
    assert second.boxes is not None
    assert second.boxes[0].keypoints is None


def test_shhq_without_its_photos_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no folder of SHHQ's photos in it"):
        read(ShhqConfig(path=tmp_path))


PARTITION = """6
image_name item_id evaluation_status
img/WOMEN/Dresses/id_00000002/02_1_front.jpg id_00000002 train
img/WOMEN/Dresses/id_00000003/02_2_side.jpg id_00000003 query
img/MEN/Denim/id_00000080/01_4_full.jpg id_00000080 gallery
img/MEN/Denim/id_00000080/01_6_flat.jpg id_00000080 gallery
img/MEN/Denim/id_00000080/01_5_detail.jpg id_00000080 gallery
img/MEN/Denim/id_00000080/01_3_back.jpg id_00000080 valid
"""
BOXES = """2
image_name clothes_type pose_type x_1 y_1 x_2 y_2
img/WOMEN/Dresses/id_00000002/02_1_front.jpg 3 1 50 49 200 250
img/MEN/Denim/id_00000080/01_5_detail.jpg 2 6 50 49 200 250
"""


@pytest.fixture
def inshop(tmp_path: Path) -> Path:
    for name, text in (
        ("Eval/list_eval_partition.txt", PARTITION),
        ("Anno/list_bbox_inshop.txt", BOXES),
    ):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    put(tmp_path, "Img/img_highres/WOMEN/Dresses/id_00000002/02_1_front.jpg", "Img/img/x.jpg")
    return tmp_path


def test_inshop_follows_its_partition(inshop: Path) -> None:
    config = guess_source(inshop)
    assert config == DeepFashionConfig(path=inshop)
    *images, bad = read(config)
    keys = [image.key for image in images]
    assert keys == [line.split()[0][4:] for line in PARTITION.splitlines()[2:7]]
    # clothes have boxes there, people do not; a photo of clothes alone has nobody in it
    assert [image.boxes for image in images] == [None, None, None, (), ()]
    assert images[0].ref is not None
    assert Path(images[0].ref.path).is_file()
    assert bad.entry
    assert "line 8: a photo, an item, and train, query or gallery" in (bad.error or "")


@pytest.mark.parametrize(("subset", "n"), [("train", 1), ("test", 4)])
def test_the_parts_of_inshop(inshop: Path, subset: str, n: int) -> None:
    config = dataclasses.replace(DeepFashionConfig(path=inshop), subset=subset)  # type: ignore[arg-type]
    assert sum(image.error is None for image in read(config)) == n


def test_a_list_that_was_cut_or_is_another_is_said(inshop: Path) -> None:
    partition = inshop / "Eval/list_eval_partition.txt"
    partition.write_text("\n".join(PARTITION.splitlines()[:4]))
    *_, cut = read(DeepFashionConfig(path=inshop))
    assert cut.entry
    assert "list_eval_partition.txt:line 5" in (cut.error or "")
    partition.write_text("a.jpg,1\n")
    with pytest.raises(SourceError, match="its first lines must be a count and image_name item_id"):
        read(DeepFashionConfig(path=inshop))


def test_fashion_with_the_key_points_of_pose_transfer(tmp_path: Path) -> None:
    name = "fashionWOMENDressesid0000000202_1front.jpg"
    y, x = list(range(100, 118)), list(range(18))
    y[8] = x[8] = -1  # the right hip
    nothing = json.dumps([-1] * 18)  # of this person no point was found
    put(tmp_path, f"train/{name}", "train/n.jpg", "test/b.jpg")
    (tmp_path / "train.lst").write_text(f"{name}\nn.jpg\n")
    (tmp_path / "test.lst").write_text("b.jpg\n../c.jpg\n")
    table = f"name:keypoints_y:keypoints_x\n{name}: {json.dumps(y)}: {json.dumps(x)}\nz: [1]: x\n"
    table += f"n.jpg: {nothing}: {nothing}\n"
    (tmp_path / "fasion-resize-annotation-train.csv").write_text(table)
    config = guess_source(tmp_path)
    assert config == DeepFashionConfig(path=tmp_path, layout="fashion")
    bad, train, unseen, test, outside = read(config)
    assert "fasion-resize-annotation-train.csv:line 3" in (bad.error or "")
    assert (train.key, test.key) == (f"train/{name}", "test/b.jpg")
    assert (unseen.key, unseen.error) == ("train/n.jpg", None)
    assert unseen.boxes is not None
    assert unseen.boxes[0].keypoints is None
    assert (train.width, train.height, test.width) == (176, 256, None)
    points = points_of(train)
    assert points[RIGHT_EYE] == (14, 114, 2)
    assert points[LEFT_HIP] == (11, 111, 2)
    assert points[12] == (0, 0, 0)
    assert "no file name within" in (outside.error or "")


MARKET = (
    "query/0002_c1s1_000451_03.jpg",
    "bounding_box_test/-1_c3s2_016428_01.jpg",
    "bounding_box_test/0000_c1s1_000151_01.jpg",
    "bounding_box_test/1501_c6s4_001902_01.jpg",
    "bounding_box_train/0007_c3s3_077419_03.jpg",
)


@pytest.fixture
def market(tmp_path: Path) -> Path:
    root = tmp_path / "Market-1501-v15.09.15"
    put(root, *MARKET, "query/me.jpg")
    return root


def test_market_1501_by_the_names_of_its_files(market: Path) -> None:
    config = guess_source(market)
    assert config == Market1501Config(path=market)
    found = {image.key: image for image in read(config)}
    assert {key for key, image in found.items() if not image.entry} == {*MARKET[:4]}
    assert "a name such as 0002_c1s1_000451_03.jpg" in (found["query/me.jpg"].error or "")
    boxes = {key: image.boxes[0] for key, image in found.items() if image.boxes}
    assert boxes[MARKET[0]].label == "person 0002, camera 1"
    assert [boxes[key].ignore for key in MARKET[:4]] == [False, True, True, False]


def test_market_1501_is_for_tests_only(market: Path) -> None:
    with pytest.raises(ConfigError, match="test_only is False; it must be true"):
        Market1501Config(path=market, test_only=False)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CurationConfig]:
    """A run over photos of one's own and Market-1501, of which two photos are the same."""
    folder = tmp_path_factory.mktemp("mixed")
    put(folder / "market", *MARKET)
    own = folder / "shhq/no_segment"
    own.mkdir(parents=True)
    for i in range(12):
        (own / f"{i}.png").write_bytes(noise(100 + i))
    (own / "same.png").write_bytes((folder / "market" / MARKET[0]).read_bytes())
    config = CurationConfig(
        sources=(
            ShhqConfig(path=folder / "shhq", name="own"),
            Market1501Config(path=folder / "market", name="market"),
        ),
        sharpness=SharpnessConfig(threshold=0),
        size=SizeConfig(longer=32),
        splits=SplitsConfig(parts={"train": 0.5, "val": 0.5}),
    )
    return folder, config


def test_test_only_photos_never_reach_training(mixed: tuple[Path, CurationConfig]) -> None:
    folder, config = mixed
    out = folder / "out"
    summary = curate(config, out, engine=LocalEngine(workers=0))
    rows = list(Manifest(out))
    kept = {(row.source, row.split) for row in rows if row.alive}
    assert kept == {("own", "train"), ("own", "val"), ("market", "test")}
    assert summary.kept == 12 + 2
    # what is in a test set too is not trained on either
    (same,) = (row for row in rows if row.key == "same.png")
    assert same.reason == "held-out"
    # a training that asks for the split is refused; a validation may have it
    with pytest.raises(ConfigError, match=r"the split 'test' of .* holds market, for tests only"):
        open_photos(PhotoSourceConfig(manifest=out, split="test"))
    assert len(open_photos(ValidationConfig(manifest=out, split="test", crop=64))) == 2
    assert len(open_photos(PhotoSourceConfig(manifest=out))) > 0


def test_a_recipe_cannot_train_on_a_test_only_source(mixed: tuple[Path, CurationConfig]) -> None:
    folder, config = mixed
    for fixed in ({"market": "train"}, {}):
        parts = {"train": 0.5, "test": 0.5}
        wrong = dataclasses.replace(config, splits=SplitsConfig(parts=parts, fixed=fixed))
        with pytest.raises(ConfigError, match=r"splits.fixed.market is .*a split outside"):
            curate(wrong, folder / "wrong", engine=LocalEngine(workers=0))
    assert not (folder / "wrong").exists()


def test_any_source_can_be_for_tests_only(mixed: tuple[Path, CurationConfig]) -> None:
    folder, config = mixed
    own = FolderConfig(path=folder / "market", test_only=True)
    only = dataclasses.replace(config, sources=(own,))
    curate(only, folder / "only", engine=LocalEngine(workers=0))
    assert Manifest(folder / "only").about["test_only"] == {"market": "test"}
