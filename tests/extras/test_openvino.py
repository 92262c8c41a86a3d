"""Models as graphs in OpenVINO: the same numbers, and files that are made again."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import toy_models
from hbr.files import sha256
from hbr.image import Photo, write_photo
from hbr.models import Conditions, RestorerConfig, load_model
from hbr.models.graph_files import CalibrationError, graph_folder, load_graph
from hbr.weights import find_and_hash_model


def in_torch(path, tiles):
    with torch.inference_mode():
        return load_model(path).restore(torch.from_numpy(tiles), [], Conditions()).numpy()


@pytest.mark.parametrize(
    "config", [toy_models.CONFIG, pytest.param(toy_models.FIXED_PROMPT, marks=pytest.mark.slow)]
)
def test_a_graph_computes_what_its_model_does_at_any_size(tmp_path, config: RestorerConfig):
    from hbr.models.graphs import openvino_is_faster_in_bfloat16

    path = toy_models.write(tmp_path / "toy.safetensors", config)
    found = find_and_hash_model(path)
    auto, _ = load_graph(found, "auto", "auto", None, backend="openvino")
    assert auto.dtype == ("bfloat16" if openvino_is_faster_in_bfloat16() else "float32")
    graph, _ = load_graph(found, "cpu", "float32", None, backend="openvino")
    assert (graph.backend, graph.device, graph.dtype) == ("openvino", "cpu", "float32")
    rng = np.random.default_rng(0)
    for size in ((64, 64), (32, 80)):
        tiles = rng.random((2, 3, *size), np.float32)
        expected = in_torch(path, tiles)
        made = graph.restore_arrays(tiles)
        np.testing.assert_allclose(made, expected, atol=1e-4, rtol=1e-4)
        np.testing.assert_array_equal(made, graph.restore_arrays(tiles))
        if auto.dtype == "bfloat16":
            off = np.abs(auto.restore_arrays(tiles) - expected).max()
            assert 1e-4 < off < 0.1
    with pytest.raises(ValueError, match=r"dtype is 'float16'; the backend openvino computes in "):
        load_graph(found, "cpu", "float16", None, backend="openvino")
    with pytest.raises(RuntimeError, match=r"^OpenVINO: [^\n]+$"):
        graph.restore_arrays(tiles[:, :1])


def test_a_restored_file_names_the_backend_and_is_made_again(tmp_path, call_hbr):
    model = toy_models.write(tmp_path / "toy.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8)
    write_photo(Photo.from_array(pixels), tmp_path / "in.png")
    options = ("--model", model, "--backend", "openvino", "--log-format", "json")
    done = call_hbr("restore", tmp_path / "in.png", "-o", tmp_path / "out.png", *options)
    assert done.returncode == 0, done.stderr
    provenance = json.loads(done.stdout)["provenance"]
    assert (provenance["backend"], provenance["torch"]) == ("openvino", None)
    assert provenance["fallback"] is None
    again = call_hbr("replay", tmp_path / "out.png", "--model", model)
    assert again.returncode == 0, again.stderr
    assert "the same bytes" in again.stderr


@pytest.mark.slow
def test_a_calibrated_model_restores_in_eight_bits_and_names_it(tmp_path, call_hbr):
    model = toy_models.write(tmp_path / "toy.safetensors")
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for number in range(4):
        coarse = rng.random((8, 8, 3)).repeat(10, axis=0).repeat(12, axis=1)
        write_photo(Photo.from_array((255 * coarse).astype(np.uint8)), photos / f"{number}.png")
    (photos / "no photo.png").write_bytes(b"torn")

    def restored(out):
        options = ("--model", model, "--dtype", "int8", "--log-format", "json")
        return call_hbr("restore", photos / "0.png", "-o", tmp_path / out, *options)

    remedy = "`hbr warmup --model toy.safetensors --calibrate FOLDER` makes it from photos"
    done = restored("without.png")
    assert done.returncode == 2
    assert f"int8 needs a calibration of toy.safetensors; {remedy}" in done.stderr
    made = call_hbr("warmup", "--model", model, "--calibrate", photos)
    assert made.returncode == 0, made.stderr
    line = r"int8: (\d+) convolutions, scales of (\d) photos; PSNR of (\d) .* at least ([\d.]+)"
    said = re.search(line, made.stderr)
    layers, scales, others, least = said.groups()
    assert int(layers) > 4
    assert (scales, others) == ("2", "2")
    assert 30 < float(least) < 90
    done = restored("out.png")
    assert done.returncode == 0, done.stderr
    provenance = json.loads(done.stdout)["provenance"]
    assert (provenance["backend"], provenance["dtype"]) == ("openvino", "int8")
    graph = Path(made.stdout.strip()) / "int8.onnx"
    assert provenance["rewrites"] == [f"int8 {sha256(graph)[:16]}"]
    again = call_hbr("replay", tmp_path / "out.png", "--model", model, "--source", photos)
    assert "the same bytes" in again.stderr
    then = sha256(graph)[:16]
    (photos / "0.png").rename(tmp_path / "0.png")
    assert call_hbr("warmup", "--model", model, "--calibrate", photos).returncode == 0
    again = call_hbr("replay", tmp_path / "out.png", "--model", model)
    assert again.returncode == 3
    assert f"; made with calibration {then}, here {sha256(graph)[:16]}\n" in again.stderr
    (tmp_path / "0.png").rename(photos / "0.png")
    graph.write_bytes(graph.read_bytes()[:-50])
    done = restored("torn.png")
    assert done.returncode == 2
    assert f"is damaged; {remedy}" in done.stderr
    (tmp_path / "empty").mkdir()
    done = call_hbr("warmup", "--model", model, "--calibrate", tmp_path / "empty")
    assert done.returncode == 2
    assert "has 0 photos that can be read; a calibration needs 2 or more" in done.stderr


def test_only_openvino_computes_in_eight_bits(tmp_path, call_hbr):
    model = toy_models.write(tmp_path / "toy.safetensors")
    write_photo(Photo.from_array(np.zeros((9, 9, 3), np.uint8)), tmp_path / "in.png")
    options = ("--model", model, "--dtype", "int8", "--backend", "onnx")
    done = call_hbr("restore", tmp_path / "in.png", "-o", tmp_path / "out.png", *options)
    assert done.returncode == 2
    assert "--dtype: dtype is 'int8'; only the backend openvino computes in it" in done.stderr


def test_eight_bits_of_what_cannot_be_a_graph_say_why(tmp_path, call_hbr):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    write_photo(Photo.from_array(np.zeros((9, 9, 3), np.uint8)), tmp_path / "in.png")
    options = ("--model", tmp_path / "other.pth", "--dtype", "int8")
    done = call_hbr("restore", tmp_path / "in.png", "-o", tmp_path / "out.png", *options)
    assert done.returncode == 2
    assert "other.pth is no model file of hbr and cannot be a graph" in done.stderr


def test_a_graph_that_is_outdated_has_no_calibration(tmp_path, call_hbr):
    model = toy_models.write(tmp_path / "toy.safetensors")
    found = find_and_hash_model(model)
    load_graph(found, "cpu", "float32", None, backend="openvino")
    folder = graph_folder(found.sha256, None)
    (folder / "int8.onnx").write_bytes(b"of an earlier graph")
    (folder / "graph.onnx").write_bytes(b"torn")
    with pytest.raises(CalibrationError, match=r"needs a calibration of toy.*--calibrate FOLDER"):
        load_graph(found, "cpu", "int8", None, backend="openvino")
    assert (folder / "int8.onnx").is_file()
