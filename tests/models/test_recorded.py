"""When a run is recorded as a CUDA graph, replayed, or neither; without CUDA, by a stand-in."""

import logging
from types import SimpleNamespace

import pytest
import torch

import toy_models
from hbr.models import Conditions, OneStepRestorer
from hbr.models.inference.folding import optimize
from hbr.models.inference.recorded import RecordedModel


class Recorder:
    """Records by keeping the tiles' buffer and the result, as a graph does."""

    def __init__(self):
        self.shapes, self.replays = [], 0

    def __call__(self, run, tiles):
        self.shapes.append(tuple(tiles.shape))
        given = tiles.clone()

        def replay(tiles):
            self.replays += 1
            given.copy_(tiles)
            return run(given).clone()

        return replay


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return optimize(OneStepRestorer(toy_models.CONFIG).eval())


def tiles_of(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape)))


@torch.inference_mode()
def test_a_shape_is_recorded_when_it_comes_for_the_third_time(model):
    recorder = Recorder()
    recorded = RecordedModel(model, recorder)
    for run in range(5):
        for shape in (1, 3, 64, 64), (2, 3, 64, 48):
            tiles = tiles_of(*shape) + run / 100
            made = recorded.restore(tiles, [], Conditions())
            assert torch.equal(made, model.restore(tiles, [], Conditions()))
        assert recorder.replays == 2 * max(0, run - 1)
    assert recorder.shapes == [(1, 3, 64, 64), (2, 3, 64, 48)]
    assert recorded.fallback is None
    for edge in range(48, 16, -16):
        for _ in range(4):
            recorded.restore(tiles_of(1, 3, edge, 64), [], Conditions())
    assert len(recorder.shapes) == 4  # graphs keep memory: no more than some


@torch.inference_mode()
def test_what_depends_on_more_than_the_tiles_is_not_replayed(model):
    recorder = Recorder()
    recorded = RecordedModel(model, recorder)
    tiles, prompt = tiles_of(1, 3, 64, 64), {"prompt": tiles_of(1, 4, 32)}
    for _ in range(4):
        recorded.restore(tiles, [], Conditions())
        made = recorded.restore(tiles, [], Conditions(tokens=prompt))
    assert torch.equal(made, model.restore(tiles, [], Conditions(tokens=prompt)))
    assert not torch.equal(made, model.restore(tiles, [], Conditions()))
    assert recorder.replays == 2


@torch.inference_mode()
def test_what_cannot_be_recorded_runs_without_and_is_said_once(model, caplog):
    def fails(run, tiles):
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    recorded = RecordedModel(model, fails)
    tiles = tiles_of(1, 3, 64, 64)
    with caplog.at_level(logging.WARNING, logger="hbr"):
        made = [recorded.restore(tiles, [], Conditions()) for _ in range(6)]
    assert torch.equal(made[-1], model.restore(tiles, [], Conditions()))
    (line,) = caplog.messages
    assert line.endswith(
        "operation not permitted when stream is capturing); the model runs without"
    )
    assert recorded.fallback is not None
    assert recorded.fallback in line


def recorded_model(restore):
    """A recorded model that restores by a function."""
    like = {"capabilities": None, "device": torch.device("cpu"), "dtype": torch.float32}
    return RecordedModel(SimpleNamespace(restore=restore, **like), Recorder())


def test_graphs_are_given_up_when_memory_runs_out():
    left = iter([True] * 3 + [False])

    def restore(tiles, places, conditions):
        if len(tiles) > 1 and not next(left, False):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return tiles

    recorded = recorded_model(restore)
    for _ in range(3):
        recorded.restore(tiles_of(2, 3, 8, 8), [], Conditions())
    with pytest.raises(torch.OutOfMemoryError):
        recorded.restore(tiles_of(3, 3, 8, 8), [], Conditions())
    recorded.restore(tiles_of(1, 3, 8, 8), [], Conditions())
    assert recorded._graphs == {}


def test_memory_of_graphs_is_given_back_before_a_run_fails():
    def restore(tiles, places, conditions):
        if len(tiles) == 3 and recorded._graphs:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return tiles

    recorded = recorded_model(restore)
    for _ in range(3):
        recorded.restore(tiles_of(2, 3, 8, 8), [], Conditions())
    assert recorded._graphs
    tiles = tiles_of(3, 3, 8, 8)
    assert torch.equal(recorded.restore(tiles, [], Conditions()), tiles)
    assert recorded._graphs == {}
