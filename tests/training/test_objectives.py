"""Restoration, a diffusion prior, an autoencoder: each learns, and trains only what is its own."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_training import MODEL, rows, settings, stop_after, train

from hbr.config import ConfigError, from_dict
from hbr.models import lora
from hbr.models.autoencoder_config import AutoencoderConfig
from hbr.models.checkpoint import read_checkpoint
from hbr.models.config import UNetConfig
from hbr.models.identity import start_at_identity, whiten
from hbr.models.loading import load_model
from hbr.models.onestep import OneStepRestorer, build_autoencoder, build_unet
from hbr.models.schedule import add_noise, alphas_cumprod, predicted_x0
from hbr.training.adapters import add_adapters, generator_adapters, regularizer_adapters
from hbr.training.config import LossConfig, TrainConfig, VSDConfig
from hbr.training.data import Pair, TrainingPairs, seeded
from hbr.training.loop import Trainer
from hbr.training.losses import PixelTerms
from hbr.training.objectives import build_objective, distillation
from hbr.training.random_state import RandomState
from hbr.training.validation import validation_pairs


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


@pytest.mark.slow
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


def test_an_autoencoder_may_be_trained_on_crops_of_two_sizes(tmp_path):
    train(settings(tmp_path, objective={"kind": "autoencoder"}))
    assert rows(tmp_path)[-2]["step"] == 8


@pytest.mark.slow
def test_a_diffusion_prior_learns_to_tell_noise(tmp_path):
    values = settings(
        tmp_path,
        objective={"kind": "diffusion"},
        phases=[{"steps": 60, "crop": 32, "batch": 4}],
        optim={"lr": 3e-3, "warmup": 5, "ema": 0.9},
        save_every=60,
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
    losses = build_objective(config).losses
    pair = Pair(hq=photos, lq=photos * 0.9)
    first, again, other = (
        sum(losses(model, pair, config.loss, RandomState(seeded(0, step, 1))).terms.values())
        for step in (3, 3, 4)
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


ADAPTED = {"kind": "restoration", "lora": {"rank": 2}, "vsd": {"weight": 1.0, "lora": {"rank": 2}}}


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model file of a short diffusion training."""
    values = settings(
        tmp_path_factory.mktemp("prior") / "prior",
        objective={"kind": "diffusion"},
        phases=[{"steps": 6, "crop": 32, "batch": 2}],
    )
    return train(values)


def test_fine_tuning_by_adapters_changes_what_restores_and_nothing_else(tmp_path, prior):
    out = tmp_path / "tuned"
    file = train(settings(out, objective=ADAPTED, init=str(prior), freeze=["prompt.encoder"]))
    before, after = read_checkpoint(prior), read_checkpoint(file)
    assert before.tensors.keys() == after.tensors.keys()
    changed = {n for n in before.tensors if not torch.equal(before.tensors[n], after.tensors[n])}
    assert {n.split(".")[0] for n in changed} == {"autoencoder", "unet", "prompt"}
    assert not any(n.startswith(("autoencoder.decoder", "prompt.encoder")) for n in changed)
    assert {"loss/vsd", "loss/regularizer"} <= rows(out)[-2].keys()
    # what is kept for going on is the adapters, not the frozen weights under them
    assert (out / "state.safetensors").stat().st_size < 2 * prior.stat().st_size


def test_the_model_file_is_what_the_adapters_make_of_the_prior(tmp_path, prior, photos):
    config = from_dict(
        TrainConfig, settings(tmp_path / "tuned", objective=ADAPTED, init=str(prior))
    )
    trainer = Trainer(config, report=lambda line: None)
    file = trainer.run()
    trainer.model.eval()
    with torch.no_grad(), trainer._averaged():
        adapted = trainer.model(photos)
    assert torch.allclose(load_model(file)(photos), adapted, atol=1e-4)


@pytest.mark.slow
def test_adapters_go_on_where_they_stopped(tmp_path, prior):
    values = settings(tmp_path / "whole", objective=ADAPTED, init=str(prior))
    whole = read_checkpoint(train(values)).tensors
    values = {**values, "out": str(tmp_path / "parts")}
    stop_after(3, values)
    parts = read_checkpoint(train(values)).tensors
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_distillation_pulls_towards_what_the_prior_knows(tmp_path, prior, photos):
    """The regularizer starts as the prior: the gradient is guidance alone, and 0 without any."""
    config = from_dict(
        TrainConfig, settings(tmp_path / "tuned", objective=ADAPTED, init=str(prior))
    )
    model = Trainer(config, report=lambda line: None).model
    z = model.encode(photos).detach().requires_grad_()
    p = model.prompt(photos).detach()
    for guidance, pulls in ((1.0, False), (7.5, True)):
        loss = distillation(model, z, p, VSDConfig(guidance=guidance), RandomState(seeded(0, 0, 1)))
        assert (loss.item() > 1e-9) == pulls


def tuned(tmp_path: Path, prior: Path, **objective: object) -> Trainer:
    """A trainer of adapters whose every B is random, so that each adapter changes the output."""
    values = settings(
        tmp_path / "tuned", objective={**ADAPTED, **objective}, init=str(prior), start="random"
    )
    trainer = Trainer(from_dict(TrainConfig, values), report=lambda line: None)
    for name, parameter in trainer.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return trainer


def acting(model: OneStepRestorer, call) -> set[str]:
    """The adapters without which a call of the U-Net gives another result."""
    found = set()
    with torch.no_grad():
        expected = call()
        layers = lora.lora_layers(model.unet)
        for adapter in {name for layer in layers.values() for name in layer.lora_A}:
            kept = {
                name: p.detach().clone()
                for name, p in model.unet.named_parameters()
                if f"lora_B.{adapter}." in name
            }
            for name in kept:
                model.unet.get_parameter(name).zero_()
            if not torch.equal(call(), expected):
                found.add(adapter)
            for name, value in kept.items():
                model.unet.get_parameter(name).copy_(value)
    return found


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ("whole", {"regularizer_encoder", "regularizer_decoder", "regularizer_others"}),
        ("published", {"regularizer_others"}),
    ],
)
def test_which_adapters_act_in_which_call(tmp_path, prior, photos, which, expected):
    vsd = {**ADAPTED["vsd"], "regularizer": which}
    trainer = tuned(tmp_path, prior, vsd=vsd)
    model, config = trainer.model, trainer.config.objective
    z, p = model.encode(photos).detach(), model.prompt(photos).detach()
    t = torch.full((len(z),), 500)
    calls = {}
    predict = model.predict

    def seen(z_t, prompt, t=None):
        active = {
            name
            for layer in lora.lora_layers(model.unet).values()
            if not layer.disable_adapters
            for name in layer.active_adapters
        }
        calls.setdefault(frozenset(active & set(every)), None)
        return predict(z_t, prompt, t) if t is not None else predict(z_t, prompt)

    every = {n for layer in lora.lora_layers(model.unet).values() for n in layer.lora_A}
    generator = {"default_encoder", "default_decoder", "default_others"}
    assert every == generator | expected
    lora.activate(model.unet, generator_adapters(model.unet))
    assert acting(model, lambda: model.predict(z, p)) == generator
    lora.activate(model.unet, regularizer_adapters(model.unet))
    assert acting(model, lambda: model.predict(z, p, t)) == expected
    lora.activate(model.unet, ())
    assert acting(model, lambda: model.predict(z, p, t)) == set()
    model.predict = seen
    losses = trainer.objective.losses(
        model, Pair(hq=photos, lq=photos * 0.9), trainer.config.loss, RandomState(seeded(0, 0, 1))
    )
    assert set(calls) == {frozenset(generator), frozenset(expected), frozenset()}
    calls.clear()
    assert losses.then is not None
    losses.then()
    assert set(calls) == {frozenset(expected)}
    assert config.vsd.regularizer == which


def test_the_published_regularizer_trains_16_layers_of_the_middle_block():
    """Of Stable Diffusion's U-Net, as OSEDiff's training code leaves it."""
    with torch.device("meta"):
        unet = build_unet(UNetConfig(), 4)
        model = torch.nn.Module()
        model.add_module("unet", unet)
        model.add_module("autoencoder", build_autoencoder(AutoencoderConfig()))
    values = settings(Path("out"), objective={**ADAPTED, "vsd": {"regularizer": "published"}})
    add_adapters(model, from_dict(TrainConfig, {**values, "init": "nano"}))
    layers = lora.lora_layers(unet)
    count = {
        name: sum(name in layer.lora_A for layer in layers.values())
        for name in ("default_encoder", "default_decoder", "default_others", "regularizer_others")
    }
    assert count == {
        "default_encoder": 94,
        "default_decoder": 148,
        "default_others": 16,
        "regularizer_others": 16,
    }
    followed = [name for name, layer in layers.items() if "regularizer_others" in layer.lora_A]
    assert all(name.startswith("mid_block.") for name in followed)


def test_conv_in_is_trained_for_the_generator_alone(tmp_path, prior, photos):
    trainer = tuned(tmp_path, prior, train_conv_in=True)
    model = trainer.model
    names = {n for n in trainer.state.trained if "conv_in.base_layer" in n}
    assert names == {"unet.conv_in.base_layer.weight", "unet.conv_in.base_layer.bias"}
    z, p = model.encode(photos).detach(), model.prompt(photos).detach()
    t = torch.full((len(z),), 500)

    def predictions() -> list[torch.Tensor]:
        found = []
        for adapters in (generator_adapters(model.unet), regularizer_adapters(model.unet), ()):
            lora.activate(model.unet, adapters)
            found.append(model.predict(z, p, t).detach())
        return found

    before = predictions()
    pairs = TrainingPairs(trainer.config, 0)
    trainer._step(pairs.batch(0))
    with torch.no_grad():
        for name in names:
            parameter = trainer.state.trained[name]
            start = read_checkpoint(prior).tensors[name.replace(".base_layer", "")]
            assert not torch.equal(parameter, start)  # the step has changed it
            parameter.add_(0.5)
        for name, parameter in trainer.state.trained.items():
            if "lora_" in name:  # back to where they were is not needed: only to equal ones
                parameter.zero_()
    after = predictions()
    assert not torch.equal(after[0], after[2])  # the generator has the changed convolution
    assert torch.equal(after[1], after[2])  # the regularizer and the prior have the base's
    assert torch.equal(after[2], before[2])
    trainer.state.update_average()
    trainer.config.out.mkdir(exist_ok=True)
    trainer._save()
    merged = read_checkpoint(trainer.config.out / "model.safetensors").tensors
    kept = load_file(trainer.config.out / "lora.safetensors")
    for name in ("conv_in.weight", "conv_in.bias"):
        whole = trainer.state.average[f"unet.{name.replace('conv_in', 'conv_in.base_layer')}"]
        torch.testing.assert_close(kept[f"modules_to_save.unet.{name}"], whole)
    bias = "unet.conv_in.bias"
    torch.testing.assert_close(
        merged[bias].float(), kept[f"modules_to_save.{bias}"], rtol=1e-2, atol=1e-2
    )
    again = Trainer(trainer.config, report=lambda line: None)
    assert all(torch.equal(trainer.state.trained[n], again.state.trained[n]) for n in names)
    model = again.model
    assert torch.equal(predictions()[2], before[2])


def test_images_may_be_clamped_before_the_losses(tmp_path, photos):
    config = from_dict(TrainConfig, settings(tmp_path))
    model = OneStepRestorer(config.model)
    start_at_identity(model)
    draws = RandomState(seeded(0, 0, 1))
    z = model.encode(photos * 3 - 1).detach().requires_grad_()
    terms = {}
    for clamp in (False, True):
        loss = LossConfig(l1=0.0, mse=1.0, clamp=clamp)
        compared = PixelTerms(loss)(model, z, photos, photos, draws)
        terms[clamp] = compared.terms["mse"]
        inside = compared.image.min() >= 0 and compared.image.max() <= 1
        assert inside == clamp
    image = model.decode(z).float().clamp(0, 1)
    torch.testing.assert_close(terms[True], torch.nn.functional.mse_loss(image, photos))
    assert terms[True] < terms[False]


def test_vsd_needs_the_frozen_network_under_adapters(tmp_path):
    values = settings(tmp_path, objective={"kind": "restoration", "vsd": {}})
    with pytest.raises(ConfigError, match="lora"):
        from_dict(TrainConfig, values)
    values = settings(tmp_path, objective={"kind": "restoration", "train_conv_in": True})
    with pytest.raises(ConfigError, match="train_conv_in"):
        from_dict(TrainConfig, values)


def test_a_prompt_of_another_kind_starts_anew(tmp_path, prior):
    """As for the null prompt of OSDHuman's table 4: the prior's U-Net under a fixed prompt."""
    null = {**MODEL, "prompt": {"kind": "text", "n_queries": 4, "width": 16}}
    file = train(settings(tmp_path / "null", model=null, objective=ADAPTED, init=str(prior)))
    assert "prompt.embedding" in read_checkpoint(file).tensors
