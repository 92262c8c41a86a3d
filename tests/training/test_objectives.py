"""Restoration, a diffusion prior, an autoencoder: each learns, and trains only what is its own."""

import json
from pathlib import Path

import pytest
import torch
from toy_training import settings, train

from hbr.config import from_dict
from hbr.models.checkpoint import read_checkpoint
from hbr.models.identity import start_at_identity, whiten
from hbr.models.onestep import OneStepRestorer
from hbr.models.schedule import add_noise, alphas_cumprod, predicted_x0
from hbr.training.config import TrainConfig
from hbr.training.data import Pair, seeded, validation_pairs
from hbr.training.objectives import build_objective


def rows(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "curves.jsonl").read_text().splitlines()]


@pytest.fixture
def photos() -> torch.Tensor:
    config = from_dict(TrainConfig, settings(Path("out")))
    return torch.cat([pair.hq for pair in validation_pairs(config.validation)])


def changed_parts(values: dict, **start: object) -> set[str]:
    """The parts of the model that a training moves away from where it started."""
    config = from_dict(TrainConfig, values)
    torch.manual_seed(config.seed)
    model = OneStepRestorer(config.model)
    start_at_identity(model, **start)
    before = model.state_dict()
    after = read_checkpoint(train(values)).tensors
    return {n.split(".")[0] for n in before if not torch.equal(before[n], after[n])}


def test_an_autoencoder_learns_the_detail_that_its_latent_leaves_out(tmp_path):
    values = settings(
        tmp_path,
        objective={"kind": "autoencoder", "noise": 0.01},
        phases=[{"steps": 80, "crop": 32, "batch": 8}],
        optim={"lr": 3e-3, "warmup": 5, "ema": 0.9, "decay": 20},
    )
    values["validation"]["every"] = 80
    assert changed_parts(values, one_step=False) == {"autoencoder"}
    losses = {row["step"]: row["loss/l1"] for row in rows(tmp_path) if "loss/l1" in row}
    assert losses[80] < 0.8 * losses[20]
    assert {"validation/psnr", "validation/latent_std"} <= rows(tmp_path)[-1].keys()


def test_a_diffusion_prior_learns_to_tell_noise(tmp_path):
    values = settings(
        tmp_path,
        objective={"kind": "diffusion"},
        phases=[{"steps": 60, "crop": 32, "batch": 8}],
        optim={"lr": 3e-3, "warmup": 5, "ema": 0.9},
    )
    values["validation"]["every"] = 60
    assert changed_parts(values) == {"unet", "prompt"}
    losses = [row["loss/epsilon"] for row in rows(tmp_path) if "loss/epsilon" in row]
    # what predicts no noise at all has a loss of 1
    assert losses[-1] < 0.8
    assert rows(tmp_path)[-1]["validation/epsilon_950"] < 0.9


@pytest.mark.parametrize("kind", ["restoration", "autoencoder", "diffusion"])
def test_the_seed_and_the_step_decide_the_loss(tmp_path, kind, photos):
    config = from_dict(TrainConfig, settings(tmp_path, objective={"kind": kind}))
    torch.manual_seed(0)
    model = OneStepRestorer(config.model)
    start_at_identity(model)
    terms = build_objective(config).terms
    pair = Pair(photos, photos * 0.9)
    first, again, other = (
        sum(terms(model, pair, config.loss, seeded(0, step, 1)).values()) for step in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (kind == "restoration")


def test_a_whitened_latent_decodes_to_the_same_image(photos):
    config = from_dict(TrainConfig, settings(Path("out"))).model
    model = OneStepRestorer(config)
    start_at_identity(model, one_step=False)
    with torch.no_grad():
        before = model.decode(model.encode(photos))
        whiten(model, photos)
        z = model.encode(photos)
        assert torch.allclose(model.decode(z), before, atol=1e-4)
    assert torch.allclose(z.mean(dim=(0, 2, 3)), torch.zeros(z.shape[1]), atol=1e-3)
    assert torch.allclose(z.std(dim=(0, 2, 3)), torch.ones(z.shape[1]), atol=1e-3)


def test_noise_that_was_added_is_taken_away_again():
    config = from_dict(TrainConfig, settings(Path("out"))).model
    z, noise = torch.randn(3, 4, 5, 6), torch.randn(3, 4, 5, 6)
    at = alphas_cumprod(config.schedule)[[10, 500, 999]].float()
    z_t = add_noise(z, noise, at)
    assert torch.allclose(predicted_x0(z_t, noise, at), z, atol=1e-5)
    # DESIGN §3: √ᾱ and √(1−ᾱ) at 999
    assert torch.allclose(z_t[2], 0.0682649 * z[2] + 0.9976673 * noise[2], atol=1e-6)
