"""Photos of a training: the same wherever they lie; broken ones are counted, and end nothing."""

import dataclasses
import json
import multiprocessing
import os
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from toy_training import DATA, settings, train

from curated_set import curated_set
from hbr.config import ConfigError, from_dict, to_dict
from hbr.curation.manifest import FOLDERS, Manifest
from hbr.image import PhotoError
from hbr.image.pixels import to_8_bits
from hbr.training.config import DataConfig, PhotoSourceConfig, TrainConfig, ValidationConfig
from hbr.training.crops import Crop, CropSource
from hbr.training.data import TrainingPairs, prepared, seeded
from hbr.training.loop import Trainer
from hbr.training.photos import FolderPhotos, open_photos, read_upright
from hbr.training.validation import validation_pairs


@pytest.fixture(scope="module")
def people(shared, tmp_path_factory):
    return curated_set(shared, tmp_path_factory.mktemp("curated") / "people")


def with_only(kind: str, people: Path, out: Path) -> Path:
    out.mkdir()
    shutil.copy(people / "manifest.parquet", out)
    shutil.copytree(people / FOLDERS[kind], out / FOLDERS[kind])
    return out


def pixels(source: PhotoSourceConfig | ValidationConfig) -> list[np.ndarray]:
    photos = open_photos(source)
    return [to_8_bits(read_upright(photos, i).pixels) for i in range(len(photos))]


@pytest.mark.parametrize("kind", FOLDERS)
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_curated_set_is_the_same_however_it_was_written(tmp_path, people, kind, split):
    kept = sorted(r.id for r in Manifest(people).kept() if r.split == split)
    wanted = pixels(PhotoSourceConfig(photos=people / "crops" / split))
    assert len(wanted) == len(kept) >= 3
    got = pixels(PhotoSourceConfig(manifest=with_only(kind, people, tmp_path / "set"), split=split))
    assert len(got) == len(wanted)
    assert all(np.array_equal(a, b) for a, b in zip(got, wanted, strict=True))


def test_tars_by_a_pattern(people):
    got = pixels(PhotoSourceConfig(tars=str(people / "shards/*.tar")))
    wanted = pixels(PhotoSourceConfig(photos=people / "crops"))
    assert sorted(a.tobytes() for a in got) == sorted(a.tobytes() for a in wanted)


def test_what_is_passed_over_is_said(tmp_path, caplog):
    shutil.copy(DATA / "purple.jpg", tmp_path / "a.jpg")
    (tmp_path / "@eaDir").mkdir()
    for name in ("a.cr2", "b.psd", "@eaDir/a.jpg"):
        (tmp_path / name).write_bytes(b"x")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in ("a.jpg", "a.cr2"):
            tar.add(tmp_path / name, name)
    with caplog.at_level("WARNING", logger="hbr"):
        assert len(open_photos(PhotoSourceConfig(photos=tmp_path))) == 1
        assert len(caplog.messages) == 3
        assert len(open_photos(PhotoSourceConfig(tars=str(tmp_path / "x.tar")))) == 1
    assert f"{tmp_path / 'x.tar'}: a.cr2: is a camera raw file; " in caplog.messages[3]


def test_a_crop_as_large_as_the_photo_is_the_photo(people):
    source = CropSource(PhotoSourceConfig(manifest=people))
    wanted = {a.tobytes() for a in pixels(PhotoSourceConfig(manifest=people))}
    for step in range(8):
        crop = source.crop(128, 0.7, seeded(0, step), mirror=False).pixels
        assert crop.permute(1, 2, 0).contiguous().numpy().tobytes() in wanted


def test_half_of_the_crops_are_mirrored_or_none(people):
    source = CropSource(PhotoSourceConfig(manifest=people))

    def mirrored(*, mirror: bool) -> int:
        def crop(i: int, *, mirror: bool) -> torch.Tensor:
            return source.crop(128, 1.0, seeded(0, i), mirror=mirror).pixels

        same = (torch.equal(crop(i, mirror=mirror), crop(i, mirror=False)) for i in range(40))
        return 40 - sum(same)

    assert mirrored(mirror=False) == 0
    assert 8 < mirrored(mirror=True) < 32


def test_validation_on_the_first_of_a_split(people):
    config = ValidationConfig(manifest=people, count=2, crop=128, recipe="none")
    got = [
        pair.hq[0].permute(1, 2, 0).mul(255).round().byte().numpy()
        for pair in validation_pairs(config)
    ]
    wanted = pixels(PhotoSourceConfig(manifest=people, split="val"))[:2]
    assert all(np.array_equal(a, b) for a, b in zip(got, wanted, strict=True))


def test_a_million_photos_take_little_memory_in_each_process():
    files = [Path(f"photos/{i // 1000:04d}/{i:08d}.jpg") for i in range(10_000)]
    photos = FolderPhotos(Path("photos"), files)
    assert len(pickle.dumps(photos)) < 30 * len(files)
    assert [photos.open(i) for i in (0, 1, 9_999)] == [files[i] for i in (0, 1, 9_999)]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({}, "sources\\[0\\].photos is None; it must be given, or else `manifest` or `tars`"),
        (
            {"photos": "a", "tars": "b"},
            "sources\\[0\\].tars is 'b'; it must be left out if `photos` is given",
        ),
        ({"tars": "b", "exclude": ["c"]}, "sources\\[0\\].exclude .* left out without `photos`"),
        ({"manifest": "m", "boxes": "c"}, "sources\\[0\\].boxes .* left out without `photos`"),
    ],
)
def test_a_source_is_in_one_place(source, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(DataConfig, {"sources": [source]})


def test_a_curated_set_that_is_not_whole_is_refused(tmp_path, people):
    def opened(**source: object) -> None:
        open_photos(PhotoSourceConfig(**source))

    with pytest.raises(ConfigError, match="keeps nothing in its split 'trian'"):
        opened(manifest=people, split="trian")
    with pytest.raises(ConfigError, match=r"there is no .*nowhere; `hbr curate run`"):
        opened(manifest=people / "nowhere")
    with pytest.raises(ConfigError, match=r"summary\.json: is not a manifest of hbr curate"):
        opened(manifest=people / "summary.json")
    lacking = with_only("webdataset", people, tmp_path / "lacking")
    (lacking / "shards/train-000001.tar").unlink()
    with pytest.raises(ConfigError, match=r"holds 3 crops .* names 6; `hbr curate export`"):
        opened(manifest=lacking)
    shutil.rmtree(lacking / "shards")
    with pytest.raises(ConfigError, match=r"holds no crops of the split 'train'"):
        opened(manifest=lacking)


def test_tars_that_cannot_be_read_are_named(tmp_path, people):
    whole = (people / "shards/train-000000.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "packed.tar.gz").write_bytes(b"")
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    for name, message in (
        ("cut.tar", "cut.tar is truncated or not a tar"),
        ("packed.tar.gz", "is compressed"),
        ("empty.tar", r"no photo in .*empty\.tar$"),
        ("none-*.tar", r"there is no file .*none-\*\.tar"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            open_photos(PhotoSourceConfig(tars=str(tmp_path / name)))
        assert "\n" not in str(caught.value)


def test_a_table_that_was_damaged_later_is_a_photo_that_cannot_be_read(tmp_path, people):
    tables = with_only("parquet", people, tmp_path / "set")
    photos = open_photos(PhotoSourceConfig(manifest=tables))
    file = tables / "data/train-000000.parquet"
    data = bytearray(file.read_bytes())
    data[64 : len(data) // 2] = bytes(len(data) // 2 - 64)
    file.write_bytes(data)
    with pytest.raises(PhotoError, match=r"train-000000\.parquet, row 0: "):
        read_upright(photos, 0)
    file.unlink()
    with pytest.raises(PhotoError, match="No such file"):
        read_upright(photos, 0)


@pytest.fixture(scope="module")
def thousand(tmp_path_factory):
    """1,000 photos, of which 3 are broken that seed 0 draws in steps 2 and 16, and never."""
    folder = tmp_path_factory.mktemp("thousand")
    good, bad = (DATA / "blue.png").read_bytes(), (825, 550, 1)
    for i in range(1000):
        (folder / f"{i:04d}.png").write_bytes(good[:500] if i in bad else good)
    return folder


def training(out: Path, photos: Path, *, steps: int = 20, **changes: object) -> dict:
    phases = [{"steps": steps, "crop": 32, "batch": 16}]
    data = {"sources": [{"photos": str(photos)}], "workers": 0, "degradations": {"none": 1.0}}
    values = settings(out, phases=phases, data={**data, **changes}, save_every=10)
    return {**values, "validation": {**values["validation"], "every": 20, "count": 1}}


def skipped(out: Path) -> list[float]:
    rows = [json.loads(line) for line in (out / "curves.jsonl").read_text().splitlines()]
    return [row["data/skipped"] for row in rows if "data/skipped" in row]


def test_three_broken_photos_of_a_thousand_are_skipped_and_reported(tmp_path, thousand):
    """320 crops are drawn; those that fall on a broken photo take the next one."""
    values = training(tmp_path / "whole", thousand)
    lines: list[str] = []
    Trainer(from_dict(TrainConfig, values), report=lines.append).run()
    told = [line for line in lines if line.startswith("skipped: ")]
    assert [Path(line.removeprefix("skipped: ").split(":")[0]).name for line in told] == [
        "0825.png",
        "0550.png",
    ]
    assert skipped(tmp_path / "whole") == [2]
    assert lines[-1] == "2 of 1000 photos could not be read"

    # gone on with, it counts alike
    again: list[str] = []
    train(training(tmp_path / "parts", thousand, steps=10))
    config = from_dict(TrainConfig, training(tmp_path / "parts", thousand))
    Trainer(config, report=again.append).run()
    assert skipped(tmp_path / "parts") == [1, 2]
    assert again[-1] == lines[-1]
    assert sum(line.startswith("skipped: ") for line in again) == 1


def test_a_small_source_may_have_more_broken_photos_than_its_own_part(tmp_path, thousand):
    """Of 1,003 photos in all, 10 may be broken."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, data in (("a", b""), ("b", b""), ("c", (DATA / "blue.png").read_bytes())):
        (photos / f"{name}.png").write_bytes(data)
    sources = [{"photos": str(p), "weight": w} for p, w in ((thousand, 1e-9), (photos, 1.0))]
    values = training(tmp_path / "out", photos, sources=sources)
    pair = TrainingPairs(from_dict(TrainConfig, values), 0).batch(0)
    assert {Path(name).name for name in pair.skipped} == {"a.png", "b.png"}


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_too_many_broken_photos_stop_the_training_with_one_line(tmp_path, workers):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(9):
        (photos / f"{i}.png").write_bytes(
            b"no photo" if i % 3 else (DATA / "blue.png").read_bytes()
        )
    message = r"of 9 photos could not be read, and data.errors allows 1; the last: .*photograph"
    before = set(multiprocessing.active_children())
    with pytest.raises(ConfigError, match=message) as caught:
        train(training(tmp_path / "out", photos, workers=workers))
    assert "\n" not in str(caught.value)
    # no worker is left, though the traceback is still there
    assert set(multiprocessing.active_children()) <= before
    if not workers:
        train(training(tmp_path / "out", photos, errors=0.7))
        assert skipped(tmp_path / "out")[-1] == 6


@pytest.mark.slow
def test_workers_import_once_and_make_the_same_batches(tmp_path):
    """They start one after the other: with an import each, 16 would take minutes to start."""
    values = training(tmp_path, DATA, steps=6, workers=2)
    pairs = TrainingPairs(from_dict(TrainConfig, values), 0)
    before = {*multiprocessing.active_children()}
    made = prepared(pairs)
    first = next(made)
    workers = {*multiprocessing.active_children()} - before
    assert len(workers) == 2
    (parent,) = {psutil.Process(worker.pid).ppid() for worker in workers}
    assert parent != os.getpid()
    for i, pair in enumerate((first, *made)):
        assert torch.equal(pair.lq, pairs.batch(i).lq)


def a_person(folder: Path, size: tuple[int, ...] = (160, 120)) -> PhotoSourceConfig:
    """A black photo with a person in white, and its outline in COCO's format."""
    stated = dict(zip(("width", "height"), size, strict=False))
    pixels = np.zeros((120, 160, 3), np.uint8)
    pixels[30:100, 50:90] = 255
    folder.mkdir()
    Image.fromarray(pixels).save(folder / "a.png")
    outline = [50, 30, 90, 30, 90, 100, 50, 100]
    entry = {"image_id": 1, "category_id": 1, "bbox": [50, 30, 40, 70], "segmentation": [outline]}
    coco = {
        "categories": [{"id": 1, "name": "person"}],
        "images": [{"id": 1, "file_name": "a.png", **stated}],
        "annotations": [entry],
    }
    (folder / "people.json").write_text(json.dumps(coco))
    return PhotoSourceConfig(photos=folder, boxes=folder / "people.json")


@pytest.mark.parametrize("size", [(160, 120), ()], ids=["stated", "of the photo"])
def test_the_regions_of_a_crop_are_where_its_people_are(tmp_path, size):
    source = CropSource(a_person(tmp_path / "photos", size), with_people=True)
    seen = set()
    for step in range(30):
        crop = source.crop(64, (1.0, 0.75)[step % 2], seeded(1, step))
        regions = source.regions(crop)
        assert regions is not None
        (outline,) = regions.outlines
        shown = crop.pixels[0] > 127
        assert 0.1 < shown.float().mean() < 0.95
        # no more than the pixels along its borders
        assert (outline ^ shown).sum() <= 64 * 4
        assert not (regions.parts & ~outline).any()
        seen.add(crop.mirrored)
    assert seen == {False, True}


def test_motion_blur_falls_on_the_people_of_the_photos(tmp_path, caplog):
    source = a_person(tmp_path / "photos")
    values = settings(tmp_path / "out", phases=[{"steps": 8, "crop": 64, "batch": 2}])
    values["data"] |= {"sources": [to_dict(source)], "degradations": {"motion-blur": 1.0}}
    pairs = TrainingPairs(from_dict(TrainConfig, values), 0)
    blurred = [pairs.batch(step) for step in range(3)]
    pairs.sources[0].people = None
    made_up = [pairs.batch(step) for step in range(3)]
    assert all(torch.equal(a.hq, b.hq) for a, b in zip(blurred, made_up, strict=True))
    assert not any(torch.equal(a.lq, b.lq) for a, b in zip(blurred, made_up, strict=True))
    # people that were annotated in another photo are left out, and that is said once
    turned = TrainingPairs(
        dataclasses.replace(
            pairs.config,
            data=dataclasses.replace(
                pairs.config.data, sources=(a_person(tmp_path / "turned", (120, 160)),)
            ),
        ),
        0,
    )
    assert torch.equal(turned.batch(0).lq, made_up[0].lq)
    assert torch.equal(turned.batch(1).lq, made_up[1].lq)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.endswith(
        "take the photo that was annotated; motion blur is applied in random places"
    )
    # what no recipe asks for is not held in memory
    values["data"]["degradations"] = {"real-esrgan": 1.0, "motion-blur": 0.0}
    assert TrainingPairs(from_dict(TrainConfig, values), 0).sources[0].people is None


@pytest.mark.parametrize("kind", FOLDERS)
def test_people_of_a_curated_set(tmp_path, people, kind):
    kept = [r for r in Manifest(people).kept() if r.split == "train"]
    source = CropSource(
        PhotoSourceConfig(manifest=with_only(kind, people, tmp_path / "set")), with_people=True
    )
    for i, record in enumerate(sorted(kept, key=lambda r: r.id)):
        x, y, side = record.square
        (person,) = source.people[i]
        assert person.image_size == (side, side)
        assert person.box == pytest.approx(
            (record.x0 - x, record.y0 - y, record.x1 - record.x0, record.y1 - record.y0)
        )
        crop = Crop(
            pixels=torch.zeros(3, 128, 128), photo=i, size=(128, 128), corner=(0, 0), mirrored=False
        )
        regions = source.regions(crop)
        (outline,) = regions.outlines
        points = np.array(record.keypoints).reshape(17, 3)
        assert np.allclose(np.array(person.keypoints), points - (x, y, 0), atol=1e-3)
        assert (points[:, 2] > 0).sum() >= 5
        assert len(regions.parts) >= 1
        rows = outline.any(dim=1).nonzero()
        assert float(rows.min()) == pytest.approx(max(person.box[1] * 128 / side, 0), abs=2)
