"""The discriminator: its losses, LDL's map, what is trained and kept, and how divergence ends."""

import math

import pytest
import torch
from safetensors import safe_open
from toy_training import rows, settings

from hbr.config import ConfigError, from_dict
from hbr.models import load_model
from hbr.training import Trainer
from hbr.training.config import TrainConfig
from hbr.training.discriminator import (
    Balance,
    Discriminator,
    artifact_loss,
    discriminator_loss,
    generator_loss,
)
from hbr.training.state import TrainingError

OBJECTIVE = {"kind": "restoration", "discriminator": {"width": 4, "lr": 1e-3}}
LOSS = {"l1": 1.0, "adversarial": 0.05, "artifacts": 5.0}


def adversarial(out, steps=8, **changes):
    values = settings(out, objective=OBJECTIVE, loss=LOSS)
    values["phases"] = [
        {"steps": 2, "crop": 32, "batch": 2, "loss": {"l1": 1.0}},
        {"steps": steps - 2, "crop": 32, "batch": 2},
    ]
    return {**values, "start": "random", **changes}


def images(seed, n=2, size=32):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_it_learns_to_tell_and_the_generator_to_deceive():
    """Noise from flat images in 60 steps; then the gradient moves an image towards what is real."""
    torch.manual_seed(0)
    discriminator = Discriminator(width=8)
    optimizer = torch.optim.AdamW(discriminator.parameters(), lr=3e-3)
    flat = torch.full((4, 3, 32, 32), 0.5)
    assert discriminator(flat).shape == (4, 1, 16, 16)
    first = None
    for step in range(60):
        loss = discriminator_loss(discriminator, flat, images(step, 4))
        first = float(loss.detach()) if first is None else first
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert first == pytest.approx(2 * math.log(2), abs=0.5)
    assert float(loss.detach()) < first / 2
    fake = flat.clone().requires_grad_()
    optimizer.zero_grad()
    before = generator_loss(discriminator, fake)
    before.backward()
    assert all(p.grad is None for p in discriminator.parameters())
    assert all(p.requires_grad for p in discriminator.parameters())
    with torch.no_grad():
        moved = fake - 0.1 * fake.grad / fake.grad.abs().max()
        assert generator_loss(discriminator, moved) < before


def test_every_convolution_but_the_last_has_norm_one():
    torch.manual_seed(0)
    discriminator = Discriminator(width=8).train()
    for seed in range(30):  # each pass is one step of the power iteration
        discriminator(images(seed))
    for name, layer in discriminator.named_children():
        if name != "last":
            largest = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), ord=2)
            assert float(largest) == pytest.approx(1, rel=0.05)


def test_artifacts_are_where_the_image_is_off_and_the_average_is_not():
    real = images(1, 1) * 0.2 + 0.4
    artifact = real.clone()
    artifact[..., 8:16, 8:16] += 0.3 * torch.randn(1, 3, 8, 8, generator=torch.Generator())
    assert float(artifact_loss(real, real, real)) == 0
    alone = artifact_loss(artifact, real, real)
    assert float(alone) > 0
    # what the averaged model does as badly or worse is no artifact of this training
    worse = real + 1.5 * (artifact - real)
    assert float(artifact_loss(artifact, worse, real)) < float(alone) / 100
    moved = artifact.clone().requires_grad_()
    artifact_loss(moved, real, real).backward()
    outside = moved.grad[..., 20:, 20:].abs().max()
    assert float(outside) == 0
    assert float(moved.grad[..., 8:16, 8:16].abs().max()) > 0


def test_a_training_against_a_discriminator(tmp_path):
    """It is trained in both phases, acts in the second, is kept in the state, not in the model."""
    out = tmp_path / "out"
    Trainer(from_dict(TrainConfig, adversarial(out)), report=lambda line: None).run()
    last = [row for row in rows(out) if "loss/discriminator" in row][-1]
    assert 0 < last["loss/adversarial"] < 0.05 * 2
    assert last["loss/artifacts"] >= 0
    assert last["loss/discriminator"] == pytest.approx(2 * math.log(2), abs=0.6)
    with safe_open(out / "state.safetensors", "pt") as file:
        kept = [name for name in file.keys() if "discriminator" in name]  # noqa: SIM118
        assert any(name.startswith("optimizer.exp_avg.") for name in kept)
        assert float(file.metadata()["balance"]) != 2 * math.log(2)
    model = load_model(out / "model.safetensors")
    assert not hasattr(model, "discriminator")


def test_stopped_and_gone_on_it_is_the_same(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    Trainer(from_dict(TrainConfig, adversarial(whole)), report=lambda line: None).run()
    config = from_dict(TrainConfig, adversarial(parts))
    for _ in range(2):
        trainer = Trainer(config, report=lambda line: None)
        original = trainer._step

        def stop_after_four(pair, original=original, trainer=trainer):
            out = original(pair)
            if trainer.state.step == 4:
                trainer._save()
                raise KeyboardInterrupt
            return out

        trainer._step = stop_after_four
        try:
            trainer.run()
        except KeyboardInterrupt:
            continue
    first, second = (load_model(p / "model.safetensors").state_dict() for p in (whole, parts))
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, atol=1e-6, rtol=1e-5)


def test_a_discriminator_that_wins_for_good_ends_the_training(tmp_path):
    """Told in one line; the checkpoint from before stays as it was."""
    config = from_dict(TrainConfig, adversarial(tmp_path / "out", steps=400, save_every=1))
    trainer = Trainer(config, report=lambda line: None)
    original = trainer._step

    def wins(pair):
        out = original(pair)
        if trainer.state.step > 3:
            for _ in range(20):
                trainer.state.balance.add(1e-4)
        return out

    trainer._step = wins
    with pytest.raises(
        TrainingError, match=r"the discriminator diverged.*holds the last checkpoint"
    ):
        trainer.run()
    assert trainer.state.step < 40
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert int(file.metadata()["steps"]) < trainer.state.step


def test_balance():
    balance = Balance()
    assert balance.healthy
    assert not balance.diverged
    balance.add(float("nan"))  # a step that is left out anyway
    assert balance.healthy
    for _ in range(150):
        balance.add(0.15)
    assert not balance.healthy
    assert not balance.diverged
    for _ in range(400):
        balance.add(0.01)
    assert balance.diverged
    lost = Balance()
    for _ in range(400):
        lost.add(5.0)
    assert lost.diverged


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"objective": {"kind": "restoration"}}, "adversarial"),
        ({"objective": {"kind": "diffusion"}, "loss": {"artifacts": 1.0}}, "artifacts"),
        ({"memory": {"decode_crop": 16}}, "artifacts"),
        ({"objective": {**OBJECTIVE, "discriminator": {"width": 0}}}, "width"),
        ({"objective": {**OBJECTIVE, "discriminator": {"lr": 0.0}}}, "lr"),
        (
            {"objective": {**OBJECTIVE, "lora": {"rank": 2}, "vsd": {"guidance": 1.0}}},
            "discriminator",
        ),
    ],
)
def test_what_does_not_go_together_names_its_field(tmp_path, changes, field):
    with pytest.raises(ConfigError, match=field):
        from_dict(TrainConfig, adversarial(tmp_path, **changes))
