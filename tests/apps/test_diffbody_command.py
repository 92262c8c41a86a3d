"""DiffBody by the real commands: stage 1, body parts, control branch, and a restored picture."""

import json
from pathlib import Path

import pytest
import yaml
from PIL import Image

from hbr.config import to_dict
from toy_diffbody import STAGE1, toy_values

DATA = Path(__file__).parents[1] / "data"


def recipe(path: Path, out: Path, **values) -> Path:
    common = {
        "data": {"sources": [{"photos": str(DATA)}], "workers": 0, "degradations": {"diffbir": 1}},
        "validation": {"photos": str(DATA), "count": 1, "crop": 64, "every": 100, "pictures": 0},
        "phases": [{"steps": 2, "crop": 64, "batch": 1}],
        "optim": {"lr": 1e-3, "warmup": 0},
        "precision": "float32",
        "out": str(out),
    }
    path.write_text(yaml.safe_dump({**common, **values}))
    return path


@pytest.fixture(scope="module")
def model(shared, call_hbr, tmp_path_factory) -> Path:
    """The model file of the chain of trainings, each by `hbr train`."""
    folder, base = tmp_path_factory.mktemp("chain"), shared / "goldens" / "osediff" / "base"
    diffbody = toy_values(base)
    conditioned = {"sources": [{"photos": str(DATA)}], "workers": 0}
    conditioned |= {"degradations": {"diffbir": 1}, "conditions": {}}
    stage1, parts, control = (folder / name for name in ("stage1", "parts", "control"))
    chain = [
        recipe(
            folder / "1.yaml", stage1, model=to_dict(STAGE1), objective={"kind": "regression"},
            loss={"l1": 0, "mse": 1},
        ),
        recipe(
            folder / "2.yaml", parts, model=diffbody, objective={"kind": "parts"},
            data=conditioned,
            init={"base": str(base), "stage1": str(stage1 / "model.safetensors")},
        ),
        recipe(
            folder / "3.yaml", control, model=diffbody, objective={"kind": "control"},
            data=conditioned, init={"base": str(parts / "model.safetensors")},
        ),
    ]  # fmt: skip
    for file in chain:
        done = call_hbr("train", file, "--device", "cpu")
        assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    with Image.open(DATA / "tie.png") as image:
        image.crop((32, 32, 132, 112)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


OPTIONS = ("--device", "cpu", "--dtype", "float32", "--log-format", "json", "--steps", "2")


def test_from_the_recipes_to_a_restored_picture(model, photo, call_hbr, tmp_path) -> None:
    Image.new("RGB", (100, 80)).save(tmp_path / "pose.png")
    Image.new("L", (100, 80), 200).save(tmp_path / "attention.png")
    maps = ("--pose", tmp_path / "pose.png", "--attention", tmp_path / "attention.png")
    words = ("--text", "a tie, a man", "--guidance", "0.5", "--text-guidance", "2")
    done = call_hbr(
        "restore", "-i", photo, "-o", tmp_path / "out.png", "--model", model,
        *OPTIONS, *maps, *words, "--sampler", "guided",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "out.png") as restored:
        assert restored.size == (100, 80)
    provenance = json.loads(done.stdout.splitlines()[0])["provenance"]
    assert provenance["structure"] == {"pose": "file pose.png", "attention": "file attention.png"}
    sampling = provenance["sampling"]
    assert (sampling["steps"], sampling["sampler"]) == (2, "guided")
    assert (sampling["guidance"], sampling["text_guidance"]) == (0.5, 2.0)
    assert provenance["prompt"] == "a tie, a man"


def test_the_seed_decides_the_bytes(model, photo, call_hbr, tmp_path) -> None:
    made = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        out = tmp_path / f"{name}.png"
        done = call_hbr(
            "restore", "-i", photo, "-o", out, "--model", model, *OPTIONS, "--pose", "none",
            "--sampler", "ddim", "--seed", seed,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        made.append(out.read_bytes())
    assert made[0] == made[1] != made[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--steps", "0"), "steps is 0; it must be from 1 to 1000"),
        (("--steps", "1001"), "steps is 1001"),
        (("--guidance", "-1"), "guidance is -1.0; it must be 0 or more"),
        (("--guidance", "nan"), "guidance is nan"),
        (("--sampler", "euler"), "sampler is 'euler'; it must be one of guided, ddpm"),
        (("--pose", "missing.png"), "missing.png is no file"),
    ],
)
def test_wrong_options_are_usage(model, photo, call_hbr, tmp_path, options, message) -> None:
    out = tmp_path / "out.png"
    done = call_hbr("restore", "-i", photo, "-o", out, "--model", model, *options)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split()).replace("│ ", "")
    assert not out.exists()


def test_a_map_of_another_size_fails_that_photo_alone(model, photo, call_hbr, tmp_path) -> None:
    Image.new("L", (64, 64)).save(tmp_path / "attention.png")
    out = tmp_path / "out.png"
    done = call_hbr(
        "restore", "-i", photo, "-o", out, "--model", model, *OPTIONS,
        "--attention", tmp_path / "attention.png",
    )  # fmt: skip
    assert done.returncode == 1
    (record,) = (json.loads(line) for line in done.stdout.splitlines() if '"input"' in line)
    assert record["status"] == "failed"
    assert "attention.png is 64×64 pixels; the restored photo is 100×80" in record["error"]
    assert not out.exists()
