"""Forms that annotation files have in the field, beside those that their makers publish."""

import io
import json
import logging
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from source_fixtures import JPEG, photos, read

from hbr.curation.sources.base import Box, SourceError, SourceImage
from hbr.curation.sources.configs import (
    CocoConfig,
    CrowdHumanConfig,
    FolderConfig,
    OpenImagesConfig,
    ParquetConfig,
    SourceConfig,
    VocConfig,
    WebDatasetConfig,
    WiderConfig,
    YoloConfig,
)
from hbr.curation.sources.opening import open_source
from hbr.people.yolo_lines import read_lines

# YOLO: what the numbers of a line mean

P = "0.2 0.2 0.4 0.2 0.4 0.6 0.2 0.6"
B = "0.3 0.4 0.2 0.4"
POINT = "0.25 0.3"


@pytest.mark.parametrize(
    ("lines", "scores"),
    [
        (f"0 {B}", [None]),
        (f"0.0 {B}", [None]),
        (f"0 {B} 0.91", [0.91]),
        (f"0 {B} 7", [None]),  # a track id is no confidence
        (f"0 {B} 0.91 7", [0.91]),
        (f"0 {B} 0.91 1", [0.91]),
        (f"0 {B} 1\n0 {B} 2", [None, None]),
        (f"0 {P}", [None]),
        (f"0 {P} 0.91", [0.91]),
        (f"0 {P} 7", [None]),
        (f"0 {P} 0.91 7", [0.91]),
        (f"0 {P} 0.91 1\n0 {P} 0.8 2", [0.91, 0.8]),
        (f"0 {P} 0.9\n0 {B} 0.8", [0.9, 0.8]),
        (f"0 {P}\n0 {B}", [None, None]),  # as exporters mix them
        (f"0 {B}\n0 {B} 0.75", [None, 0.75]),
        ("0 0.2 0.2 0.4 0.2 0.4 0.6", [None]),  # three points
        (f"0 {B} " + f"{POINT} 2 " * 17, [None]),
        (f"0 {B} " + f"{POINT} 2 " * 16 + "0 0 0", [None]),
        (f"0 {B} " + f"{POINT} 0.9 " * 17 + "0.8", [0.8]),
        (f"0 {B} " + f"{POINT} 0.9 " * 17 + "0.8 4", [0.8]),
        (f"0 {B} " + f"{POINT} " * 17, [None]),
    ],
)
def test_yolo_lines_of_every_tool(lines: str, scores: list[float | None]) -> None:
    file = read_lines(lines.split("\n"), 1)
    assert file.problems == []
    assert [thing.score for thing in file.objects] == scores
    for thing in file.objects:
        assert thing.edges == pytest.approx((0.2, 0.2, 0.4, 0.6))


@pytest.mark.parametrize("tail", ["", " 0.9", " 3", " 0.9 3"])
@pytest.mark.parametrize("shape", [(5, 3), (4, 2), (21, 3)])
def test_a_stated_shape_of_key_points_decides(tail: str, shape: tuple[int, int]) -> None:
    point = "0.9 0.9 1" if shape[1] == 3 else "0.9 0.9"
    line = f"0 {B} " + " ".join([point] * shape[0]) + tail
    (thing,) = read_lines([line], 1, shape).objects
    assert thing.edges == pytest.approx((0.2, 0.2, 0.4, 0.6))
    assert thing.score == (0.9 if " 0.9" in tail else None)


@pytest.mark.parametrize(
    "line",
    [
        "0 300 400 20 40",  # pixels
        "0 0.3 0.4 0.2 -0.4",
        "0 0.3 0.4 nan 0.4",
        "0 0.3 0.4 inf 0.4",
        "0 0.91",
        "0.5 0.3 0.4 0.2 0.4",
        "-1 0.3 0.4 0.2 0.4",
        "1 0.3 0.4 0.2 0.4",
        "person 0.3 0.4 0.2 0.4",
        "0,0.3,0.4,0.2,0.4",
        f"0 {P} 1.7 7",
        f"0 {P} 0.3 0.2 0.5 9.5",
    ],
)
def test_a_bad_yolo_line_costs_only_itself(line: str) -> None:
    file = read_lines([f"0 {P}", "", line, f"0 {P}"], 1)
    assert [thing.edges for thing in file.objects] == [(0.2, 0.2, 0.4, 0.6)] * 2
    assert [number for number, _ in file.problems] == [3]


def test_pictures_that_are_not_read_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photos(tmp_path / "in", "a.jpg", "sub/b.jpg", "@eaDir/a.jpg")
    for name in ("c.cr2", "sub/d.cr2", "e.psd"):
        (tmp_path / "in" / name).write_bytes(b"x")
    with caplog.at_level("WARNING", logger="hbr"):
        found = read(FolderConfig(path=tmp_path / "in"))
        assert [image.key for image in found] == ["a.jpg", "sub/b.jpg"]
        assert len(caplog.messages) == 3
        jpeg = (tmp_path / "in" / "a.jpg").read_bytes()
        images = read(tar(tmp_path / "x.tar", ("1.jpg", jpeg), ("1.cr2", b"x"), ("1.json", b"{}")))
        assert [image.key for image in images] == ["x.tar/1.jpg"]
    assert "x.tar/1.cr2: is a camera raw file; " in caplog.messages[3]


def test_a_guess_about_yolo_lines_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = photos(tmp_path / "images", "a.jpg", "b.jpg", "c.jpg")
    labels = photos(tmp_path / "labels")
    labels.mkdir()
    (labels / "classes.txt").write_text("person\n")
    (labels / "a.txt").write_text(f"0 {B}\n")
    for name in "bc":  # a triangle, or a box with confidence and track id
        (labels / f"{name}.txt").write_text(f"0 {B} 0.91 1\n")
    with caplog.at_level(logging.WARNING):
        found = read(YoloConfig(images=images, annotations=labels))
    assert [len(image.boxes or ()) for image in found] == [1, 1, 1]
    (line,) = [record.getMessage() for record in caplog.records]
    assert "2 files fit more than one reading" in line
    assert "such as b.txt" in line


def test_yolo_files_where_lines_are_bad(tmp_path: Path) -> None:
    images = photos(tmp_path / "images", "22.05.jpg", "b.jpg", "c.jpg")
    labels = tmp_path / "labels"
    labels.mkdir()
    (labels / "data.yaml").write_text("names: {'0': person}\nkpt_shape: [2, 3]\n")
    (labels / "22.05.txt").write_text(f"0 {B}\n0 0.91\n0 1\n")
    (labels / "b.txt").write_text("0 300 400 20 40\n")
    (labels / "c.txt").write_text(f"0 {B}\n", encoding="utf-16")
    some, lines, none, wide = read(YoloConfig(images=images, annotations=labels))
    assert (some.error, len(some.boxes or ())) == (None, 1)
    assert lines.entry
    assert lines.error == (
        "22.05.txt, line 2: a class and at least 4 numbers expected (and 1 more line)"
    )
    # not "nobody is in the image"
    assert (none.boxes, none.entry) == (None, False)
    assert "b.txt, line 1: 4 numbers that are no box" in (none.error or "")
    assert len(wide.boxes or ()) == 1
    assert {image.grid for image in (some, wide)} == {"upright"}
    (labels / "data.yaml").write_text("names: [person]\nkpt_shape: [17, 4]\n")
    with pytest.raises(SourceError, match=r"kpt_shape is \[17, 4\]; it must be"):
        open_source(YoloConfig(images=images, annotations=labels))


# tars


def tar(path: Path, *members: tuple[str, bytes]) -> WebDatasetConfig:
    with tarfile.open(path, "w") as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return WebDatasetConfig(path=path)


def told(x: float) -> bytes:
    return json.dumps({"annotations": [{"bbox": [x, 2, 3, 4], "category": "person"}]}).encode()


def starts(images: list[SourceImage]) -> dict[str, float | None]:
    """The left edge of the only box of each photo."""
    return {
        image.key.rpartition("/")[2]: image.boxes[0].x0 if image.boxes else None
        for image in images
        if image.ref is not None
    }


A, B_, ALL = ("22.05.json", told(5)), ("22.06.json", told(6)), ("22.json", told(9))
ONE, TWO = ("22.05.jpg", JPEG), ("22.06.jpg", JPEG)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([A, ONE, B_, TWO], {"22.05.jpg": 5, "22.06.jpg": 6}),
        ([ONE, TWO, B_, A], {"22.05.jpg": 5, "22.06.jpg": 6}),
        ([ONE, A, TWO], {"22.05.jpg": 5, "22.06.jpg": None}),
        ([ALL, ONE, TWO], {"22.05.jpg": 9, "22.06.jpg": 9}),
        ([ONE, TWO, ALL], {"22.05.jpg": 9, "22.06.jpg": 9}),
        ([ONE, TWO, ALL, A], {"22.05.jpg": 5, "22.06.jpg": 9}),
        ([("a/1.jpg", JPEG), ("a/1.jpg.json", told(3))], {"1.jpg": 3}),
        ([("1.JPG", JPEG), ("1.JSON", told(3))], {"1.JPG": 3}),
        ([("1.jpg", JPEG), ("1.json", told(3)), ("1.clip.json", told(7))], {"1.jpg": 3}),
        ([("a/1.jpg", JPEG), ("b/1.json", told(3)), ("info.json", b"{}")], {"1.jpg": None}),
        ([("1.jpg", JPEG), ("._1.jpg", JPEG), ("README", b"x")], {"1.jpg": None}),
    ],
)
def test_photos_and_json_of_a_sample(
    tmp_path: Path, members: list[tuple[str, bytes]], expected: dict[str, float | None]
) -> None:
    images = read(tar(tmp_path / "x.tar", *members))
    assert starts(images) == expected
    assert all(image.error is None for image in images)


@pytest.mark.parametrize(
    ("members", "errors"),
    [
        (
            [("1.jpg", JPEG), ("1.json", told(3)), ("1.json", told(4))],
            ["x.tar/1.jpg: 1.json and 1.json both describe it"],
        ),
        (
            [("1.image.jpg", JPEG), ("1.boxes.json", told(3))],
            ["x.tar/1.boxes.json describes no photo: 1.image.jpg has another name"],
        ),
        # all photos, then all JSON: no sample is whole
        (
            [("1.jpg", JPEG), ("2.jpg", JPEG), ("1.json", told(3)), ("2.json", told(3))],
            [
                f"x.tar/{n}.json describes no photo: no photo is beside it; its sample is in two "
                "places of the tar, sort the tar by name"
                for n in (1, 2)
            ],
        ),
        (
            [("1.json", told(3)), ("2.json", told(3)), ("1.jpg", JPEG), ("2.jpg", JPEG)],
            [
                f"x.tar/{n}.jpg: its sample is in two places of the tar; sort the tar by name"
                for n in (1, 2)
            ],
        ),
    ],
)
def test_clashes_in_a_tar_are_said(
    tmp_path: Path, members: list[tuple[str, bytes]], errors: list[str]
) -> None:
    images = read(tar(tmp_path / "x.tar", *members))
    assert [image.error for image in images if image.error] == errors
    assert {image.boxes for image in images} == {None}


# flags and ids


def coco(folder: Path, annotation: dict[str, Any], *names: str) -> CocoConfig:
    names = names or ("a.jpg",)
    entry = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], **annotation}
    data = {
        "categories": [{"id": 1, "name": "person"}],
        "images": [{"id": n, "file_name": name} for n, name in enumerate(names, 1)],
        "annotations": [entry],
    }
    (folder / "coco.json").write_text(json.dumps(data))
    return CocoConfig(annotations=folder / "coco.json", images=folder)


def odgt(folder: Path, annotation: dict[str, Any]) -> CrowdHumanConfig:
    person = {"tag": "person", "fbox": [1, 2, 3, 4], "extra": annotation}
    line = json.dumps({"ID": "a", "gtboxes": [person]})
    (folder / "x.odgt").write_text(f"\ufeff{line}\n", encoding="utf-8")
    return CrowdHumanConfig(annotations=folder / "x.odgt", images=folder)


def row(folder: Path, annotation: dict[str, Any]) -> ParquetConfig:
    import pyarrow
    from pyarrow import parquet

    entry = {"bbox": [1.0, 2.0, 3.0, 4.0], "category": "person", **annotation}
    parquet.write_table(
        pyarrow.table({"image": [JPEG], "annotations": [[entry]]}), folder / "x.parquet"
    )
    return ParquetConfig(path=folder / "x.parquet")


def voc(folder: Path, annotation: dict[str, Any]) -> VocConfig:
    flags = "".join(f"<{key}>{value}</{key}>" for key, value in annotation.items())
    corners = "<xmin>2</xmin><ymin>3</ymin><xmax>4</xmax><ymax>6</ymax>"
    thing = f"<object><name>person</name>{flags}<bndbox>{corners}</bndbox></object>"
    (folder / "xml").mkdir(exist_ok=True)
    (folder / "xml" / "a.xml").write_text(f"<annotation>{thing}</annotation>")
    return VocConfig(annotations=folder / "xml", images=folder)


def open_images(folder: Path, annotation: dict[str, Any]) -> OpenImagesConfig:
    (key, value), *_ = annotation.items()
    text = f"ImageID,LabelName,XMin,XMax,YMin,YMax,{key}\na,/m/01g317,0.1,0.2,0.3,0.4,{value}\n"
    (folder / "train-annotations-bbox.csv").write_text(text)
    return OpenImagesConfig(annotations=folder, images=folder)


FLAGS: list[tuple[Callable[[Path, dict[str, Any]], SourceConfig], str, str]] = [
    (coco, "iscrowd", "crowd"),
    (coco, "ignore", "ignore"),
    (coco, "isfake", "ignore"),
    (odgt, "ignore", "ignore"),
    (row, "iscrowd", "crowd"),
    (row, "ignore", "ignore"),
    (voc, "difficult", "ignore"),
    (open_images, "IsGroupOf", "crowd"),
    (open_images, "IsDepiction", "ignore"),
]


@pytest.mark.parametrize(("write", "key", "field"), FLAGS)
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((value, True) for value in ("1", 1.0, True, "true")),
        *((value, False) for value in ("0", 0.0, False, "false", float("nan"), -1)),
    ],
)
def test_a_flag_in_every_format(
    tmp_path: Path,
    write: Callable[[Path, dict[str, Any]], SourceConfig],
    key: str,
    field: str,
    value: object,
    expected: bool,
) -> None:
    photos(tmp_path, "a.jpg")
    (image,) = read(write(tmp_path, {key: value}))
    (box,) = image.boxes or ()
    assert getattr(box, field) is expected


@pytest.mark.parametrize(("write", "key", "field"), FLAGS)
def test_a_flag_that_nobody_understands_costs_the_box_and_is_said(
    tmp_path: Path, write: Callable[[Path, dict[str, Any]], SourceConfig], key: str, field: str
) -> None:
    photos(tmp_path, "a.jpg")
    image, problem = read(write(tmp_path, {key: "maybe"}))
    assert (image.boxes, image.error) == ((), None)
    assert problem.entry
    assert "'maybe', not 0 or 1" in (problem.error or "")
    assert key in (problem.error or "")


@pytest.mark.parametrize("value", [1, 1.0, "1", "1.0"])
def test_an_id_in_every_format(tmp_path: Path, value: object) -> None:
    photos(tmp_path, "a.jpg", "1.jpg")
    for key in ("image_id", "category_id"):
        (image,) = read(coco(tmp_path, {key: value}))
        assert len(image.boxes or ()) == 1
    (tmp_path / "x.odgt").write_text(json.dumps({"ID": value, "gtboxes": []}))
    (image,) = read(CrowdHumanConfig(annotations=tmp_path / "x.odgt", images=tmp_path))
    assert (image.key, image.error) == ("1.jpg", None)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "a.jpg.txt").write_text(f"1\n{value} 0 0 5 6\n")
    (image,) = read(WiderConfig(annotations=tmp_path / "lists", images=tmp_path, layout="person"))
    assert image.boxes == (Box(0, 0, 5, 6, label="pedestrian"),)
    config = row(tmp_path, {"category": value})
    (image,) = read(ParquetConfig(path=config.path, classes=("dog", "man")))
    assert [box.label for box in image.boxes or ()] == ["man"]
    image, problem = read(ParquetConfig(path=config.path, classes=("man",)))
    assert image.boxes == ()
    assert "category is 1, there are 1 classes" in (problem.error or "")


# names


def test_two_names_that_fall_on_one_photo(tmp_path: Path) -> None:
    photos(tmp_path, "a.jpg", "b.jpg", "c/d.jpg")
    names = ["x/a.jpg", "y/a.jpg", "b.jpg", "z/b.jpg", "/data/me/c/d.jpg"]
    images = {image.key: image.error for image in read(coco(tmp_path, {}, *names))}
    assert list(images) == names
    assert images["x/a.jpg"] == (
        "x/a.jpg and y/a.jpg both fall on a.jpg; which one it is, is not known"
    )
    assert images["y/a.jpg"] is not None
    # what names it exactly has it
    assert (images["b.jpg"], images["/data/me/c/d.jpg"]) == (None, None)
    assert (
        images["z/b.jpg"] == "z/b.jpg and b.jpg both fall on b.jpg; which one it is, is not known"
    )
    lines = [json.dumps({"ID": name[:-4], "gtboxes": []}) for name in names]
    (tmp_path / "x.odgt").write_text("\n".join(lines))
    again = read(CrowdHumanConfig(annotations=tmp_path / "x.odgt", images=tmp_path))
    assert {image.key: image.error for image in again} == images
    (tmp_path / "list.txt").write_text("\n".join(names))
    config = WiderConfig(annotations=tmp_path / "list.txt", images=tmp_path, layout="pedestrian")
    assert {image.key: image.error for image in read(config)} == images


@pytest.mark.parametrize(
    "name",
    ["/data/set/sub/22.05.jpg", r"D:\set\sub\22.05.jpg", "sub/22.05", "22.05", "./sub/22.05.jpg"],
)
def test_names_that_find_their_photo(tmp_path: Path, name: str) -> None:
    folder = photos(tmp_path, "22.05.jpg" if name == "22.05" else "sub/22.05.jpg")
    (image,) = read(coco(tmp_path, {}, name))
    assert image.error is None
    assert image.ref is not None
    assert Path(image.ref.path).name == "22.05.jpg"
    xml = folder / "xml"
    xml.mkdir()
    (xml / "22.05.xml").write_text(f"<annotation><filename>{name}</filename></annotation>")
    (image,) = read(VocConfig(annotations=xml, images=folder))
    assert (image.key, image.error) == ("22.05", None)


def test_a_name_without_suffix_of_two_photos(tmp_path: Path) -> None:
    photos(tmp_path, "a.jpg", "a.png", "b.JPG")
    first, second = read(coco(tmp_path, {}, "a", "b"))
    assert first.error == "a: a.jpg and a.png are both there; name the suffix"
    assert second.error is None


def test_two_xml_files_of_one_photo(tmp_path: Path) -> None:
    xml = tmp_path / "xml"
    xml.mkdir()
    photos(tmp_path, "a.jpg", "b.jpg")
    for name in "abc":  # as copied from one another
        (xml / f"{name}.xml").write_text("<annotation><filename>a.jpg</filename></annotation>")
    a, b, c = read(VocConfig(annotations=xml, images=tmp_path))
    assert a.error is None
    assert b.error == "b and a both fall on a.jpg; which one it is, is not known"
    assert c.error is not None


XML = (
    "<annotation><folder>照片</folder><filename>{name}.jpg</filename><object><name>person</name>"
    "<bndbox><xmin>2</xmin><ymin>3</ymin><xmax>4</xmax><ymax>6</ymax></bndbox></object></annotation>"
)


@pytest.mark.parametrize(
    ("declared", "written"),
    [
        ("UTF-8", "utf-8"),
        (None, "utf-8-sig"),
        ("utf-16", "utf-16"),
        (None, "utf-16"),
        ("utf-16", "utf-8"),  # as .NET's StringWriter declares it
        ("gb2312", "gb2312"),
        ("GBK", "gbk"),
        ("big5", "big5"),
        ("Shift_JIS", "shift_jis"),
        (None, "gbk"),  # declared as nothing, and not UTF-8
        ("UTF-8", "gbk"),
        ("no-such-encoding", "utf-8"),
    ],
)
def test_xml_in_other_encodings(tmp_path: Path, declared: str | None, written: str) -> None:
    xml = tmp_path / "xml"
    xml.mkdir()
    name = "照片" if written not in ("gb2312", "gbk", "big5", "shift_jis") else "a"
    photos(tmp_path, f"{name}.jpg")
    head = f'<?xml version="1.0" encoding="{declared}"?>\n' if declared else ""
    (xml / f"{name}.xml").write_bytes((head + XML.format(name=name)).encode(written, "replace"))
    (image,) = read(VocConfig(annotations=xml, images=tmp_path))
    assert image.error is None
    assert image.boxes == (Box(1, 2, 4, 6, label="person"),)


def test_xml_whose_name_is_not_readable_is_found_by_its_own(tmp_path: Path) -> None:
    xml = tmp_path / "xml"
    xml.mkdir()
    photos(tmp_path, "照片.jpg")
    (xml / "照片.xml").write_bytes(XML.format(name="照片").encode("gbk"))
    (image,) = read(VocConfig(annotations=xml, images=tmp_path))
    assert image.error is None
    assert image.ref is not None
    assert os.path.samefile(image.ref.path, tmp_path / "照片.jpg")  # noqa: PTH121


def test_labels_of_which_none_is_known_are_said(tmp_path: Path) -> None:
    photos(tmp_path, "a.jpg")
    labels = tmp_path / "labels"
    labels.mkdir()
    (labels / "data.yaml").write_text("names: [pessoa, carro]\n")
    (labels / "a.txt").write_text(f"0 {B}\n0 {B}\n1 {B}\n")
    config = YoloConfig(images=tmp_path, annotations=labels)
    image, problem = read(config)
    assert image.boxes == ()
    assert problem.entry
    assert "none of its labels names a person, they are 'pessoa', 'carro'" in (problem.error or "")
    (image,) = read(YoloConfig(images=tmp_path, annotations=labels, people=("pessoa",)))
    assert len(image.boxes or ()) == 2
    image, problem = read(row(tmp_path, {"category": "dog"}))
    assert "they are 'dog'" in (problem.error or "")
    (image,) = read(row(tmp_path, {}))
    assert len(image.boxes or ()) == 1
