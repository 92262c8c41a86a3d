"""Eq. 1, NMS, square crop, splits and near-duplicates against brute force: 10,000 cases each.

Each example is a seed for 50 small cases, whose numbers come from few values so that ties are
frequent.
"""

import itertools
import math
import statistics
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbr.curation.config import CropConfig, SplitsConfig
from hbr.curation.pipeline.stages import duplicates, overlap
from hbr.curation.pipeline.stages import splits as stage_splits
from hbr.curation.pipeline.stages.duplicates import duplicate_of, near_blocks
from hbr.curation.pipeline.stages.overlap import crowding, square_iou, suppress
from hbr.curation.pipeline.stages.splits import assign, share_group, split_of
from hbr.curation.pipeline.stages.zscores import ExactMoments, best, quota, z_means
from hbr.people.squares import square

EXAMPLES, CASES = 200, 50
# ten thousand cases take long for these; a fifth of them otherwise
ALL = pytest.param(CASES, marks=pytest.mark.slow)
by_night = pytest.mark.parametrize("count", [CASES // 5, ALL])
seeds = given(seed=st.integers(0, 2**32 - 1))
ten_thousand = settings(max_examples=EXAMPLES, deadline=None)


def cases(seed: int, count: int = CASES) -> Iterator[np.random.Generator]:
    return (np.random.default_rng([seed, case]) for case in range(count))


# Eq. 1


def scores(rng: np.random.Generator, n: int) -> np.ndarray:
    scale = float(rng.choice([1e-300, 1e-9, 1.0, 37.5, 1e12]))
    few = rng.integers(-3, 4, n) * scale
    return np.where(rng.random(n) < 0.5, few, rng.normal(scale * 5, scale, n))


@by_night
@seeds
@ten_thousand
def test_eq1(count: int, seed: int) -> None:
    for rng in cases(seed, count):
        n, m = int(rng.integers(1, 8)), int(rng.integers(1, 4))
        values = {f"m{k}": scores(rng, n) for k in range(m)}
        better = {name: str(rng.choice(["higher", "lower"])) for name in values}
        for x in values.values():
            whole, parts = ExactMoments(), ExactMoments()
            whole.add(x)
            shuffled = rng.permutation(x)
            cut = int(rng.integers(0, n + 1))
            parts.add(shuffled[:cut])
            parts.add(shuffled[cut:])
            assert (parts.mean, parts.deviation) == (whole.mean, whole.deviation)
        z = z_means(values, better)
        for i in range(n):
            total = 0.0
            for name in sorted(values):
                x = [Fraction(v) for v in values[name].tolist()]
                mean = sum(x) / n
                deviation = math.sqrt(sum((v - mean) ** 2 for v in x) / n)
                if deviation > 0:
                    one = (float(x[i]) - float(mean)) / deviation
                    total += one if better[name] == "higher" else -one
            assert z[i] == total / m
        top = float(rng.choice([1 / 3, 0.3333333333, 0.5, 1.0]))
        ids = rng.permutation(n)
        kept = best(ids, z, quota(top, n))
        ranked = sorted(range(n), key=lambda i: (-z[i], ids[i]))
        assert set(np.flatnonzero(kept)) == set(ranked[: math.ceil(top * n - 1e-9)])


def test_moments_are_exact_where_a_sum_is_not() -> None:
    values = np.array([1e16, 1.0, -1e16, 3.0])
    assert np.cumsum(values)[-1] != 4.0  # what floats make of it
    moments = ExactMoments()
    moments.add(values)
    assert moments.mean == 1.0
    assert moments.deviation == statistics.pstdev(map(Fraction, values.tolist()))


# The square


def shifted_square(
    box: tuple[float, ...], width: int, height: int, config: CropConfig
) -> tuple[int, int, int]:
    """Of all places inside the image, the one nearest to where the square belongs."""
    x0, y0, x1, y1 = box
    wide, tall = x1 - x0, y1 - y0
    edge = min(wide, tall) if config.mode == "partial" else max(wide, tall)
    side = min(math.ceil(edge * config.margin - 1e-9), width, height)
    fits = math.ceil(edge * config.margin - 1e-9) <= min(width, height)
    middle_x, middle_y = (x0 + x1) / 2, (y0 + y1) / 2
    top = middle_y - side / 2
    if config.mode == "partial" and tall > wide and fits:
        top = y0 - (side - wide) / 2
    if not fits:
        top = y0 if tall > side else top
    xs = min(range(width - side + 1), key=lambda x: (abs(x - (middle_x - side / 2)), x % 2))
    ys = min(range(height - side + 1), key=lambda y: (abs(y - top), y % 2))
    return xs, ys, side


@seeds
@ten_thousand
def test_square(seed: int) -> None:
    for rng in cases(seed):
        width, height = (int(n) for n in rng.integers(2, 24, 2))
        step = float(rng.choice([1.0, 0.5, 0.25]))
        x = np.sort(rng.choice(np.arange(0, width + step / 2, step), 2, replace=False))
        y = np.sort(rng.choice(np.arange(0, height + step / 2, step), 2, replace=False))
        box = (float(x[0]), float(y[0]), float(x[1]), float(y[1]))
        mode = str(rng.choice(["person", "partial"]))
        margin = float(rng.choice([1.0, 1.0, 1.25]))
        config = CropConfig(mode=mode, margin=margin, narrow="shrink")
        found = square(box, width, height, mode=config.mode, margin=margin)
        assert found == shifted_square(box, width, height, config)
        left, upper, side = found
        assert 0 <= left <= width - side
        assert 0 <= upper <= height - side
        edge = (min if mode == "partial" else max)(box[2] - box[0], box[3] - box[1])
        fits = math.ceil(edge * margin - 1e-9) <= min(width, height)
        assert (
            square(box, width, height, mode=config.mode, margin=margin, narrow="reject") == found
        ) == fits
        if fits and mode == "person":  # the whole person, up to the rounding to pixels
            assert left <= box[0] + 0.5
            assert upper <= box[1] + 0.5
            assert left + side >= box[2] - 0.5
            assert upper + side >= box[3] - 0.5
        if not fits:
            padded = square(box, width, height, mode=config.mode, margin=margin, narrow="edge")
            assert padded is not None
            side = math.ceil(edge * margin - 1e-9)
            for at, size in zip(padded, (width, height), strict=False):
                inside = 0 <= at <= size - side
                around = at <= 0 and at + side >= size and abs((2 * at + side) - size) <= 1
                assert inside or around


# Non-maximum suppression, and crowds


def pixels_iou(a: tuple[int, int, int], b: tuple[int, int, int]) -> Fraction:
    """Intersection over union, counted pixel by pixel."""
    (ours, theirs) = (
        {(x, y) for x in range(s[0], s[0] + s[2]) for y in range(s[1], s[1] + s[2])} for s in (a, b)
    )
    return Fraction(len(ours & theirs), len(ours | theirs))


@seeds
@ten_thousand
def test_suppression(seed: int) -> None:
    for rng in cases(seed):
        n = int(rng.integers(1, 6))
        squares = [tuple(int(v) for v in s) for s in rng.integers([0, 0, 1], [5, 5, 5], (n, 3))]
        order = rng.permutation(n).tolist()
        limit = float(rng.choice([0.0, 0.25, 0.5, 1.0]))
        lost_to = suppress(squares, order, limit)
        clash = {
            (i, j): pixels_iou(squares[i], squares[j]) > limit
            for i, j in itertools.permutations(range(n), 2)
        }
        # the one subset where whoever stays clashes with nobody before it, and whoever goes does
        fitting = [
            set(stay)
            for k in range(n + 1)
            for stay in itertools.combinations(range(n), k)
            if all(
                (order[p] in stay)
                == (not any(clash[order[p], order[q]] for q in range(p) if order[q] in stay))
                for p in range(n)
            )
        ]
        assert fitting == [{i for i in range(n) if lost_to[i] is None}]
        for i, winner in enumerate(lost_to):
            assert winner is None or (lost_to[winner] is None and clash[i, winner])


@seeds
@settings(max_examples=40, deadline=None)
def test_crowds_and_overlaps_count_pixels(seed: int) -> None:
    for rng in cases(seed):
        n = int(rng.integers(1, 5))
        low = rng.integers(0, 4, (n, 2))
        boxes = np.concatenate([low, low + rng.integers(1, 4, (n, 2))], axis=1)
        cover = float(rng.choice([0.25, 0.5, 1.0]))
        cells = [
            {(x, y) for x in range(b[0], b[2]) for y in range(b[1], b[3])} for b in boxes.tolist()
        ]
        expected = [
            sum(len(a & b) >= cover * len(a) for j, b in enumerate(cells) if j != i)
            for i, a in enumerate(cells)
        ]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(overlap, "_AT_ONCE", int(rng.choice([1, 2, 64])))
            assert crowding(boxes.astype(np.float64), cover).tolist() == expected
        a, b = ((*low[i % n].tolist(), int(boxes[i % n, 2] - low[i % n, 0])) for i in (0, 1))
        assert square_iou(a, b) == float(pixels_iou(a, b))


# Near-duplicates


def hashes(rng: np.random.Generator, n: int) -> np.ndarray:
    """Some at random, most a few bits from another."""
    out = rng.integers(0, 2**64, n, np.uint64)
    for i in range(1, n):
        if rng.random() < 0.7:
            flips = rng.choice(64, int(rng.integers(0, 12)), replace=False)
            out[i] = out[rng.integers(0, i)]
            for bit in flips.tolist():
                out[i] ^= np.uint64(1 << bit)
    return out


def bits(a: np.uint64, b: np.uint64) -> int:
    return int(a ^ b).bit_count()


@seeds
@settings(max_examples=60, deadline=None)
def test_near_blocks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    different = np.unique(hashes(rng, int(rng.integers(0, 30))))
    radius = int(rng.choice([1, 3, 4, 6, 8, 11, 15], p=[0.2, 0.2, 0.2, 0.2, 0.15, 0.03, 0.02]))
    pairs = itertools.combinations(range(len(different)), 2)
    expected = [[i, j] for i, j in pairs if bits(different[i], different[j]) <= radius]
    found = [pair for block in near_blocks(different, radius) for pair in block.tolist()]
    assert sorted(map(list, set(map(tuple, found)))) == expected


@seeds
@settings(max_examples=100, deadline=None)
def test_duplicates(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 40))
    looks, rank = hashes(rng, n), rng.permutation(n)
    few = int(rng.choice([1, 3, 2048]))  # halved again and again, or not at all
    radius = int(rng.choice([-1, 0, 2, 6]))
    kept: list[int] = []
    expected = [-1] * n
    for i in np.argsort(rank).tolist():
        near = [k for k in kept if bits(looks[i], looks[k]) <= radius]
        if near:
            expected[i] = near[0]
        else:
            kept.append(i)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "_FEW", few)
        assert duplicate_of(looks, rank, radius).tolist() == expected


# Splits


@by_night
@seeds
@ten_thousand
def test_splits(count: int, seed: int) -> None:
    parts = {"train": 0.5, "val": 0.25, "rest": 0.25}
    for rng in cases(seed, count):
        n = int(rng.integers(1, 9))
        images = rng.integers(0, 5, n, np.uint64)
        looks = rng.integers(0, 6, n, np.uint64)
        near = rng.integers(0, 6, (int(rng.integers(0, 3)), 2), np.uint64)
        near = near[np.isin(near, looks).all(axis=1)]
        sources = [str(s) for s in rng.choice(["a", "b", "c"], n)]
        fixed = {"b": "test"} if rng.random() < 0.5 else {}
        config = SplitsConfig(parts, fixed, seed=int(rng.integers(0, 3)))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stage_splits, "_LINKS", int(rng.choice([1, n, 1000])))
            group = share_group(images, looks, [near[:1], near[1:]])
        alike = {(int(a), int(b)) for a, b in near} | {(int(b), int(a)) for a, b in near}

        def together(i: int, j: int, images=images, looks=looks, alike=alike) -> bool:
            pair = (int(looks[i]), int(looks[j]))
            return images[i] == images[j] or pair[0] == pair[1] or pair in alike

        reach = [[together(i, j) for j in range(n)] for i in range(n)]
        for k, i, j in itertools.product(range(n), repeat=3):  # Warshall
            reach[i][j] = reach[i][j] or (reach[i][k] and reach[k][j])
        for i in range(n):
            assert group[i] == min(images[j] for j in range(n) if reach[i][j])

        names = ("a", "b", "c")
        index = np.array([names.index(source) for source in sources])
        chosen, splits = assign(group, index, names, config)
        assert splits == (*parts, *set(fixed.values()))
        for i in range(n):
            inside = {sources[j] for j in range(n) if group[j] == group[i]}
            expected = "test" if inside & set(fixed) else split_of(int(group[i]), config)
            assert splits[chosen[i]] == expected
        order = rng.permutation(n)  # the same in any order
        again = share_group(images[order], looks[order], [near[::-1]])
        assert again.tolist() == group[order].tolist()


def test_shares_of_splits() -> None:
    config = SplitsConfig({"train": 0.9, "val": 0.1, "none": 0.0})
    counts = {"train": 0, "val": 0, "none": 0}
    for group in range(20_000):
        counts[split_of(group, config)] += 1
    # three standard deviations of a binomial of 20,000
    assert abs(counts["val"] - 2000) < 3 * math.sqrt(20_000 * 0.1 * 0.9)
    assert counts["none"] == 0
