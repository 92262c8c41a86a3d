"""What may change before a training goes on; steps that are not finite; disks that are full."""

import dataclasses
import json
import os
import resource
import shutil
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from toy_processes import ends, hbr, start
from toy_training import MODEL, settings, train

from hbr.config import ConfigError, from_dict, to_dict
from hbr.models import read_checkpoint
from hbr.models.checkpoint import save_checkpoint
from hbr.training.config import TrainConfig
from hbr.training.loop import Trainer
from hbr.training.state import TrainingError, check_unchanged

FILE = Path("out/state.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        {"save_every": 5, "weights": "float16", "card": {"licence": "CC0-1.0"}},
        {"memory": {"checkpointing": True}, "compile": True},
        {"memory": {"checkpointing": "auto"}},
        {"phases": [{"steps": 5, "crop": 32, "batch": 2}, {"steps": 9, "crop": 64, "batch": 1}]},
    ],
)
def test_what_does_not_decide_what_is_learned_may_change(change):
    before = to_dict(from_dict(TrainConfig, settings("out")))
    check_unchanged(before, from_dict(TrainConfig, settings("out", **change)), FILE)
    values = settings("elsewhere")
    values["validation"] |= {"every": 3, "count": 1}
    values["data"] |= {"workers": 4}
    values["optim"] |= {"nonfinite": 3}
    check_unchanged(before, from_dict(TrainConfig, values), FILE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {**MODEL, "timestep": 299}}, "model.timestep 199, and now it is 299"),
        ({"objective": {"kind": "diffusion"}}, "objective {'kind': 'restoration'"),
        ({"loss": {"l1": 0.5}}, "loss.l1 1.0, and now it is 0.5"),
        ({"seed": 5}, "seed 0, and now it is 5"),
        ({"freeze": ["unet"]}, r"freeze \[\], and now it is \['unet'\]"),
        ({"precision": "bfloat16"}, "precision 'float32', and now it is 'bfloat16'"),
        ({"init": "nano"}, "init None, and now it is 'nano'"),
        ({"memory": {"decode_crop": 16}}, "memory.decode_crop None, and now it is 16"),
        (
            {
                "phases": [
                    {"steps": 5, "crop": 32, "batch": 4},
                    {"steps": 3, "crop": 64, "batch": 1},
                ]
            },
            r"phases\[0\].batch 2, and now it is 4",
        ),
        ({"phases": [{"steps": 8, "crop": 32, "batch": 2}]}, "phases"),
        ({"optim": {"lr": 2e-3, "warmup": 2, "decay": 3, "ema": 0.5}}, "optim.lr 0.001"),
        (
            {"data": {"sources": settings("out")["data"]["sources"], "shrink_prob": 0.5}},
            "data.shrink_prob 0.3, and now it is 0.5",
        ),
    ],
)
def test_what_decides_what_is_learned_may_not(change, message):
    before = to_dict(from_dict(TrainConfig, settings("out")))
    with pytest.raises(ConfigError, match=f"state.safetensors was written with {message}") as said:
        check_unchanged(before, from_dict(TrainConfig, settings("out", **change)), FILE)
    assert "set it back, or train into another folder (--out)" in str(said.value)
    assert "\n" not in str(said.value)


def test_a_state_from_before_a_field_was_known_goes_on():
    now = from_dict(TrainConfig, settings("out"))
    before = to_dict(now)
    for name in ("accumulate", "nonfinite"):
        del before["optim"][name]
    del before["memory"], before["data"]["mirror"]
    check_unchanged(before, now, FILE)
    with pytest.raises(ConfigError, match="an incompatible version of hbr: flavour"):
        check_unchanged({**before, "flavour": 1}, now, FILE)


def test_more_steps_go_on_from_the_end(tmp_path):
    train(settings(tmp_path))
    longer = settings(tmp_path)
    longer["phases"][-1]["steps"] = 5
    assert read_checkpoint(train(longer)).card["steps"] == "10"
    with pytest.raises(ConfigError, match="seed"):
        train(settings(tmp_path, seed=5))
    assert read_checkpoint(tmp_path / "model.safetensors").card["steps"] == "10"


def spoiled(trainer: Trainer, *steps: int) -> Trainer:
    """A training whose loss is not a number at these steps."""
    objective = trainer.objective

    def losses(*arguments):
        out = objective.losses(*arguments)
        bad = float("nan") if trainer.state.step in steps else 1.0
        return dataclasses.replace(out, terms={n: t * bad for n, t in out.terms.items()})

    trainer.objective = SimpleNamespace(losses=losses, validate=objective.validate)
    return trainer


def test_a_step_that_is_not_finite_is_left_out_and_counted(tmp_path):
    said: list[str] = []
    config = from_dict(TrainConfig, settings(tmp_path))
    trainer = spoiled(Trainer(config, report=said.append), 3, 4, 6)
    tensors = read_checkpoint(trainer.run()).tensors
    assert all(t.isfinite().all() for t in tensors.values())
    assert (trainer.state.left_out, trainer.state.left_out_in_a_row) == (3, 0)
    assert any("step 5: the loss" in line and "(2 in a row, 2 in total)" in line for line in said)
    rows = [json.loads(line) for line in (tmp_path / "curves.jsonl").read_text().splitlines()]
    assert next(row for row in rows if "loss/l1" in row)["left_out"] == 3
    again = Trainer(config, report=said.append)
    assert again.state.left_out == 3


def test_too_many_in_a_row_end_the_training_and_leave_the_last_checkpoint(tmp_path):
    values = settings(tmp_path, save_every=2)
    values["optim"]["nonfinite"] = 2
    config = from_dict(TrainConfig, values)
    trainer = spoiled(Trainer(config, report=lambda line: None), 4, 5, 6, 7)
    with pytest.raises(TrainingError, match=r"step 7: .* 3 times in a row.*optim.nonfinite is 2"):
        trainer.run()
    assert read_checkpoint(tmp_path / "model.safetensors").card["steps"] == "4"
    kept = Trainer(config, report=lambda line: None).state
    assert (kept.step, kept.left_out_in_a_row) == (4, 0)
    assert all(t.isfinite().all() for t in kept.average.values())


@pytest.mark.parametrize("count", [1, 2])
def test_weights_that_are_no_numbers_are_never_saved(tmp_path, count):
    """From a model that is damaged inside: nothing is learned, nothing written over."""
    config = from_dict(TrainConfig, settings(tmp_path)).model
    train(settings(tmp_path / "good", phases=[{"steps": 5, "crop": 32, "batch": 2}]))
    tensors = dict(read_checkpoint(tmp_path / "good/model.safetensors").tensors)
    tensors["unet.conv_in.weight"] = torch.full_like(tensors["unet.conv_in.weight"], float("nan"))
    save_checkpoint(tmp_path / "bad.safetensors", config, tensors)
    phases = [{"steps": 5, "crop": 32, "batch": 2}]
    bad = str(tmp_path / "bad.safetensors")
    values = settings(tmp_path / "out", init=bad, phases=phases, save_every=2)
    (tmp_path / "out.yaml").write_text(json.dumps(values))
    log = tmp_path / "log"
    run = start(hbr, log, "train", str(tmp_path / "out.yaml"), "--device", "cpu", count=count)
    assert ends(run) == [1] * count
    assert "averaged weights are not finite" in Path(f"{log}.0").read_text()
    assert not list((tmp_path / "out").glob("*.safetensors"))


def _with_small_files(most: int, log: Path, *arguments: str) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    hbr(log, *arguments)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a few megabytes, where one may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def saved(out: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in out.glob("*.safetensors")}


def recipe_of(folder: Path, out: Path, steps: int) -> Path:
    phases = [{"steps": steps, "crop": 32, "batch": 2}]
    file = folder / f"{steps}.yaml"
    file.write_text(json.dumps(settings(out, phases=phases)))
    return file


@pytest.mark.parametrize("count", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, small_disk, count):
    out, log = small_disk / "out", tmp_path / "log"
    first = recipe_of(tmp_path, out, 6)
    assert ends(start(hbr, log, "train", str(first), "--device", "cpu", count=count)) == [0] * count
    kept = saved(out)
    with (small_disk / "ballast").open("wb") as ballast:  # all but room for the curves
        ballast.write(bytes(shutil.disk_usage(small_disk).free - 2**17))
    more = str(recipe_of(tmp_path, out, 12))
    codes = ends(start(hbr, tmp_path / "full", "train", more, "--device", "cpu", count=count))
    said = (tmp_path / "full.0").read_text()
    assert "Traceback" not in said
    assert "safetensors cannot be written" in said.splitlines()[-1]
    assert "No space left on device" in said.splitlines()[-1]
    assert codes == [4, 1][:count]
    assert saved(out) == kept
    (small_disk / "ballast").unlink()
    assert ends(start(hbr, log, "train", more, "--device", "cpu", count=count)) == [0] * count
    assert read_checkpoint(out / "model.safetensors").card["steps"] == "12"


def test_a_checkpoint_that_does_not_fit_leaves_the_last_one(tmp_path):
    """The curves fit, the state does not, as on a disk that is nearly full."""
    out, log = tmp_path / "out", tmp_path / "log"
    first = recipe_of(tmp_path, out, 6)
    assert ends(start(hbr, log, "train", str(first), "--device", "cpu")) == [0]
    kept = saved(out)
    more, most = str(recipe_of(tmp_path, out, 12)), len(kept["state.safetensors"]) // 8
    run = start(_with_small_files, most, tmp_path / "full", "train", more, "--device", "cpu")
    assert ends(run) == [4]
    said = (tmp_path / "full.0").read_text()
    assert "Traceback" not in said
    assert "safetensors cannot be written" in said.splitlines()[-1]
    assert saved(out) == kept
    assert ends(start(hbr, log, "train", more, "--device", "cpu")) == [0]
