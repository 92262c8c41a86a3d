"""Methods trained anew by their own code: the files that it takes, its end, its result in use."""

import json
import os
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from hbr.config import ConfigError
from hbr.evaluation.methods import build_method, read_method
from hbr.evaluation.methods.base import MethodError
from hbr.evaluation.methods.programs import known_programs
from hbr.evaluation.methods.retraining import known_retrainings, retrain, write_plan

ARGPARSERS = json.loads(Path(__file__).with_name("argparsers.json").read_text())

# In little, what the configurations of both repositories have.
TEMPLATE = """
trainer:
  target: trainer.TrainerDifIR
model:
  ckpt_path: ~
  params: {out_channels: "${autoencoder.params.embed_dim}", use_fp16: False}
data:
  train:
    type: realesrgan
    params:
      dir_paths: []
      txt_file_path: ['/authors/imagenet.txt', '/authors/ffhq256.txt']
      rescale_gt: True
  val:
    type: base
    params: {dir_path: testdata/Val_SR/lq}
train:
  lr: 5e-5
  batch: [64, 8]
  iterations: 70
  save_freq: 20
"""

# Takes the options of the real one, and reads its files and writes its checkpoints as that does.
TRAINER = """
import argparse, os, sys, time, zipfile
from pathlib import Path
import yaml
KINDS = {"str": str, "int": int}
parser = argparse.ArgumentParser(allow_abbrev=False)
for flags, kept in ARGUMENTS:
    kept["type"] = KINDS[kept["type"]]
    parser.add_argument(*flags, **kept)
args = parser.parse_args()
config = yaml.safe_load(open(args.cfg_path))
photos = []
for listed in config["data"]["train"]["params"]["txt_file_path"]:
    with open(listed) as file:
        photos += [line[:-1] for line in file.readlines()]
assert photos and all(os.path.isfile(photo) for photo in photos), photos
assert "val" not in config["data"] or Path(config["data"]["val"]["params"]["dir_path"]).is_dir()
print("gpus", os.environ["CUDA_VISIBLE_DEVICES"], "rank", os.environ["LOCAL_RANK"])
begin, run = 0, Path(args.save_dir) / str(time.time_ns())
if args.resume:
    begin, run = int(Path(args.resume).stem.split("_")[1]), Path(args.resume).parents[1]
    assert zipfile.is_zipfile(args.resume)
    assert zipfile.is_zipfile(run / "ema_ckpts" / f"ema_{Path(args.resume).name}")
print("begin", begin, flush=True)
def save(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("data.pkl", text)
for step in range(begin + 1, config["train"]["iterations"] + 1):
    if Path("crash").exists() and step == 50:
        Path("crash").unlink()
        save(run / "ckpts" / "model_60.pth", "half done")
        (run / "ema_ckpts" / "ema_model_60.pth").write_bytes(b"PK cut short")
        sys.exit("CUDA out of memory")
    if step % config["train"]["save_freq"] == 0:
        save(run / "ckpts" / f"model_{step}.pth", f"weights of step {step}")
        save(run / "ema_ckpts" / f"ema_model_{step}.pth", f"average of step {step}")
"""

# Reads its weights as the real ones do: from an option, or from the one place that it knows.
RESTORER = """
import sys, zipfile
from pathlib import Path
from PIL import Image
words = dict(zip(sys.argv[1:], sys.argv[2:]))
weights = words.get("--ckpt", "weights/resshift_realsrx4_s15_v1.pth")
print("uses", zipfile.ZipFile(weights).read("data.pkl").decode())
assert Path("configs", "x.yaml").is_file()
assert Path(__file__).parent.joinpath("trainer.py").is_file()
for path in Path(words["-i"]).iterdir():
    image = Image.open(path)
    image.resize([4 * edge for edge in image.size]).save(Path(words["-o"]) / path.name)
"""

Lines = list[str]
Clone = Callable[[str], Path]


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    """The clone of a method, with a trainer and an inference that stand in for its own."""

    def make(name: str) -> Path:
        spec, repo = known_retrainings()[name], tmp_path / name
        for needed in (spec.template, "configs/x.yaml", "trainer.py", *spec.needs):
            (repo / needed).parent.mkdir(parents=True, exist_ok=True)
            (repo / needed).touch()
        (repo / spec.template).write_text(TEMPLATE)
        published = repo / "weights" / "resshift_realsrx4_s15_v1.pth"
        with zipfile.ZipFile(published, "w") as file:
            file.writestr("data.pkl", "published weights")
        options = ARGPARSERS[f"{name} training"]
        code = TRAINER.replace("ARGUMENTS", repr(options["arguments"]))
        (repo / options["script"]).write_text(code)
        (repo / ARGPARSERS[name]["script"]).write_text(RESTORER)
        return repo

    return make


def plan_of(name: str, repo: Path, out: Path, photos: Sequence[Path], **more: Any) -> Any:
    return write_plan(name, photos, out, repo=repo, python=sys.executable, **more)


@pytest.mark.parametrize("name", [pytest.param("resshift", marks=pytest.mark.slow), "sinsr"])
def test_a_retraining_from_photos_to_a_method(
    name: str, clone: Clone, lq: dict[str, Path], tmp_path: Path
) -> None:
    repo, out, said = clone(name), tmp_path / "out", Lines()
    method = retrain(plan_of(name, repo, out, list(lq.values()), gpus=1), report=said.append)
    log = (out / "training.log").read_text()
    assert "gpus 0 rank 0" in log
    assert "begin 0" in log
    assert not [path for path in repo.rglob("*") if path.name.startswith("ema_")]

    config = read_method(method)
    assert config.kind == "program"
    assert config.program == name
    assert config.input == "small"
    a = {"a": lq["a"]}
    outcome = build_method(config).run(a, tmp_path / "restored")
    assert not outcome.failed
    (used,) = (tmp_path / "restored" / ".work").glob("*.log")
    # of the steps, the last that is saved
    assert "uses average of step 60" in used.read_text()
    published = zipfile.ZipFile(repo / "weights" / "resshift_realsrx4_s15_v1.pth")
    assert published.read("data.pkl") == b"published weights"


def test_the_configuration_is_the_published_one_but_for_the_photos(
    clone: Clone, lq: dict[str, Path], tmp_path: Path
) -> None:
    repo = clone("resshift")
    plan_of("resshift", repo, tmp_path / "out", list(lq.values()))
    text = (tmp_path / "out" / "config.yaml").read_text()
    assert "lr: 5e-5\n" in text, "a number to its code, whatever YAML makes of it"
    written = yaml.safe_load(text)
    expected = yaml.safe_load(TEMPLATE)
    expected["data"]["train"]["params"]["txt_file_path"] = [str(tmp_path / "out" / "photos.txt")]
    del expected["data"]["val"]
    assert written == expected
    listed = (tmp_path / "out" / "photos.txt").read_text()
    assert listed == "".join(f"{path.absolute()}\n" for path in lq.values())


def test_a_retraining_resumes_from_the_last_whole_checkpoint(
    clone: Clone, lq: dict[str, Path], tmp_path: Path
) -> None:
    repo, out, said = clone("sinsr"), tmp_path / "out", Lines()
    (repo / "crash").touch()
    plan = plan_of("sinsr", repo, out, list(lq.values()))
    with pytest.raises(MethodError, match=r"sinsr is at step 40 of 60: .*the same command resumes"):
        retrain(plan, report=said.append)
    plan = plan_of("sinsr", repo, out, list(lq.values()))
    assert plan.command[-2] == "--resume"
    assert plan.command[-1].endswith("ckpts/model_40.pth")
    retrain(plan, report=said.append)
    assert "resuming at step 40 of 60" in said
    log = (out / "training.log").read_text()
    assert [line for line in log.splitlines() if line.startswith("begin")] == [
        "begin 0",
        "begin 40",
    ]
    # what is done is not started again
    before = (out / "training.log").read_bytes()
    retrain(plan_of("sinsr", repo, out, list(lq.values())), report=said.append)
    assert (out / "training.log").read_bytes() == before


def test_settings_change_keys_that_the_configuration_has(
    clone: Clone, lq: dict[str, Path], tmp_path: Path
) -> None:
    repo, photos = clone("resshift"), list(lq.values())
    settings = ("train.iterations=40", "train.batch=[16, 8]")
    plan = plan_of("resshift", repo, tmp_path / "out", photos, settings=settings)
    written = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert (written["train"]["iterations"], written["train"]["batch"]) == (40, [16, 8])
    assert plan.steps == 40
    with pytest.raises(ConfigError, match=r"--set train\.iteration: .* has no such key"):
        plan_of("resshift", repo, tmp_path / "b", photos, settings=("train.iteration=40",))
    with pytest.raises(ConfigError, match=r"train\.save_freq is 20; it must be 1 to 10"):
        plan_of("resshift", repo, tmp_path / "b", photos, settings=("train.iterations=10",))
    assert not (tmp_path / "b").exists()


def test_a_folder_belongs_to_one_retraining(
    clone: Clone, lq: dict[str, Path], tmp_path: Path
) -> None:
    repo, photos = clone("resshift"), list(lq.values())
    plan_of("resshift", repo, tmp_path / "out", photos)
    with pytest.raises(MethodError, match=r"out holds a retraining with another photos\.txt"):
        plan_of("resshift", repo, tmp_path / "out", photos[1:])


def test_what_cannot_be_started_says_why(
    clone: Clone, lq: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo, photos, out = clone("sinsr"), list(lq.values()), tmp_path / "out"
    with pytest.raises(ConfigError, match="method is 'seesr'; it must be one of resshift, sinsr"):
        plan_of("seesr", repo, out, photos)
    with pytest.raises(ConfigError, match="names without line breaks"):
        plan_of("sinsr", repo, out, [tmp_path / "a\nb.png"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    with pytest.raises(ConfigError, match="gpus is 3; it must be at most 2"):
        retrain(plan_of("sinsr", repo, out, photos, gpus=3), report=print)
    (repo / "weights" / "resshift_realsrx4_s15_v1.pth").unlink()
    with pytest.raises(MethodError, match=r"resshift_realsrx4_s15_v1\.pth is missing; clone"):
        plan_of("sinsr", repo, out, photos)


def test_the_entries_belong_to_programs() -> None:
    assert list(known_retrainings()) == ["resshift", "sinsr"]
    for name, spec in known_retrainings().items():
        program = known_programs()[spec.program]
        assert set(spec.values) <= set(program.values)
        options = ARGPARSERS[f"{name} training"]
        assert options["commit"] == program.commit
        assert options["script"] in spec.command
        assert os.sep not in options["script"]
