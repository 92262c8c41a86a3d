"""Latents of HQ crops that are encoded once: what is kept, and that it changes no loss."""

import dataclasses
import pickle

import pytest
import torch
from toy_training import settings, stop_after, train

from hbr.config import ConfigError, from_dict, to_dict
from hbr.models.checkpoint import read_checkpoint
from hbr.training.config import TrainConfig
from hbr.training.cost import plan
from hbr.training.data import TrainingPairs, prepared, seeded
from hbr.training.latents import open_latents
from hbr.training.loop import Trainer
from hbr.training.objectives import build_objective
from hbr.training.random_state import RandomState
from hbr.training.state import check_unchanged
from toy_diffbody import toy_model, toy_values

PHASES = [{"steps": 1, "crop": 64, "batch": 2}]
CPU = torch.device("cpu")


def prior(out, cache, crops=2, **changes):
    values = settings(out, objective={"kind": "diffusion"}, **changes)
    values["data"] |= {"margin": 16, "latents": {"cache": str(cache), "crops": crops}}
    values["validation"] |= {"count": 1, "crop": 64}
    return values


def trainer(values):
    return Trainer(from_dict(TrainConfig, values), report=lambda line: None)


def files(cache):
    return sorted(file for file in cache.rglob("*") if file.is_file())


def test_crops_come_from_a_fixed_set_and_degradations_do_not(tmp_path):
    phases = [{"steps": 24, "crop": 32, "batch": 4}]
    config = from_dict(TrainConfig, prior(tmp_path, tmp_path / "cache", phases=phases))
    batches = list(TrainingPairs(config, 0))
    photos = TrainingPairs(config, 0).photos
    seen = {crop.numpy().tobytes() for pair in batches for crop in pair.hq}
    degraded = {crop.numpy().tobytes() for pair in batches for crop in pair.lq}
    assert photos < len(seen) <= 2 * photos
    assert len(degraded) > 24 * 4 / 2
    again = TrainingPairs(config, 7)
    assert torch.equal(next(iter(again)).hq, batches[7].hq)
    shares = [TrainingPairs(config, 0, i, 2).batch(7) for i in range(2)]
    assert torch.equal(torch.cat([share.hq for share in shares]), batches[7].hq)


def test_a_latent_that_was_kept_gives_the_same_loss(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    phases = [{"steps": 8, "crop": 32, "batch": 1}]
    made = trainer(prior(tmp_path / "out", cache, phases=phases, start="random"))
    model, config = made.model, made.config

    def loss(pair):
        draws = RandomState(seeded(0, 0, 1))
        return made.objective.losses(model, pair, config.loss, draws).terms["epsilon"]

    without, with_cache = TrainingPairs(config, 0), TrainingPairs(config, 0, latents=made.latents)
    plain = loss(without.batch(3))
    first = with_cache.batch(3)
    assert first.latents == (None,)
    assert torch.equal(loss(made._with_latents(first)), plain)
    assert len(files(cache)) == 1

    monkeypatch.setattr(model, "encode", None)  # nothing is left to encode
    second = with_cache.batch(3)
    assert torch.equal(loss(made._with_latents(second)), plain)
    # one that is wrong would be seen
    wrong = dataclasses.replace(second, latents=(second.latents[0] + 0.1,))
    assert not torch.allclose(loss(wrong), plain)
    (z,) = second.part(slice(0, 1)).to(CPU).latents
    assert torch.equal(z, second.latents[0])


def test_a_control_branch_learns_from_kept_latents(shared, tmp_path, monkeypatch):
    base = shared / "goldens" / "osediff" / "base"
    values = prior(
        tmp_path / "out", tmp_path / "cache", phases=[{"steps": 1, "crop": 64, "batch": 2}]
    )
    values |= {"model": toy_values(base), "objective": {"kind": "control"}, "start": "random"}
    values |= {"init": None, "optim": {"warmup": 0}}
    values["validation"]["crop"] = 64
    config = from_dict(TrainConfig, values)
    model = toy_model(base)
    cache = open_latents(config, model, CPU)
    pair = TrainingPairs(config, 0, latents=cache).batch(0)

    def loss(pair):
        draws = RandomState(seeded(0, 0, 1))
        return build_objective(config).losses(model, pair, config.loss, draws).terms["epsilon"]

    plain = loss(TrainingPairs(config, 0).batch(0))
    latents = cache.complete(pair.hq, pair.latents, model.encode)
    made = dataclasses.replace(pair, latents=latents)
    seen, encode = [], model.encode
    monkeypatch.setattr(model, "encode", lambda image: seen.append(image) or encode(image))
    assert torch.allclose(loss(made), plain, rtol=1e-5)
    assert seen  # I_reg, but no HQ image
    assert not any(torch.equal(image, pair.hq) for image in seen)


def test_a_stopped_training_goes_on_with_a_cache_and_a_torn_file_of_it(tmp_path, caplog):
    phases = [{"steps": 6, "crop": 32, "batch": 2}]
    whole = train(prior(tmp_path / "whole", tmp_path / "cache", crops=1, phases=phases))
    values = prior(tmp_path / "parts", tmp_path / "other", crops=1, phases=phases)
    stop_after(3, values)
    kept = {file: file.read_bytes() for file in files(tmp_path / "other")}
    assert kept
    for i, (file, data) in enumerate(kept.items()):
        # cut short, empty, one bit turned
        spoiled = (data[:-5], b"", data[:-1] + bytes([data[-1] ^ 1]))[i % 3]
        file.write_bytes(spoiled)
    parts = train(values)
    a, b = (read_checkpoint(file).tensors for file in (whole, parts))
    assert all(torch.equal(a[name], b[name]) for name in a)
    damaged = [r for r in caplog.records if "is damaged; the crop is encoded anew" in r.message]
    assert damaged
    mended = {file.name for file in kept if file.read_bytes() == kept[file]}
    assert {record.args[0].name for record in damaged} <= mended

    # the same training again needs no encoder
    again = train(prior(tmp_path / "again", tmp_path / "other", crops=1, phases=phases))
    c = read_checkpoint(again).tensors
    assert all(torch.equal(a[name], c[name]) for name in a)


def test_other_weights_and_precisions_have_latents_of_their_own(tmp_path):
    values = prior(tmp_path / "out", tmp_path / "cache")
    first = trainer(values)
    assert open_latents(first.config, first.model, CPU) == first.latents
    bf16 = dataclasses.replace(first.config, precision="bfloat16")
    assert open_latents(bf16, first.model, CPU) != first.latents
    with torch.no_grad():
        first.model.autoencoder.decoder.conv_out.weight.add_(1)
    assert open_latents(first.config, first.model, CPU) == first.latents
    with torch.no_grad():
        first.model.autoencoder.encoder.conv_out.weight.add_(1)
    assert open_latents(first.config, first.model, CPU) != first.latents
    assert open_latents(from_dict(TrainConfig, settings("out")), first.model, CPU) is None


def test_only_objectives_that_encode_hq_take_them(tmp_path):
    values = prior(tmp_path, tmp_path / "cache")
    expected = "data.latents .*null unless the objective is diffusion or control"
    for kind in ("restoration", "autoencoder"):
        with pytest.raises(ConfigError, match=expected):
            from_dict(TrainConfig, {**values, "objective": {"kind": kind}})
    with pytest.raises(ConfigError, match="crops is 0; it must be 1 or more"):
        from_dict(TrainConfig, prior(tmp_path, tmp_path / "cache", crops=0))


def test_the_folder_may_change_and_the_set_of_crops_may_not(tmp_path):
    config = from_dict(TrainConfig, prior("out", tmp_path / "cache"))
    before, state = to_dict(config), tmp_path / "state.safetensors"
    moved = prior("out", tmp_path / "elsewhere")
    moved["data"]["device"] = "auto"
    check_unchanged(before, from_dict(TrainConfig, moved), state)
    for other in (prior("out", tmp_path / "cache", crops=3), settings("out")):
        other["objective"] = {"kind": "diffusion"}
        other["data"]["margin"] = 16
        with pytest.raises(ConfigError, match=r"data\.latents"):
            check_unchanged(before, from_dict(TrainConfig, other), state)


def test_the_plan_leaves_the_encoder_out(tmp_path):
    phases = [{"steps": 5, "crop": 32, "batch": 1}]
    cached = from_dict(TrainConfig, prior(tmp_path, tmp_path / "cache", phases=phases))
    plain = dataclasses.replace(cached, data=dataclasses.replace(cached.data, latents=None))
    (with_cache,), (without,) = (plan(config).phases for config in (cached, plain))
    assert with_cache.flops < without.flops
    assert with_cache.peak <= without.peak
    assert not (tmp_path / "cache").exists()


# --- degradation where the training runs


@pytest.mark.parametrize("latents", [False, True])
def test_crops_degraded_later_are_those_degraded_at_once(tmp_path, latents):
    values = prior(tmp_path, tmp_path / "cache", phases=[{"steps": 5, "crop": 32, "batch": 4}])
    values["data"] |= {"degradations": {"real-esrgan": 1.0, "motion-blur": 1.0}}
    if not latents:
        del values["data"]["latents"]
    config = from_dict(TrainConfig, values)
    at_once = TrainingPairs(config, 0)
    for step, crops in enumerate(TrainingPairs(config, 0, degraded=False)):
        assert crops.whole.dtype == torch.uint8  # what a worker process sends
        expected = at_once.batch(step)
        got = pickle.loads(pickle.dumps(crops)).to(CPU)
        assert torch.equal(got.hq, expected.hq)
        assert torch.equal(got.lq, expected.lq)
        assert got.skipped == expected.skipped


def test_on_a_cpu_the_device_of_the_degradation_changes_nothing(tmp_path, monkeypatch):
    values = settings(tmp_path / "cpu", phases=[{"steps": 5, "crop": 32, "batch": 2}])
    values["validation"] |= {"count": 1, "crop": 64}
    plain = read_checkpoint(train(values)).tensors
    values["out"], values["data"]["device"] = str(tmp_path / "auto"), "auto"
    auto = read_checkpoint(train(values)).tensors
    assert all(torch.equal(plain[name], auto[name]) for name in plain)
    # what a GPU's training does, here
    values = {**values, "out": str(tmp_path / "later")}
    monkeypatch.setattr(
        "hbr.training.loop.prepared",
        lambda pairs: prepared(TrainingPairs(pairs.config, pairs.start, degraded=False)),
    )
    later = read_checkpoint(train(values)).tensors
    assert all(torch.equal(plain[name], later[name]) for name in plain)


def test_maps_of_the_lq_crops_need_them_in_the_workers(tmp_path):
    values = settings(tmp_path)
    values["data"] |= {"device": "auto", "conditions": {"source": "lq"}}
    with pytest.raises(ConfigError, match="device is 'auto'; it must be cpu, as `conditions` are"):
        from_dict(TrainConfig, values)
