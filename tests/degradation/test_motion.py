"""Human motion blur: paths, masks from what is annotated, and where the blur falls."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from hbr.config import ConfigError, from_dict, to_dict
from hbr.degradation import (
    RECIPES,
    Degradation,
    MotionConfig,
    Recipe,
    Regions,
    degrade,
    draw,
    kernels,
)
from hbr.degradation.motion import move, moved_mask, path_kernel
from hbr.people.types import Person, Rle

MOTION_BLUR = RECIPES["motion-blur"]
STANDING = tuple(
    (x, y, 2)
    for x, y in (
        *((50, 20), (53, 17), (47, 17), (56, 19), (44, 19)),  # face
        *((64, 40), (36, 40), (72, 65), (28, 65), (76, 88), (24, 88)),  # shoulders to wrists
        *((58, 95), (42, 95), (58, 130), (42, 130), (58, 165), (42, 165)),  # hips to ankles
    )
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def one_motion(**changes):
    config = MotionConfig(count=(1, 1), places=(1.0, 0.0), length=(0.1, 0.1), opacity=(1.0, 1.0))
    recipe = Recipe(motion=dataclasses.replace(config, **changes))
    (drawn,) = draw(recipe, 1, generator(4))
    return drawn.motions[0]


def texture(h, w):
    return torch.rand(3, h, w, generator=generator(8))


def test_a_path_has_its_length_and_direction():
    """A straight path of n pixels is n long (its variance is n²/12), and lies along its angle."""
    for angle in (0.0, 0.7, math.pi / 2, -2.0):
        kernel = kernels.trajectory(45, 40.0, angle, 0.0, 0.0)
        assert float(kernel.sum()) == pytest.approx(1)
        assert float(kernel.min()) >= 0
        axis = torch.arange(45.0) - 22
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        assert float((kernel * x).sum()) == pytest.approx(0, abs=1e-6)
        assert float((kernel * y).sum()) == pytest.approx(0, abs=1e-6)
        along = x * math.cos(angle) + y * math.sin(angle)
        across = y * math.cos(angle) - x * math.sin(angle)
        assert float((kernel * along**2).sum()) == pytest.approx(40**2 / 12, rel=0.01)
        assert float((kernel * across**2).sum()) < 0.5
    bent = kernels.trajectory(45, 40.0, 0.0, 1.5, 0.0)
    assert not torch.allclose(bent, kernels.trajectory(45, 40.0, 0.0, 0.0, 0.0), atol=1e-3)


@pytest.mark.parametrize("short", [1, 3, 40, 333])
def test_a_path_fits_its_kernel(short):
    for seed in range(30):
        (drawn,) = draw(Recipe(motion=MotionConfig(bend=3, wobble=2)), 1, generator(seed))
        for motion in drawn.motions:
            assert float(path_kernel(motion, short).sum()) == pytest.approx(1)


def test_the_record_gives_the_image_again():
    regions = [Regions.of([Person((100, 180), (20, 5, 60, 170), STANDING)], (180, 100))]
    image = texture(180, 100)[None]
    for seed in range(6):
        drawn = draw(MOTION_BLUR, 1, generator(seed))
        again = [from_dict(Degradation, json.loads(json.dumps(to_dict(d)))) for d in drawn]
        assert again == drawn
        first = degrade(image, drawn, regions=regions)
        assert torch.equal(degrade(image, again, regions=regions), first)


def test_the_generic_part_is_drawn_as_in_real_esrgan():
    """With the same seed the two recipes differ by the movements alone."""
    for seed in range(5):
        (moved,) = draw(MOTION_BLUR, 1, generator(seed))
        (still,) = draw(RECIPES["real-esrgan"], 1, generator(seed))
        assert dataclasses.replace(moved, motions=()) == still
        assert 1 <= len(moved.motions) <= 3


def test_movements_come_before_and_between_the_stages():
    drawn = draw(MOTION_BLUR, 400, generator(1))
    stages = [d.motions[0].stage for d in drawn]
    assert 160 < sum(stages) < 240  # half; four standard deviations are 40
    # between the stages, what follows is not blurred: both give other images
    image = texture(64, 64)[None]
    between = next(d for d in drawn if d.motions[0].stage == 1)
    before = dataclasses.replace(
        between, motions=tuple(dataclasses.replace(m, stage=0) for m in between.motions)
    )
    assert not torch.equal(degrade(image, [between]), degrade(image, [before]))


def test_only_what_moved_is_blurred():
    outline = torch.zeros(1, 96, 128, dtype=torch.bool)
    outline[:, 30:60, 40:80] = True
    regions = Regions(outline, torch.zeros(0, 96, 128, dtype=torch.bool), ())
    motion = one_motion(softness=(0.01, 0.01))
    image = texture(96, 128)
    changed = (move(image, motion, regions) - image).abs().amax(dim=0)
    assert changed[38:52, 52:68].mean() > 0.2
    reach = math.ceil(motion.length * 96 / 2 + 4 * 0.01 * 96) + 2
    far = torch.ones(96, 128, dtype=torch.bool)
    far[30 - reach : 60 + reach, 40 - reach : 80 + reach] = False
    assert far.sum() > 2000
    assert changed[far].max() < 1e-5
    mask = moved_mask(motion, regions, (96, 128))
    assert mask[45, 60] == pytest.approx(1, abs=1e-4)
    assert 0.02 < ((mask > 0.05) & (mask < 0.95)).float().mean() < 0.2  # its edge is soft


def test_a_mask_follows_the_size_of_the_image():
    regions = Regions.of([Person((100, 180), (20, 5, 60, 170))], (360, 200))
    motion = one_motion(person_prob=1.0)
    large, small = (moved_mask(motion, regions, size) for size in ((360, 200), (90, 50)))
    shrunk = torch.nn.functional.avg_pool2d(large[None], 4)[0]
    assert (shrunk - small).abs().mean() < 0.02


def test_without_people_shapes_are_made_up_in_the_middle():
    for seed in range(40):
        motion = dataclasses.replace(one_motion(), seed=seed, whole=seed % 2 == 0)
        mask = moved_mask(motion, None, (100, 80))
        assert 0.005 < float((mask > 0.5).float().mean()) < 0.7
        empty = Regions.of([], (100, 80))
        assert torch.equal(moved_mask(motion, empty, (100, 80)), mask)


def test_keypoints_give_limbs_inside_the_outline():
    person = Person((100, 180), (20, 5, 60, 170), STANDING)
    regions = Regions.of([person], (180, 100))
    assert len(regions.parts) == 10  # head, trunk, arms, forearms, legs, shins
    assert set(regions.owners) == {0}
    assert not (regions.parts & ~regions.outlines[0]).any()

    def holding(x, y):
        return [i for i in range(10) if regions.parts[i, y, x]]

    assert holding(50, 18) == [0]
    assert holding(50, 70) == [1]
    left_wrist, left_ankle = holding(75, 86), holding(58, 160)
    assert len(left_wrist) == 2
    assert len(left_ankle) == 2
    assert not set(left_wrist) & set(left_ankle)


def test_a_polygon_or_a_mask_is_the_outline():
    polygon = ((30.0, 20.0), (60.0, 20.0), (60.0, 120.0), (30.0, 120.0))
    box = (30.0, 20.0, 30.0, 100.0)
    drawn = Regions.of([Person((100, 180), box, None, (polygon,))], (180, 100)).outlines[0]
    mask = np.zeros((180, 100), bool)
    mask[20:120, 30:60] = True
    assert (drawn.numpy() ^ mask).sum() < 2 * (100 + 30)  # its border, at most
    runs, value = [0], False
    for pixel in mask.flatten(order="F"):
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    rle = Rle((180, 100), tuple(runs))
    assert (rle.mask() == mask).all()
    same = Regions.of([Person((100, 180), box, None, rle)], (180, 100))
    assert (same.outlines[0].numpy() == mask).all()
    # no keypoints: parted by proportion, and the parts make up the outline
    assert len(same.parts) == 6
    assert float((same.parts.any(dim=0) & same.outlines[0]).sum()) > 0.85 * mask.sum()


def test_a_resized_photo_scales_its_people_and_a_cropped_one_is_refused():
    person = Person((100, 180), (20, 5, 60, 170))
    twice = Regions.of([person], (360, 200)).outlines[0]
    once = Regions.of([person], (180, 100)).outlines[0]
    assert float(twice.sum()) == pytest.approx(4 * float(once.sum()), rel=0.02)
    with pytest.raises(ValueError, match="annotated for 100x180, but it is 180x100"):
        Regions.of([person], (100, 180))
    unknown = dataclasses.replace(person, image_size=None)
    assert torch.equal(Regions.of([unknown], (180, 100)).outlines[0], once)
    half = Regions.of([person], (360, 200), longest=180)
    assert torch.equal(half.outlines[0], once)
    outside = Person((100, 180), (200.0, 10.0, 20.0, 20.0))
    assert len(Regions.of([outside, person], (180, 100)).outlines) == 1


@pytest.mark.parametrize("outline", ["box", "polygon", "mask"])
def test_a_window_shows_its_part_of_the_regions(outline):
    polygon = ((30.0, 20.0), (61.3, 22.0), (60.0, 120.0), (30.0, 120.0))
    mask = np.zeros((180, 100), bool)
    mask[20:120, 30:60] = True
    edges = np.flatnonzero(np.diff(mask.T.reshape(-1), prepend=False, append=False))
    runs = np.diff([0, *edges, mask.size]).tolist()
    outlines = {"box": None, "polygon": (polygon,), "mask": Rle((180, 100), tuple(runs))}
    person = Person((100, 180), (20.5, 5, 60, 170), STANDING, outlines[outline])
    outside = Person((100, 180), (0.0, 0.0, 5.0, 5.0))
    whole = Regions.of([outside, person], (270, 150))
    part = Regions.of([outside, person], (270, 150), window=(40, 30, 90, 70))
    assert (len(whole.outlines), len(part.outlines)) == (2, 1)
    # OpenCV rasterises polygons and lines anew, which may move the pixels of their borders
    off = part.outlines[0] ^ whole.outlines[1, 40:130, 30:100]
    assert off.float().mean() < (0.01 if outline == "polygon" else 1e-9)
    shown = [m[40:130, 30:100] for m in whole.parts[torch.tensor(whole.owners) == 1]]
    shown = [m for m in shown if m.sum() > 8]
    assert len(shown) == len(part.parts) > 1
    assert all((a ^ b).float().mean() < 0.01 for a, b in zip(part.parts, shown, strict=True))
    assert torch.equal(part.mirrored().outlines[0], part.outlines[0].flip(-1))


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: MotionConfig(count=(0, 1)), "count"),
        (lambda: MotionConfig(bend=math.inf), "bend"),
        (lambda: MotionConfig(length=(0.1, 0.6)), "length"),
        (lambda: MotionConfig(opacity=(0.5, 1.1)), "opacity"),
        (lambda: MotionConfig(places=(0.0, 0.0)), "places"),
        (lambda: from_dict(Recipe, {"motion": {"speed": 1}}), "motion.speed"),
    ],
)
def test_motion_that_cannot_be_names_its_field(make, field):
    with pytest.raises(ConfigError, match=field):
        make()
