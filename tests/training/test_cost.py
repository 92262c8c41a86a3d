"""What a training will take: counted without numbers, it is what a step with numbers takes."""

import json
import math
from pathlib import Path

import pytest
import torch
import yaml
from toy_training import NARROW, distilling, settings

import toy_models
import toy_weights
from hbr.config import ConfigError, from_dict
from hbr.models.checkpoint import save_checkpoint
from hbr.models.config import RestorerConfig
from hbr.models.onestep import OneStepRestorer
from hbr.training.config import TrainConfig
from hbr.training.cost import HARDWARE, UTILISATION, Parameters, count_parameters, plan
from hbr.training.data import Pair, seeded
from hbr.training.losses import load_networks
from hbr.training.objectives import build_objective
from hbr.training.random_state import RandomState
from hbr.training.simulation import Meter, simulate
from hbr.training.start import prepare

ADAPTED = {"kind": "restoration", "lora": {"rank": 2}, "vsd": {"lora": {"rank": 3}}}
PHASE = [{"steps": 10, "crop": 64, "batch": 4}]


def config(**changes: object) -> TrainConfig:
    values = {"objective": ADAPTED, "phases": PHASE, "freeze": ["prompt.encoder"]}
    return from_dict(TrainConfig, settings(Path("nowhere"), **{**values, **changes}))


def in_numbers(config: TrainConfig) -> tuple[int, int]:
    """Bytes beside the weights, and work, of a step that is really made."""
    networks = load_networks(config)
    model = OneStepRestorer(config.model)
    objective = build_objective(config, networks)
    prepare(model, config, objective.parts)
    model.train()
    phase = config.phases[0]
    meter = Meter()
    for module in (model, *networks.values()):
        meter.count([*module.parameters(), *module.buffers()])
    weights = meter.now
    with meter:
        shape = (phase.batch, 3, phase.crop, phase.crop)
        pair = Pair(hq=torch.rand(shape), lq=torch.rand(shape))
        losses = objective.losses(model, pair, config.loss, RandomState(seeded(0)))
        for terms in (lambda: losses.terms, losses.then):
            if terms is not None:
                model.zero_grad()
                torch.stack(list(terms().values())).sum().backward()
    return meter.peak - weights, meter.flops


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param(
            {"memory": {"checkpointing": True, "decode_crop": 32}}, marks=pytest.mark.slow
        ),
        {"objective": {"kind": "restoration"}},
        {"objective": {"kind": "diffusion"}},
        pytest.param(
            {"objective": {"kind": "autoencoder"}, "loss": {"lpips": 1.0, "edge_dists": 1.0}},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["distilled", "saving", "all weights", "diffusion", "deep losses"],
)
def test_a_step_without_numbers_takes_what_one_with_numbers_takes(
    changes: dict, tmp_path: Path
) -> None:
    if "loss" in changes:
        folder = str(toy_weights.write(tmp_path))
        deep = {"lpips_weights": folder, "dists_weights": folder}
        changes = {**changes, "loss": {**changes["loss"], **deep}}
    given = config(**changes)
    found = simulate(given, given.phases[0], 4, "cpu")
    passing, flops = in_numbers(given)
    assert found.flops == flops
    assert found.passing == pytest.approx(passing, rel=0.02)


def test_the_teacher_of_a_decoder_has_its_refiner(tmp_path: Path) -> None:
    work = []
    for refiner in (None, {"width": 8, "blocks": 1, "patch_size": 2}):
        theirs = from_dict(RestorerConfig, {**toy_models.TRAINED, "refiner": refiner})
        base = tmp_path / f"{refiner is not None}.safetensors"
        save_checkpoint(base, theirs, OneStepRestorer(theirs).state_dict())
        decoder = {**NARROW, "mid_attention": True}
        values = distilling(Path("nowhere"), base, decoder, phases=PHASE)
        given = from_dict(TrainConfig, values)
        found = simulate(given, given.phases[0], 4, "cpu")
        passing, flops = in_numbers(given)
        assert found.flops == flops
        assert found.passing == pytest.approx(passing, rel=0.02)
        work.append(flops)
        assert plan(given, device="cpu").assumed is None
    assert work[0] < work[1]
    base.unlink()
    guessed = plan(given, device="cpu")
    assert guessed.phases[0].flops == work[0]
    assert guessed.assumed == (
        f"{base} is not on this machine; it is taken to have no refiner after its decoder"
    )


@pytest.mark.slow
def test_what_is_given_for_memory_saves_memory() -> None:
    def passing(device: str = "cpu", **memory: object) -> int:
        given = config(memory=memory, precision="bfloat16", objective={"kind": "restoration"})
        return simulate(given, given.phases[0], 4, device).passing

    plain, checkpointed = passing(), passing(checkpointing=True)
    assert checkpointed < 0.9 * plain
    assert passing(decode_crop=32) < 0.9 * plain
    # under autocast CUDA computes norms in float32
    assert passing("cuda") > 1.1 * plain


def test_work_by_hand() -> None:
    layer = torch.nn.Linear(3, 5)
    with Meter() as meter:
        layer(torch.rand(7, 3, requires_grad=True)).sum().backward()
    # forward, and the gradients of input and weight
    assert meter.flops == 3 * 2 * 7 * 3 * 5
    with Meter() as meter:
        q = torch.rand(2, 3, 16, 8, requires_grad=True)
        torch.nn.functional.scaled_dot_product_attention(q, q, q)
    # scores, and their product with the values
    assert meter.flops == 2 * (2 * 3) * (2 * 16 * 16 * 8)


def test_living_bytes_by_hand() -> None:
    with Meter() as meter:
        a = torch.zeros(100)
        b = a.view(10, 10) + 1
        assert meter.now == 800
        del a
        assert meter.now == 400
        del b
    assert (meter.now, meter.peak) == (0, 800)


def test_parameters_are_counted_by_part() -> None:
    found = count_parameters(config())
    model = OneStepRestorer(config().model)
    own = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    encoder = sum(p.numel() for p in model.prompt.encoder.parameters())
    assert found["unet"] == Parameters(0, own["unet"])
    assert found["autoencoder"] == Parameters(0, own["autoencoder"])
    assert found["prompt"] == Parameters(own["prompt"] - encoder, encoder)
    adapters, following = found["generator's adapters"], found["regularizer's adapters"]
    assert adapters.frozen == following.frozen == 0
    assert adapters.trained > following.trained > 0
    everything = count_parameters(config(objective={"kind": "restoration"}, freeze=[]))
    assert {name: part.trained for name, part in everything.items()} == own


def test_the_full_size_is_stable_diffusion_s() -> None:
    values = settings(Path("nowhere"), objective={"kind": "autoencoder"}, model={}, start="random")
    values |= {"phases": [{"steps": 9, "crop": 512, "batch": 1}]}
    values["validation"]["crop"] = 512
    given = from_dict(TrainConfig, values)
    assert given.model == RestorerConfig()
    found = count_parameters(given)
    # as published: diffusion_pytorch_model of unet/ and vae/
    assert found["unet"].frozen == 865_910_724
    assert found["autoencoder"].trained == 83_653_863


def test_a_plan_adds_up() -> None:
    plain = {"precision": "bfloat16", "objective": {"kind": "restoration"}}
    alone = plan(config(**plain), device="cpu")
    trained = sum(part.trained for part in alone.parameters.values())
    (phase,) = alone.phases
    assert (phase.at_once, phase.kept) == (4, 3 * 4 * trained)
    assert alone.peak == phase.peak == phase.weights + phase.kept + phase.passing
    assert alone.flops == 10 * phase.flops
    rate = HARDWARE["A100 80 GB"].tflops * 1e12 * UTILISATION
    assert alone.hours["A100 80 GB"] == pytest.approx(alone.flops / rate / 3600)
    shared = plan(config(**plain, optim={"accumulate": 2, "warmup": 0}), 2, device="cpu")
    assert shared.phases[0].at_once == 1
    # gradients of the first part stay while the second passes
    assert shared.phases[0].passing < alone.phases[0].passing + 4 * trained
    assert math.isclose(shared.flops, alone.flops, rel_tol=0.01)
    assert shared.hours["RTX 4090"] == pytest.approx(alone.hours["RTX 4090"] / 2, rel=0.01)
    with pytest.raises(ConfigError, match=r"phases\[0\].batch is 4; with 3 processes"):
        plan(config(), 3)


def test_a_plan_needs_neither_photos_nor_weights(tmp_path: Path, call_hbr) -> None:
    values = settings(tmp_path / "out", loss={"lpips": 1.0})
    values["data"] = {"sources": [{"photos": "nowhere"}]}
    values["validation"]["photos"] = "nowhere"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(values))
    done = call_hbr("train", recipe, "--plan", "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert [phase["steps"] for phase in found["phases"]] == [5, 3]
    assert found["peak"] == max(phase["peak"] for phase in found["phases"])
    assert not found["hours"]  # of float32
    assert [p.name for p in tmp_path.iterdir()] == ["recipe.yaml"]
    done = call_hbr("train", recipe, "--json")
    assert done.returncode == 2
    assert "--plan" in done.stderr
