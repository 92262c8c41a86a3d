"""Restoring on a GPU: nearly the CPU's pixels, the same bytes each time, within little memory.

HBR_TEST_GPU=cpu tries the tests themselves on a machine without a GPU.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

import toy_models
from hbr.devices import choose_batch
from hbr.errors import OutOfMemoryError
from hbr.image import read_photo
from hbr.models.inference.recorded import REWRITE, RecordedModel
from hbr.restoration import Restorer
from hbr.restoration.passes import transfer

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def toy_file(tmp_path_factory):
    return toy_models.write(tmp_path_factory.mktemp("toy") / "toy.safetensors")


@pytest.fixture(scope="module")
def photo():
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (150, 90, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def lq():
    return read_photo(Path(__file__).parents[2] / "examples" / "lq" / "suit.jpg")


@pytest.fixture
def only_cuda(gpu):
    if gpu != "cuda":
        pytest.skip("only CUDA has this")


def farthest(one, two):
    """The largest difference of two restored photos, in 255ths."""
    one, two = one.photo.pixels, two.photo.pixels
    return np.abs(one.astype(int) - two.astype(int)).max()


def test_as_on_the_cpu_and_the_same_each_time(toy_file, photo, gpu):
    cpu = Restorer.from_pretrained(toy_file, device="cpu", dtype="float32")(photo)
    restorer = Restorer.from_pretrained(toy_file, device=gpu, dtype="float32")
    one, two = restorer(photo), restorer(photo)
    np.testing.assert_array_equal(one.pixels, two.pixels)
    assert one.provenance["device"].startswith(gpu)
    assert farthest(one, cpu) <= 3


def test_nano_is_as_on_the_cpu(lq, gpu):
    cpu = Restorer.from_pretrained("nano", device="cpu", dtype="float32")(lq)
    there = Restorer.from_pretrained("nano", device=gpu, dtype="float32")(lq)
    assert farthest(there, cpu) <= 3


@pytest.mark.parametrize(("dtype", "allowed"), [("bfloat16", 3.0), ("float16", 0.5)])
def test_16_bits_are_near_float32_and_finite(lq, gpu, dtype, allowed):
    """Allowed is the mean distance, in 255ths."""
    float32 = Restorer.from_pretrained("nano", device=gpu, dtype="float32")(lq)
    short = Restorer.from_pretrained("nano", device=gpu, dtype=dtype)
    one, two = short(lq), short(lq)
    np.testing.assert_array_equal(one.pixels, two.pixels)
    assert one.provenance["dtype"] == dtype
    assert np.abs(one.pixels.astype(float) - float32.pixels.astype(float)).mean() <= allowed


@pytest.mark.parametrize("batch", [2, 3, 8])
def test_tiles_in_batches(toy_file, photo, gpu, batch):
    restorer = Restorer.from_pretrained(toy_file, device=gpu, dtype="float32")
    single = restorer(photo, tile=64, batch=1)
    together = restorer(photo, tile=64, batch=batch)
    assert together.provenance["tiles"] == single.provenance["tiles"] > 2
    assert farthest(together, single) <= 3


def test_batches_that_overlap_give_the_same_bytes(toy_file, photo, gpu, monkeypatch):
    """Pinned buffers and streams, or one batch after the other; the last batch is smaller."""
    restorer = Restorer.from_pretrained(toy_file, device=gpu, dtype="float32")
    large = np.tile(photo, (2, 2, 1))
    runs = []
    for ahead in 0, 1:
        monkeypatch.setattr(transfer, "batches_ahead", lambda device, ahead=ahead: ahead)
        runs += [restorer(large, tile=64, batch=batch).pixels for batch in (1, 1, 4, 4)]
    for made in (runs[1], *runs[4:6]):
        np.testing.assert_array_equal(made, runs[0])
    for made in (runs[3], *runs[6:]):
        np.testing.assert_array_equal(made, runs[2])


def test_a_recorded_run_gives_the_same_bytes(toy_file, photo, only_cuda):
    """As it is at first, then recorded as a CUDA graph, then replayed."""
    restorer = Restorer.from_pretrained(toy_file, device="cuda", dtype="float32")
    assert isinstance(restorer.model, RecordedModel)
    plain = Restorer(restorer.model.model, name="plain", sha256="")
    for tile in (64, 0, 64):
        expected = plain(photo, tile=tile)
        for _ in range(4):
            one = restorer(photo, tile=tile)
            np.testing.assert_array_equal(one.pixels, expected.pixels)
            assert one.provenance["rewrites"][-1] == REWRITE
            assert one.provenance["fallback"] is None
    assert restorer.model._graphs


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_nano_in_16_bits_can_be_recorded(lq, only_cuda, dtype):
    restorer = Restorer.from_pretrained("nano", device="cuda", dtype=dtype)
    runs = [restorer(lq) for _ in range(4)]
    for run in runs[1:]:
        np.testing.assert_array_equal(run.pixels, runs[0].pixels)
        assert run.provenance["fallback"] is None
    assert restorer.model._graphs


def test_a_batch_that_is_too_large_is_made_smaller(toy_file, photo, only_cuda):
    """A limit of memory that one tile fits into, and all of them do not."""
    restorer = Restorer.from_pretrained(toy_file, device="cuda", dtype="float32")
    expected = restorer(photo, tile=64, batch=1)
    large = np.tile(photo, (16, 16, 1))
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    restorer(large, tile=64, batch=1)
    one = torch.cuda.max_memory_reserved()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((3 * one + 2**25) / total)
    try:
        # larger tiles would become smaller first
        many = restorer(large, tile=16, batch=16384)
        assert 1 <= many.provenance["batch"] < 16384
        assert farthest(restorer(photo, tile=64, batch=1), expected) == 0
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(2**21 / total)
        with pytest.raises(OutOfMemoryError, match=r"out of memory on cuda.*--device cpu"):
            restorer(large, tile=64, batch=512)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def test_the_batch_follows_the_memory(only_cuda):
    assert 1 <= choose_batch(torch.device("cuda")) <= 8
