from types import SimpleNamespace

import numpy as np
import pytest
import torch

import toy_models
from hbr.devices import is_out_of_memory
from hbr.errors import OutOfMemoryError
from hbr.models import Conditions
from hbr.restoration.passes import transfer
from hbr.restoration.passes.inference import run_tiles, run_within_memory
from hbr.restoration.passes.tiling import plan_tiles
from hbr.restoration.pixels.color import to_unit

SIZES = toy_models.SIZES


def whole_and_tiled(model, pixels, tile):
    height, width = pixels.shape[:2]
    runs = []
    with torch.inference_mode():
        for choice in (0, tile):
            plan = plan_tiles(height, width, model.capabilities, choice)
            runs.append(run_tiles(model, pixels, plan).astype(np.float64) / 65535)
    assert len(plan) > 4
    return runs


def test_tiled_is_untiled_where_the_network_sees_no_further_than_a_quarter_of_the_overlap(
    network, photo_pixels
):
    whole, tiled = whole_and_tiled(network(depth=8), photo_pixels, 128)
    assert np.abs(whole - tiled).max() <= 1 / 65535


def test_tiled_is_near_untiled_where_the_receptive_field_fits_the_overlap(network, photo_pixels):
    # 15 pixels each way are a receptive field of 31, and the overlap is 32.
    whole, tiled = whole_and_tiled(network(depth=15), photo_pixels, 128)
    assert np.abs(whole - tiled).max() < 2 / 255


def test_hard_cut_tiles_of_the_same_network_would_fail_that(network, photo_pixels):
    model = network(depth=15)
    plan = plan_tiles(*photo_pixels.shape[:2], model.capabilities, 0)
    with torch.inference_mode():
        whole = run_tiles(model, photo_pixels, plan)[:128, :128] / 65535
        left = photo_pixels[:128, :128]
        alone = run_tiles(model, left, plan_tiles(128, 128, model.capabilities, 0)) / 65535
    assert np.abs(whole - alone)[:100, 127].max() > 20 / 255


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    "size", [(1, 1), (1, 300), (16, 16), (17, 33), (128, 128), (300, 301), (611, 129)]
)
def test_the_identity_gives_back_every_pixel_of_any_size(identity, size, dtype, batch):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, np.iinfo(dtype).max, (*size, 3), dtype=dtype, endpoint=True)
    model = identity()
    plan = plan_tiles(*size, model.capabilities, 128)
    seen = []
    out = run_tiles(
        model,
        pixels,
        plan,
        batch=batch,
        progress=lambda done, total: seen.append((done, total)),
    )
    expected = pixels.astype(np.int64) * (257 if dtype is np.uint8 else 1)
    assert np.abs(out.astype(np.int64) - expected).max() <= 1
    assert seen[-1] == (len(plan), len(plan))
    assert all(call[0] <= batch and call[2:] == model.calls[0][2:] for call in model.calls)


@pytest.mark.parametrize(("size", "tile"), [((150, 300), 64), ((70, 611), 256), ((90, 40), 16)])
def test_tiles_are_summed_with_the_product_of_their_windows_rounded_once(size, tile):
    """Tiles that do not agree, blended by the definition, to the last bit."""
    rng = np.random.default_rng(0)
    plan = plan_tiles(*size, SIZES, tile)
    shape = (3, plan.rows.tile, plan.columns.tile)
    made = [rng.random(shape, np.float32) * np.float32(0.9) for _ in range(len(plan))]
    rest = iter(made)
    model = model_of(lambda x, *_: torch.from_numpy(next(rest))[None])
    out = run_tiles(model, np.zeros((*size, 3), np.uint8), plan)
    height, width = (axis.starts[-1] + axis.tile for axis in (plan.rows, plan.columns))
    total = np.zeros((3, height, width), np.float32)
    for (tiles,), values in zip(plan.batches(1), made, strict=True):
        place = plan.place(*tiles)
        rows, columns = plan.rows.window(tiles[0]), plan.columns.window(tiles[1])
        part = total[:, place.top : place.top + shape[1], place.left : place.left + shape[2]]
        part += (values * rows[:, None]) * columns.astype(np.float64)
    expected = np.rint(total[:, : size[0], : size[1]].clip(0, 1) * np.float32(65535))
    np.testing.assert_array_equal(out, np.moveaxis(expected, 0, -1).astype(np.uint16))


@pytest.mark.parametrize("batch", [1, 4])
def test_batches_submitted_before_the_last_is_waited_for_change_nothing(monkeypatch, batch):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (150, 300, 3), dtype=np.uint8)
    plan = plan_tiles(150, 300, SIZES, 64)
    events = []

    def restore(lq, places, conditions):
        events.append("model")
        return lq.flip(1) * 0.9 + lq.mean(dim=(1, 2, 3), keepdim=True) / 10

    def run():
        events.clear()
        return run_tiles(
            model_of(restore), pixels, plan, batch=batch, progress=lambda *_: events.append("out")
        )

    expected, plain = run(), events.copy()
    monkeypatch.setattr(transfer, "batches_ahead", lambda device: 1)
    np.testing.assert_array_equal(run(), expected)
    assert plain[:4] == ["model", "out"] * 2
    assert events[:4] == ["model", "model", "out", "model"]
    assert sorted(events) == sorted(plain)


def test_what_lies_outside_the_range_is_clamped_after_blending():
    plan = plan_tiles(40, 40, SIZES, 0)
    pixels = np.full((40, 40, 3), 128, np.uint8)
    assert (run_tiles(model_of(lambda x, *_: x * 9 - 1), pixels, plan) == 65535).all()
    assert (run_tiles(model_of(lambda x, *_: x - 9), pixels, plan) == 0).all()


def test_values_that_are_not_finite_are_an_error_not_a_black_tile():
    plan = plan_tiles(40, 40, SIZES, 0)
    with pytest.raises(FloatingPointError, match="not finite"):
        run_tiles(model_of(lambda x, *_: x / 0), np.zeros((40, 40, 3), np.uint8), plan)


def test_a_model_that_changes_the_size_is_an_error():
    plan = plan_tiles(40, 40, SIZES, 0)
    with pytest.raises(RuntimeError, match=r"made \[1, 3, 20, 20\] of \[1, 3, 40, 40\]"):
        run_tiles(model_of(lambda x, *_: x[..., ::2, ::2]), np.zeros((40, 40, 3), np.uint8), plan)


def model_of(restore):
    return SimpleNamespace(restore=restore, capabilities=SIZES, device=torch.device("cpu"))


MESSAGES = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to ..."),
    RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)"),
    MemoryError(),
]


@pytest.mark.parametrize("error", MESSAGES, ids=lambda e: str(e)[:12] or "MemoryError")
def test_out_of_memory_takes_smaller_tiles_then_smaller_batches(error):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (250, 350, 3), dtype=np.uint8)
    calls = []

    def restore(lq, places, conditions):
        calls.append((lq.shape[0], max(lq.shape[2:])))
        if lq.numel() > 2 * 3 * 64 * 64:
            raise error
        return lq

    plan = plan_tiles(250, 350, SIZES, 0)
    run = run_within_memory(model_of(restore), pixels, plan, batch=8)
    expected = [(1, 352), (6, 176), (8, 88), (8, 64), (4, 64), (2, 64)]
    assert list(dict.fromkeys(calls))[:6] == expected
    assert (run.batch, run.plan.edge) == (2, 64)
    np.testing.assert_array_equal(run.pixels, pixels.astype(np.uint16) * 257)


def test_where_nothing_fits_the_error_names_the_flag():
    def restore(lq, places, conditions):
        raise torch.OutOfMemoryError("CUDA out of memory")

    plan = plan_tiles(250, 350, SIZES, "auto")
    with pytest.raises(OutOfMemoryError, match=r"tiles of 64×64 pixels, 1 at a time; .*--tile 16"):
        run_within_memory(model_of(restore), np.zeros((250, 350, 3), np.uint8), plan, batch=2)


def test_other_errors_of_a_model_are_not_taken_for_want_of_memory():
    def restore(lq, places, conditions):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    plan = plan_tiles(50, 70, SIZES, "auto")
    with pytest.raises(RuntimeError, match="mat1"):
        run_within_memory(model_of(restore), np.zeros((50, 70, 3), np.uint8), plan)


def test_the_real_allocator_of_the_cpu_is_recognised():
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_conditions_reach_every_tile_also_after_a_retreat(small):
    """Each tile gets its own part of the maps, here of the photo itself, and all the tokens."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (250, 350, 3), dtype=np.uint8)
    photo = torch.from_numpy(to_unit(pixels))
    seen = []

    def restore(tiles, places, conditions):
        b, _, height, width = tiles.shape
        assert torch.equal(conditions.maps["photo"], tiles)
        assert torch.equal(conditions.tokens["prompt"], torch.full((b, 2, 5), 7.0))
        for tile, place in zip(tiles, places, strict=True):
            assert (place.height, place.width) == (250, 350)
            part = photo[0, :, place.top : place.top + height, place.left : place.left + width]
            assert torch.equal(tile[:, : part.shape[1], : part.shape[2]], part)
        seen.append((b, height))
        if tiles.numel() > 2 * 3 * 64 * 64:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return tiles

    conditions = Conditions(maps={"photo": photo}, tokens={"prompt": torch.full((1, 2, 5), 7.0)})
    plan = plan_tiles(250, 350, small, "auto")
    run = run_within_memory(model_of(restore), pixels, plan, conditions=conditions, batch=5)
    assert (run.batch, run.plan.edge) == (2, 64)
    assert len(set(seen)) >= 4
    np.testing.assert_array_equal(run.pixels, pixels.astype(np.uint16) * 257)
