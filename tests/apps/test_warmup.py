"""`hbr warmup`, and processes that restore without torch after it."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import toy_models

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

WITHOUT_TORCH = """
import sys
from hbr.apps.cli.main import main
try:
    main()
except SystemExit as stop:
    heavy = {"torch", "diffusers", "transformers", "scipy", "cv2"} & sys.modules.keys()
    sys.exit(f"{stop.code} {sorted(heavy)}")
"""


@pytest.fixture(scope="module")
def warm(tmp_path_factory, hbr_command):
    """A model that was warmed up, and what the command said."""
    folder = tmp_path_factory.mktemp("warm")
    model = toy_models.write_rrdbnet(folder / "toy.safetensors")
    environment = {
        **os.environ,
        "HBR_WEIGHTS": str(folder / "weights"),
        "OMP_NUM_THREADS": "1",
        "CXX": "no-such-compiler",  # to compile takes long
    }
    done = subprocess.run(
        [*hbr_command, "warmup", "--model", str(model)],
        capture_output=True,
        text=True,
        timeout=240,
        env=environment,
    )
    return model, environment, done


def test_warming_up_makes_the_graph_and_measures_what_is_there(warm):
    _, environment, done = warm
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    assert folder.parent == Path(environment["HBR_WEIGHTS"]) / "graphs"
    names = ["64x64.onnx", "card.json", "graph.onnx", "measured.json"]
    assert sorted(file.name for file in folder.iterdir()) == names
    measured = json.loads((folder / "measured.json").read_text())
    assert measured["device"]
    openvino = {"openvino"} if find_spec("openvino") else set()
    assert set(measured["seconds"]) == {"eager", "onnx"} | openvino
    assert "compiled cannot be measured: " in done.stderr
    assert "no-such-compiler is not there" in done.stderr
    assert measured["edge"] == 64
    assert measured["made_with"]["threads"] == "1"
    for name, seconds in measured["seconds"].items():
        assert seconds["start"] > 0 < seconds["tile"]
        assert f"{name}: {seconds['start']:.2f} s to start" in done.stderr


def restored(warm, photo, out, *options, code=WITHOUT_TORCH):
    model, environment, _ = warm
    command = [sys.executable, "-c", code, "restore", str(photo), "-o", str(out), *options]
    return subprocess.run(
        [*command, "--model", str(model), "--log-format", "json"],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
    )


def test_a_photo_is_restored_without_torch_and_made_again(
    warm, tmp_path, run_hbr, call_hbr, monkeypatch
):
    model, environment, _ = warm
    pixels = np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / "in.png")
    done = restored(warm, tmp_path / "in.png", tmp_path / "out.png", "--device", "cpu")
    assert done.stderr.splitlines()[-1] == "0 []", done.stderr
    provenance = json.loads(done.stdout)["provenance"]
    assert (provenance["backend"], provenance["torch"]) == ("onnx", None)
    again = run_hbr("replay", tmp_path / "out.png", "--model", model, env=environment)
    assert again.returncode == 0, again.stderr
    assert "the same bytes" in again.stderr
    monkeypatch.setenv("HBR_WEIGHTS", environment["HBR_WEIGHTS"])
    asked = ("--backend", "eager", "--model", model, "--log-format", "json")
    eager = call_hbr("restore", tmp_path / "in.png", "-o", tmp_path / "eager.png", *asked)
    assert json.loads(eager.stdout)["provenance"]["backend"] == "eager"


def test_options_that_a_graph_does_not_take_are_wrong_usage(warm, tmp_path):
    PIL.Image.new("RGB", (20, 20)).save(tmp_path / "in.png")
    for options, line in (
        (("--dtype", "bfloat16"), "--dtype: dtype is 'bfloat16'; the backend onnx computes in"),
        (("--fidelity", "0.5"), "fidelity is 0.5, but toy.safetensors has one end only"),
    ):
        out = tmp_path / "out.png"
        done = restored(warm, tmp_path / "in.png", out, "--backend", "onnx", *options)
        assert done.stderr.splitlines()[-1].startswith("2 "), done.stderr
        assert line in done.stderr
        assert not out.exists()
