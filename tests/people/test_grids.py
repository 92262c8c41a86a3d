"""People that were annotated on the stored pixels of photos that EXIF turns."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hbr.degradation.contents import Item
from hbr.degradation.folder import DegradeSettings, degrade_files
from hbr.degradation.named_recipes import find_recipe
from hbr.image import read_photo
from hbr.image.pixels import turn_upright
from hbr.people.coco import read_people
from hbr.people.grids import UNDO, Grid, GridName, turn_box, upright_people
from hbr.people.types import People, Person, Rle
from hbr.training.config import PhotoSourceConfig
from hbr.training.crops import CropSource

BOX = (40, 8, 48, 16)  # x, y, width, height


def person(size: tuple[int, int] | None, outline: object = None) -> Person:
    points = ((42.0, 10.0, 2), (0.0, 0.0, 0), *[(60.0, 20.0, 1)] * 15)
    return Person(size, BOX, points, outline)  # type: ignore[arg-type]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["polygon", "runs"])
def test_people_turn_with_the_pixels(orientation: int, form: str) -> None:
    mask = np.zeros((60, 90), bool)
    mask[8:24, 40:88] = True
    mask[8:12, 40:60] = False
    corners = ((60.0, 8.0), (88.0, 8.0), (88.0, 24.0), (40.0, 24.0), (40.0, 12.0), (60.0, 12.0))
    outline = Rle.of_mask(mask) if form == "runs" else (corners,)
    turned = turn_upright(mask, orientation)
    (found,) = upright_people([person((90, 60), outline)], turned.shape, orientation)
    placed = found.mask()
    assert placed is not None
    assert np.array_equal(placed, turned)
    ((x0, y0, x1, y1),) = People.of([found]).boxes.astype(int).tolist()
    rows, columns = np.nonzero(turned)
    assert (x0, y0) == (columns.min(), rows.min())
    assert (x1, y1) == (columns.max() + 1, rows.max() + 1)
    assert found.keypoints is not None
    x, y, seen = found.keypoints[2]
    marked = np.zeros((60, 90), bool)
    marked[20, 60] = True
    ((row, column),) = np.argwhere(turn_upright(marked, orientation))
    # a point is a corner of its pixel: which one depends on the turn
    assert column <= x <= column + 1
    assert row <= y <= row + 1
    assert (seen, found.keypoints[1]) == (1, (0.0, 0.0, 0))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_back(orientation: int) -> None:
    size = (60, 90) if orientation > 4 else (90, 60)
    there = turn_box((4, 1, 9, 3), 90, 60, orientation)
    assert turn_box(there, *size, UNDO[orientation]) == (4, 1, 9, 3)


@pytest.mark.parametrize(
    ("size", "default", "turned"),
    [
        ((90, 60), "upright", True),  # the size says so, whatever the default
        ((180, 120), "upright", True),  # a larger copy
        ((60, 90), "stored", False),
        (None, "stored", True),
        (None, "upright", False),
        ((70, 70), "stored", False),  # of another photo: left for others to refuse
    ],
)
def test_which_grid(size: tuple[int, int] | None, default: GridName, turned: bool) -> None:
    (found,) = upright_people([person(size)], (90, 60), 6, default)
    assert (found != person(size)) is turned
    # where turning does not swap the edges, the size says nothing
    (half,) = upright_people([person((90, 60))], (60, 90), 3, default)
    assert (half != person((90, 60))) is (default == "stored")


def test_a_size_of_neither_grid() -> None:
    assert Grid((90, 60), 6).is_upright((90, 61), "stored") is None
    assert Grid((90, 60), 6).is_upright((60, 90), "stored") is True
    assert Grid((60, 60), 6).is_upright((60, 60), "upright") is True


def photo_with_person(folder: Path, size: tuple[int, int] | None, scale: int = 1) -> Path:
    """A photo of 200x100 that EXIF turns, a person in white at its right edge, and their file."""
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[:, 150:] = 255
    exif = Image.Exif()
    exif[274] = 6
    folder.mkdir()
    Image.fromarray(pixels).save(folder / "a.jpg", quality=95, exif=exif)
    image: dict[str, object] = {"id": 1, "file_name": "a.jpg"}
    if size is not None:
        image |= {"width": size[0], "height": size[1]}
    box = [150 * scale, 0, 50 * scale, 100 * scale]
    entry = {"image_id": 1, "category_id": 1, "bbox": box}
    data = {"categories": [{"id": 1, "name": "person"}], "images": [image], "annotations": [entry]}
    path = folder.with_suffix(".json")
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize(
    ("size", "scale"), [((200, 100), 1), ((400, 200), 2), (None, 1)], ids=["same", "copy", "silent"]
)
def test_crops_are_placed_on_people_of_turned_photos(
    tmp_path: Path, size: tuple[int, int] | None, scale: int
) -> None:
    boxes = photo_with_person(tmp_path / "photos", size, scale)
    config = PhotoSourceConfig(photos=tmp_path / "photos", boxes=boxes)
    source = CropSource(config, with_people=True)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        crop = source.crop(32, 1.0, generator, mirror=False)
        # the person takes the lower quarter of the upright photo, as wide as it is
        assert int(crop.pixels[0, 16, 16]) > 128
        regions = source.regions(crop)
        assert regions is not None
        inside = regions.outlines.any(dim=0)
        assert (crop.pixels[0][inside] > 128).all()
    upright = CropSource(
        PhotoSourceConfig(photos=tmp_path / "photos", boxes=boxes, boxes_grid="upright")
    )
    crop = upright.crop(32, 1.0, generator, mirror=False)
    # only where no size is stated, the option decides, here wrongly
    assert (int(crop.pixels[0, 16, 16]) > 128) is (size is not None)


def test_motion_blur_falls_on_people_of_turned_photos(tmp_path: Path) -> None:
    path = photo_with_person(tmp_path / "photos", (200, 100))
    people = read_people(path)["a.jpg"]
    source = tmp_path / "photos" / "a.jpg"
    assert read_photo(source).orientation == 6
    recipe = find_recipe("motion-blur")
    found = []
    for with_people in (people, ()):
        target = tmp_path / f"{len(found)}.png"
        item = Item(source=source, target=target, name="a.png", hq="a.jpg", people=with_people)
        settings = DegradeSettings(recipe=recipe, recipe_name="motion-blur")
        (done,) = degrade_files([item], settings)
        assert done.row is not None
        assert done.row.error is None
        found.append(target.read_bytes())
    assert found[0] != found[1]
