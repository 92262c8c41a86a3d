"""DiffBody by the real commands: stage 1, body parts, control branch, and a restored picture."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from hbr.config import to_dict
from hbr.models.diffbody.model import DiffBody
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
        (("--guidance", "inf"), "guidance is inf"),
        (("--text-guidance", "-1"), "text_guidance is -1.0; it must be 0 or more"),
        (("--text", "a\udcff"), "prompt is \"'a\\\\udcff'\"; it must be text in Unicode"),
        (("--preview", "0"), "greater than or equal to 1"),
        (("--keep-previews",), "only valid with --preview"),
        (("--preview", "1", "--output", "-"), "only valid with --engine local, and outputs"),
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


def points(n: int) -> np.ndarray:
    """Key points [n, 17, 3] of people somewhere in a photo of 100×80."""
    found = np.random.default_rng(0).random((n, 17, 3)) * (100, 80, 1)
    found[..., 2] = 1
    return found


def words_of(options: dict, folder: Path) -> list:
    """Options as the command line takes them; arrays become files."""
    words = []
    for name, value in options.items():
        if isinstance(value, np.ndarray):
            np.save(folder / "given.npy", value)
            value = folder / "given.npy"
        words += [f"--{name}", value]
    return words


CUT = points(1) - (60, 0, 0)  # most of this person is beyond the left edge
NO_PERSON = points(2) * np.nan


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"pose": points(20)}, marks=pytest.mark.slow),
        {"pose": CUT},
        {"pose": NO_PERSON},
        pytest.param({"pose": points(0)}, marks=pytest.mark.slow),
        pytest.param({"text": " ".join(f"word{i}" for i in range(500))}, marks=pytest.mark.slow),
        {"text": "日本語の老人、眼鏡 🧥 ąčę"},
        pytest.param({"text": ""}, marks=pytest.mark.slow),
        pytest.param({"guidance": 0}, marks=pytest.mark.slow),
        {"steps": 1},
    ],
    ids=["twenty", "cut", "nan", "nobody", "long", "bytes", "wordless", "unguided", "one-step"],
)
def test_unusual_input_is_restored(options, model, photo, call_hbr, tmp_path) -> None:
    words = [*OPTIONS, "--attention", "none", *words_of(options, tmp_path)]
    out = tmp_path / "out.png"
    done = call_hbr("restore", "-i", photo, "-o", out, "--model", model, *words)
    assert done.returncode == 0, done.stderr
    with Image.open(out) as restored:
        assert restored.size == (100, 80)
    provenance = json.loads(done.stdout.splitlines()[0])["provenance"]
    pose = provenance["structure"]["pose"]
    assert pose == "file given.npy" if "pose" in options else pose.startswith("none: ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pose": np.zeros((2, 5, 3))}, "key points are (2, 5, 3); they must be (n, 17, 3) or"),
        ({"attention": np.full((80, 100), 1.5)}, "values from 1.5 to 1.5; they must be in [0, 1]"),
        ({"attention": np.full((80, 100), np.nan)}, "values from nan to nan; they must be in"),
    ],
    ids=["pose", "above-1", "nan"],
)
def test_what_cannot_be_used_is_one_line(
    options, message, model, photo, call_hbr, tmp_path
) -> None:
    words = [*OPTIONS, *words_of(options, tmp_path)]
    out = tmp_path / "out.png"
    done = call_hbr("restore", "-i", photo, "-o", out, "--model", model, *words)
    assert done.returncode == 1
    (record,) = (json.loads(line) for line in done.stdout.splitlines() if '"input"' in line)
    assert message in record["error"]
    assert "\n" not in record["error"]
    assert not [*tmp_path.glob("out*")]


# --- previews


def restoring(model, photo, out, *options) -> tuple[object, ...]:
    common = ("--device", "cpu", "--dtype", "float32", "--pose", "none", "--sampler", "ddim")
    return ("restore", "-i", photo, "-o", out, "--model", model, *common, *options)


@pytest.mark.slow
def test_previews_are_kept_by_their_step(model, photo, call_hbr, tmp_path) -> None:
    options = ("--steps", "5", "--preview", "2", "--keep-previews")
    done = call_hbr(*restoring(model, photo, tmp_path / "out.png", *options))
    assert done.returncode == 0, done.stderr
    names = ["out.png", "out.step-002.jpg", "out.step-004.jpg"]
    assert sorted(p.name for p in tmp_path.glob("out*")) == names
    with Image.open(tmp_path / "out.step-002.jpg") as preview:
        assert preview.size == (100, 80)
    first, second = ((tmp_path / name).read_bytes() for name in names[1:])
    assert first != second
    plain = call_hbr(*restoring(model, photo, tmp_path / "plain.png", "--steps", "5"))
    assert plain.returncode == 0, plain.stderr
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "out.png").read_bytes()


@pytest.mark.parametrize(("at", "code"), [(None, 0), (4, 130)])
def test_the_preview_is_gone_at_the_end(
    at, code, model, photo, call_hbr, tmp_path, monkeypatch
) -> None:
    """However it comes: with the last step, or by Ctrl-C between two steps."""
    seen: list[list[str]] = []
    predict = DiffBody.predict

    def watched(self, z_t, t, p, condition):
        seen.append(sorted(path.name for path in tmp_path.glob("out*")))
        if t[0] == 999 - 200 * (at or 99):
            signal.raise_signal(signal.SIGINT)
        return predict(self, z_t, t, p, condition)

    monkeypatch.setattr(DiffBody, "predict", watched)
    options = ("--steps", "5", "--preview", "1")
    done = call_hbr(*restoring(model, photo, tmp_path / "out.png", *options))
    assert done.returncode == code, done.stderr
    assert seen[0] == []
    assert seen[-1] == ["out.preview.jpg"]
    assert [path.name for path in tmp_path.glob("out*")] == ([] if code else ["out.png"])
    assert "Traceback" not in done.stderr


def test_a_preview_never_replaces_a_file(model, photo, call_hbr, tmp_path) -> None:
    (tmp_path / "out.preview.jpg").write_bytes(b"mine")
    done = call_hbr(
        *restoring(model, photo, tmp_path / "out.png", "--steps", "5", "--preview", "1")
    )
    assert done.returncode == 0, done.stderr
    assert "out.preview.jpg is there already; no preview is written" in done.stderr
    assert (tmp_path / "out.preview.jpg").read_bytes() == b"mine"


def test_one_step_has_nothing_to_preview(photo, call_hbr, tmp_path) -> None:
    out = tmp_path / "out.png"
    done = call_hbr("restore", "-i", photo, "-o", out, "--device", "cpu", "--preview", "1")
    assert done.returncode == 2
    assert "nano restores in one step: there is nothing to preview" in done.stderr
    assert not out.exists()
