"""Who is in a photo: detectors that err, files of boxes, boxes that are outside."""

import json

import numpy as np
import pytest

from hbr.image import Photo, read_photo, write_photo
from hbr.people.types import People
from hbr.restoration.people.locating import MOST_PEOPLE, PeopleLocator
from hbr.restoration.settings import PeopleChoice


@pytest.fixture
def photo(tmp_path):
    """A photo of a file, 120 pixels wide and 80 high."""
    pixels = np.random.default_rng(0).integers(0, 255, (80, 120, 3), np.uint8)
    return read_photo(write_photo(Photo.from_array(pixels), tmp_path / "group.png"))


def found_by(boxes, scores=None, masks=None):
    """A locator whose detector gives these."""
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    scores = np.ones(len(boxes)) if scores is None else np.array(scores)
    return PeopleLocator(lambda images: [People(boxes, scores, None, masks) for _ in images])


def boxes_of(people):
    return [tuple(round(edge, 3) for edge in person.box) for person in people]


def test_people_are_numbered_from_left_to_right(photo):
    locate = found_by([[60, 10, 90, 70], [5, 20, 30, 60], [100, 0, 119, 30]], [0.5, 0.9, 0.7])
    people, source = locate(photo, PeopleChoice())
    assert [person.number for person in people] == [1, 2, 3]
    assert [person.score for person in people] == [0.9, 0.5, 0.7]
    assert source == "auto"


def test_a_detector_that_gives_no_numbers_or_nothing_inside(photo, caplog):
    nan, far = [np.nan, 1, 2, 3], [500, 500, 600, 600]
    locate = found_by([nan, [1, 2, np.inf, 4], far, [10, 10, 10, 30], [-5, -5, 40, 50]])
    people, _ = locate(photo, PeopleChoice())
    assert boxes_of(people) == [(0, 0, 40, 50)]
    assert caplog.messages == ["boxes of the detector are not finite, and left out: 2"]
    people, _ = found_by([[10, 10, 40, 50]], [np.nan])(photo, PeopleChoice())
    assert people == ()


def test_a_detector_that_gives_ten_thousand_boxes(photo, caplog):
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 70, (10_000, 2))
    boxes = np.hstack([corner, corner + rng.uniform(2, 9, (10_000, 2))])
    people, _ = found_by(boxes, rng.uniform(0, 1, 10_000))(photo, PeopleChoice())
    assert len(people) == MOST_PEOPLE
    assert [person.number for person in people] == list(range(1, MOST_PEOPLE + 1))
    assert any("gives 10000 boxes" in line for line in caplog.messages)
    assert any(f"the {MOST_PEOPLE} largest" in line for line in caplog.messages)


def test_the_same_person_found_twice_is_one(photo):
    locate = found_by([[10, 10, 40, 70], [11, 10, 41, 71], [30, 10, 60, 70]], [0.6, 0.9, 0.5])
    people, _ = locate(photo, PeopleChoice())
    assert boxes_of(people) == [(11, 10, 41, 71), (30, 10, 60, 70)]


def test_masks_are_kept_where_the_person_is(photo):
    masks = np.zeros((2, 80, 120), bool)
    masks[0, 20:40, 15:30] = True
    people, _ = found_by([[10, 10, 40, 50], [60, 5, 90, 60]], masks=masks)(photo, PeopleChoice())
    assert people[0].mask.shape == (40, 30)
    assert people[0].mask.sum() == 300
    assert people[1].mask is None


def test_boxes_that_are_given(photo):
    boxes = ((100.0, 10.0, 50.0, 30.0), (5.0, 5.0, 10.0, 20.0))
    people, source = PeopleLocator()(photo, PeopleChoice(boxes=boxes))
    assert boxes_of(people) == [(100, 10, 120, 40), (5, 5, 15, 25)]
    assert [person.number for person in people] == [1, 2]
    assert source == "boxes given"
    for outside in ((120.0, 0.0, 10.0, 10.0), (-20.0, 5.0, 20.0, 5.0), (0.0, 80.0, 9.0, 9.0)):
        with pytest.raises(ValueError, match=r"is outside the photo of 120×80 pixels"):
            PeopleLocator()(photo, PeopleChoice(boxes=(outside,)))


def test_somebody_who_is_not_there(photo):
    locate = found_by([[10, 10, 40, 70], [60, 10, 90, 70]])
    message = r"person 3 is not there: 2 found, numbered from 1, left to right"
    for choice in (PeopleChoice(persons=(1, 3)), PeopleChoice(fidelity=((3, 0.5),))):
        with pytest.raises(ValueError, match=message):
            locate(photo, choice)
    with pytest.raises(ValueError, match=r"person 1 is not there: nobody was found"):
        found_by([])(photo, PeopleChoice(persons=(1,)))


def coco(path, name="group.png", size=(120, 80), boxes=((10, 20, 30, 40),), **more):
    annotations = [
        {"id": i, "image_id": 1, "category_id": 1, "bbox": list(box), "iscrowd": 0, **more}
        for i, box in enumerate(boxes, 1)
    ]
    content = {
        "images": [{"id": 1, "file_name": name, "width": size[0], "height": size[1]}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person"}],
    }
    path.write_text(json.dumps(content))
    return PeopleChoice(source=str(path))


def test_a_file_of_coco_says_who_is_in_a_photo(photo, tmp_path):
    outline = [[10, 20, 40, 20, 40, 60]]
    choice = coco(tmp_path / "people.json", boxes=[(60, 5, 20, 30), (10, 20, 30, 40)])
    people, source = PeopleLocator()(photo, choice)
    assert boxes_of(people) == [(10, 20, 40, 60), (60, 5, 80, 35)]
    assert source == "people.json"
    choice = coco(tmp_path / "outlines.json", segmentation=outline)
    (person,) = PeopleLocator()(photo, choice)[0]
    assert person.mask.shape == (40, 30)
    assert 0.4 < person.mask.mean() < 0.6
    # annotated on a copy of half the size
    choice = coco(tmp_path / "half.json", size=(60, 40), boxes=[(5, 10, 15, 20)])
    assert boxes_of(PeopleLocator()(photo, choice)[0]) == [(10, 20, 40, 60)]


def test_boxes_on_the_pixels_of_a_photo_that_exif_turns(tmp_path):
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 255, (80, 120, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "group.jpg", exif=exif)
    photo = read_photo(tmp_path / "group.jpg")
    assert photo.size == (120, 80)
    choice = coco(tmp_path / "people.json", name="group.jpg", boxes=[(10, 20, 30, 40)])
    assert boxes_of(PeopleLocator()(photo, choice)[0]) == [(20, 10, 60, 40)]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"name": "other.png"}, r"people\.json has no photo called group\.png"),
        ({"size": (500, 100)}, r"of another photo under the name group\.png: of 500×100 pixels"),
        ({"boxes": [(200, 20, 30, 40)]}, r"has people of another photo under the name group\.png"),
    ],
)
def test_a_file_of_another_photo(photo, tmp_path, more, message):
    choice = coco(tmp_path / "people.json", **more)
    with pytest.raises(ValueError, match=message) as caught:
        PeopleLocator()(photo, choice)
    assert "\n" not in str(caught.value)


def test_files_that_are_none(photo, tmp_path):
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match=r"bad\.json is not a COCO file"):
        PeopleLocator()(photo, PeopleChoice(source=str(tmp_path / "bad.json")))
    with pytest.raises(ValueError, match=r"missing\.txt: No such file"):
        PeopleLocator()(photo, PeopleChoice(source=str(tmp_path / "missing.txt")))
    in_memory = Photo.from_array(photo.pixels)
    with pytest.raises(ValueError, match="the photo has no name"):
        PeopleLocator()(in_memory, coco(tmp_path / "people.json"))


def test_files_of_yolo(photo, tmp_path):
    (tmp_path / "group.txt").write_text("0 0.5 0.5 0.25 0.5 0.9\n2 0.1 0.1 0.1 0.1 0.8\n")
    for source in (tmp_path / "group.txt", tmp_path):
        (person,), _ = PeopleLocator()(photo, PeopleChoice(source=str(source)))
        assert person.box == (45, 20, 75, 60)
        assert person.score == 0.9
    (tmp_path / "group.txt").write_text("0 0.5 0.5 0.25\n")
    with pytest.raises(ValueError, match=r"group\.txt, line 1: "):
        PeopleLocator()(photo, PeopleChoice(source=str(tmp_path)))
    (tmp_path / "group.txt").rename(tmp_path / "another.txt")
    with pytest.raises(ValueError, match=r"group\.txt: No such file"):
        PeopleLocator()(photo, PeopleChoice(source=str(tmp_path)))
