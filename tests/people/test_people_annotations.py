"""COCO's boxes, key points and outlines, against its own areas and brute force."""

import json
from pathlib import Path

import numpy as np
import pytest

from hbr.people import DetectorError, People, people_from_coco
from hbr.people.annotations import fill, mask_from_coco, mask_from_runs, runs_from_text


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
    people = people_from_coco(path)
    assert len(people) == 276
    assert list(people) == [i["file_name"] for i in data["images"]]
    off = []
    for entry in data["annotations"]:
        name, height, width = sizes[entry["image_id"]]
        found = people[name]
        assert len(found) == 1
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
    np.testing.assert_array_equal(mask_from_runs(runs, 7, 9), mask)
    for numbers in (runs, [0, 63], [5, 100000, 3, 99999, 4, 1, 2000000]):
        assert runs_from_text(text_from_runs(numbers)) == numbers
    # 63 pixels of 0: one character and a half of 5 bits, the sixth says that more follow
    assert text_from_runs([63]) == "o1"
    for counts in (runs, text_from_runs(runs)):
        np.testing.assert_array_equal(
            mask_from_coco({"size": [7, 9], "counts": counts}, 7, 9), mask
        )
    with pytest.raises(ValueError, match="RLE of 62 pixels; it must be 63"):
        mask_from_runs([62], 7, 9)
    with pytest.raises(ValueError, match="size"):
        mask_from_coco({"size": [9, 7], "counts": runs}, 7, 9)


def test_crowds_other_classes_and_nobody(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    entry = {"image_id": 1, "bbox": [1, 2, 3, 4], "category_id": 1}
    data = {
        "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}],
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
        "annotations": [entry, entry | {"iscrowd": 1}, entry | {"category_id": 2}],
    }
    path.write_text(json.dumps(data))
    people = people_from_coco(path)
    assert people["a.jpg"].boxes.tolist() == [[1, 2, 4, 6]]
    assert (people["a.jpg"].keypoints, people["a.jpg"].masks) == (None, None)
    assert len(people["b.jpg"]) == 0
    assert people_from_coco(path, labels=["dog"])["a.jpg"].scores.tolist() == [1]
    for text, match in (
        (json.dumps(data)[:-5], "is no JSON"),
        ("[]", "not in COCO's format"),
        (json.dumps(data | {"annotations": [entry | {"image_id": 9}]}), "not in COCO's format"),
    ):
        path.write_text(text)
        with pytest.raises(DetectorError, match=match):
            people_from_coco(path)
    with pytest.raises(DetectorError, match="No such file"):
        people_from_coco(tmp_path / "no.json")
    data["images"][0] |= {"width": 9, "height": 9}  # type: ignore[operator]
    for wrong in (
        {"bbox": [1, 2]},
        {"segmentation": {"size": [9, 9], "counts": "o" * 60 + "0"}},
        {"segmentation": [[0, 0, float("nan"), 5, 3, 3]]},
        {"segmentation": [[0, 0, 1e300, 5, 3, 3]]},
        {"segmentation": [[0, 0, 1]]},
    ):
        path.write_text(json.dumps(data | {"annotations": [entry | wrong]}))
        with pytest.raises(DetectorError, match=r"a\.jpg"):
            people_from_coco(path)["a.jpg"]


def test_people_fit_together() -> None:
    assert len(People.none()) == 0
    with pytest.raises(ValueError, match=r"scores is \(3,\); it must be \(2,\)"):
        People(np.zeros((2, 4)), np.zeros(3))
    with pytest.raises(ValueError, match="masks"):
        People(np.zeros((2, 4)), np.zeros(2), masks=np.zeros((1, 5, 5), bool))
