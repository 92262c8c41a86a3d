"""People restored for themselves, on composites whose truth is known."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import nn

import toy_diffbody
import toy_models
from hbr.errors import HbrError
from hbr.image import Photo, read_photo
from hbr.models import Capabilities, save_checkpoint
from hbr.models.fidelity import write_two_ends
from hbr.models.kinds import build_model
from hbr.models.protocol import ColorFix, Sampling
from hbr.people.types import DetectorError, People
from hbr.restoration import Restorer
from hbr.restoration.people.locating import LocatedPerson, PeopleLocator
from hbr.restoration.people.pasting import around, box_mask
from hbr.restoration.people.restoring import square_around
from hbr.restoration.settings import PeopleChoice, RestoreSettings

NATIVE = 64
SIZE = (300, 400)


class Stretch(nn.Module):
    """Undoes `damaged`, pixel by pixel, and remembers what it saw; `grid` adds a fine pattern."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(
        self,
        *,
        person_crops: bool = True,
        contrast: float = 2,
        grid: float = 0,
        color: ColorFix = "none",
        **more: object,
    ) -> None:
        super().__init__()
        self.capabilities = Capabilities(
            multiple_of=8,
            min_size=16,
            native_size=NATIVE,
            dtypes=("float32",),
            person_crops=person_crops,
            color=color,
            **more,
        )
        self.contrast, self.grid = contrast, grid
        self.calls: list[tuple[int, ...]] = []

    def restore(self, tiles: torch.Tensor, places: object, conditions: object) -> torch.Tensor:
        self.calls.append(tuple(tiles.shape))
        h, w = tiles.shape[-2:]
        sign = torch.ones(h, w)
        sign[::2, ::2] = sign[1::2, 1::2] = -1
        return self.contrast * (tiles - 0.5) + 0.5 + self.grid * sign


def truth(height: int = SIZE[0], width: int = SIZE[1]) -> np.ndarray:
    """A smooth scene, so that enlarging and making smaller loses little, [h, w, 3] in [0, 1]."""
    y, x = np.mgrid[:height, :width]
    planes = [np.sin(x / 19) * np.cos(y / 21), np.cos(x / 17 + y / 23), np.sin((x - y) / 20)]
    return (0.5 + 0.3 * np.stack(planes, -1)).astype(np.float32)


def damaged(pixels: np.ndarray) -> np.ndarray:
    return 0.5 * pixels + 0.25


def error(restored: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference, in [0, 1]."""
    return float(np.abs(restored.astype(np.float64) / 65535 - wanted).max())


def asked(*boxes: tuple[float, float, float, float], **more: object) -> PeopleChoice:
    return PeopleChoice(boxes=boxes, **more)


def masked(boxes, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Where anyone is pasted, bool [h, w]."""
    height, width = size
    whole = (0, 0, width, height)
    masks = [box_mask((x, y, x + w, y + h), whole, size) for x, y, w, h in boxes]
    return np.max(masks, axis=0) > 0


LAYOUTS = {
    "one": [(120, 80, 30, 44)],
    "two that overlap": [(100, 80, 40, 44), (120, 90, 40, 40)],
    "one inside another": [(100, 80, 40, 46), (112, 90, 14, 16)],
    "cut by each edge": [(0, 50, 20, 40), (380, 60, 20, 44), (200, 0, 40, 20), (150, 280, 30, 20)],
    "in a corner": [(0, 0, 30, 40), (370, 260, 30, 40)],
    "forty small ones": [(8 + 38 * (i % 10), 10 + 70 * (i // 10), 12, 22) for i in range(40)],
}


@pytest.mark.parametrize("boxes", LAYOUTS.values(), ids=LAYOUTS)
def test_everyone_is_put_back_where_they_were(boxes):
    restorer = Restorer(Stretch())
    photo = damaged(truth())
    off = restorer(photo).pixels
    restorer.model.calls.clear()
    both = restorer(photo, people="auto", choice=asked(*boxes), batch=8)
    crops = [n for n, _, h, w in restorer.model.calls if (h, w) == (NATIVE, NATIVE)]
    assert sum(crops) == len(boxes)
    assert len(crops) == -(-len(boxes) // 8)
    assert error(both.pixels, truth()) < 0.01
    where = masked(boxes)
    np.testing.assert_array_equal(both.pixels[~where], off[~where])
    only = restorer(photo, people="only", choice=asked(*boxes))
    given = np.rint(photo.astype(np.float64) * 65535)
    assert (np.abs(only.pixels[~where] - given[~where]) <= 1).all()


def test_who_is_larger_than_the_native_size_is_never_made_smaller():
    restorer = Restorer(Stretch(contrast=1, grid=0.1))
    photo = truth(500, 500)
    box = (20, 30, 400, 440)
    both = restorer(photo, people="auto", choice=asked(box))
    assert both.people[0]["done"] == "background"
    np.testing.assert_array_equal(both.pixels, restorer(photo).pixels)
    restorer.model.calls.clear()
    only = restorer(photo, people="only", choice=asked(box))
    assert only.people[0]["done"] == "tiles"
    assert sum(n * h * w for n, _, h, w in restorer.model.calls) >= 440 * 400
    assert pattern(only.pixels, (40, 50, 360, 400)) == pytest.approx(0.1, abs=0.005)
    assert pattern(only.pixels, (480, 0, 20, 500)) < 0.001


def test_nobody():
    restorer = Restorer(Stretch())
    restorer.locator = PeopleLocator(lambda images: [People.none() for _ in images])
    photo = Photo.from_array(damaged(truth()), bits=16)
    both = restorer(photo, people="auto")
    np.testing.assert_array_equal(both.pixels, restorer(photo).pixels)
    assert both.people == ()
    restorer.model.calls.clear()
    only = restorer(photo, people="only")
    assert only.photo is photo
    assert restorer.model.calls == []
    assert only.provenance["people"]["found"] == ()


def test_a_model_of_any_size_gives_the_same_with_people_as_without():
    restorer = Restorer(Stretch(person_crops=False))
    photo = damaged(truth())
    both = restorer(photo, people="auto", choice=asked(*LAYOUTS["forty small ones"]))
    np.testing.assert_array_equal(both.pixels, restorer(photo).pixels)
    assert {person["done"] for person in both.people} == {"background"}


def with_ends(**more):
    """A restorer with two ends, whose sharp one shows by a pattern of the pixels."""
    restorer = Restorer(Stretch(person_crops=False, **more), fidelity=1.0)
    restorer._again = lambda fidelity: Restorer(
        Stretch(person_crops=False, grid=0.1 * (1 - fidelity)), fidelity=fidelity
    )
    return restorer


def pattern(pixels: np.ndarray, box: tuple[int, int, int, int]) -> float:
    """How strong the pattern is inside a box."""
    x, y, w, h = box
    part = pixels[y : y + h, x : x + w].astype(np.float64) / 65535
    rows, columns = np.mgrid[y : y + h, x : x + w]
    sign = np.where((rows + columns) % 2, 1.0, -1.0)
    return abs(float(((part - part.mean()).mean(2) * sign).mean()))


def test_fidelity_of_single_people_and_nobody_is_swapped():
    boxes = [(40, 60, 40, 60), (160, 60, 40, 60), (280, 60, 40, 60)]
    choice = asked(*boxes, fidelity=((1, 0.0), (3, 0.5)))
    restored = with_ends()(damaged(truth()), people="auto", choice=choice)
    hearts = [(x + 8, y + 8, w - 16, h - 16) for x, y, w, h in boxes]
    strengths = [pattern(restored.pixels, heart) for heart in hearts]
    assert strengths == pytest.approx([0.1, 0.0, 0.05], abs=0.005)
    assert [person["fidelity"] for person in restored.people] == [0.0, None, 0.5]
    assert [person["done"] for person in restored.people] == ["tiles", "background", "tiles"]


def test_of_people_with_outlines_everyone_has_their_own_pixels():
    """Two people share a square along its diagonal."""
    rows, columns = np.mgrid[:60, :60]
    outlines = [rows > columns, rows <= columns]
    box = (100.0, 100.0, 160.0, 160.0)
    pair = [LocatedPerson(number=0, box=box, score=1.0, mask=mask) for mask in outlines]
    restorer = with_ends()
    restorer.locator = PeopleLocator(lambda images: [])
    restorer.locator._sources["auto"] = lambda photo: pair
    choice = PeopleChoice(fidelity=((1, 0.0),))
    restored = restorer(damaged(truth()), people="auto", choice=choice)
    assert pattern(restored.pixels, (106, 140, 14, 14)) == pytest.approx(0.1, abs=0.01)
    assert pattern(restored.pixels, (140, 106, 14, 14)) == pytest.approx(0.0, abs=0.01)
    assert all(person["outline"] for person in restored.people)


def test_outlines_by_a_segmentation():
    """Of a box, the left half is the person's."""

    def left_half(image: np.ndarray) -> np.ndarray:
        mask = np.zeros(image.shape[:2], np.float32)
        mask[:, : image.shape[1] // 2] = 0.9
        return mask

    restorer = with_ends()
    restorer.locator._segmenters["halves"] = left_half
    choice = asked((100, 80, 80, 80), fidelity=((1, 0.0),), outlines="halves")
    restored = restorer(damaged(truth()), people="auto", choice=choice)
    assert pattern(restored.pixels, (104, 90, 28, 60)) == pytest.approx(0.1, abs=0.01)
    assert pattern(restored.pixels, (156, 90, 20, 60)) < 0.01
    assert restored.people[0]["outline"] is True
    assert restored.provenance["people"]["outlines"] == "halves"
    assert restored.settings.choice.outlines == "halves"
    auto = dataclasses.replace(choice, outlines="auto")
    boxes = restorer(damaged(truth()), people="auto", choice=auto)
    assert boxes.people[0]["outline"] is False
    assert boxes.settings.choice.outlines == "none"
    missing = dataclasses.replace(choice, outlines="selfie-segmentation")
    with pytest.raises(HbrError, match="hbr fetch"):
        restorer(damaged(truth()), people="auto", choice=missing)


def test_single_people_are_chosen():
    boxes = [(40, 60, 30, 40), (160, 60, 30, 40), (280, 60, 30, 40)]
    photo = damaged(truth())
    restorer = Restorer(Stretch())
    restored = restorer(photo, people="only", choice=asked(*boxes, persons=(1, 3)))
    assert [person["done"] for person in restored.people] == ["crop", "background", "crop"]
    change = np.abs(restored.pixels / 65535.0 - photo).max(2)
    inside = [change[y : y + h, x : x + w].max() for x, y, w, h in boxes]
    assert inside[1] < 2 / 65535
    assert min(inside[0], inside[2]) > 0.05


def test_another_model_restores_the_background():
    boxes = [(120, 80, 30, 44)]
    photo = damaged(truth())
    restorer = Restorer(Stretch(), name="mine")
    other = Restorer(Stretch(person_crops=False, grid=0.1), name="other")
    restorer._siblings["other", None] = other
    restored = restorer(photo, people="auto", choice=asked(*boxes, background="other"))
    where = masked(boxes)
    np.testing.assert_array_equal(restored.pixels[~where], other(photo).pixels[~where])
    assert pattern(restored.pixels, (128, 90, 14, 24)) < 0.01
    assert restored.provenance["people"]["background"] == "other"
    assert restored.provenance["model"] == "mine"


def test_each_model_has_its_own_colours_and_has_them_again():
    photo = damaged(truth())
    restorer = Restorer(Stretch(color="wavelet"))
    restorer._siblings["other", None] = Restorer(Stretch(color="none"), name="other")
    choice = asked((120, 80, 30, 44), background="other")
    first = restorer(photo, people="auto", choice=choice)
    fixed = restorer(photo, people="auto", choice=choice, color="wavelet")
    assert (first.pixels != fixed.pixels).any()
    np.testing.assert_array_equal(restorer(photo, first.settings).pixels, first.pixels)
    alone = restorer(photo, people="auto", choice=asked((120, 80, 30, 44)))
    assert (first.settings.color, alone.settings.color) == ("auto", "wavelet")


def test_colours_are_those_of_the_surroundings():
    """A model that tints shows as no step, where the background is left as it is."""

    class Tint(Stretch):
        def restore(self, tiles, places, conditions):
            return tiles + torch.tensor([0.1, -0.05, 0.08]).view(1, 3, 1, 1)

    photo = truth()
    box = (150, 100, 60, 90)
    restored = Restorer(Tint())(photo, people="only", choice=asked(box))
    change = restored.pixels / 65535.0 - photo
    assert np.abs(change).max() < 0.02


@pytest.mark.parametrize("person_crops", [True, False])
def test_gradients_across_the_border_of_a_person_are_like_those_elsewhere(
    network, photo_pixels, person_crops
):
    """Within 2 % of what the two pictures have there, each counting as much as it is seen."""
    model = network(depth=4)
    model.capabilities = dataclasses.replace(model.capabilities, person_crops=person_crops)
    restorer = Restorer(model)
    size = photo_pixels.shape[:2]
    boxes = [(60, 90, 90, 180), (300, 200, 110, 170), (200, 480, 150, 140)]
    ratios = []
    for box in boxes:
        x, y, w, h = box
        edges = (float(x), float(y), float(x + w), float(y + h))
        window = around(edges, size)
        x0, y0, x1, y1 = window
        whole = restorer(photo_pixels).pixels[y0:y1, x0:x1]
        seen = photo_pixels[y0:y1, x0:x1]
        pasted = restorer(photo_pixels, people="only", choice=asked(box)).pixels[y0:y1, x0:x1]
        mask = box_mask(edges, window, size)
        ring = (mask > 0) & (mask < 1)
        heart = restorer(
            photo_pixels, people="only", choice=asked((x - 60, y - 60, w + 120, h + 120))
        )
        inside = heart.pixels[y0:y1, x0:x1] if person_crops else whole
        wanted = mask * slope(inside) + (1 - mask) * slope(seen)
        ratios.append(slope(pasted)[ring].sum() / wanted[ring].sum())
    assert np.mean(ratios) == pytest.approx(1, abs=0.02), ratios


def slope(pixels: np.ndarray) -> np.ndarray:
    """|gradient| along both axes, summed over the channels, [h, w]."""
    planes = pixels.astype(np.float64)
    return sum(np.abs(np.diff(planes, axis=a, append=planes.take([-1], a))).sum(2) for a in (0, 1))


def test_the_gate_judges_everyone_by_themselves(val_photos):
    sharp = np.zeros((512, 1100, 3), np.uint8) + 128
    pixels = read_photo(val_photos[0]).pixels[100:500, 50:450]
    small = Photo.from_array(pixels).pil().resize((100, 100)).resize((400, 400))
    sharp[60:460, 60:460] = pixels
    sharp[60:460, 640:1040] = np.asarray(small)
    boxes = [(100, 100, 300, 320), (680, 100, 300, 320)]
    restorer = Restorer(Stretch(person_crops=False))
    restored = restorer(sharp, people="only", choice=asked(*boxes), gate="auto")
    verdicts = [person["gate"] for person in restored.people]
    assert verdicts[0] == "nothing to restore"
    assert verdicts[1] in ("restored", "beyond the model")
    assert [person["done"] for person in restored.people] == ["left as it is", "tiles"]
    np.testing.assert_array_equal(restored.pixels[60:460, 60:460], sharp[60:460, 60:460])
    assert (restored.pixels[200:300, 750:900] != sharp[200:300, 750:900]).mean() > 0.5
    alone = restorer(sharp, people="only", choice=asked(boxes[0]), gate="auto")
    np.testing.assert_array_equal(alone.pixels, sharp)
    assert alone.provenance["tiles"] == 0


@pytest.mark.parametrize("scale", [1.0, 2.0, 1.7, 0.5])
def test_people_of_a_photo_that_is_resized(scale):
    restorer = Restorer(Stretch())
    photo = damaged(truth())
    boxes = [(120, 80, 30, 44), (300, 200, 60, 60)]
    off = restorer(photo, scale=scale)
    both = restorer(photo, scale=scale, people="auto", choice=asked(*boxes))
    assert both.pixels.shape == off.pixels.shape
    assert np.abs(both.pixels / 65535.0 - off.pixels / 65535.0).max() < 0.01
    only = restorer(photo, scale=scale, people="only", choice=asked(*boxes))
    assert only.pixels.shape == off.pixels.shape


def test_networks_that_enlarge_see_people_at_their_own_resolution():
    class Enlarger(Stretch):
        def restore(self, tiles, places, conditions):
            self.calls.append(tuple(tiles.shape))
            return tiles

    restorer = Restorer(Enlarger(person_crops=False, upscale=2))
    photo = truth()
    for settings in ({"scale": 2.0}, {"scale": 1.0}, {"scale": 2.0, "reduce": 2.0}):
        off = restorer(photo, **settings)
        only = restorer(photo, **settings, people="only", choice=asked((101, 81, 61, 91)))
        assert only.pixels.shape == off.pixels.shape
        x, y, w, h = (round(n * settings["scale"]) for n in (101, 81, 61, 91))
        heart = np.s_[y + 8 : y + h - 8, x + 8 : x + w - 8]
        assert np.abs(only.pixels[heart] / 65535.0 - off.pixels[heart] / 65535.0).mean() < 0.01


def test_the_window_of_everyone_is_in_their_square():
    rng = np.random.default_rng(0)
    for _ in range(3000):
        height, width = (int(n) for n in rng.integers(8, 300, 2))
        x0, y0 = (float(rng.uniform(0, edge - 1)) for edge in (width, height))
        x1, y1 = float(rng.uniform(x0 + 1, width)), float(rng.uniform(y0 + 1, height))
        box = (x0, y0, x1, y1)
        x, y, side = square_around(box, (height, width))
        left, top, right, bottom = around(box, (height, width))
        assert x <= left < right <= x + side
        assert y <= top < bottom <= y + side


def test_the_provenance_says_who_was_found_and_the_same_bytes_come_again():
    restorer = Restorer(Stretch(), name="toy")
    photo = damaged(truth())
    choice = asked((200.25, 80, 30, 44), (20, 80, 30, 44))
    first, second = (restorer(photo, people="auto", choice=choice) for _ in range(2))
    np.testing.assert_array_equal(first.pixels, second.pixels)
    people = first.provenance["people"]
    assert (people["mode"], people["source"], people["background"]) == (
        "auto",
        "boxes given",
        "model",
    )
    assert people["found"][0] == {
        "number": 1,
        "box": (200.2, 80.0, 30.0, 44.0),
        "score": 1.0,
        "outline": False,
        "done": "crop",
        "size": NATIVE,
        "fidelity": None,
        "gate": None,
        "gate_reasons": (),
    }
    assert first.people == people["found"]
    assert json.loads(json.dumps(first.provenance))["people"]["found"][1]["number"] == 2
    assert restorer(photo).provenance["people"] is None
    assert restorer(photo).people == ()
    assert set(first.timings) == {"read", "locate", "model", "color", "paste", "total"}


@pytest.mark.parametrize("outlined", [False, True])
def test_the_settings_of_a_result_make_it_again(outlined):
    """Whoever was found is in them, so that no detector is needed."""
    mask = np.zeros((1, *SIZE), bool)
    mask[0, 90:120, 50:64] = True
    found = People(
        np.array([[47.3, 81.7, 70.1, 125.2]]), np.ones(1), None, mask if outlined else None
    )
    photo = damaged(truth())
    restorer = Restorer(Stretch())
    restorer.locator = PeopleLocator(lambda images: [found])
    first = restorer(photo, people="auto")
    plain = Restorer(Stretch())
    if outlined:
        assert first.settings.choice.boxes == ()
        plain.locator = restorer.locator
    else:
        (box,) = first.settings.choice.boxes
        assert box == pytest.approx((47.3, 81.7, 22.8, 43.5))
    again = plain(photo, first.settings)
    np.testing.assert_array_equal(again.pixels, first.pixels)
    restorer.locator = PeopleLocator(lambda images: [People.none()])
    nobody = restorer(photo, people="only")
    np.testing.assert_array_equal(plain(photo, nobody.settings).pixels, nobody.pixels)


def test_progress_counts_all_passes_as_one():
    seen = []
    choice = asked(*LAYOUTS["one"], (300, 200, 20, 40))
    Restorer(Stretch())(
        damaged(truth()), people="auto", choice=choice, progress=lambda *n: seen.append(n)
    )
    parts = [done / total for done, total in seen]
    assert parts == sorted(parts)
    assert parts[-1] == 1


def test_a_model_of_many_steps_restores_everyone_as_a_photo(shared):
    restorer = Restorer(toy_diffbody.toy_model(shared / "goldens" / "osediff" / "base"))
    native = restorer.capabilities.native_size
    photo = (255 * truth(2 * native, 2 * native)).astype(np.uint8)
    box = (10.0, 12.0, native / 3, native / 2)
    restored = restorer(
        photo,
        people="only",
        choice=asked(box),
        pose="none",
        attention="none",
        sampling=Sampling(steps=2),
    )
    assert restored.people[0]["done"] == "crop"
    where = masked([box], photo.shape[:2])
    np.testing.assert_array_equal(restored.pixels[~where], photo[~where])
    assert (restored.pixels[where] != photo[where]).any()
    with pytest.raises(ValueError, match="belongs to the whole photo"):
        restorer(photo, people="only", choice=asked(box), pose=__file__)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"boxes": ((1.0, 2.0, 0.0, 5.0),)}, r"box is .*; it must be x, y, width and height"),
        ({"boxes": ((float("nan"), 2.0, 3.0, 5.0),)}, r"box is .*nan"),
        ({"persons": (0,)}, r"person is \(0,\); it must be numbers from 1"),
        ({"fidelity": ((1, 1.5),)}, r"person_fidelity is '1=1.5'; it must be a number in \[0, 1\]"),
        ({"background": ""}, r"background is ''"),
        ({"source": ""}, r"people_from is ''"),
    ],
)
def test_choices_are_checked(choice, message):
    with pytest.raises(ValueError, match=message):
        PeopleChoice(**choice)


def test_settings_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match=r"people is 'all'; it must be one of off, auto, only"):
        RestoreSettings(people="all")
    with pytest.raises(ValueError, match=r"background is 'other'; it must be keep"):
        RestoreSettings(people="only", choice=PeopleChoice(background="other"))
    choice = asked((10, 10, 20, 20), fidelity=((1, 0.5),))
    with pytest.raises(ValueError, match="custom has no fidelity to choose"):
        Restorer(Stretch())(damaged(truth()), people="only", choice=choice)


def test_without_a_detector_auto_is_off_and_only_an_error(caplog):
    restorer = Restorer(Stretch())
    photo = damaged(truth())
    off = restorer(photo).pixels
    for _ in range(2):
        auto = restorer(photo, people="auto")
        np.testing.assert_array_equal(auto.pixels, off)
        assert auto.settings.people == "off"
    (line,) = caplog.messages
    assert line.startswith("nobody is looked for, as with --people off: ")
    assert "hbr fetch" in line
    with pytest.raises(DetectorError, match="hbr fetch"):
        restorer(photo, people="only")
    for choice in (PeopleChoice(persons=(1,)), PeopleChoice(background="keep")):
        with pytest.raises(DetectorError, match="hbr fetch"):
            restorer(photo, people="auto", choice=choice)


def test_a_few_fidelities_are_kept(tmp_path) -> None:
    config = toy_models.RRDBNET
    ends = [tmp_path / f"{name}.safetensors" for name in ("faithful", "sharp")]
    for path in ends:
        save_checkpoint(path, config, build_model(config).state_dict())
    both = write_two_ends(tmp_path / "both.safetensors", *ends, 0.25)
    restorer = Restorer.from_pretrained(both, "cpu")
    first = restorer.sibling(fidelity=0.0)
    for number in range(1, 8):
        restorer.sibling(fidelity=number / 100)
    assert restorer.sibling(fidelity=0.0) is first
    restorer.sibling(fidelity=0.08)  # one more than are kept: the oldest goes
    assert restorer.sibling(fidelity=0.0) is not first
