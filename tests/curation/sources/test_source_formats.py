"""Formats of which no sample lies beside the project: written here as their makers write them."""

import io
import json
import pickle
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from source_fixtures import JPEG, photos, read

from hbr.config import ConfigError, from_dict, to_dict
from hbr.curation.sources.base import Box, ImageRef, SourceError
from hbr.curation.sources.configs import (
    CocoConfig,
    HubConfig,
    OpenImagesConfig,
    ParquetConfig,
    SourceConfig,
    VocConfig,
    WebDatasetConfig,
    WiderConfig,
    YoloConfig,
)
from hbr.curation.sources.opening import guess_source

DATA = Path(__file__).parents[2] / "data"


PERSON_IMAGE = {"id": 7, "file_name": "images/v1/patch8/x.jpg", "width": 10, "height": 20}
LAMP, PERSON = {"id": 2, "name": "Lamp"}, {"id": 1, "name": "Person"}
ANNOTATIONS = [
    {"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": 1},
    {"image_id": 7, "category_id": 2, "bbox": [5, 5, 5, 5], "iscrowd": 0},
    {"image_id": 7, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 0, "isfake": 1},
]


@pytest.mark.parametrize(
    "order", [("images", "annotations", "categories"), ("categories", "annotations", "images")]
)
def test_objects365_in_any_order(tmp_path: Path, order: tuple[str, ...]) -> None:
    lists = {"images": [PERSON_IMAGE], "annotations": ANNOTATIONS, "categories": [LAMP, PERSON]}
    path = tmp_path / "zhiyuan_objv2_train.json"
    path.write_text(json.dumps({key: lists[key] for key in order}))
    photos(tmp_path, "images/patch8/x.jpg")  # the download lacks the folders before
    config = guess_source(path)
    assert config.kind == "objects365"
    (image,) = read(config)
    assert image.error is None
    assert image.ref == ImageRef.file((tmp_path / "images/patch8/x.jpg").resolve())
    assert image.boxes == (
        Box(1, 2, 4, 6, label="Person", crowd=True),
        Box(0, 0, 9, 9, label="Person", ignore=True),
    )


def test_coco_licence_and_flickr(tmp_path: Path) -> None:
    url = "http://farm7.staticflickr.com/6116/6255196340_da26cf2c9e_z.jpg"
    image = {"id": 1, "file_name": "a.jpg", "license": 4, "flickr_url": url}
    licence = {
        "id": 4,
        "name": "Attribution License",
        "url": "http://creativecommons.org/licenses/by/2.0/",
    }
    path = tmp_path / "instances.json"
    # as in the published files: licences first, categories last, something unknown between
    lists = {
        "info": {"year": 2017},
        "licenses": [licence],
        "images": [image],
        "more": 12.5,
        "annotations": [],
        "categories": [PERSON],
    }
    path.write_text(json.dumps(lists))
    (got,) = read(CocoConfig(annotations=path, images=photos(tmp_path, "a.jpg")))
    assert got.licence == "Attribution License (http://creativecommons.org/licenses/by/2.0/)"
    assert got.attribution == "https://www.flickr.com/photo.gne?id=6255196340"
    assert got.boxes == ()


def test_coco_key_points(tmp_path: Path) -> None:
    points = [1.5, 2, 2, 0, 0, 0, 4, 5, 1, *[0] * 42]
    entries = [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]} for _ in range(4)]
    for entry, value in zip(entries, (points, [0] * 51, points[:42], "x"), strict=True):
        entry["keypoints"] = value
    path = tmp_path / "instances.json"
    images = [{"id": 1, "file_name": "a.jpg"}]
    lists = {"images": images, "annotations": entries, "categories": [PERSON]}
    path.write_text(json.dumps(lists))
    (got,) = read(CocoConfig(annotations=path, images=photos(tmp_path, "a.jpg")))
    assert got.boxes is not None
    # none is labelled, another skeleton, none at all
    assert [box.keypoints for box in got.boxes] == [tuple(points), None, None, None]


def test_open_images_of_old_and_new_versions(tmp_path: Path) -> None:
    """v4: class names without a head line; boxes without IsInside; unsorted; two subsets."""
    (tmp_path / "class-descriptions-boxable.csv").write_text(
        "/m/01g317,Person\n/m/0k4j,Car\n/m/04yx4,Man\n/m/04hgtk,Human head\n"
    )
    (tmp_path / "train-annotations-bbox.csv").write_text(
        "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,"
        "IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
        "bb,xclick,/m/04yx4,1,0.1,0.2,0.3,0.4,0,0,0,1,0\n"
        "aa,xclick,/m/0k4j,1,0.1,0.2,0.3,0.4,0,0,0,0,0\n"
        "bb,xclick,/m/04hgtk,1,0.1,0.2,0.3,0.35,0,0,0,0,0\n"
    )
    (tmp_path / "train-images-boxable-with-rotation.csv").write_text(
        "ImageID,Subset,OriginalURL,OriginalLandingURL,License,AuthorProfileURL,Author,Title,"
        "OriginalSize,OriginalMD5,Thumbnail300KURL,Rotation\n"
        'bb,train,http://x,https://flickr/p,CC BY,https://flickr/a,"Doe, Ann",T,1,m,,90.0\n'
        "aa,train,http://x,,CC BY,,,T,1,m,,nan\n"
        "zz,train,http://x,,CC BY,,,T,1,m,,\n"
    )
    photos(tmp_path / "images", "train/bb.jpg", "aa.png")
    config = guess_source(tmp_path)
    assert isinstance(config, OpenImagesConfig)
    aa, bb = read(config)
    assert (aa.key, aa.boxes, aa.rotation, aa.error) == ("train/aa", (), 0, None)
    assert bb.rotation == 90
    assert bb.boxes == (
        Box(0.1, 0.3, 0.2, 0.4, label="Man", score=1, ignore=True, normalised=True),
        Box(0.1, 0.3, 0.2, 0.35, label="Human head", kind="head", score=1, normalised=True),
    )
    assert bb.licence == "CC BY"
    assert bb.attribution == "Doe, Ann, https://flickr/a, https://flickr/p"


def test_voc_heads_difficult_and_lists(tmp_path: Path) -> None:
    def edges(*values: float) -> str:
        names = ("xmin", "ymin", "xmax", "ymax")
        inside = "".join(f"<{n}>{v}</{n}>" for n, v in zip(names, values, strict=True))
        return f"<bndbox>{inside}</bndbox>"

    def person(difficult: int, part: str = "") -> str:
        told = f"<name>person</name><difficult>{difficult}</difficult>{edges(1, 2, 5, 6.5)}"
        return f"<object>{told}{part}</object>"

    head = f"<part><name>head</name>{edges(2, 2, 3, 3)}</part>"
    horse = person(0).replace("person", "horse")
    size = "<size><width>9</width><height>8</height></size>"
    folder = tmp_path / "Annotations"
    folder.mkdir()
    for name, content in {"a": person(1, head) + horse, "b": "", "c": person(0)}.items():
        text = f"<annotation><filename>{name}.jpg</filename>{size}{content}</annotation>"
        (folder / f"{name}.xml").write_text(text)
    photos(tmp_path / "JPEGImages", "a.jpg", "b.jpg", "c.jpg")
    a, b, c = read(guess_source(tmp_path))
    assert a.boxes == (
        Box(0, 1, 5, 6.5, label="person", ignore=True),
        Box(1, 1, 3, 3, label="head", kind="head", ignore=True),
    )
    assert b.boxes == ()
    assert c.boxes == (Box(0, 1, 5, 6.5, label="person"),)
    chosen = tmp_path / "person_val.txt"
    chosen.write_text("c  1\na -1\nb  0\n")
    config = VocConfig(annotations=folder, subset=chosen, one_based=False)
    first, second = read(config)
    assert (first.key, second.key) == ("c", "b")
    assert first.boxes == (Box(1, 2, 5, 6.5, label="person"),)


def test_wider_face(tmp_path: Path) -> None:
    photos(tmp_path / "images", "0--Parade/a.jpg", "1/b.jpg", "1/c.jpg")
    path = tmp_path / "wider_face_train_bbx_gt.txt"
    path.write_text(
        "0--Parade/a.jpg\n2\n10 20 30 40 0 0 0 0 0 0 \n1 2 3 4 1 0 0 0 0 0 \n"
        "1/b.jpg\n0\n0 0 0 0 0 0 0 0 0 0 \n1/c.jpg\n1\n5 5 5 5 0 0 0 0 0 0 \n"
    )
    a, b, c = read(guess_source(path))
    assert a.boxes == (
        Box(10, 20, 40, 60, label="face", kind="head"),
        Box(1, 2, 4, 6, label="face", kind="head"),
    )
    assert (b.boxes, b.error) == ((), None)
    assert c.boxes == (Box(5, 5, 10, 10, label="face", kind="head"),)


def test_wider_pedestrian_and_person(tmp_path: Path) -> None:
    photos(tmp_path / "images", "a.jpg", "b.jpg")
    lists = tmp_path / "train_bbox.txt"
    lists.write_text("a.jpg 1 10 20 30 40 2 1 2 3 4\nb.jpg\n")
    a, b = read(WiderConfig(annotations=lists, layout="pedestrian"))
    assert a.boxes == (Box(10, 20, 40, 60, label="pedestrian"), Box(1, 2, 4, 6, label="cyclist"))
    assert b.boxes == ()
    folder = tmp_path / "Annotations"
    folder.mkdir()
    (folder / "a.jpg.txt").write_text("3\n1 0 0 5 6\n4 1 1 2 2\n5 3 3 9 9\n")
    (a,) = read(WiderConfig(annotations=folder, layout="person"))
    assert a.boxes == (
        Box(0, 0, 5, 6, label="pedestrian"),
        Box(1, 1, 2, 2, label="ignore region", ignore=True),
        Box(3, 3, 9, 9, label="crowd", crowd=True),
    )


def test_yolo(tmp_path: Path) -> None:
    photos(tmp_path / "images", "train/a.jpg", "train/b.jpg", "val/c.jpg")
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "data.yaml").write_text("names:\n  0: car\n  1: person\n")
    (tmp_path / "labels" / "train" / "a.txt").write_text(
        "1 0.5 0.5 0.2 0.4\n0 0.1 0.1 0.1 0.1\n1 0.5 0.5 0.5 0.5 0.75\n1 0.1 0.2 0.3 0.2 0.2 0.6\n"
    )
    (tmp_path / "labels" / "train" / "b.txt").write_text("")
    a, b, c = read(guess_source(tmp_path))
    assert [box.score for box in a.boxes or ()] == [None, 0.75, None]
    edges = [(box.x0, box.y0, box.x1, box.y1) for box in a.boxes or ()]
    assert edges[0] == pytest.approx((0.4, 0.3, 0.6, 0.7))
    assert edges[2] == (0.1, 0.2, 0.3, 0.6)  # the box around an outline
    assert (a.boxes or ())[0].in_pixels(100, 10) == pytest.approx((40, 3, 60, 7))
    assert b.boxes == ()
    assert c.boxes is None  # no file: nobody looked
    keys = [image.key for image in read(YoloConfig(images=tmp_path / "images" / "train"))]
    assert keys == ["a.jpg", "b.jpg"]


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def test_web_dataset(tmp_path: Path) -> None:
    blue = (DATA / "blue.png").read_bytes()
    told = {
        "width": 5,
        "height": 6,
        "license": "CC0",
        "author": "Ann",
        "annotations": [
            {"bbox": [1, 2, 3, 4], "category": "woman"},
            {"bbox": [0, 0, 1, 1], "category": "dog"},
        ],
    }
    for shard in range(2):
        with tarfile.open(tmp_path / f"{shard:04d}.tar", "w") as tar:
            add(tar, "a/001.json", json.dumps(told).encode())
            add(tar, "a/001.jpg", JPEG)
            add(tar, "a/001.txt", b"a caption")
            add(tar, "a/002.png", blue)
    images = read(guess_source(tmp_path))
    names = ("0000.tar", "0001.tar")
    keys = [f"{tar}/a/{file}" for tar in names for file in ("001.jpg", "002.png")]
    assert [image.key for image in images] == keys
    first, second = images[:2]
    assert (first.width, first.height, first.licence, first.attribution) == (5, 6, "CC0", "Ann")
    assert first.boxes == (Box(1, 2, 4, 6, label="woman"),)
    assert second.boxes is None
    assert first.ref is not None
    assert second.ref is not None
    assert first.ref.read_bytes() == JPEG
    assert pickle.loads(pickle.dumps(second.ref)).read_bytes() == blue
    config = WebDatasetConfig(path=tmp_path / "000*.tar", boxes="xyxy")
    assert read(config)[0].boxes == (Box(1, 2, 3, 4, label="woman"),)


def write_parquet(path: Path, rows: int, group: int) -> None:
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table(
        {
            "image": [{"bytes": b"%d" % n, "path": f"{n}.jpg"} for n in range(rows)],
            "width": [n + 1 for n in range(rows)],
            "objects": [{"bbox": [[0, 0, n, 2]], "category": [n % 2]} for n in range(rows)],
        }
    )
    names = {"_type": "ClassLabel", "names": ["Person", "Dog"]}
    features = {"objects": {"feature": {"category": names, "bbox": {}}, "_type": "Sequence"}}
    told = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    parquet.write_table(table.replace_schema_metadata(told), path, row_group_size=group)


def test_parquet(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train-0.parquet", 300, 100)
    images = read(guess_source(tmp_path))
    assert len(images) == 300
    assert images[7].key == "train-0.parquet/00000007"
    assert (images[7].width, images[7].boxes) == (8, ())
    assert images[8].boxes == (Box(0, 0, 8, 2, label="Person"),)
    refs = [image.ref for image in images if image.ref]
    order = [*range(0, 300, 7), 299, 0, 150, 149, 250, 100, 99]
    assert [refs[n].read_bytes() for n in order] == [b"%d" % n for n in order]


def test_hugging_face_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = {
        "image": [{"bytes": b"%d" % n, "path": None} for n in range(5)],
        "width": [n + 1 for n in range(5)],
        "objects": [{"bbox": [[0.0, 0.0, n, 2.0]], "category": [n % 2]} for n in range(5)],
    }
    objects = {
        "bbox": datasets.List(datasets.List(datasets.Value("float32"))),
        "category": datasets.List(datasets.ClassLabel(names=["Person", "Dog"])),
    }
    features = datasets.Features(
        image=datasets.Image(decode=False), width=datasets.Value("int32"), objects=objects
    )
    written = tmp_path / "people" / "train-0.parquet"
    written.parent.mkdir()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(written)
    folder = str(written.parent)
    images = read(HubConfig(dataset=folder))
    assert [image.key for image in images] == [f"train/{n:08d}" for n in range(5)]
    assert (images[3].width, images[4].boxes) == (4, (Box(0, 0, 4, 2, label="Person"),))
    refs = [image.ref for image in images if image.ref]
    assert [ref.read_bytes() for ref in refs] == [b"%d" % n for n in range(5)]
    assert isinstance(guess_source("hf://someone/people@val"), HubConfig)
    with pytest.raises(SourceError, match="no column photo"):
        read(HubConfig(dataset=folder, column="photo"))


def test_references_are_small_and_work_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos(tmp_path, "here/a.jpg")
    monkeypatch.chdir(tmp_path)
    (image,) = read(guess_source("here"))
    data = pickle.dumps(image)
    assert len(data) < 700
    monkeypatch.chdir("/")
    ref = pickle.loads(data).ref
    assert ref.read_bytes() == JPEG


def test_parquet_without_other_columns(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"jpg": [JPEG, JPEG]}), tmp_path / "x.parquet")
    images = read(ParquetConfig(path=tmp_path / "x.parquet"))
    assert [i.ref.read_bytes() for i in images if i.ref] == [JPEG, JPEG]
    assert {i.boxes for i in images} == {None}


def test_official_folders_are_found(tmp_path: Path) -> None:
    """As COCO comes: annotations/instances_val2017.json and val2017/ beside it."""
    (tmp_path / "annotations").mkdir()
    path = tmp_path / "annotations" / "instances_val2017.json"
    lists = {"categories": [PERSON], "images": [{"id": 1, "file_name": "a.jpg"}]}
    path.write_text(json.dumps(lists))
    photos(tmp_path, "val2017/a.jpg")
    (image,) = read(guess_source(path))
    assert image.error is None


@pytest.mark.parametrize("kind", ["coco", "objects365", "crowdhuman", "openimages", "voc"])
def test_kind_chooses_the_configuration(kind: str, tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Run:
        sources: tuple[SourceConfig, ...]

    values = {"sources": [{"kind": kind, "annotations": "x"}, {"kind": "folder", "path": "y"}]}
    run = from_dict(Run, values)
    assert [source.kind for source in run.sources] == [kind, "folder"]
    assert from_dict(Run, to_dict(run)) == run
    with pytest.raises(
        ConfigError, match=r"sources\[0\].kind is 'imagenet'; it must be one of 'coco'"
    ):
        from_dict(Run, {"sources": [{"kind": "imagenet"}]})
    with pytest.raises(ConfigError, match=r"sources\[0\].image is not known"):
        from_dict(Run, {"sources": [{"kind": kind, "annotations": "x", "image": "z"}]})
