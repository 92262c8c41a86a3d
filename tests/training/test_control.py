"""DiffBody in the training loop: control branch, body parts, and the conditions of each crop."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from toy_people import POINTS, write_people
from toy_processes import ends, start
from toy_training import DATA, rows, settings, stop_after, train

from hbr.config import ConfigError, from_dict, load_yaml, to_dict
from hbr.models import save_checkpoint
from hbr.models.checkpoint import read_checkpoint
from hbr.models.config import RestorerConfig, TextPromptConfig
from hbr.models.fidelity import write_two_ends
from hbr.models.onestep import OneStepRestorer
from hbr.models.protocol import Conditions
from hbr.models.schedule import add_noise, alphas_cumprod
from hbr.people.attention import limb_attention
from hbr.people.skeleton import draw_poses
from hbr.people.structure import kept
from hbr.training.conditions import ConditionMaker, structure_maps
from hbr.training.config import ConditionsConfig, TrainConfig, ValidationConfig
from hbr.training.cost import plan
from hbr.training.crops import CropSource
from hbr.training.data import Pair, TrainingPairs, seeded
from hbr.training.denoising import weighted_epsilon_loss
from hbr.training.loop import Trainer
from hbr.training.objectives import build_objective
from hbr.training.random_state import RandomState
from hbr.training.validation import validation_pairs
from toy_diffbody import STAGE1, toy_config, toy_model, toy_values


@pytest.fixture(scope="module")
def base(shared: Path) -> Path:
    return shared / "goldens" / "osediff" / "base"


@pytest.fixture
def people(tmp_path: Path) -> Path:
    return write_people(tmp_path / "people.json")


def control(base: Path, out: Path, people: Path | None, **changes):
    conditions = {"source": "people"}
    values = {
        "model": toy_values(base),
        "objective": {"kind": "control"},
        "start": "random",
        "phases": [{"steps": 4, "crop": 64, "batch": 2}],
        "optim": {"lr": 1e-3, "warmup": 0, "ema": 0.5},
        "init": {"base": str(base)},
        "data": {
            "sources": [{"photos": str(DATA), **({"boxes": str(people)} if people else {})}],
            "workers": 0,
            "conditions": conditions,
        },
        "validation": {
            "photos": str(DATA), "count": 1, "crop": 64, "every": 4, "pictures": 1,
            **({"boxes": str(people)} if people else {}),
        },
    }  # fmt: skip
    return settings(out, **{**values, **changes})


# --- Eq. 4


def test_the_loss_of_equation_4_by_numpy() -> None:
    rng = np.random.default_rng(0)
    epsilon, noise = rng.normal(size=(2, 2, 3, 4, 5))
    attention = rng.random((2, 1, 8, 10))
    weight = 1 + attention.reshape(2, 1, 4, 2, 5, 2).mean(axis=(3, 5))
    expected = ((weight * (noise - epsilon)) ** 2).mean()
    got = weighted_epsilon_loss(*map(torch.from_numpy, (epsilon, noise, attention)))
    assert abs(float(got) - expected) < 1e-6


def test_the_objective_is_the_loss_at_the_drawn_step(base, people, tmp_path) -> None:
    config = from_dict(TrainConfig, control(base, tmp_path / "out", people))
    model = Trainer(config, report=lambda line: None).model.eval()
    pair = TrainingPairs(config, 0).batch(0)
    draws = RandomState(seeded(0, 0, 1))
    with torch.no_grad():
        losses = build_objective(config).losses(model, pair, config.loss, draws)
        # the same numbers in the same order
        draws = RandomState(seeded(0, 0, 1))
        z = model.encode(pair.hq)
        kept_text = draws.uniform(z) >= 0.1
        t, noise = draws.timesteps((0, 1000), z), draws.noise(z)
        z_t = add_noise(z, noise, alphas_cumprod(config.model.schedule)[t].float())
        image = model.stage1(pair.lq).clamp(0, 1)
        condition = model.condition(image, pair.conditions)
        assert bool(kept_text.any())
        epsilon = model.predict(z_t, t, model.text([""] * 2), condition)
        expected = weighted_epsilon_loss(epsilon, noise, pair.conditions.maps["attention"])
    assert torch.allclose(losses.terms["epsilon"], expected, rtol=1e-5)
    assert float(pair.conditions.maps["attention"].max()) > 0.5


# --- conditions


def test_key_points_move_with_the_crop(people: Path) -> None:
    """Of a photo whose pixels say where they were: the skeleton lies where the person is."""
    config = from_dict(TrainConfig, settings(Path("out"))).data.sources[0]
    config = type(config)(photos=DATA, boxes=people)
    source = CropSource(config, with_people=True)
    mirrored = set()
    for seed in range(6):
        crop = source.crop(96, 0.7, seeded(seed))
        (points,) = source.keypoints(crop)
        h, w = crop.size
        for i, (x, y, seen) in enumerate(points):
            mirror = i + 1 if i % 2 else i - 1
            # in a mirrored image, the left shoulder is where the right one was
            u, v = POINTS[(mirror if i else 0) if crop.mirrored else i]
            column = u * w - crop.corner[1]
            assert x == pytest.approx(96 - column if crop.mirrored else column, abs=1e-6)
            assert y == pytest.approx(v * h - crop.corner[0], abs=1e-6)
            assert seen == 2
        mirrored.add(crop.mirrored)
    assert mirrored == {True, False}


def test_a_pair_has_the_maps_and_the_texts_of_its_crops(base, people, tmp_path) -> None:
    captions = tmp_path / "captions.jsonl"
    captions.write_text(
        "".join(
            json.dumps({"photo": p.name, "text": "white shoes, a woman"}) + "\n"
            for p in DATA.glob("*.[jp][pn]g")
        )
    )
    values = control(base, tmp_path / "out", people)
    values["data"]["conditions"]["captions"] = str(captions)
    config = from_dict(TrainConfig, values)
    pair = TrainingPairs(config, 0).batch(0)
    maps = pair.conditions.maps
    assert {name: tuple(m.shape) for name, m in maps.items()} == {
        "pose": (2, 3, 64, 64),
        "attention": (2, 1, 64, 64),
        "parts": (2, 6, 64, 64),
    }
    assert pair.texts == ("a woman, white shoes",) * 2
    part = pair.part(slice(1, 2)).to(torch.device("cpu"))
    assert torch.equal(part.conditions.maps["pose"], maps["pose"][1:])
    assert part.texts == pair.texts[1:]
    again = TrainingPairs(config, 0).batch(0)
    assert all(torch.equal(maps[name], again.conditions.maps[name]) for name in maps)


def test_the_margin_of_a_crop_moves_its_maps(base, people, tmp_path) -> None:
    values = control(base, tmp_path / "out", people)
    values["data"] |= {"margin": 16, "shift_prob": 1.0, "mirror": False, "shrink_prob": 0.0}
    config = from_dict(TrainConfig, values)
    pairs = TrainingPairs(config, 0)
    pair = pairs.batch(3)
    # what the same draws give, by hand
    source, generator = pairs.sources[0], seeded(config.seed, 3)
    from hbr.training.data import _corner_in_margin, _weighted, draw, random_uniform

    _weighted([1.0], generator)
    random_uniform(generator)
    crop = source.crop(80, 1.0, generator, mirror=False)
    _weighted([1.0], generator)
    draw(pairs.recipes[0], 1, generator)
    y, x = _corner_in_margin(config.data, generator)
    assert (y, x) != (0, 0)
    expected = structure_maps(source.keypoints(crop) - (x, y, 0), 64, 64)
    for name, wanted in expected.items():
        assert torch.equal(pair.conditions.maps[name][0], wanted)


def test_key_points_turn_with_their_validation_photo(tmp_path) -> None:
    upright = np.random.default_rng(0).integers(0, 256, (96, 80, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned to the right
    maps = []
    turned_photo = (np.rot90(upright), {"exif": exif})
    for name, grid, (pixels, turned) in (
        ("a", "stored", (upright, {})),
        ("b", "stored", turned_photo),
        ("c", "upright", turned_photo),
    ):
        (tmp_path / name).mkdir()
        Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / name / "a.png", **turned)
        people = write_people(tmp_path / name / "people.json", tmp_path / name)
        values = json.loads(people.read_text())
        for image in values["images"]:  # the grid is then the one that is named
            image.pop("width", None)
            image.pop("height", None)
        if turned:
            stored = [(y * 96, (1 - x) * 80, 2) for x, y in POINTS]
            points = stored if grid == "stored" else [(x * 80, y * 96, 2) for x, y in POINTS]
            values["annotations"][0]["keypoints"] = [v for point in points for v in point]
        people.write_text(json.dumps(values))
        config = ValidationConfig(
            photos=people.parent, boxes=people, boxes_grid=grid, crop=64, recipe="none"
        )
        (pair,) = validation_pairs(config, maker=ConditionMaker(ConditionsConfig()))
        maps.append(pair.conditions.maps)
    for name, found in maps[0].items():
        assert found.any()
        for others in maps[1:]:
            torch.testing.assert_close(others[name], found, atol=1e-4, rtol=0)


def test_maps_of_key_points_are_the_drawings() -> None:
    points = np.array([[(x * 64, y * 64, 1) for x, y in POINTS]])
    maps = structure_maps(points, 64, 64)
    pose = (maps["pose"] * 255).round().byte().permute(1, 2, 0).numpy()
    assert np.array_equal(pose, draw_poses(points, 64, 64))
    assert np.array_equal(maps["attention"][0].numpy(), limb_attention(points, 64, 64))
    assert torch.allclose(maps["parts"].sum(dim=0), torch.ones(64, 64), atol=1e-5)


def test_what_was_found_is_kept_by_content(tmp_path: Path) -> None:
    calls = []

    def find(image: np.ndarray) -> np.ndarray:
        calls.append(image.mean())
        return np.full((1, 17, 3), image.mean())

    dark, light = (np.full((4, 4, 3), v, np.uint8) for v in (10, 200))
    first = kept(find, tmp_path / "cache", "toy")
    for image in (dark, light, dark):
        assert first(image)[0, 0, 0] == image.mean()
    again = kept(find, tmp_path / "cache", "toy")
    assert again(light)[0, 0, 0] == 200
    assert calls == [10, 200]
    kept(find, tmp_path / "cache", "another")(light)
    assert len(calls) == 3
    next((tmp_path / "cache").glob("*.npy")).write_bytes(b"damaged")
    for image in (dark, light):
        kept(find, tmp_path / "cache", "toy")(image)
        kept(find, tmp_path / "cache", "another")(image)
    assert len(calls) <= 5


# --- training


def test_only_the_control_branch_is_trained(base, people, tmp_path) -> None:
    out = tmp_path / "out"
    after = read_checkpoint(train(control(base, out, people))).tensors
    before = toy_model(base).state_dict()
    same = {n.split(".")[0] for n in after if torch.equal(before[n], after[n])}
    changed = {n.split(".")[0] for n in after if not torch.equal(before[n], after[n])}
    assert {"autoencoder", "unet", "text"} <= same
    # stage 1 and parts are random here, with another seed than the toy's
    assert "control" in changed
    assert not {"autoencoder", "unet", "text"} & changed
    assert "validation/epsilon" in rows(out)[-1]
    # the frozen networks come from `init` again, and are not in the state
    assert (out / "state.safetensors").stat().st_size > 0
    shapes = read_checkpoint(out / "model.safetensors").tensors
    assert any(n.startswith("parts.") for n in shapes)


def test_it_resumes_where_it_stopped(base, people, tmp_path) -> None:
    whole = read_checkpoint(train(control(base, tmp_path / "whole", people))).tensors
    values = control(base, tmp_path / "parts", people)
    stop_after(2, values)
    parts = read_checkpoint(train(values)).tensors
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.slow
def test_it_resumes_after_a_kill(base, people, tmp_path) -> None:
    whole = read_checkpoint(train(control(base, tmp_path / "whole", people, save_every=2))).tensors
    out, recipe = tmp_path / "killed", tmp_path / "killed.yaml"
    recipe.write_text(yaml.safe_dump(control(base, out, people, save_every=2)))
    (process,) = start(killed_after_a_checkpoint, str(recipe))
    assert ends([process]) == [-signal.SIGKILL]
    assert Trainer(load_yaml(TrainConfig, recipe), report=lambda line: None).state.step == 2
    parts = read_checkpoint(train(control(base, out, people, save_every=2))).tensors
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def killed_after_a_checkpoint(recipe: str) -> None:
    """Train until there is a checkpoint, and one step more."""
    trainer = Trainer(load_yaml(TrainConfig, recipe), report=lambda line: None)
    make = trainer._step

    def step(pair: Pair) -> dict[str, float]:
        if trainer.state_file.exists():
            make(pair)
            os.kill(os.getpid(), signal.SIGKILL)
        return make(pair)

    trainer._step = step  # type: ignore[method-assign]
    trainer.run()


@pytest.mark.slow
def test_body_parts_are_learnt(base, people, tmp_path) -> None:
    values = control(
        base,
        tmp_path / "parts",
        people,
        objective={"kind": "parts"},
        phases=[{"steps": 60, "crop": 64, "batch": 4}],
        optim={"lr": 1e-2, "warmup": 0, "ema": 0.9},
    )
    values["data"]["degradations"] = {"none": 1.0}
    values["validation"] |= {"every": 60, "recipe": "none"}
    path = train(values)
    losses = [row["loss/parts"] for row in rows(tmp_path / "parts") if "loss/parts" in row]
    assert losses[-1] < losses[0]
    assert 0 <= rows(tmp_path / "parts")[-1]["validation/accuracy"] <= 1
    # and a control branch begins from it
    config = from_dict(
        TrainConfig, control(base, tmp_path / "control", people, init={"base": str(path)})
    )
    begun = Trainer(config, report=lambda line: None).model.state_dict()
    made = read_checkpoint(path).tensors
    assert all(torch.equal(made[n], begun[n]) for n in made if n.startswith("parts."))


def test_stage_1_and_a_wide_control_branch_come_from_files(base, people, tmp_path) -> None:
    from safetensors.torch import save_file

    from hbr.models.swinir import SwinIR

    torch.manual_seed(7)
    stage1 = SwinIR(STAGE1)
    save_checkpoint(tmp_path / "stage1.safetensors", STAGE1, stage1.state_dict())
    model = toy_model(base)
    state = dict(model.control.state_dict())
    hint = {n: state.pop(n) for n in list(state) if n.startswith("controlnet_cond_embedding")}
    assert {tuple(t.shape) for t in hint.values()} == {(16, 9, 3, 3), (16,)}
    wide = torch.randn(16, 13, 3, 3)
    save_file({**state, "conv_in.weight": wide}, tmp_path / "control.safetensors")
    init = {"base": str(base), "stage1": str(tmp_path / "stage1.safetensors")}
    init["control"] = str(tmp_path / "control.safetensors")
    config = from_dict(TrainConfig, control(base, tmp_path / "out", people, init=init))
    begun = Trainer(config, report=lambda line: None).model
    assert torch.equal(begun.control.conv_in.weight, wide[:, :4])
    assert torch.equal(begun.control.controlnet_cond_embedding.weight, wide[:, 4:])
    ours = stage1.state_dict()
    assert all(torch.equal(t, ours[n]) for n, t in begun.stage1.state_dict().items())


def test_a_model_without_words_begins_from_a_prior(base, people, tmp_path) -> None:
    toy = toy_config(base, text=None, parts=None)
    prompt = TextPromptConfig(text="", n_queries=2, width=toy.unet.cross_attention_dim)
    sizes = {"autoencoder": toy.autoencoder, "unet": toy.unet, "native_size": 64}
    config = RestorerConfig(prompt=prompt, **sizes)
    torch.manual_seed(7)
    prior = OneStepRestorer(config).eval()
    save_checkpoint(tmp_path / "prior.safetensors", config, prior.state_dict())
    init = {"base": str(tmp_path / "prior.safetensors")}
    values = control(base, tmp_path / "out", people, model=to_dict(toy), init=init)
    begun = Trainer(from_dict(TrainConfig, values), report=lambda line: None).model.eval()
    assert not begun.capabilities.takes_prompt
    # the prior's prompt of an empty text is zeros too, and the control branch adds nothing yet
    image, t = torch.rand(1, 3, 64, 64), torch.tensor([300])
    with torch.no_grad():
        z = prior.encode(image)
        epsilon = prior.predict(z, prior.prompt(image), t)
        seen = begun.condition(image, Conditions())
        made = begun.predict(z, t, begun.embed("words"), seen)
    assert torch.allclose(made, epsilon, atol=1e-5)
    after = read_checkpoint(train(values)).tensors
    ours = prior.state_dict()
    assert all(torch.equal(after[n], ours[n]) for n in ours if n.startswith("unet."))
    # of a prior with two ends, the end that is asked for
    sharp = {name: tensor + 0.25 for name, tensor in ours.items()}
    save_checkpoint(tmp_path / "sharp.safetensors", config, sharp)
    both = tmp_path / "both.safetensors"
    write_two_ends(both, tmp_path / "prior.safetensors", tmp_path / "sharp.safetensors", 0.5)
    values = control(base, tmp_path / "ends", people, model=to_dict(toy))
    for fidelity in (0.0, 1.0):
        values["init"] = {"base": str(both), "fidelity": fidelity}
        begun = Trainer(from_dict(TrainConfig, values), report=lambda line: None).model
        bias = ours["unet.conv_in.bias"] + 0.25 * (1 - fidelity)
        torch.testing.assert_close(begun.unet.conv_in.bias, bias, atol=1e-3, rtol=0)
    with pytest.raises(ConfigError, match="is a model of kind one-step; a diffusers folder with"):
        Trainer(from_dict(TrainConfig, control(base, tmp_path / "words", people, init=init)))


def test_a_plan_needs_neither_photos_nor_weights(base, tmp_path) -> None:
    config = from_dict(TrainConfig, control(base, tmp_path / "out", None))
    found = plan(config, device="cpu")
    assert found.parameters["control"].trained > 0
    assert found.parameters["unet"].trained == found.parameters["stage1"].trained == 0
    assert found.peak > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": {"kind": "regression"}}, "model.kind is 'diffbody'; it must be swinir"),
        ({"objective": {"kind": "control", "timesteps": [0, 2000]}}, "timesteps"),
        ({"objective": {"kind": "parts"}, "data": {"conditions": None}}, "data.conditions"),
        ({"init": {"base": "b", "difference": ["b", "c"]}}, r"init.difference .* left out for mo"),
        ({"init": {"base": "b", "image_encoder": "r"}}, r"init.image_encoder .* of kind diffbody"),
    ],
)
def test_what_does_not_fit_is_named(base, tmp_path, changes, message) -> None:
    values = control(base, tmp_path / "out", None)
    data = {**values["data"], **changes.get("data", {})}
    with pytest.raises(ConfigError, match=message):
        from_dict(TrainConfig, {**values, **changes, "data": data})


def test_people_without_annotations_are_blank(base, tmp_path) -> None:
    config = from_dict(TrainConfig, control(base, tmp_path / "out", None))
    (pair,) = validation_pairs(config.validation, maker=TrainingPairs(config, 0).conditions)
    assert isinstance(pair, Pair)
    assert not pair.conditions.maps["pose"].any()
    assert not pair.conditions.maps["attention"].any()
    assert pair.texts == ("",)
