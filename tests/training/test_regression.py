"""SwinIR in the training loop: a second kind of model, with the objective `regression`."""

import json
from pathlib import Path

import pytest
import torch
from toy_training import settings, stop_after, train

from hbr.config import ConfigError, from_dict
from hbr.models.checkpoint import read_checkpoint
from hbr.training.config import TrainConfig
from hbr.training.cost import plan
from hbr.training.data import TrainingPairs
from hbr.training.loop import Trainer
from hbr.training.objectives import build_objective
from hbr.training.random_state import RandomState

MODEL = {
    "kind": "swinir",
    "embed_dim": 8,
    "depths": [2],
    "num_heads": [2],
    "window_size": 4,
    "unshuffle": 4,
    "upscale": 4,
    "width": 8,
    "native_size": 64,
}


def swinir(out: Path, **changes):
    values = {
        "model": MODEL,
        "objective": {"kind": "regression"},
        "loss": {"l1": 0, "mse": 1},
        "start": "random",
        "phases": [{"steps": 4, "crop": 32, "batch": 2}],
        "optim": {"lr": 3e-3, "warmup": 0, "ema": 0.5},
    }
    return settings(out, **{**values, **changes})


@pytest.mark.slow
def test_it_learns_to_return_what_it_sees(tmp_path):
    values = swinir(tmp_path, phases=[{"steps": 120, "crop": 16, "batch": 8}])
    values["model"] = {**MODEL, "unshuffle": 2, "upscale": 2}
    values["data"]["degradations"] = {"none": 1.0}
    values["validation"] |= {"every": 120, "recipe": "none"}
    train(values)
    rows = [json.loads(line) for line in (tmp_path / "curves.jsonl").read_text().splitlines()]
    losses = [row["loss/mse"] for row in rows if "loss/mse" in row]
    assert losses[-1] < 0.5 * losses[0], losses
    assert {"validation/psnr", "validation/ssim_gain"} <= rows[-1].keys()
    assert (tmp_path / "pictures" / "000120.png").is_file()


def test_the_loss_is_the_mean_square(tmp_path):
    config = from_dict(TrainConfig, swinir(tmp_path))
    model = Trainer(config, report=lambda line: None).model
    pair = TrainingPairs(config, 0).batch(0)
    losses = build_objective(config).losses(
        model, pair, config.loss, RandomState(torch.Generator())
    )
    expected = ((model(pair.lq) - pair.hq) ** 2).mean()
    assert losses.terms.keys() == {"mse"}
    assert torch.allclose(losses.terms["mse"], expected)


def test_it_resumes_where_it_stopped_and_starts_from_a_file(tmp_path):
    whole = read_checkpoint(train(swinir(tmp_path / "whole"))).tensors
    stop_after(2, swinir(tmp_path / "parts"))
    parts = read_checkpoint(train(swinir(tmp_path / "parts"))).tensors
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    again = swinir(tmp_path / "again", init=str(tmp_path / "whole" / "model.safetensors"))
    begun = Trainer(from_dict(TrainConfig, again), report=lambda line: None).model.state_dict()
    assert all(torch.equal(whole[name], begun[name]) for name in whole)
    again["model"] = {**MODEL, "width": 16}
    with pytest.raises(ConfigError, match=r"model.width is 8 there, 16 in `model`"):
        Trainer(from_dict(TrainConfig, again), report=lambda line: None)


def test_checkpointing_takes_less_memory_and_changes_nothing(tmp_path):
    model = {**MODEL, "depths": [2, 2, 2], "num_heads": [2, 2, 2]}
    plain = from_dict(TrainConfig, swinir(tmp_path / "a", model=model))
    saving = from_dict(
        TrainConfig, swinir(tmp_path / "b", model=model, memory={"checkpointing": True})
    )
    assert (
        plan(saving, device="cpu").phases[0].passing
        < 0.7 * plan(plain, device="cpu").phases[0].passing
    )
    before, after = (
        read_checkpoint(Trainer(c, report=lambda line: None).run()) for c in (plain, saving)
    )
    assert all(torch.allclose(t, after.tensors[n], atol=1e-6) for n, t in before.tensors.items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": {"kind": "diffusion"}}, "model.kind is 'swinir'; it must be one-step"),
        ({"model": {**MODEL, "unshuffle": 2}}, "model.upscale is 2; it must be the unshuffle"),
        ({"start": "identity"}, "start is 'identity'; it must be random"),
        ({"memory": {"decode_crop": 16}}, "decode_crop is 16; it must be null"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(TrainConfig, swinir(tmp_path, **changes))
