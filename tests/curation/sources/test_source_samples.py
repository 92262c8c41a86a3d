"""Every sample of annotations beside the project, read whole; the counts are from the files."""

import csv
import json
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

from hbr.curation.sources.base import Box, SourceImage
from hbr.curation.sources.configs import OpenImagesConfig
from hbr.curation.sources.opening import guess_source, open_source
from hbr.image import read_photo


def read(path: Path) -> list[SourceImage]:
    return list(open_source(guess_source(path)))


def test_coco(shared: Path) -> None:
    folder = shared / "photos" / "coco-cc"
    told = json.loads((folder / "instances.json").read_text("utf-8"))
    images = read(folder)
    assert len(images) == len(told["images"]) == 276
    assert sum(len(image.boxes or ()) for image in images) == len(told["annotations"]) == 276
    assert [image.error for image in images] == [None] * 276
    assert {image.source for image in images} == {"coco-cc"}
    assert Counter((image.licence or "").split(" (")[0] for image in images) == {
        "Attribution License": 183,
        "Attribution-ShareAlike License": 90,
        "No known copyright restrictions": 3,
    }
    boxes = {a["image_id"]: a["bbox"] for a in told["annotations"]}
    for image, listed in zip(images, told["images"], strict=True):
        assert image.key == listed["file_name"]
        assert image.attribution is not None
        assert image.attribution.endswith(listed["flickr_photo"].split("/")[1].split("_")[0])
        (box,) = image.boxes or ()
        assert box.label == "person"
        got = [box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0]
        assert got == pytest.approx(boxes[listed["id"]])
    photo = read_photo((folder / "images" / images[5].key).open("rb"))
    assert (photo.pixels.shape[1], photo.pixels.shape[0]) == (images[5].width, images[5].height)
    assert images[5].ref is not None
    assert images[5].ref.read_bytes() == (folder / "images" / images[5].key).read_bytes()


def test_voc(shared: Path) -> None:
    folder = shared / "annotations" / "voc"
    images = read(folder)
    assert len(images) == 26
    assert [image.error for image in images] == [None] * 26
    for image in images:
        root = ElementTree.parse(folder / "xml" / f"{image.key}.xml").getroot()
        corners = [
            int(root.findtext(f".//bndbox/{c}") or 0) for c in ("xmin", "ymin", "xmax", "ymax")
        ]
        assert image.ref is not None
        photo = read_photo(Path(image.ref.path))
        assert (photo.pixels.shape[1], photo.pixels.shape[0]) == (image.width, image.height)
        (box,) = image.boxes or ()
        # counted from 1, the last pixel included
        assert [box.x0 + 1, box.y0 + 1, box.x1, box.y1] == corners
        assert 0 <= box.x0 < box.x1 <= photo.pixels.shape[1]
        assert 0 <= box.y0 < box.y1 <= photo.pixels.shape[0]


def test_crowdhuman(shared: Path) -> None:
    images = read(shared / "annotations" / "crowdhuman")
    assert [image.key for image in images] == [
        "273271,1f249000e0cb4b12.jpg",
        "284193,faa9000f2678b5e.jpg",
    ]
    first, second = (image.boxes or () for image in images)
    # 4 people with 3 boxes each and one region without people; then 3 people
    assert Counter(b.kind for b in first) == {"full": 5, "visible": 4, "head": 4}
    assert Counter(b.kind for b in second) == {"full": 3, "visible": 3, "head": 3}
    assert [b.label for b in first if b.ignore] == ["mask"]
    assert Box(1004, 182, 1603, 1801, label="person") == first[0]
    assert (
        Box(-120, 158, 432, 1754, label="person") in first
    )  # as it was written, outside the image
    assert all("named by the annotations, but not in" in (image.error or "") for image in images)


def test_open_images(shared: Path, tmp_path: Path) -> None:
    folder = shared / "annotations" / "openimages"
    rows = [
        row
        for name in ("oidv6-train-annotations-bbox.csv", "test-annotations-bbox.csv")
        for row in csv.DictReader((folder / name).open())
    ]
    for id in "abc":
        (tmp_path / f"{id}.jpg").write_bytes(b"x")
    labels = ("Generic label #0", "Generic label #3")
    config = OpenImagesConfig(annotations=folder, images=tmp_path, people=labels, unlabelled=True)
    *images, problem = open_source(config)
    assert [image.key for image in images] == ["train/a", "train/b", "test/c"]
    a, b, c = images
    assert a.boxes is None  # nobody drew boxes there
    assert b.boxes == (Box(0.2, 0.3, 1, 0.5, label=labels[0], score=1.0, normalised=True),)
    assert c.boxes == (
        Box(0.7, 0, 0.8, 0.5, label=labels[1], score=0.7, crowd=True, normalised=True),
    )
    assert len(rows) == 2
    assert [image.attribution for image in images] == ["Intel"] * 3
    # the sample's last row lacks a column
    assert problem.error == (
        "image_ids_and_rotation.csv, line 5: 11 columns instead of 12; it may be cut"
    )
    # without `unlabelled`, only what somebody drew boxes in
    found = list(open_source(OpenImagesConfig(annotations=folder, images=tmp_path)))
    keys = [i.key for i in found]
    assert keys[:2] == ["train/b", "test/c"]
    assert len(keys) == 4
    # nor are these labels of persons
    assert "none of its labels names a person" in (found[-1].error or "")


def test_open_images_children_are_people(shared: Path, tmp_path: Path) -> None:
    folder = shared / "annotations" / "openimages"
    (tmp_path / "b.jpg").write_bytes(b"x")
    for file in folder.iterdir():
        if "bbox.csv" not in file.name:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    head = (folder / "test-annotations-bbox.csv").read_text().splitlines()[0]
    row = "b,xclick,/m/1,1,0.2,1,0.3,0.5,0,0,0,1,0"
    (tmp_path / "train-annotations-bbox.csv").write_text(f"{head}\n{row}\n")
    # /m/1 stands below /m/0 in the sample's hierarchy
    config = OpenImagesConfig(annotations=tmp_path, people=("Generic label #0",))
    (image, _) = open_source(config)
    expected = Box(
        0.2, 0.3, 1, 0.5, label="Generic label #1", score=1, ignore=True, normalised=True
    )
    assert image.boxes == (expected,)


def test_plain_folder(shared: Path) -> None:
    folder = shared / "photos" / "clothing-co-parsing" / "val"
    images = read(folder)
    assert [image.key for image in images] == sorted(p.name for p in folder.iterdir())
    assert len(images) == 100
    assert {image.boxes for image in images} == {None}


def test_going_through_again_gives_the_same(shared: Path) -> None:
    for path in ("photos/coco-cc", "annotations/voc", "annotations/openimages"):
        source = open_source(guess_source(shared / path))
        first = [repr(image) for image in source]
        assert first == [repr(image) for image in source]
        assert len(set(first)) == len(first)
