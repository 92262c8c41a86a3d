"""Compiled blocks compute what the others do, and a compiler that fails is one line."""

from functools import partial
from pathlib import Path

import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from toy_training import adapted, gradients_of, settings, train

from hbr.config import from_dict
from hbr.models import read_checkpoint
from hbr.models.onestep import OneStepRestorer
from hbr.training.compiling import compile_blocks
from hbr.training.config import TrainConfig
from hbr.training.data import Pair, seeded
from hbr.training.loop import Trainer
from hbr.training.objectives import build_objective
from hbr.training.random_state import RandomState
from hbr.training.start import checkpoint_blocks


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return read_checkpoint(train(short(tmp_path_factory.mktemp("plain")))).tensors


def short(out, **changes):
    values = settings(out, phases=[{"steps": 5, "crop": 32, "batch": 1}], **changes)
    values["validation"] |= {"count": 1, "crop": 64, "every": 2}
    return values


@pytest.fixture(autouse=True)
def fresh():
    """Nothing that was compiled before."""
    limit = torch._dynamo.config.recompile_limit
    yield
    torch._dynamo.reset()
    torch._dynamo.config.recompile_limit = limit


class Backend:
    """Runs what was traced as it is, and counts it."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, _):
        self.graphs += 1
        return graph.forward


def gradients(backend=None, *, checkpointed=False):
    """Of both updates of a step of distillation, whose networks differ in their adapters."""
    config, model = adapted()
    if checkpointed:
        checkpoint_blocks(model)
    if backend is not None:
        compile_blocks(model, pytest.fail, backend)
    model.train()
    lq = torch.rand(1, 3, 32, 32, generator=seeded(0, 0))
    losses = build_objective(config).losses(
        model, Pair(hq=lq.flip(-1), lq=lq), config.loss, RandomState(seeded(0, 0, 1))
    )
    generator, regularizer = gradients_of(model, losses)
    return {**generator, **regularizer}


@pytest.mark.slow
def test_compiled_blocks_give_the_same_gradients(monkeypatch):
    # blocks with adapters; all blocks would take thrice as long
    monkeypatch.setattr("hbr.training.compiling.BLOCKS", (BasicTransformerBlock,))
    plain, backend = gradients(), Backend()
    compiled = gradients(backend, checkpointed=True)
    assert plain.keys() == compiled.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(compiled[name], gradient, rtol=1e-5, atol=1e-7)
    assert any("regularizer" in name for name in plain)
    # generator, prior and regularizer are compiled each; blocks that are alike share their graphs
    config = from_dict(TrainConfig, settings(Path("out")))
    unet = OneStepRestorer(config.model).unet
    blocks = [block for block in unet.modules() if isinstance(block, BasicTransformerBlock)]
    assert backend.graphs > len(blocks) > 0


def test_a_training_compiles_its_blocks_where_it_is_asked_to(tmp_path, monkeypatch, plain):
    backend = Backend()
    made = partial(compile_blocks, backend=backend)
    monkeypatch.setattr("hbr.training.loop.compile_blocks", made)
    train(short(tmp_path / "not"))
    assert backend.graphs == 0
    compiled = read_checkpoint(train(short(tmp_path / "compiled", compile=True))).tensors
    assert backend.graphs > 0
    assert compiled.keys() == plain.keys()
    for name, tensor in plain.items():
        torch.testing.assert_close(compiled[name], tensor, rtol=1e-4, atol=1e-5)


def fails(graph, _):
    raise ValueError("no registers\nare left")


@pytest.mark.parametrize(
    ("backend", "why"),
    [
        (fails, "ValueError: no registers are left);"),
        ("inductor", "InvalidCxxCompiler: No working C++ compiler found"),
    ],
)
def test_without_a_compiler_the_training_goes_on(tmp_path, monkeypatch, plain, backend, why):
    made = partial(compile_blocks, backend=backend)
    monkeypatch.setattr("hbr.training.loop.compile_blocks", made)
    lines = []
    config = from_dict(TrainConfig, short(tmp_path, compile=True))
    with torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}):
        tensors = read_checkpoint(Trainer(config, report=lines.append).run()).tensors
    assert all(torch.equal(plain[name], tensors[name]) for name in plain)
    (told,) = [line for line in lines if line.startswith("compile: ")]
    assert "the compiler failed" in told
    assert why in told
    assert "\n" not in told
