"""Models as graphs: the same numbers without torch, and whole files or none."""

import dataclasses
import json
import zlib

import numpy as np
import pytest
import torch

import toy_diffbody
import toy_models
from hbr.config import ConfigError
from hbr.files import sha256
from hbr.models import Conditions, RestorerConfig, load_model, save_checkpoint
from hbr.models import graphs as running
from hbr.models.exporting import graph as exporting
from hbr.models.fidelity import write_two_ends
from hbr.models.graph_files import CARD, graph_folder, load_graph, read_card
from hbr.models.graphs import GRAPH, BackendError, GraphModel
from hbr.models.kinds import build_model
from hbr.weights import FoundFile

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

KINDS = {
    "hfie": toy_models.CONFIG,
    "text": toy_models.FIXED_PROMPT,
    "rrdbnet": toy_models.RRDBNET,
    "swinir": dataclasses.replace(toy_diffbody.STAGE1, name="toy"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("graphs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HBR_WEIGHTS", str(folder))
        yield folder


def saved(folder, config, name="model"):
    torch.manual_seed(zlib.crc32(name.encode()))  # graphs belong to the bytes of a file
    weights = build_model(config).state_dict()
    return save_checkpoint(folder / f"{name}.safetensors", config, weights)


def graph_of(path, fidelity=None):
    return load_graph(FoundFile("toy", path, sha256(path)), "auto", "auto", fidelity)


def folder_of(path, fidelity=None):
    return graph_folder(sha256(path), fidelity)


def tiles(height, width, batch=1):
    rng = np.random.default_rng(0)
    return rng.random((batch, 3, height, width), np.float32)


def in_torch(model, given):
    with torch.inference_mode():
        return model.restore(torch.from_numpy(given), [], Conditions()).numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_computes_what_its_model_does_at_any_size(folder, kind):
    path = saved(folder, KINDS[kind], kind)
    graph, fidelity = graph_of(path)
    assert (graph.device, graph.dtype, graph.backend, fidelity) == ("cpu", "float32", "onnx", None)
    expected = dataclasses.replace(KINDS[kind].capabilities, dtypes=("float32",))
    assert graph.capabilities == expected
    model = load_model(path)
    for size in ((64, 64), (32, 80), (96, 48)):
        given = tiles(*size, batch=2)
        np.testing.assert_allclose(
            graph.restore_arrays(given), in_torch(model, given), atol=1e-4, rtol=1e-4
        )


def test_the_graph_that_lies_ready_gives_the_bytes_of_the_one_made_now(folder):
    path = saved(folder, toy_models.CONFIG, "hfie")
    graph, _ = graph_of(path)
    ready = folder_of(path) / "64x64.onnx"
    before = graph.restore_arrays(tiles(64, 64))
    ready.unlink()
    after = GraphModel(folder_of(path), graph.capabilities).restore_arrays(tiles(64, 64))
    np.testing.assert_array_equal(before, after)


def test_each_fidelity_has_a_graph_of_its_own(folder):
    ends = (saved(folder, KINDS["rrdbnet"], name) for name in ("faithful", "sharp"))
    path = write_two_ends(folder / "both.safetensors", *ends, 0.25)
    given, made = tiles(64, 64), {}
    for fidelity in (None, 0.75):
        graph, used = graph_of(path, fidelity)
        made[used] = graph.restore_arrays(given)
        expected = in_torch(load_model(path, fidelity=fidelity), given)
        np.testing.assert_allclose(made[used], expected, atol=1e-4, rtol=1e-4)
    assert list(made) == [0.25, 0.75]
    assert np.abs(made[0.25] - made[0.75]).max() > 0.01
    with pytest.raises(ConfigError, match="fidelity is 2"):
        graph_of(path, 2.0)


def test_a_graph_is_made_once_and_again_if_it_is_no_good(folder, caplog):
    path = saved(folder, KINDS["rrdbnet"], "once")  # the fastest to make
    assert read_card(folder_of(path), sha256(path)) is None
    expected = graph_of(path)[0].restore_arrays(tiles(64, 64))
    graph, card = folder_of(path) / GRAPH, folder_of(path) / CARD
    made = graph.stat().st_mtime_ns
    graph_of(path)
    assert graph.stat().st_mtime_ns == made
    assert not caplog.messages

    def torn():
        graph.write_bytes(graph.read_bytes()[:-100])

    def half():
        card.write_text(card.read_text()[:40])

    def foreign():
        values = json.loads(card.read_text())
        values["made_with"]["processor"] = "another processor"
        card.write_text(json.dumps(values))

    def older():
        values = json.loads(card.read_text())
        values["made_with"]["onnxruntime"] = "1.0"
        card.write_text(json.dumps(values))

    def of_another():
        values = json.loads(card.read_text())
        card.write_text(json.dumps({**values, "sha256": "0" * 64}))

    spoilt = {
        torn: "is damaged",
        half: "is damaged",
        of_another: "is damaged",
        foreign: "was made with processor another processor, here is",
        older: "was made with onnxruntime 1.0, here is",
    }
    for spoil, message in spoilt.items():
        spoil()
        with pytest.raises(BackendError, match=message):
            read_card(folder_of(path), sha256(path))
        caplog.clear()
        np.testing.assert_array_equal(graph_of(path)[0].restore_arrays(tiles(64, 64)), expected)
        (line,) = caplog.messages
        assert message in line
        assert line.endswith("`hbr warmup` makes it again, now")


def test_an_export_that_does_not_run_says_why_and_leaves_nothing(tmp_path, monkeypatch):
    path = saved(tmp_path, toy_models.FIXED_PROMPT, "broken")

    def failing(*args, **kwargs):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(GraphModel, "_open", failing)
    with pytest.raises(BackendError, match=r"broken\.safetensors fails .* \(no such kernel\)$"):
        exporting.export_graph(path, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_what_cannot_be_a_graph_is_an_error_and_leaves_nothing(folder, monkeypatch):
    path = saved(folder, toy_models.FIXED_PROMPT, "failing")

    def failing(*args, **kwargs):
        raise RuntimeError("no such layer")

    with monkeypatch.context() as patch:
        patch.setattr(torch.onnx, "export", failing)
        with pytest.raises(BackendError, match="no such layer"):
            graph_of(path)
    assert not list(folder.glob(f"graphs/*{sha256(path)[:16]}*"))
    other = build_model(toy_models.FIXED_PROMPT).eval()
    trace = exporting.trace
    monkeypatch.setattr(
        exporting, "trace", lambda model, *given, **how: trace(other, *given, **how)
    )
    with pytest.raises(BackendError, match=r"of failing\.safetensors differs from the model by \d"):
        graph_of(path)
    assert not list(folder.glob(f"graphs/*{sha256(path)[:16]}*"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": True}, "restores in many steps"),
        ({"takes_prompt": True}, "makes texts of what it sees"),
    ],
)
def test_models_that_do_more_than_one_pass_are_refused(folder, monkeypatch, changes, message):
    path = saved(folder, toy_models.FIXED_PROMPT, "passes")
    capabilities = dataclasses.replace(toy_models.FIXED_PROMPT.capabilities, **changes)
    monkeypatch.setattr(RestorerConfig, "capabilities", capabilities)
    with pytest.raises(BackendError, match=message):
        graph_of(path)


def test_device_precision_and_packages_are_checked(folder, monkeypatch):
    path = saved(folder, toy_models.FIXED_PROMPT, "checked")
    with pytest.raises(ValueError, match="device is 'cuda'; the backend onnx runs on the cpu"):
        load_graph(FoundFile("toy", path, sha256(path)), "cuda", "auto", None)
    with pytest.raises(ValueError, match=r"dtype is 'bfloat16'; .* float32"):
        load_graph(FoundFile("toy", path, sha256(path)), "cpu", "bfloat16", None)
    monkeypatch.setattr(running, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"needs onnxruntime: pip install 'hbr\[onnx\]'"):
        graph_of(path)


def test_an_error_of_the_runtime_is_one_line(folder):
    path = saved(folder, KINDS["rrdbnet"], "line")
    graph, _ = graph_of(path)
    with pytest.raises(RuntimeError, match=r"^ONNX Runtime: [^\n]+$"):
        graph.restore_arrays(tiles(64, 64)[:, :1])
    (folder_of(path) / "64x64.onnx").write_bytes(b"no graph")
    graph = GraphModel(folder_of(path), graph.capabilities)
    with pytest.raises(BackendError, match=r"cannot be loaded: .*; `hbr warmup` makes it again"):
        graph.restore_arrays(tiles(64, 64))
