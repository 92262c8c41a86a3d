"""A model of two stages and many steps in `Restorer`: pose, attention, previews, provenance."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hbr
from hbr.config import ConfigError
from hbr.models import save_checkpoint
from hbr.models.protocol import Sampling
from hbr.people.attention import limb_attention
from hbr.people.skeleton import draw_poses
from hbr.restoration.passes import structure
from hbr.restoration.passes.structure import StructureFinder
from toy_diffbody import toy_model

PERSON = np.concatenate(
    [np.random.default_rng(3).random((1, 17, 2)) * (40, 30), np.ones((1, 17, 1))], axis=2
)
BOTH = ("pose", "attention")


def pixels(height: int = 30, width: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def finder(**own: object) -> StructureFinder:
    return StructureFinder(lambda image: own.get("attention"))


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Key points are found: those in the list, whatever the picture."""
    people = [PERSON]

    def load(device: str):
        return (lambda image: people[0]), None

    monkeypatch.setattr(structure, "_load", load)
    return people


def test_without_models_the_maps_are_blank_and_the_provenance_says_so(monkeypatch, caplog) -> None:
    monkeypatch.setattr(structure, "find_spec", lambda name: None)
    find = finder()
    made = find(pixels(), BOTH, "auto", "auto")
    assert made.maps == {}
    assert made.sources["pose"].startswith("none: the extra `rtmlib` is missing")
    assert made.sources["attention"] == made.sources["pose"]
    find(pixels(), BOTH, "auto", "auto")
    assert [r.message.split(":")[0] for r in caplog.records] == ["no pose is found"]  # once


def test_people_have_boxes_around_their_points(found, tmp_path) -> None:
    points = np.full((4, 17, 3), np.nan)
    points[0, :2] = [(50, 100, 1), (90, 200, 1)]  # 15 of the 100 pixels are added on each side
    points[1, :2] = [(-40, 250, 1), (60, 400, 1)]  # cut by the edge
    points[2, :2] = [(10, 10, 1), (14, 12, 1)]  # too small; and of the last nothing is seen
    np.save(tmp_path / "points.npy", points)
    found[:] = [points]
    expected = ((35, 85, 105, 215), (0, 227, 82, 300))
    for pose in ("auto", str(tmp_path / "points.npy")):
        assert finder()(pixels(300, 240), BOTH, pose, "none").people == expected
    assert finder()(pixels(300, 240), BOTH, "none", "none").people == ()


def test_what_is_found_is_drawn(found) -> None:
    made = finder()(pixels(), BOTH, "auto", "auto")
    assert made.sources == {"pose": "found", "attention": "found"}
    pose = (made.maps["pose"][0].permute(1, 2, 0) * 255).round().byte().numpy()
    assert np.array_equal(pose, draw_poses(PERSON, 30, 40))
    assert np.array_equal(made.maps["attention"][0, 0].numpy(), limb_attention(PERSON, 30, 40))


def test_nobody_is_a_blank_map(found) -> None:
    found[0] = np.zeros((0, 133, 3))
    made = finder()(pixels(), BOTH, "auto", "auto")
    assert made.sources == dict.fromkeys(BOTH, "none: no person was found")
    assert not made.maps["pose"].any()
    assert not made.maps["attention"].any()


def test_only_the_maps_that_the_model_needs(found) -> None:
    assert finder()(pixels(), (), "auto", "auto").maps == {}
    assert set(finder()(pixels(), ("attention",), "auto", "auto").maps) == {"attention"}
    assert finder()(pixels(), BOTH, "none", "none").sources == {"pose": "none", "attention": "none"}


def test_the_models_own_attention_comes_first(found) -> None:
    import torch

    own = torch.full((1, 1, 30, 40), 1.5)
    made = finder(attention=own)(pixels(), BOTH, "auto", "auto")
    assert made.sources["attention"] == "the model's"
    assert made.maps["attention"].max() == 1


def test_both_maps_come_from_files(tmp_path: Path) -> None:
    drawn = draw_poses(PERSON, 30, 40)
    Image.fromarray(drawn).save(tmp_path / "pose.png")
    grey = np.random.default_rng(1).integers(0, 256, (30, 40), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "attention.png")
    files = str(tmp_path / "pose.png"), str(tmp_path / "attention.png")
    made = finder()(pixels(), BOTH, *files)
    assert made.sources == {"pose": "file pose.png", "attention": "file attention.png"}
    assert np.array_equal((made.maps["pose"][0].permute(1, 2, 0) * 255).round().byte(), drawn)
    assert np.allclose(made.maps["attention"][0, 0] * 255, grey, atol=1e-4)
    np.save(tmp_path / "pose.npy", PERSON)
    np.save(tmp_path / "attention.npy", grey / 255)
    arrays = str(tmp_path / "pose.npy"), str(tmp_path / "attention.npy")
    again = finder()(pixels(), BOTH, *arrays)
    for name in BOTH:
        assert np.allclose(made.maps[name], again.maps[name], atol=1e-4)


def test_points_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    points = PERSON.copy()
    points[0, 9] = np.nan
    np.save(tmp_path / "pose.npy", points)
    made = finder()(pixels(), ("pose",), str(tmp_path / "pose.npy"), "auto")
    hidden = PERSON.copy()
    hidden[0, 9, 2] = 0
    drawn = draw_poses(hidden, 30, 40)
    assert np.array_equal((made.maps["pose"][0].permute(1, 2, 0) * 255).round().byte(), drawn)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("attention", np.full((30, 40), 1.5), r"has values from 1\.5 to 1\.5; they must be in"),
        ("attention", np.full((30, 40), np.nan), "has values from nan to nan"),
        ("attention", np.zeros((40, 30)), "is 30×40 pixels; the restored photo is 40×30"),
        ("attention", np.array(["a"]), "must be one array of numbers"),
        ("pose", np.zeros((1, 18, 3)), r"key points are \(1, 18, 3\); they must be"),
        ("pose", np.zeros((17, 3)), r"key points are \(17, 3\)"),
    ],
)
def test_a_wrong_array_is_one_clear_line(tmp_path, name, values, message) -> None:
    np.save(tmp_path / "map.npy", values)
    files = {"pose": "none", "attention": "none", name: str(tmp_path / "map.npy")}
    with pytest.raises(ValueError, match=message) as error:
        finder()(pixels(), BOTH, files["pose"], files["attention"])
    assert "\n" not in str(error.value)


def test_other_wrong_files_are_one_clear_line(tmp_path: Path) -> None:
    Image.fromarray(pixels(8, 9)).save(tmp_path / "small.png")
    (tmp_path / "empty.npy").touch()
    for pose, message in (("small.png", "is 9×8 pixels"), ("empty.npy", "is no array of numpy")):
        with pytest.raises(ValueError, match=message):
            finder()(pixels(), BOTH, str(tmp_path / pose), "none")


# --- the whole model


@pytest.fixture(scope="module")
def restorer(shared, tmp_path_factory) -> hbr.Restorer:
    model = toy_model(shared / "goldens" / "osediff" / "base")
    path = tmp_path_factory.mktemp("model") / "toy.safetensors"
    save_checkpoint(path, model.config, model.state_dict())
    return hbr.Restorer.from_pretrained(path, device="cpu", dtype="float32")


FEW = Sampling(steps=2)


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (70, 150)])
def test_a_photo_of_any_size(restorer, size: tuple[int, int]) -> None:
    made = restorer(pixels(*size), sampling=FEW, pose="none")
    assert made.pixels.shape == (*size, 3)
    assert made.provenance["sampling"]["steps"] == 2
    assert made.provenance["structure"] == {"pose": "none", "attention": "the model's"}


def test_the_seed_changes_the_picture_and_nothing_else_does(restorer) -> None:
    first, again, other = (
        restorer(pixels(64, 64), sampling=FEW, pose="none", seed=seed).pixels for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_text_and_maps_change_the_picture(restorer, tmp_path: Path) -> None:
    for parameter in restorer.model.control.controlnet_cond_embedding.parameters():
        parameter.data.normal_(std=0.3)
    for zero in (*restorer.model.control.controlnet_down_blocks,):
        zero.weight.data.normal_(std=0.1)
    np.save(tmp_path / "pose.npy", np.concatenate([PERSON[..., :2] * 2, PERSON[..., 2:]], axis=2))
    np.save(tmp_path / "attention.npy", np.full((64, 64), 0.7))
    changes = [{}, {"prompt": "a man, hat"}, {"pose": str(tmp_path / "pose.npy")}]
    changes.append({"attention": str(tmp_path / "attention.npy")})
    made = [
        restorer(pixels(64, 64), **{"sampling": FEW, "pose": "none", **change}).pixels.tobytes()
        for change in changes
    ]
    assert len(set(made)) == 4
    # the order of the tags is the paper's, however they are given
    again = restorer(pixels(64, 64), sampling=FEW, pose="none", prompt="hat, a man").pixels
    assert again.tobytes() == made[1]


def test_previews_and_progress(restorer) -> None:
    shown, counted = [], []
    restorer(
        pixels(64, 64),
        sampling=Sampling(steps=3),
        pose="none",
        preview=lambda done, total, image: shown.append((done, total, tuple(image().shape))),
        progress=lambda done, total: counted.append((done, total)),
    )
    assert shown == [(i, 3, (1, 3, 64, 64)) for i in (1, 2, 3)]
    assert counted == [(1, 1), (1, 3), (2, 3), (3, 3)]


def test_an_enormous_guidance_is_one_clear_line(restorer) -> None:
    with pytest.raises(FloatingPointError, match="use a lower --guidance"):
        restorer(pixels(64, 64), sampling=Sampling(steps=2, guidance=1e38), pose="none")


def test_other_models_say_what_they_do_not_take(restorer, tmp_path: Path) -> None:
    nano = hbr.Restorer.from_pretrained("nano", device="cpu")
    Image.fromarray(pixels()).save(tmp_path / "pose.png")
    with pytest.raises(ValueError, match="nano restores in one step: there is nothing to sample"):
        nano(pixels(), sampling=FEW)
    with pytest.raises(ValueError, match="nano is not guided by pose"):
        nano(pixels(), pose=str(tmp_path / "pose.png"))
    with pytest.raises(ValueError, match=r"none\.png is no file; it must be auto, none or a file"):
        restorer(pixels(), attention=str(tmp_path / "none.png"))
    assert nano(pixels()).provenance["sampling"] is None
    assert issubclass(ConfigError, ValueError)
