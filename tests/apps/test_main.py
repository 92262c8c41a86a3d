"""The frame of the command line, run as a user runs it."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import hbr
from hbr.apps.cli.doctor import Diagnosis, as_text

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def one_line(stderr: str) -> str:
    """The only line of stderr, which is no traceback."""
    lines = stderr.splitlines()
    assert len(lines) == 1, stderr
    assert "Traceback" not in stderr
    return lines[0]


def found_first(folder: Path) -> dict[str, str]:
    """The environment in which the modules of `folder` stand in for others of their name."""
    rest = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), *([rest] if rest else [])])}


def test_version(run_hbr: Run) -> None:
    done = run_hbr("--version")
    assert (done.returncode, done.stdout) == (0, f"hbr {hbr.__version__}\n")


def test_help_names_every_command(run_hbr: Run) -> None:
    done = run_hbr("--help")
    assert done.returncode == 0
    for command in ("restore", "models", "train", "doctor", "--install-completion"):
        assert command in done.stdout


@pytest.mark.parametrize("command", ["restore", "models", "train", "doctor"])
def test_every_command_has_help(call_hbr: Run, command: str) -> None:
    done = call_hbr(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"hbr {command}" in done.stdout


def test_nothing_asked_shows_the_help(run_hbr: Run) -> None:
    done = run_hbr()
    assert done.returncode == 2
    assert "restore" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["polish"], "polish"),
        (["--colour"], "--colour"),
        (["doctor", "--yaml"], "--yaml"),
        (["train"], "RECIPE"),
    ],
)
def test_usage_errors_are_one_line_and_2(call_hbr: Run, arguments: list[str], named: str) -> None:
    done = call_hbr(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    line = one_line(done.stderr)
    assert named in line
    assert "--help" in line


def test_completion_knows_the_commands(run_hbr: Run) -> None:
    asked = {"_HBR_COMPLETE": "complete_bash", "COMP_WORDS": "hbr do", "COMP_CWORD": "1"}
    done = run_hbr(env=os.environ | asked)
    assert done.stdout.split() == ["doctor"]


def test_doctor_json(call_hbr: Run) -> None:
    done = call_hbr("doctor", "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 0, told["problems"]
    assert told["ok"] is True
    assert told["hbr"]["version"] == hbr.__version__
    assert told["model"]["name"] == "nano"
    assert told["model"]["intact"] is True
    assert all(told["packages"].values())
    assert told["cpu"]["cores"] >= 1
    assert told["memory"]["total"] > told["memory"]["available"] > 0
    facts = {section: told[section] for section in told if section not in ("ok", "problems")}
    lines = as_text(Diagnosis(facts)).splitlines()
    assert [line.split()[0] for line in lines[:-1]] == list(facts)
    assert lines[-1] == "all requirements are met"


def test_doctor_says_what_is_broken_and_how_to_mend_it(run_hbr: Run, tmp_path: Path) -> None:
    # a package of the same name that fails on import, found before the real one
    (tmp_path / "peft.py").write_text("raise RuntimeError('operator does not exist')")
    done = run_hbr("doctor", "--json", env=found_first(tmp_path))
    told = json.loads(done.stdout)
    assert done.returncode == 1
    assert told["ok"] is False
    (problem,) = (p for p in told["problems"] if p["what"].startswith("peft"))
    assert "operator does not exist" in problem["what"]
    assert "pip install" in problem["how"]


def test_train_without_its_recipe(call_hbr: Run, tmp_path: Path) -> None:
    done = call_hbr("train", tmp_path / "none.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    line = one_line(done.stderr)
    assert "there is no file or recipe" in line
    assert "none.yaml" in line


@pytest.mark.parametrize(
    ("text", "named"),
    [("a: [", "is not YAML"), ("speed: 9", "speed is not known")],
)
def test_train_with_a_bad_recipe(call_hbr: Run, tmp_path: Path, text: str, named: str) -> None:
    recipe = tmp_path / "bad.yaml"
    recipe.write_text(text)
    done = call_hbr("train", recipe)
    assert done.returncode == 2
    line = one_line(done.stderr)
    assert str(recipe) in line
    assert named in line


def test_an_unexpected_error_is_one_line_and_a_traceback_on_request(
    run_hbr: Run, tmp_path: Path
) -> None:
    (tmp_path / "torch.py").write_text("raise ZeroDivisionError('no sense')")
    recipe = tmp_path / "any.yaml"
    recipe.touch()
    env = found_first(tmp_path)
    done = run_hbr("train", recipe, env=env)
    assert (done.returncode, done.stdout) == (1, "")
    line = one_line(done.stderr)
    assert "ZeroDivisionError: no sense" in line
    assert "HBR_DEBUG=1" in line
    told = run_hbr("train", recipe, env=env | {"HBR_DEBUG": "1"})
    assert told.returncode == 1
    assert "Traceback" in told.stderr


@pytest.mark.parametrize("kind", ["MemoryError()", "MemoryError('tensor of 9 GiB')"])
def test_out_of_memory_is_5(run_hbr: Run, tmp_path: Path, kind: str) -> None:
    (tmp_path / "torch.py").write_text(f"raise {kind}")
    recipe = tmp_path / "any.yaml"
    recipe.touch()
    done = run_hbr("train", recipe, env=found_first(tmp_path))
    assert done.returncode == 5
    assert "out of memory" in one_line(done.stderr)


@pytest.mark.parametrize("arguments", [["--version"], ["--help"]])
def test_a_reader_that_leaves_is_no_error(hbr_command: list[str], arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*hbr_command, *arguments], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_output_that_cannot_be_written(hbr_command: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*hbr_command, "--version"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert "No space left" in one_line(done.stderr)


def tiny_recipe(folder: Path, *, steps: int, workers: int = 0) -> Path:
    """A small training on one photo of its own."""
    import numpy as np

    from hbr.image import Photo, write_photo
    from toy_models import TRAINED

    photos = folder / "photos"
    photos.mkdir()
    ramp = np.linspace(0, 1, 96 * 96 * 3, dtype=np.float32).reshape(96, 96, 3)
    write_photo(Photo.from_array(ramp), photos / "ramp.png")
    values = {
        "model": {**TRAINED, "prompt": {"kind": "text", "n_queries": 1, "width": 16}},
        "data": {"sources": [{"photos": str(photos)}], "workers": workers},
        "validation": {"photos": str(photos), "count": 1, "crop": 64, "every": 1_000_000},
        "optim": {"warmup": 1},
        "phases": [{"steps": steps, "crop": 64, "batch": 1}],
        "out": str(folder / "out"),
        "save_every": 1_000_000,
    }
    recipe = folder / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(values))
    return recipe


def test_train_ends_with_the_model_file(call_hbr: Run, tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, steps=2)
    done = call_hbr("train", recipe, "--device", "cpu", "--out", tmp_path / "elsewhere")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'elsewhere' / 'model.safetensors'}\n"
    assert Path(done.stdout.strip()).is_file()
    assert not (tmp_path / "out").exists()
    again = call_hbr("train", recipe, "--device", "cpu", "--out", tmp_path / "elsewhere")
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert "resuming at step 2 of 2" in again.stderr


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_train_stopped_by_ctrl_c_goes_on(
    hbr_command: list[str], tmp_path: Path, workers: int
) -> None:
    recipe = tiny_recipe(tmp_path, steps=1_000_000, workers=workers)
    process = subprocess.Popen(
        [*hbr_command, "train", recipe, "--device", "cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    next(line for line in process.stderr if line.startswith("step "))
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the workers too
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, "")
    assert "Traceback" not in stderr
    last = stderr.splitlines()[-1]
    assert last.startswith("stopped; the same command resumes: hbr train")
    assert (tmp_path / "out" / "state.safetensors").is_file()


def test_ctrl_c_is_130_and_one_line(hbr_command: list[str], tmp_path: Path) -> None:
    # stands still in the middle of the command, where the signal then finds it
    (tmp_path / "torch.py").write_text("import time\nprint('here', flush=True)\ntime.sleep(60)")
    process = subprocess.Popen(
        [*hbr_command, "doctor"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=found_first(tmp_path),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, "")
    assert one_line(stderr) == "stopped"
