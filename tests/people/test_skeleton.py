"""Poses as pictures, and attention maps, on drawn people."""

import numpy as np
import pytest

from hbr.people.attention import (
    PART_LIMBS,
    limb_attention,
    limb_maps,
    part_labels,
)
from hbr.people.skeleton import LIMBS, N_WHOLE_BODY, draw_poses, openpose_points

# a person who stands in a picture of 200×100, facing us: x, y of COCO's 17 points
STANDING = np.array(
    [
        (50, 20), (53, 17), (47, 17), (57, 19), (43, 19), (65, 45), (35, 45), (72, 75), (28, 75),
        (75, 100), (25, 100), (60, 105), (40, 105), (61, 145), (39, 145), (62, 185), (38, 185),
    ],
    float,
)  # fmt: skip


def person(shift: tuple[float, float] = (0, 0), seen: float = 1.0) -> np.ndarray:
    return np.concatenate([STANDING + shift, np.full((17, 1), seen)], axis=1)


def whole_body() -> np.ndarray:
    points = np.zeros((N_WHOLE_BODY, 3))
    points[:17] = person()
    points[23:91, :2] = np.stack([50 + np.arange(68) % 8, 20 + np.arange(68) // 8], 1)
    points[91:112, :2] = (75, 100) + np.arange(21)[:, None] * (0.5, 1)
    points[112:133, :2] = (25, 100) + np.arange(21)[:, None] * (-0.5, 1)
    points[23:, 2] = 1
    return points


def test_the_points_of_openpose() -> None:
    points = openpose_points(person()[None])[0]
    assert points.shape == (18, 3)
    assert points[0, :2].tolist() == [50, 20]  # nose
    assert points[1, :2].tolist() == [50, 45]  # neck
    right, left = points[[2, 3, 4, 8, 9, 10, 14, 16]], points[[5, 6, 7, 11, 12, 13, 15, 17]]
    # a person who faces us has his right on the left of the picture
    assert (right[:, 0] < 50).all()
    assert (left[:, 0] > 50).all()
    assert np.allclose(right[:, 1], left[:, 1])
    half = person()
    half[5, 2] = 0.1  # a shoulder that is hidden hides the neck
    assert openpose_points(half[None])[0, 1, 2] == 0.1


def test_no_people_are_black() -> None:
    for points in (17, N_WHOLE_BODY):
        assert not draw_poses(np.zeros((0, points, 3)), 20, 30).any()
    assert draw_poses(np.zeros((0, 17, 3)), 20, 30).shape == (20, 30, 3)


def test_every_point_and_limb_is_drawn() -> None:
    picture = draw_poses(person()[None], 200, 100)
    points = openpose_points(person()[None])[0]
    for x, y, _ in points:
        assert picture[round(y), round(x)].max() > 200
    for a, b in LIMBS:
        x, y = (points[a, :2] + points[b, :2]) / 2
        assert picture[round(y), round(x)].any()
    colours = {tuple(picture[round(y), round(x)]) for x, y, _ in points}
    assert len(colours) == 18
    assert not picture[:, :15].any()


def test_hands_and_face_are_drawn_too() -> None:
    body, whole = draw_poses(person()[None], 200, 100), draw_poses(whole_body()[None], 200, 100)
    added = (whole.astype(int) != body).any(axis=2)
    assert added[20:30, 50:58].any()  # face
    assert added[105:120, 76:88].any()  # the left hand
    assert added[105:120, 12:24].any()  # the right one
    assert not added[130:].any()


@pytest.mark.parametrize("hidden", [0.0, 0.29, np.nan])
def test_what_is_not_seen_is_not_drawn(hidden: float) -> None:
    half = person()
    half[[13, 14, 15, 16], 2] = hidden
    picture = draw_poses(half[None], 200, 100)
    assert not picture[115:].any()
    assert picture[100:108].any()


def test_points_outside_the_picture_are_cut() -> None:
    half = draw_poses(person((45, 0))[None], 200, 100)
    assert half.any()
    whole = draw_poses(person((45, 0))[None], 200, 128)[:, :100]
    # a line that is cut at the edge starts at another fraction of a pixel
    assert np.abs(half.astype(int) - whole).mean() < 0.02 * whole.mean()
    far = person()
    far[9] = (1e12, 3, 1)
    assert draw_poses(far[None], 200, 100).any()


def test_twenty_people() -> None:
    people = np.stack([person((4.0 * i - 40, 0)) for i in range(20)])
    assert draw_poses(people, 200, 100).any()
    assert limb_attention(people, 200, 100).max() <= 1


def test_another_number_of_points_is_one_clear_line() -> None:
    with pytest.raises(ValueError, match=r"key points are \(1, 26, 3\); they must be"):
        draw_poses(np.zeros((1, 26, 3)), 10, 10)


# --- attention


def test_limbs_are_gaussians_of_the_distance() -> None:
    """Against a plain calculation at every pixel."""
    maps = limb_maps(person()[None], 200, 100)
    assert maps.shape == (5, 200, 100)
    extent = np.ptp(STANDING, axis=0).max()
    widths = (0.05, 0.045, 0.06, 0.045, 0.04)
    rng = np.random.default_rng(0)
    for y, x in zip(rng.integers(0, 200, 100), rng.integers(0, 100, 100), strict=True):
        at = np.array([x + 0.5, y + 0.5])
        for part, limbs in enumerate(PART_LIMBS):
            expected = 0.0
            for a, b in limbs:
                line = STANDING[b] - STANDING[a]
                length = line @ line
                t = np.clip((at - STANDING[a]) @ line / length, 0, 1) if length else 0
                distance = np.linalg.norm(at - STANDING[a] - t * line)
                expected = max(expected, np.exp(-0.5 * (distance / (widths[part] * extent)) ** 2))
            # what is further than 4 deviations away is cut
            assert abs(maps[part, y, x] - expected) < 4e-4


def test_attention_is_the_maximum_over_parts_and_people() -> None:
    two = np.stack([person(), person((60, 0))])
    both = limb_attention(two, 200, 200)
    each = [limb_attention(p[None], 200, 200) for p in two]
    assert np.allclose(both, np.maximum(*each))
    assert both.dtype == np.float32
    assert both.min() >= 0
    assert 0.99 < both.max() <= 1
    assert both[150, 190] < 0.01


def test_nobody_gets_no_attention() -> None:
    for people in (np.zeros((0, 17, 3)), person(seen=0.0)[None], np.full((1, 17, 3), np.nan)):
        assert not limb_attention(people, 20, 30).any()


def test_labels_of_parts_are_a_distribution() -> None:
    labels = part_labels(person()[None], 200, 100)
    assert labels.shape == (6, 200, 100)
    assert np.allclose(labels.sum(axis=0), 1, atol=1e-5)
    at = {"head": (18, 50), "shoulder": (45, 50), "waist": (100, 50), "knee": (145, 61)}
    at |= {"ankle": (186, 62), "nothing": (190, 5)}
    assert [int(labels[:, y, x].argmax()) for y, x in at.values()][:4] == [0, 1, 2, 3]
    assert labels[5, 190, 5] > 0.99
    assert part_labels(np.zeros((0, 17, 3)), 8, 8)[5].min() == 1
