"""Graphs and TensorRT engines for other programs: what they compute, and what they refuse."""

import enum
import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

import toy_models
from hbr.config import ConfigError
from hbr.errors import OutOfMemoryError
from hbr.models import Conditions, load_model, save_checkpoint
from hbr.models.exporting import graph
from hbr.models.exporting import tensorrt as engines
from hbr.models.exporting.graph import export_graph
from hbr.models.exporting.tensorrt import EngineConfig, export_engine
from hbr.models.fidelity import write_two_ends
from hbr.models.graphs import RESTORED, TILES, BackendError
from hbr.models.kinds import build_model

onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    torch.manual_seed(0)
    config = toy_models.CONFIG
    file = tmp_path_factory.mktemp("toy") / "toy.safetensors"
    return save_checkpoint(file, config, build_model(config).state_dict())


def tiles(batch, height, width):
    return np.random.default_rng(0).random((batch, 3, height, width), np.float32)


def run_graph(file, given):
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return session.run([RESTORED], {TILES: given})[0]


def in_torch(file, given, dtype=torch.float32):
    with torch.inference_mode():
        model = load_model(file, dtype=dtype)
        return model.restore(torch.from_numpy(given), [], Conditions()).float().numpy()


def test_an_exported_graph_restores_tiles_of_any_size(toy, tmp_path):
    out = export_graph(toy, tmp_path / "toy.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["toy.onnx"]
    for height, width in (64, 64), (32, 80):
        given = tiles(1, height, width)
        np.testing.assert_allclose(run_graph(out, given), in_torch(toy, given), atol=1e-4)


def test_an_export_that_fails_leaves_the_old_file(toy, tmp_path):
    out = tmp_path / "toy.onnx"
    out.write_text("old")
    with pytest.raises(ConfigError, match="fidelity"):
        export_graph(toy, out, fidelity=0.5)
    assert out.read_text() == "old"


class Builder:
    """Builds plans that are the graphs themselves, so that tests can run them."""

    fails = ""

    def __init__(self, logger):
        self.logger = logger
        if "driver" in self.fails:
            raise RuntimeError(self.fails)

    def create_network(self, flags):
        return SimpleNamespace(flags=flags)

    def create_builder_config(self):
        return SimpleNamespace()

    def build_serialized_network(self, network, config):
        assert network.flags == 2  # 1 << STRONGLY_TYPED
        self.logger.log(Logger.Severity.WARNING, "this GPU is old")
        if "memory" in self.fails:
            self.logger.log(Logger.Severity.ERROR, self.fails)
        return None if self.fails else network.graph


class Parser:
    num_errors = 0

    def __init__(self, network, logger):
        self.network = network

    def parse_from_file(self, path):
        if "node" in Builder.fails:
            self.num_errors = 1
            return False
        self.network.graph = memoryview(Path(path).read_bytes())
        return True

    def get_error(self, i):
        return SimpleNamespace(desc=lambda: Builder.fails)


class Logger:
    Severity = enum.IntEnum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING"])


@pytest.fixture
def fake_tensorrt(monkeypatch):
    """The part of tensorrt 10 and 11 that is called, on a machine that has neither."""
    module = ModuleType("tensorrt")
    module.ILogger, module.Builder, module.OnnxParser = Logger, Builder, Parser
    module.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
    module.__spec__ = importlib.util.spec_from_loader("tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt", module)


@pytest.mark.parametrize(
    ("dtype", "torch_dtype", "near"),
    [
        pytest.param("float32", torch.float32, 1e-4, marks=pytest.mark.slow),
        ("auto", torch.float16, 0.02),
    ],
)
def test_an_engine_is_built_from_the_graph_of_the_model_in_its_precision(
    fake_tensorrt, toy, tmp_path, dtype, torch_dtype, near
):
    config = EngineConfig(size=64, batch=2, dtype=dtype)
    out = export_engine(toy, tmp_path / "toy.engine", config, device="cpu")
    given = tiles(2, 64, 64)
    expected = in_torch(toy, given, torch_dtype)
    np.testing.assert_allclose(run_graph(out.read_bytes(), given), expected, atol=near)
    weights = onnx.load_from_string(out.read_bytes()).graph.initializer
    largest = max(weights, key=lambda tensor: math.prod(tensor.dims))
    kinds = {"auto": onnx.TensorProto.FLOAT16, "float32": onnx.TensorProto.FLOAT}
    assert largest.data_type == kinds[dtype]
    with pytest.raises(Exception, match="Got: 1 Expected: 2"):
        run_graph(out.read_bytes(), tiles(1, 64, 64))


@pytest.mark.parametrize(
    ("values", "error", "said"),
    [
        ({"size": 65}, ConfigError, "size is 65; it must be a multiple of"),
        ({"size": 0}, ConfigError, "and at least"),
        ({"batch": 0}, ConfigError, "batch is 0; it must be 1 or more"),
        ({"dtype": "bfloat16"}, ConfigError, "auto or one of float16, float32"),
    ],
)
def test_what_an_engine_cannot_have(fake_tensorrt, toy, tmp_path, values, error, said):
    with pytest.raises(error, match=said):
        export_engine(toy, tmp_path / "e.engine", EngineConfig(**values), device="cpu")
    assert not (tmp_path / "e.engine").exists()


@pytest.mark.parametrize(
    ("fails", "said"),
    [
        ("the driver is too old", "TensorRT cannot build toy.safetensors: the driver is too old"),
        pytest.param(
            "no such node",
            "TensorRT cannot build toy.safetensors: no such node",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "no memory is left",
            "TensorRT cannot build toy.safetensors: no memory is left",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "odd",
            "TensorRT cannot build toy.safetensors: it does not say why",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_failing_tensorrt_leaves_the_old_engine(
    fake_tensorrt, toy, tmp_path, monkeypatch, capfd, fails, said
):
    monkeypatch.setattr(Builder, "fails", fails)
    out = tmp_path / "toy.engine"
    out.write_text("old")
    with pytest.raises(BackendError, match=said):
        export_engine(toy, out, EngineConfig(size=64, dtype="float32"), device="cpu")
    assert out.read_text() == "old"
    assert capfd.readouterr() == ("", "")


def test_out_of_memory_says_what_needs_less(fake_tensorrt, toy, tmp_path, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(engines, "trace", full)
    with pytest.raises(OutOfMemoryError, match="a smaller --size or --batch needs less"):
        export_engine(toy, tmp_path / "e.engine", EngineConfig(), device="cpu")


def test_weights_beside_the_graph_need_a_path_that_is_a_string(toy, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(torch.onnx, "export", lambda model, tiles, out, **_: given.append(out))
    graph.trace(load_model(toy), torch.rand(1, 3, 64, 64), tmp_path / "toy.onnx")
    assert given == [str(tmp_path / "toy.onnx")]


@pytest.mark.slow
def test_the_command_exports_the_end_and_the_shape_that_are_asked_for(
    fake_tensorrt, call_hbr, tmp_path, monkeypatch
):
    config, ends = toy_models.CONFIG, []
    for seed in (0, 1):
        torch.manual_seed(seed)
        state = build_model(config).state_dict()
        ends.append(save_checkpoint(tmp_path / f"{seed}.safetensors", config, state))
    both = write_two_ends(tmp_path / "both.safetensors", *ends, 0.5)
    for fidelity, end in ((1, ends[0]), (0, ends[1])):
        words = ("models", "export", both, "--as", "onnx", "--fidelity", fidelity)
        done = call_hbr(*words, "-o", tmp_path / "both.onnx")
        assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'both.onnx'}\n"), done.stderr
        made = onnx.load(tmp_path / "both.onnx")
        assert {node.domain for node in made.graph.node} == {""}
        expected = in_torch(end, tiles(1, 64, 64))
        restored = run_graph(tmp_path / "both.onnx", tiles(1, 64, 64))
        np.testing.assert_allclose(restored, expected, atol=5e-3)  # ends are kept in float16
    words = ("models", "export", both, "--as", "tensorrt", "--fidelity", 0, "--dtype", "float32")
    out = tmp_path / "both.plan"
    done = call_hbr(*words, "--size", 32, "--batch", 2, "-o", out)
    if not torch.cuda.is_available():
        assert (done.returncode, done.stdout) == (2, "")
        line = "hbr: an engine is built on an NVIDIA GPU, and torch finds none\n"
        assert done.stderr == line
        monkeypatch.setattr(engines, "choose_device", lambda name: torch.device("cpu"))
        done = call_hbr(*words, "--size", 32, "--batch", 2, "-o", out)
    assert (done.returncode, done.stdout) == (0, f"{out}\n"), done.stderr
    given = tiles(2, 32, 32)
    restored = run_graph(out.read_bytes(), given)
    np.testing.assert_allclose(restored, in_torch(ends[1], given), atol=5e-3)


def test_without_tensorrt_it_is_one_line(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"pip install 'hbr\[tensorrt\]' brings it"):
        export_engine(toy, tmp_path / "e.engine", EngineConfig(), device="cpu")
    monkeypatch.setattr(engines, "find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BackendError, match="TensorRT cannot be imported: "):
        export_engine(toy, tmp_path / "e.engine", EngineConfig(), device="cpu")


def test_networks_of_other_projects_are_refused(tmp_path):
    torch.save({"params": {}}, tmp_path / "other.pth")
    with pytest.raises(BackendError, match=r"other\.pth is no model file of hbr"):
        graph.check_exportable(tmp_path / "other.pth", toy_models.CONFIG.capabilities)


@pytest.mark.gpu
def test_a_real_engine_restores_as_torch_does(gpu, toy, tmp_path):
    tensorrt = pytest.importorskip("tensorrt")
    if gpu != "cuda":
        pytest.skip("engines are for CUDA")
    file = export_engine(toy, tmp_path / "toy.engine", EngineConfig(size=64, batch=2))
    runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
    context = runtime.deserialize_cuda_engine(file.read_bytes()).create_execution_context()
    given = torch.from_numpy(tiles(2, 64, 64)).cuda()
    restored = torch.empty_like(given)
    context.set_tensor_address(TILES, given.data_ptr())
    context.set_tensor_address(RESTORED, restored.data_ptr())
    stream = torch.cuda.Stream()
    assert context.execute_async_v3(stream.cuda_stream)
    stream.synchronize()
    np.testing.assert_allclose(restored.cpu(), in_torch(toy, tiles(2, 64, 64)), atol=0.03)
