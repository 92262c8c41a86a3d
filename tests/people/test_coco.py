"""COCO's boxes, key points and outlines, against its own areas and brute force."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hbr.config import ConfigError, from_dict, to_dict
from hbr.people.coco import read_people
from hbr.people.types import People, Person, Rle, fill


def text_from_runs(runs: list[int]) -> str:
    """COCO's compression, written from its description, for the way back."""
    out = ""
    for place, run in enumerate(runs):
        value = run - (runs[place - 2] if place > 2 else 0)
        more = True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            out += chr(48 + (bits | 32 if more else bits))
    return out


def test_shared_photos(shared: Path) -> None:
    path = shared / "photos" / "coco-cc" / "instances.json"
    data = json.loads(path.read_text("utf-8"))
    sizes = {i["id"]: (i["file_name"], i["height"], i["width"]) for i in data["images"]}
    people = read_people(path)
    assert people.warning is None
    assert len(people) == 276
    assert list(people) == [i["file_name"] for i in data["images"]]
    off = []
    for entry in data["annotations"]:
        name, height, width = sizes[entry["image_id"]]
        found = People.of(people[name])
        assert len(found) == 1
        assert (
            from_dict(Person, json.loads(json.dumps(to_dict(people[name][0])))) == people[name][0]
        )
        x, y, w, h = entry["bbox"]
        np.testing.assert_allclose(found.boxes, [[x, y, x + w, y + h]])
        assert found.keypoints is not None
        assert found.keypoints.reshape(-1).tolist() == entry["keypoints"]
        assert int((found.keypoints[0, :, 2] > 0).sum()) == entry["num_keypoints"]
        assert found.masks is not None
        assert found.masks.shape == (1, height, width)
        rows, columns = np.nonzero(found.masks[0])
        assert columns.min() + 0.5 > x - 1
        assert columns.max() + 0.5 < x + w + 1
        assert rows.min() + 0.5 > y - 1
        assert rows.max() + 0.5 < y + h + 1
        if entry["area"] > 1000:
            off.append(found.masks.sum() / entry["area"] - 1)
    # `area` is that of the outlines; pixels by their centres come within 1 % of it
    assert len(off) > 200
    assert abs(np.median(off)) < 0.001
    assert np.abs(off).max() < 0.01


def test_outlines_by_brute_force() -> None:
    rng = np.random.default_rng(3)
    for _ in range(60):
        outline = rng.uniform(-3, 15, size=(rng.integers(3, 9), 2)).round(1)
        brute = np.zeros((10, 12), bool)
        for row, column in np.ndindex(10, 12):
            x, y = column + 0.5, row + 0.5
            inside = False
            for (x0, y0), (x1, y1) in zip(outline, np.roll(outline, -1, 0), strict=True):
                if (y0 <= y) != (y1 <= y) and x >= x0 + (y - y0) * (x1 - x0) / (y1 - y0):
                    inside = not inside
            brute[row, column] = inside
        np.testing.assert_array_equal(fill(outline, 10, 12), brute)


def test_run_lengths() -> None:
    mask = np.random.default_rng(5).random((7, 9)) < 0.3
    column_wise = mask.T.reshape(-1)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], column_wise]).astype(int)))
    runs = np.diff([0, *edges, mask.size]).tolist()
    np.testing.assert_array_equal(Rle((7, 9), tuple(runs)).mask(), mask)
    for numbers in (runs, [0, 63], [5, 100000, 3, 99999, 4, 1, 2000000]):
        size = (1, sum(numbers))
        assert Rle.from_text(size, text_from_runs(numbers)).counts == tuple(numbers)
    # 63 pixels of 0: one character and a half of 5 bits, the sixth says that more follow
    assert text_from_runs([63]) == "o1"
    with pytest.raises(ConfigError, match="counts is 62; it must be runs that fill 7x9"):
        Rle((7, 9), (62,))


def test_compressed_runs() -> None:
    """Made by hand: 5 → "5"; 100 = 4 + 32·3 → "T3"; −3 → "M" (29 = −3 mod 32, sign bit set)."""
    assert Rle.from_text((1, 105), "5T3").counts == (5, 100)
    # from the fourth run on: differences to the last but one
    assert Rle.from_text((1, 206), "5T34M").counts == (5, 100, 4, 97)
    with pytest.raises(ConfigError, match="counts"):
        Rle.from_text((1, 1), "\n")


ENTRY = {"image_id": 1, "bbox": [1, 2, 3, 4], "category_id": 1}


def coco(*annotations: object, **more: object) -> dict[str, object]:
    """Two photos, a person and a dog."""
    return {
        "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}],
        "images": [
            {"id": 1, "file_name": "a.jpg", "width": 9, "height": 7},
            {"id": 2, "file_name": "b.jpg"},
        ],
        "annotations": list(annotations),
        **more,
    }


def test_crowds_other_classes_and_nobody(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(coco(ENTRY, ENTRY | {"iscrowd": 1}, ENTRY | {"category_id": 2})))
    people = read_people(path)
    found = People.of(people["a.jpg"])
    assert found.boxes.tolist() == [[1, 2, 4, 6]]
    assert (found.keypoints, found.masks) == (None, None)
    assert (len(people["b.jpg"]), len(People.of(people["b.jpg"]))) == (0, 0)
    assert people.warning is None
    assert People.of(read_people(path, labels=["dog"])["a.jpg"]).scores.tolist() == [1]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (json.dumps(coco(ENTRY))[:-5], "is not a COCO file: the file ends in the middle"),
        ("[]", "is not a COCO file: '{' was expected"),
        ("{}", "has no images and no annotations"),
        (json.dumps(coco(ENTRY, categories=[])), "no category that is called person"),
        ("\x89PNG", "is not a COCO file"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=match) as raised:
        read_people(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    with pytest.raises(ConfigError, match="No such file"):
        read_people(tmp_path / "no.json")


NOT_OUTLINES = "has an outline that is neither polygons nor a mask of the image's size"
NOT_KEY_POINTS = "has key points that are not 17 times x, y, visibility"


@pytest.mark.parametrize(
    ("change", "people", "reason"),
    [
        ({"bbox": [1, 2]}, 1, "lacks an image_id or a bbox of 4 numbers"),
        ({"bbox": [1, 2, 0, 4]}, 1, "has a box without area"),
        ({"bbox": [9.98, 88.56, 5.54, 0.0]}, 1, "has a box without area"),
        ({"bbox": [1, float("nan"), 3, 4]}, 1, "has a box that is not finite"),
        ({"bbox": ["x", 2, 3, 4]}, 1, "has a box that is not finite"),
        ({"image_id": 9}, 1, "belongs to an image that is not listed"),
        ({"image_id": None}, 1, "lacks an image_id or a bbox of 4 numbers"),
        ({"keypoints": [1, 2, 2]}, 2, NOT_KEY_POINTS),
        ({"keypoints": [float("nan"), 2, 2] * 17}, 2, NOT_KEY_POINTS),
        ({"segmentation": {"size": [7, 9], "counts": "o" * 60 + "0"}}, 2, NOT_OUTLINES),
        ({"segmentation": {"size": [7, 9], "counts": [5, 6]}}, 2, NOT_OUTLINES),
        ({"segmentation": {"size": [9, 7], "counts": [63]}}, 2, NOT_OUTLINES),
        ({"segmentation": [[0, 0, float("nan"), 5, 3, 3]]}, 2, NOT_OUTLINES),
        ({"segmentation": [[0, 0, 1e300, 5, 3, 3]]}, 2, NOT_OUTLINES),
        ({"segmentation": [[0, 0, 1]]}, 2, NOT_OUTLINES),
    ],
)
def test_an_entry_that_cannot_be_used_costs_only_itself(
    tmp_path: Path, change: dict[str, object], people: int, reason: str
) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(coco(ENTRY, ENTRY | change, ENTRY | change)))
    found = read_people(path)
    # those with a part that cannot be used stay, without that part
    assert len(found["a.jpg"]) == 1 + 2 * (people - 1)
    assert all(p.keypoints is None and p.outline is None for p in found["a.jpg"])
    assert found.skipped == {reason: ["annotations[1]", "annotations[2]"]}
    assert found.warning == f"{path}: 2 entries skipped: annotations[1] {reason} (and 1 more)"


def test_images_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}, {"id": 3}, 5]
    path.write_text(json.dumps(coco(ENTRY, images=images)))
    found = read_people(path)
    assert list(found) == ["a.jpg"]
    assert found["a.jpg"][0].image_size is None
    assert found.warning is not None
    assert found.warning.startswith(f"{path}: 3 entries skipped: images[")


@pytest.mark.parametrize(
    "write",
    [
        lambda data: "\ufeff" + json.dumps(data),
        lambda data: json.dumps(dict(reversed(data.items()))),
        lambda data: json.dumps(data | {"categories": [{"id": 1, "name": " PERSON"}]}),
        lambda data: json.dumps(data).replace('"image_id": 1', '"image_id": "1"'),
        lambda data: json.dumps(data).replace('"image_id": 1', '"image_id": 1.0'),
    ],
    ids=["byte order mark", "any order", "letter case", "id as text", "id as float"],
)
def test_forms_that_files_come_in(tmp_path: Path, write: Callable[[object], str]) -> None:
    path = tmp_path / "x.json"
    path.write_text(write(coco(ENTRY)), encoding="utf-8")
    found = read_people(path)
    assert [person.box for person in found["a.jpg"]] == [(1, 2, 3, 4)]
    assert found.warning is None


def test_an_image_that_is_listed_twice_has_the_people_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "a.jpg"}]
    path.write_text(json.dumps(coco(ENTRY, ENTRY | {"image_id": 2}, images=images)))
    found = read_people(path)
    assert len(found["a.jpg"]) == 1
    assert found.skipped == {
        "has the file name of another image": ["images[1]"],
        "belongs to an image that is not listed": ["annotations[1]"],
    }


@pytest.mark.parametrize("value", ["0", "false", 0.0, False, float("nan"), None])
def test_crowds_by_any_flag(tmp_path: Path, value: object) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(coco(ENTRY | {"iscrowd": value}, ENTRY | {"iscrowd": "maybe"})))
    found = read_people(path)
    assert len(found["a.jpg"]) == 1
    assert found.skipped == {"has the iscrowd 'maybe', not 0 or 1": ["annotations[1]"]}


def test_clashes_of_names_are_said(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    names = ["x/a.jpg", "y/a.jpg", "b.jpg", "/data/me/c/d.jpg", "22.05", "e.jpg"]
    images = [{"id": i, "file_name": name} for i, name in enumerate(names)]
    entries = [ENTRY | {"image_id": i, "bbox": [i, 0, 1, 1]} for i in range(len(names))]
    path.write_text(json.dumps(coco(*entries, images=images)))
    found = read_people(path)
    photos = [
        "a.jpg",
        "p/b.jpg",
        "q/b.jpg",
        "c/d.jpg",
        "22.05.jpg",
        "22.06.jpg",
        "e.jpg",
        "z/e.jpg",
    ]
    people, clashes = found.match(photos)
    assert {name: int(found[0].box[0]) for name, found in people.items()} == {
        "c/d.jpg": 3,
        "22.05.jpg": 4,
        "e.jpg": 5,
    }
    assert clashes == [
        f"{path}: x/a.jpg and y/a.jpg both may be a.jpg; name the folder, too",
        f"{path}: b.jpg may be p/b.jpg and q/b.jpg; name the folder, too",
        f"{path}: e.jpg may be e.jpg and z/e.jpg; name the folder, too",
    ]
    assert found.find("a.jpg") is None


def test_photos_are_found_by_the_end_of_their_path(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    names = ["a.jpg", "x/b.jpg", "y/b.jpg", "val2017\\c.jpg", "22.05.jpg", "22.06.jpg"]
    images = [{"id": i, "file_name": name} for i, name in enumerate(names)]
    entries = [ENTRY | {"image_id": i, "bbox": [i, 0, 1, 1]} for i in range(len(names))]
    path.write_text(json.dumps(coco(*entries, images=images)))
    found = read_people(path)

    def number(place: str, **how: bool) -> float | None:
        people = found.find(place, **how)
        return None if people is None else people[0].box[0]

    assert [number(name) for name in names] == [0, 1, 2, 3, 4, 5]
    assert (number("sub/a.jpg"), number("c.jpg"), number("z/x/b.jpg")) == (0, 3, 1)
    # "b.jpg" could be either; "z/b.jpg" is neither
    assert [number(n) for n in ("b.jpg", "z/b.jpg", "z/c.jpg", "d.jpg", "a.png")] == [None] * 5
    assert (number("a.png", any_suffix=True), number("22.06.png", any_suffix=True)) == (0, 5)


def test_people_fit_together() -> None:
    assert len(People.none()) == 0
    with pytest.raises(ValueError, match=r"scores is \(3,\); it must be \(2,\)"):
        People(np.zeros((2, 4)), np.zeros(3))
    with pytest.raises(ValueError, match="masks"):
        People(np.zeros((2, 4)), np.zeros(2), masks=np.zeros((1, 5, 5), bool))
