"""What is wrong with a source becomes records; the rest comes as if nothing were."""

import errno
import json
import math
import os
import sqlite3
import tarfile
from pathlib import Path
from typing import Any

import pytest
from source_fixtures import JPEG, read

from hbr.config import ConfigError, from_dict
from hbr.curation.sources.base import Box, SourceError, SourceImage
from hbr.curation.sources.configs import (
    CocoConfig,
    CrowdHumanConfig,
    FolderConfig,
    OpenImagesConfig,
    ParquetConfig,
    VocConfig,
    WebDatasetConfig,
    WiderConfig,
    YoloConfig,
)
from hbr.curation.sources.opening import guess_source, open_source, open_sources
from hbr.people.json_stream import JsonCutError, top_level

PERSON = {"id": 1, "name": "person"}


def errors(images: list[SourceImage]) -> list[str]:
    return [image.error for image in images if image.error is not None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with images a.jpg, b.jpg and c.jpg."""
    (tmp_path / "images").mkdir()
    for name in "abc":
        (tmp_path / "images" / f"{name}.jpg").write_bytes(JPEG)
    return tmp_path


def coco(folder: Path, **lists: object) -> CocoConfig:
    path = folder / "instances.json"
    path.write_text(json.dumps({"categories": [PERSON], **lists}))
    return CocoConfig(annotations=path)


def image(id: int, name: str) -> dict[str, object]:
    return {"id": id, "file_name": name, "width": 10, "height": 10}


def box(image: int, *edges: object) -> dict[str, object]:
    return {"image_id": image, "category_id": 1, "bbox": list(edges)}


def test_coco_cut_at_every_place(folder: Path) -> None:
    """Whole entries come, then one record; only the whole file has none."""
    lists = {
        "categories": [PERSON],
        "images": [image(1, "a.jpg"), image(2, "b.jpg")],
        "annotations": [box(1, 1, 1, 2, 2), box(2, 3, 3, 4, 4)],
    }
    text = json.dumps(lists)
    path = folder / "instances.json"
    ends = {n: text.index(f'"{n}.jpg"') + text[text.index(f'"{n}.jpg"') :].index("}") for n in "ab"}
    for length in range(len(text)):
        path.write_text(text[:length])
        images = read(CocoConfig(annotations=path))
        whole = [i for i in images if i.ref is not None]
        assert [i.key for i in whole] == [f"{n}.jpg" for n in "ab" if length > ends[n]]
        assert errors(whole) == []
        assert sum("instances.json:" in e or "instances.json: " in e for e in errors(images)) >= 1
        assert len(images) - len(whole) <= 2
        # an image whose boxes may be lost counts as one that nobody looked at
        assert all(i.boxes != () for i in whole)
    path.write_text(text)
    assert [len(i.boxes or ()) for i in read(CocoConfig(annotations=path))] == [1, 1]


def test_coco_that_lies(folder: Path) -> None:
    config = coco(
        folder,
        images=[
            image(1, "a.jpg"),
            image(2, "missing.jpg"),
            image(3, "../instances.json"),
            image(1, "b.jpg"),
            image(4, "a.jpg"),
            {"id": 5},
            "no object",
            image(6, "c.jpg") | {"width": -1, "height": "x"},
        ],
        annotations=[
            box(1, 1, math.nan, 2, 2),
            box(1, 5, 5, 0, 0),
            box(1, -10, 2, 500, 3),
            box(1, 1, 2, 3),
            box(99, 1, 2, 3, 4),
            box(1, "x", None, 1, 1),
        ],
    )
    images = {i.key: i for i in read(config)}
    assert len(images) == 10
    first = images["a.jpg"].boxes or ()
    assert len(first) == 4
    assert math.isnan(first[0].y0)
    assert first[1] == Box(5, 5, 5, 5, label="person")
    assert first[2] == Box(-10, 2, 490, 5, label="person")
    assert math.isnan(first[3].x0)
    assert math.isnan(first[3].y0)
    assert "not in" in (images["missing.jpg"].error or "")
    outside = images["../instances.json"]
    assert outside.ref is None
    assert "no file name within the folder" in (outside.error or "")
    assert images["a.jpg#4"].error == "a.jpg is listed twice, again as 4"
    assert (images["c.jpg"].width, images["c.jpg"].height) == (None, None)
    told = {key.split(":")[1] for key in images if key.startswith("instances.json:")}
    assert told == {"image 99", "images[3]", "images[5]", "images[6]", "annotations[3]"}


def test_coco_of_another_kind(folder: Path) -> None:
    lists = {"categories": [{"id": 1, "name": "cat"}], "images": [image(1, "a.jpg")]}
    cat, problem = read(coco(folder, **lists, annotations=[box(1, 1, 1, 1, 1)]))
    assert (cat.boxes, cat.error) == ((), None)
    assert problem.error == "instances.json: none of its categories names a person"
    (folder / "list.json").write_text("[1, 2]")
    assert "'{' was expected" in errors(read(CocoConfig(annotations=folder / "list.json")))[0]
    (folder / "binary.json").write_bytes(bytes(range(256)) * 10)
    assert len(read(CocoConfig(annotations=folder / "binary.json"))) == 1


def test_json_across_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elements, numbers and escapes that lie across the window's edge are whole."""
    data = {
        "a": [1234567, -1.5e-7, 'ü"\\', {"b": [1, {"c": None}]}],
        "d": 12345.678,
        "e": {"f": []},
        "g": [],
    }
    path = tmp_path / "x.json"
    path.write_text(json.dumps(data, indent=3))
    expected = [("a", element) for element in data["a"]] + [("d", 12345.678), ("e", {"f": []})]  # type: ignore[attr-defined]
    for chunk in (1, 2, 3, 7, 1000):
        monkeypatch.setattr("hbr.people.json_stream.CHUNK", chunk)
        assert list(top_level(path)) == expected
    path.write_text('{"a": [1, 2')
    seen = top_level(path)
    assert next(seen) == ("a", 1)
    with pytest.raises(JsonCutError, match="ends in the middle"):
        next(seen)


def test_odgt(folder: Path) -> None:
    path = folder / "annotation_train.odgt"
    good = {
        "ID": "a",
        "gtboxes": [
            {"tag": "person", "fbox": [0, 0, 5, 5], "hbox": "x", "head_attr": {"ignore": 1}}
        ],
    }
    lines = [json.dumps(good), "{no json", json.dumps({"ID": 5}), "", json.dumps(good)]
    lines.append(json.dumps(good | {"ID": "b"})[:-9])
    path.write_text("\n".join(lines))
    first, *rest = read(CrowdHumanConfig(annotations=path))
    assert (first.key, first.boxes) == ("a.jpg", (Box(0, 0, 5, 5, label="person"),))
    assert errors(rest) == [
        "annotation_train.odgt:line 2 is no JSON",
        "annotation_train.odgt:line 3 lacks an ID or gtboxes",
        "annotation_train.odgt:line 5: a comes a second time",
        "annotation_train.odgt:line 6 is no JSON; the file ends here, it may be cut",
    ]


def test_open_images(folder: Path) -> None:
    head = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsGroupOf\n"
    rows = (
        "a,x,/m/01g317,1,0.1,0.2,0.3,0.4,0\n"
        "../x,x,/m/01g317,1,0,1,0,1,0\n"
        "b,x,/m/01g317,1,zero,,0.5,2.5,0\n"
        "c,x,/m/01g3"
    )
    (folder / "train-annotations-bbox.csv").write_text(head + rows)
    images = {i.key: i for i in read(OpenImagesConfig(annotations=folder))}
    # there is no file of class names: the official ids are known
    assert images["a"].boxes == (
        Box(0.1, 0.3, 0.2, 0.4, label="/m/01g317", score=1, normalised=True),
    )
    assert images["../x"].error == "'../x' is no image id"
    (bad,) = images["b"].boxes or ()
    assert math.isnan(bad.x0)
    assert bad.y1 == 2.5
    cut = images["train-annotations-bbox.csv:line 5"]
    assert cut.error == "train-annotations-bbox.csv, line 5: 3 columns instead of 9; it may be cut"
    (folder / "hierarchy.json").write_text('{"LabelName": "/m/0", "Subcategory": null}')
    with pytest.raises(SourceError, match=r"hierarchy\.json: no hierarchy of classes"):
        read(OpenImagesConfig(annotations=folder))
    (folder / "hierarchy.json").unlink()
    (folder / "train-annotations-bbox.csv").write_text("a,b\n1,2\n")
    with pytest.raises(SourceError, match="columns of boxes"):
        read(OpenImagesConfig(annotations=folder))


def test_voc(folder: Path) -> None:
    xml = folder / "xml"
    xml.mkdir()
    (xml / "a.xml").write_text("<annotation><object><name>person</name></object></annotation>")
    (xml / "b.xml").write_text("<annotation><object><name>per")
    bomb = (
        '<!DOCTYPE a [<!ENTITY b "'
        + "c" * 10000
        + '">'
        + "".join(
            f'<!ENTITY b{n} "{"&b" + str(n - 1) + ";" if n else "&b;"}'
            f'{"&b" + str(n - 1) + ";" if n else "&b;"}">'
            for n in range(30)
        )
    )
    (xml / "c.xml").write_text(bomb + "]><annotation>&b29;</annotation>")
    a, b, c = read(VocConfig(annotations=xml))
    assert a.error is None
    assert math.isnan((a.boxes or ())[0].x0)
    assert (b.error or "").startswith("b.xml is no whole XML")
    assert (c.error or "").startswith("c.xml is no whole XML")


def test_yolo(folder: Path) -> None:
    labels = folder / "labels"
    labels.mkdir()
    (labels / "classes.txt").write_text("person\ncar\n")
    (labels / "a.txt").write_text("0 0.5 0.5 0.5 1\n0 0.5\n7 1 1 1 1\nx 1 1 1 1\n0 1 1 nan 1\n")
    (labels / "b.txt").write_bytes(b"\xff\xfe\x00")
    a, lines, b, c = read(YoloConfig(images=folder / "images", annotations=labels))
    assert len(a.boxes or ()) == 1
    assert a.error is None
    assert (lines.ref, lines.entry) == (None, True)
    said = "a.txt, line 2: a class and at least 4 numbers expected (and 3 more lines)"
    assert lines.error == said
    assert b.boxes is None
    assert "b.txt" in (b.error or "")
    assert (c.boxes, c.error) == (None, None)


def test_tars(folder: Path) -> None:
    whole = folder / "0.tar"
    with tarfile.open(whole, "w") as tar:
        for name in ("a.jpg", "b.jpg"):
            tar.add(folder / "images" / name, name)
        tar.add(folder / "images" / "a.jpg", "a.jpg")  # the same name again
    data = whole.read_bytes()
    first, second, again = read(WebDatasetConfig(path=whole))
    assert again.error == "0.tar/a.jpg: a second file of that name in the tar"
    (folder / "1.tar").write_bytes(
        data[: second.ref.offset + 10] if second.ref and second.ref.offset else b""
    )
    (folder / "2.tar").write_bytes(b"no tar" * 500)
    (folder / "3.tar.gz").write_bytes(b"")
    images = read(WebDatasetConfig(path=folder / "*.tar*"))
    cut = [image for image in images if image.key.startswith("1.tar")]
    assert [image.key for image in cut] == ["1.tar/a.jpg", "1.tar:end"]
    assert "b.jpg goes on beyond the end" in (cut[1].error or "")
    assert [i.key for i in images if i.key[0] in "23"] == ["2.tar:end", "3.tar.gz"]
    assert first.ref is not None
    assert first.ref.offset is not None
    whole.write_bytes(data[: first.ref.offset + 188])
    with pytest.raises(SourceError, match=f"expected {len(JPEG)} bytes at .*, got 188"):
        first.ref.read_bytes()


def test_parquet(folder: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table({"image": [b"1", None, b"3"], "other": [b"1", b"2", b"3"]})
    parquet.write_table(table, folder / "0.parquet")
    data = (folder / "0.parquet").read_bytes()
    (folder / "1.parquet").write_bytes(data[:-30])
    images = read(ParquetConfig(path=folder))
    assert [image.key for image in images][2:] == ["0.parquet/00000002", "1.parquet"]
    assert "cut or no Parquet" in (images[3].error or "")
    one, two = (image.ref for image in images[:2])
    assert one is not None
    assert two is not None
    assert one.read_bytes() == b"1"
    with pytest.raises(SourceError, match="row 1: no image bytes in image"):
        two.read_bytes()
    with pytest.raises(SourceError, match="no column photo; there are image, other"):
        read(ParquetConfig(path=folder, column="photo"))


def test_missing_files_are_named(folder: Path) -> None:
    (found,) = [i for i in open_source(FolderConfig(path=folder)) if i.key == "images/a.jpg"]
    (folder / "images" / "a.jpg").unlink()
    assert found.ref is not None
    with pytest.raises(SourceError, match=r"a\.jpg: No such file or directory"):
        found.ref.read_bytes()
    for config in (
        FolderConfig(path=folder / "no"),
        CocoConfig(annotations=folder / "no.json"),
        ParquetConfig(path=folder / "no.parquet"),
        WebDatasetConfig(path=folder / "no-*.tar"),
    ):
        with pytest.raises(SourceError, match="no such"):
            open_source(config)
    with pytest.raises(SourceError, match="no such"):
        guess_source(folder / "nothing")


def test_no_record_shows_a_folder_of_this_machine(folder: Path) -> None:
    """Manifests, which have these lines, are published."""
    gone = coco(folder, images=[image(1, "gone.jpg")], annotations=[])
    (said,) = errors(read(gone))
    assert said == "gone.jpg: named by the annotations, but not in the folder images"
    (folder / "labels").mkdir()
    (folder / "labels" / "a.txt").mkdir()  # which cannot be read as a file
    (folder / "classes.txt").write_text("person\n")
    classes = folder / "classes.txt"
    yolo = YoloConfig(images=folder / "images", annotations=folder / "labels", classes=classes)
    (said,) = errors(read(yolo))
    assert said == f"a.txt: {os.strerror(errno.EISDIR)}"
    (folder / "train-annotations-bbox.csv").write_text(
        "ImageID,LabelName,XMin,XMax,YMin,YMax\nd,/m/01g317,0,1,0,1\n"
    )
    (said,) = errors(read(OpenImagesConfig(annotations=folder)))
    assert said == "d: named by the annotations, but not in the folder images"


def test_sources_of_one_name(folder: Path) -> None:
    for name in ("one", "two"):
        (folder / name / "images").mkdir(parents=True)
        (folder / name / "images" / "x.jpg").write_bytes(JPEG)
    configs = [guess_source(folder / name / "images") for name in ("one", "two")]
    names = [source.name for source in open_sources(configs)]
    assert names == ["one", "two"]
    ids = {i.id for source in open_sources(configs) for i in source}
    assert ids == {"one/x.jpg", "two/x.jpg"}
    nested = [FolderConfig(path=folder / name / "images" / "..") for name in ("one", "two")]
    assert len({source.name for source in open_sources(nested)}) == 2
    for pair in ([configs[0], configs[0]], [FolderConfig(path=folder, name="n")] * 2):
        with pytest.raises(SourceError, match="two sources are called"):
            open_sources(pair)
    swapped = [source.name for source in open_sources(configs[::-1])]
    assert swapped == names[::-1]


def test_configuration(folder: Path) -> None:
    class_of = from_dict(CrowdHumanConfig, {"annotations": "x.odgt"})
    assert class_of.kind == "crowdhuman"
    with pytest.raises(ConfigError, match="name is 'a/b'; it must be without slashes"):
        FolderConfig(path=folder, name="a/b")
    table = folder / "labels.yaml"
    table.write_text("coco:\n  person: [Mensch]\n  nobody: [x]\n")
    config = coco(folder, images=[], annotations=[])
    with pytest.raises(ConfigError, match="coco must be a mapping with person, head"):
        open_source(CocoConfig(annotations=config.annotations, labels=table))
    table.write_text("coco:\n  person: [Mensch]\n")
    lists = {"categories": [{"id": 4, "name": "MENSCH"}, PERSON], "images": [image(1, "a.jpg")]}
    boxes = [box(1, 1, 1, 2, 2), box(1, 2, 2, 2, 2) | {"category_id": 4}]
    config = coco(folder, **lists, annotations=boxes)
    (only,) = read(CocoConfig(annotations=config.annotations, labels=table))
    assert [b.label for b in only.boxes or ()] == ["person", "MENSCH"]


def test_names_that_no_manifest_can_hold(folder: Path) -> None:
    odd = os.fsencode(folder / "images") + b"/caf\xe9.jpg"
    Path(os.fsdecode(odd)).write_bytes(JPEG)
    images = read(FolderConfig(path=folder))
    assert [image.key for image in images] == [
        *(f"images/{n}.jpg" for n in "abc"),
        r"images/caf\udce9.jpg",
    ]
    assert errors(images) == [r"images/caf\udce9.jpg: the name of the file is not UTF-8; rename it"]
    for image in images:
        repr(image).encode()
    # half of a surrogate pair, which JSON can write and UTF-8 cannot
    (folder / "instances.json").write_text(
        '{"images": [{"id": "\\ud800", "file_name": "a\\ud800.jpg"}]}'
    )
    (image,) = read(CocoConfig(annotations=folder / "instances.json"))
    assert image.key == r"a\ud800.jpg"
    assert "not in" in (image.error or "")


def test_numbers_of_any_length(folder: Path) -> None:
    digits = "9" * 5000
    (folder / "instances.json").write_text(f'{{"images": [{{"id": {digits}}}]}}')
    (problem,) = read(CocoConfig(annotations=folder / "instances.json"))
    assert "is not JSON" in (problem.error or "")
    config = coco(
        folder, images=[image(1, "a.jpg")], annotations=[box(1, 1e308, 10**400, 1e308, 1)]
    )
    (only,) = read(config)
    assert (only.boxes or ())[0].x1 == math.inf
    assert math.isnan((only.boxes or ())[0].y0)


def test_a_list_of_faces_that_lies(folder: Path) -> None:
    path = folder / "wider_face_train_bbx_gt.txt"
    lines = ["a.jpg", "999999999999", "1 2 3 4", "b.jpg", "no count", "5 6 7 8"]
    lines += ["c.jpg", "1", "1 2 x 4", "9 9 9 9", "a.jpg", "0"]
    path.write_text("\n".join(lines))
    a, b, c, stray, again = read(guess_source(path))
    assert a.error == "a.jpg: fewer boxes than the list says; it may be cut"
    assert a.boxes == (Box(1, 2, 4, 6, label="face", kind="head"),)
    assert (b.error or "").endswith("no count of boxes follows b.jpg")
    assert math.isnan((c.boxes or ())[0].x1)
    assert "a file name was expected, not '9 9 9 9'" in (stray.error or "")
    assert "listed a second time" in (again.error or "")
    path.write_text("7\n8\na.jpg\nb.jpg\n1\n1 2 3 4\n")
    stray, a, b = read(guess_source(path))
    assert (stray.error or "").endswith("line 1: a file name was expected, not '7'")
    assert (a.error or "").endswith("line 3: no count of boxes follows a.jpg")
    assert (b.error, len(b.boxes or ())) == (None, 1)  # what is wrong before it does not matter
    for count in ("²", "9" * 5000):  # digits, but no count
        path.write_text(f"a.jpg\n{count}\n1 2 3 4\n")
        (only,) = read(guess_source(path))
        assert (only.error or "").endswith("no count of boxes follows a.jpg")
        (folder / "lists").mkdir(exist_ok=True)
        (folder / "lists" / "a.jpg.txt").write_text(f"{count}\n1 2 3 4 5\n")
        (only,) = read(WiderConfig(annotations=folder / "lists", layout="person"))
        assert (only.error or "").startswith("a.jpg: fewer boxes than the list says")


@pytest.mark.parametrize(
    "names",
    ["{1000000000000: person}", "{-1: person}", "[" * 3000, "5", "person", "{person: 0}", ""],
)
def test_classes_of_yolo_that_lie(folder: Path, names: str) -> None:
    (folder / "labels").mkdir()
    (folder / "labels" / "data.yaml").write_text(f"names: {names}")
    with pytest.raises(SourceError, match="no list of names under `names`"):
        open_source(YoloConfig(images=folder / "images", annotations=folder / "labels"))


def test_what_cannot_be_guessed(folder: Path) -> None:
    (folder / "notes.txt").write_text("a.jpg")
    with pytest.raises(SourceError, match="neither a photo nor a source"):
        guess_source(folder / "notes.txt")
    with pytest.raises(SourceError, match="hf://@test names no data set"):
        guess_source("hf://@test")
    for name in ("instances_a.json", "instances_b.json"):
        (folder / name).write_text('{"images": []}')
    with pytest.raises(SourceError, match=r"name one of instances_a\.json, instances_b\.json"):
        guess_source(folder)
    assert guess_source(folder / "images" / "a.jpg").kind == "folder"


def test_a_list_of_voc_that_repeats(folder: Path) -> None:
    xml = folder / "xml"
    xml.mkdir()
    (xml / "a.xml").write_text("<annotation/>")
    (folder / "train.txt").write_text("a\na\nmissing\n")
    a, again, missing = read(VocConfig(annotations=xml, subset=folder / "train.txt"))
    assert (a.key, a.error) == ("a", None)
    assert "a second time" in (again.error or "")
    assert missing.error == "missing.xml: No such file or directory"


def test_a_full_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect

    def small(*args: Any, **options: Any) -> sqlite3.Connection:
        database = connect(*args, **options)
        database.execute("PRAGMA max_page_count=20")
        return database

    monkeypatch.setattr("hbr.curation.sources.disk_tables.sqlite3.connect", small)
    config = coco(folder, images=[image(n, f"{n:099d}.jpg") for n in range(2000)], annotations=[])
    with pytest.raises(SourceError, match=r"tables on disk .*: database or disk is full"):
        read(config)
    for n in range(1000):
        (folder / f"{n:099d}.jpg").touch()
    with pytest.raises(SourceError, match=r"tables on disk .*: database or disk is full"):
        read(FolderConfig(path=folder))
