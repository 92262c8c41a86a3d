import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbr.models.protocol import Capabilities
from hbr.restoration.passes.tiling import least_tile, plan_axis, plan_tiles, smaller_tiles


def _needs(multiple_of: int, min_size: int, native_size: int) -> Capabilities:
    return Capabilities(
        multiple_of=multiple_of, min_size=min_size, native_size=native_size, dtypes=("float32",)
    )


SD = _needs(64, 64, 512)
NANO = _needs(32, 32, 512)
needs_of_models = st.sampled_from([SD, NANO, _needs(1, 1, 100), _needs(8, 80, 128)])
sizes = st.integers(1, 3000)


@given(needs_of_models, sizes, st.data())
@settings(deadline=None)
def test_every_pixel_is_covered_and_the_windows_sum_to_one(needs, size, data):
    lowest = least_tile(needs)
    tile = data.draw(st.one_of(st.just("auto"), st.just(0), st.integers(lowest, 1200)))
    axis = plan_axis(size, needs, tile)
    total = np.zeros(max(size, axis.starts[-1] + axis.tile), np.float32)
    for i, start in enumerate(axis.starts):
        window = axis.window(i)
        assert window.shape == (axis.tile,)
        assert (window >= 0).all()
        total[start : start + axis.tile] += window
    np.testing.assert_allclose(total, 1, atol=1e-6, rtol=0)


@given(needs_of_models, sizes, st.data())
@settings(deadline=None)
def test_tiles_are_of_one_size_on_the_models_grid_and_overlap(needs, size, data):
    tile = data.draw(st.one_of(st.just("auto"), st.integers(least_tile(needs), 1200)))
    axis = plan_axis(size, needs, tile)
    assert axis.tile % needs.multiple_of == 0
    assert axis.tile >= needs.min_size
    assert all(start % needs.multiple_of == 0 for start in axis.starts)
    shared = [a + axis.tile - b for a, b in zip(axis.starts, axis.starts[1:], strict=False)]
    assert all(axis.overlap <= n < axis.tile for n in shared)
    # Only the padding up to the grid, or up to the smallest size, lies past the photo.
    past = axis.starts[-1] + axis.tile - size
    assert past < max(needs.multiple_of, needs.min_size + needs.multiple_of - size)
    assert axis.starts[0] == 0


@given(st.sampled_from([SD, NANO]), sizes)
@settings(deadline=None)
def test_auto_stays_near_the_native_size_and_computes_little_twice(needs, size):
    axis = plan_axis(size, needs, "auto")
    assert axis.tile <= 1.25 * needs.native_size
    if size > 2 * needs.native_size:
        assert axis.tile >= 0.75 * needs.native_size
    useful = size + (len(axis.starts) - 1) * axis.overlap
    # Each tile can be rounded up by less than one step of the grid.
    assert len(axis.starts) * (axis.tile - needs.multiple_of) < useful


def test_outer_pixels_of_a_tile_have_no_weight_inside_the_photo():
    # Half of the overlap is the cross-fade, and it lies in the middle: a quarter on each side.
    axis = plan_axis(2000, NANO, 512)
    quarter = axis.overlap // 4
    first, second = axis.window(0), axis.window(1)
    assert quarter == 16
    assert first[0] == 1
    assert (first[-quarter:] == 0).all()
    assert (second[:quarter] == 0).all()
    assert (second[-quarter:] == 0).all()
    assert axis.window(len(axis.starts) - 1)[-1] == 1


def test_small_photos_are_mirrored_up_to_the_smallest_size():
    axis = plan_axis(5, _needs(4, 16, 64), "auto")
    assert axis.tile == 16
    assert axis.source(0).tolist() == [0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 2, 3, 4, 3, 2, 1]
    assert (plan_axis(1, NANO, "auto").source(0) == 0).all()
    np.testing.assert_array_equal(plan_axis(2, NANO, "auto").source(0), [0, 1] * 16)


def test_batches_hold_every_tile_once_row_by_row():
    plan = plan_tiles(1500, 900, NANO, 512)
    tiles = [tile for batch in plan.batches(4) for tile in batch]
    assert tiles == sorted(set(tiles))
    assert len(tiles) == len(plan) == len(plan.rows.starts) * len(plan.columns.starts)
    assert {len(batch) for batch in list(plan.batches(4))[:-1]} == {4}


def test_tile_0_takes_the_photo_whole():
    plan = plan_tiles(1500, 900, NANO, 0)
    assert len(plan) == 1
    assert (plan.rows.tile, plan.columns.tile) == (1504, 928)


def test_tiles_shrink_to_a_quarter_of_the_native_size_and_no_further():
    plan, edges = plan_tiles(1500, 900, NANO, 0), []
    while plan is not None:
        edges.append(plan.edge)
        plan = smaller_tiles(plan, NANO)
    assert edges == [1504, 768, 384, 192, 128]


def test_a_tile_too_small_for_the_model_is_an_error_that_says_what_would_do():
    with pytest.raises(ValueError, match=r"tile is 100; it must be auto, 0 or at least 128"):
        plan_tiles(1500, 900, SD, 100)
    with pytest.raises(ValueError, match=r"tile is -1"):
        plan_tiles(1500, 900, SD, -1)
