"""Which backend restores a photo, and that the photo is the same."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import toy_models
from hbr.config import ConfigError
from hbr.files import sha256
from hbr.models import graphs
from hbr.models.graph_files import graph_folder, load_graph
from hbr.models.graphs import BackendError
from hbr.restoration import RestoreSettings
from hbr.restoration.batch import backends
from hbr.restoration.batch.backends import MEASURED, Wanted, restorer_for
from hbr.restoration.batch.jobs import plan_batch
from hbr.weights import FoundFile, WeightsError

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

EAGER, ONNX = {"start": 4.0, "tile": 0.5}, {"start": 1.0, "tile": 0.75}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model file whose graph lies ready."""
    folder = tmp_path_factory.mktemp("backends")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HBR_WEIGHTS", str(folder))
        file = toy_models.write(folder / "toy.safetensors")
        load_graph(FoundFile("toy", file, sha256(file)), "auto", "auto", None)
        yield file


@pytest.fixture
def measured(model):
    """Writes what was measured; it is gone after the test."""
    file = graph_folder(sha256(model), None) / MEASURED

    def write(**changes):
        values = {
            "made_with": backends._circumstances(),
            "device": "cpu",
            "edge": 64,
            "seconds": {"eager": EAGER, "onnx": ONNX},
            **changes,
        }
        file.write_text(json.dumps(values))
        return file

    yield write
    file.unlink(missing_ok=True)


def job(folder, *sizes):
    """The plan of a job of photos of these sizes."""
    rng = np.random.default_rng(0)
    for number, (height, width) in enumerate(sizes):
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"{number}.png")
    return plan_batch([str(folder)], str(folder / "out"))


def chosen(model, plan, settings=None, **wanted):
    wanted = Wanted(model=str(model), **{"backend": "auto", **wanted})
    return restorer_for(wanted, settings or RestoreSettings(), plan)


@pytest.mark.parametrize("color", ["wavelet", "adain", "none"])
def test_the_graph_gives_the_picture_of_the_model_in_float32(model, color):
    pixels = np.random.default_rng(0).integers(0, 256, (150, 100, 3), np.uint8)
    made = [
        chosen(model, None, dtype="float32", backend=backend)(pixels, color=color, tile=64)
        for backend in ("eager", "onnx")
    ]
    eager, onnx = (restored.provenance for restored in made)
    assert onnx["backend"] == "onnx"
    assert onnx["torch"] is None
    assert onnx["tiles"] > 4
    same = ("torch", "backend", "rewrites")
    assert {**onnx, **{name: eager[name] for name in same}} == eager
    first, second = (restored.pixels.astype(int) for restored in made)
    assert np.abs(first - second).max() <= 1


def test_another_process_finds_the_files_anew(model, tmp_path):
    copy = shutil.copy(model, tmp_path / "copy.safetensors")
    wanted = Wanted(model=str(copy))
    assert wanted.files[0].sha256 == sha256(model)
    Path(copy).unlink()
    assert wanted.files[0].sha256 == sha256(model)
    moved = pickle.loads(pickle.dumps(wanted))
    assert moved == wanted
    with pytest.raises(WeightsError, match="there is no such model file"):
        _ = moved.files


def test_without_measurements_auto_is_torch(model, tmp_path, caplog):
    restorer = chosen(model, job(tmp_path, (64, 64)))
    assert (restorer.backend, restorer.fallback) == ("eager", None)
    assert not caplog.messages


@pytest.mark.parametrize(
    ("sizes", "backend"),
    [
        ([(64, 64)], "onnx"),
        ([(64, 64)] * 11, "onnx"),
        ([(64, 64)] * 13, "eager"),
        ([(250, 230)], "eager"),
        ([(4, 4)] * 65, "eager"),
    ],
)
def test_the_job_decides_by_what_was_measured(model, measured, tmp_path, sizes, backend):
    measured()
    assert chosen(model, job(tmp_path, *sizes)).backend == backend


def test_a_resumed_job_goes_on_as_it_began(model, measured, tmp_path):
    measured()
    plan = job(tmp_path, *[(64, 64)] * 13)
    (tmp_path / "out").mkdir()
    for done in plan.jobs[:10]:
        PIL.Image.new("RGB", (64, 64)).save(done.target)
    rest = plan_batch([str(tmp_path)], str(tmp_path / "out"), existing="resume")
    assert len(rest.jobs) == 3
    assert chosen(model, rest).backend == chosen(model, plan).backend == "eager"


def test_auto_is_torch_where_a_graph_does_not_do(model, measured, tmp_path, monkeypatch):
    measured()
    plan = job(tmp_path, (64, 64))
    assert chosen(model, plan, dtype="float32", device="cpu").backend == "onnx"
    assert chosen(model, plan, dtype="bfloat16").backend == "eager"
    assert chosen(model, None).backend == "eager"
    for guided in ({"prompt": "a hat"}, {"pose": "pose.npy"}, {"people": "auto"}):
        assert chosen(model, plan, RestoreSettings(**guided)).backend == "eager"
    measured(device="cuda")
    assert chosen(model, plan).backend == "eager"
    # torch's times were those of a GPU
    for some in (plan, job(tmp_path, *[(64, 64)] * 13)):
        assert chosen(model, some, device="cpu").backend == "onnx"
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    assert chosen(model, plan, device="cpu").backend == "eager"


def test_the_fastest_of_all_measured_backends_is_chosen(model, measured, tmp_path, monkeypatch):
    others = {
        "compiled": {"start": 9.0, "tile": 0.1},
        "openvino": {"start": 2.0, "tile": 0.2},
    }
    measured(seconds={"eager": EAGER, "onnx": ONNX, **others})

    def backend(n_tiles, dtype="auto"):
        monkeypatch.setattr(backends, "_native_tiles", lambda *given: n_tiles)
        wanted = Wanted(model=str(model), dtype=dtype, backend="auto")
        rest = (wanted, RestoreSettings(), job(tmp_path, (64, 64)))
        return backends.choose(*wanted.files, *rest)

    assert backend(1) == ("onnx", None)
    assert backend(10) == ("openvino", None)
    assert backend(100) == ("compiled", None)
    assert backend(100, "float32") == ("eager", None)


def test_a_backend_that_fails_is_left_out_of_the_measurements(model, monkeypatch, caplog):
    def measure(loading, edge):
        backend = loading["backend"]
        if backend in failing:
            raise BackendError(f"the backend {backend} cannot be measured: no such layer")
        return backends.Seconds(start=1.0, tile=1.0), "cpu"

    monkeypatch.setattr(backends, "_measure", measure)
    failing = {"compiled", "openvino"}
    folder, found = backends.warm_up(str(model), None)
    assert set(found.seconds) == {"eager", "onnx"}
    assert found.edge == 64
    assert caplog.messages[0].startswith("the backend compiled cannot be measured: no such layer;")
    assert backends._read_measured(folder) == found
    (folder / MEASURED).unlink()
    failing = {"onnx"}
    with pytest.raises(BackendError, match="the backend onnx cannot be measured"):
        backends.warm_up(str(model), None)


def test_without_a_compiler_torch_restores_and_says_so(model, monkeypatch, caplog):
    monkeypatch.setenv("CXX", "no-such-compiler")
    restorer = chosen(model, None, backend="compiled")
    (line,) = caplog.messages
    assert line == f"{restorer.fallback}; the model runs in torch"
    assert "needs a C++ compiler, and no-such-compiler is not there" in line
    assert restorer(np.zeros((20, 20, 3), np.uint8)).provenance["backend"] == "eager"


def test_measurements_that_are_no_good_are_named_and_torch_restores(
    model, measured, tmp_path, caplog
):
    plan = job(tmp_path, (64, 64))
    here = backends._circumstances()
    spoilt = {
        "was made with processor another": lambda: measured(
            made_with={**here, "processor": "another"}
        ),
        "was made with threads 64, here is": lambda: measured(made_with={**here, "threads": "64"}),
        "was made with openvino 1.0, here is": lambda: measured(
            made_with={**here, "openvino": "1.0"}
        ),
        "is damaged (it lacks onnx)": lambda: measured(seconds={"eager": EAGER}),
        "is damaged (seconds.onnx.start": lambda: measured(
            seconds={"eager": EAGER, "onnx": {"start": "soon", "tile": 1}}
        ),
        "is damaged (Expecting": lambda: measured().write_text('{"made_with": {'),
    }
    for message, spoil in spoilt.items():
        spoil()
        caplog.clear()
        restorer = chosen(model, plan)
        (line,) = caplog.messages
        assert message in line
        assert line.endswith("`hbr warmup` makes it again; the model runs in torch")
        restored = restorer(np.zeros((20, 20, 3), np.uint8))
        assert restored.provenance["backend"] == "eager"
        assert restored.provenance["fallback"] in line


def test_a_model_that_cannot_be_a_graph_runs_in_torch_and_says_so(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("HBR_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("hbr.models.exporting.graph._LARGEST", 1000)
    file = toy_models.write(tmp_path / "large.safetensors")
    restorer = chosen(file, None, backend="onnx")
    assert restorer.backend == "eager"
    assert restorer.fallback == "large.safetensors is too large for a graph"
    assert caplog.messages == [f"{restorer.fallback}; the model runs in torch"]


def test_a_graph_that_cannot_be_written_is_named_and_torch_restores(tmp_path, monkeypatch, caplog):
    (tmp_path / "weights").write_text("no folder")
    monkeypatch.setenv("HBR_WEIGHTS", str(tmp_path / "weights"))
    file = toy_models.write(tmp_path / "toy.safetensors")
    restorer = chosen(file, None, backend="onnx")
    assert restorer.backend == "eager"
    (line,) = caplog.messages
    assert restorer.fallback in line
    assert restorer.fallback.startswith("the graph cannot be written: ")


def test_what_is_missing_or_wrong_is_an_error(model, monkeypatch):
    for given, message in (
        ({"device": "cuda:x"}, "device is"),
        ({"dtype": "bfloat16"}, "dtype is 'bfloat16'"),
    ):
        with pytest.raises(ValueError, match=message):
            chosen(model, None, backend="onnx", **given)
    with pytest.raises(ConfigError, match="has one end only"):
        chosen(model, None, backend="onnx", fidelity=0.5)
    monkeypatch.setattr(graphs, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match="needs onnxruntime"):
        chosen(model, None, backend="onnx")
