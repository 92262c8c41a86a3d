"""Detectors and poses through ultralytics and rtmlib, with toy or random weights."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hbr.people.detectors import load_detector
from hbr.people.types import DetectorError, People


def test_yolo_of_ultralytics(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ultralytics = pytest.importorskip("ultralytics")
    import torch

    torch.manual_seed(0)
    model = ultralytics.YOLO("yolo11n.yaml")  # random weights; COCO's classes
    model.model.names = dict(enumerate(["dog", "person"] + ["x"] * 78))
    for name, parameter in model.model.named_parameters():
        # a person everywhere, more or less
        if ".cv3." in name and name.endswith("2.bias"):
            parameter.data[:] = -9.0
            parameter.data[1] = 0.0
    path = tmp_path / "toy.pt"
    model.save(path)
    with caplog.at_level(logging.WARNING):
        detector = load_detector(path, threshold=0.4, batch_size=2)
    assert "AGPL-3.0" in caplog.text
    rng = np.random.default_rng(0)
    sizes = ((200, 300), (300, 150), (64, 64))
    images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    found = detector(images)
    assert len(found) == 3
    direct = ultralytics.YOLO(path)
    for image, people in zip(images, found, strict=True):
        # one at a time and from Pillow, whose colours are RGB
        photo = Image.fromarray(image)
        (result,) = direct.predict(photo, conf=0.4, classes=[1], rect=False, verbose=False)
        boxes, scores = result.boxes.xyxy.numpy(), result.boxes.conf.numpy()
        order = np.argsort(-scores, kind="stable")
        # at the edges of a photo random weights give boxes that lie outside it
        order = order[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)[order]]
        assert len(people) == len(order) > 100
        np.testing.assert_allclose(people.scores, scores[order], atol=1e-5)
        np.testing.assert_allclose(people.boxes, boxes[order], atol=0.01)
    with pytest.raises(DetectorError, match=r"missing\.pt"):
        load_detector(tmp_path / "missing.pt")


def write_pose(path: Path, points: int, places: np.ndarray) -> Path:
    """A pose model that gives these places (x, y in pixels of its 192 × 256 input) for anyone."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    outs = {}
    for name, axis, size in (("simcc_x", 0, 192), ("simcc_y", 1, 256)):
        values = np.zeros((1, points, size * 2), np.float32)
        values[0, np.arange(points), (places[:, axis] * 2).astype(int)] = 0.75
        outs[name] = values
    constants, nodes, infos = [], [], []
    zero = numpy_helper.from_array(np.array(0, np.float32), "zero")
    nodes.append(helper.make_node("ReduceMean", ["input"], ["mean"], keepdims=0))
    nodes.append(helper.make_node("Mul", ["mean", "zero"], ["nothing"]))
    for name, values in outs.items():
        constants.append(numpy_helper.from_array(values, f"{name}_value"))
        nodes.append(helper.make_node("Add", ["nothing", f"{name}_value"], [name]))
        infos.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(values.shape)))
    shape = ["b", 3, 256, 192]
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "toy", [image], infos, [zero, *constants])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path
    )
    return path


@pytest.mark.parametrize("points", [17, 133])
def test_pose_of_rtmlib(tmp_path: Path, points: int) -> None:
    pytest.importorskip("rtmlib")
    from hbr.people.pose import RtmPose

    places = np.stack([np.linspace(10, 180, points), np.linspace(20, 240, points)], axis=1)
    places = np.floor(places)
    pose = RtmPose(write_pose(tmp_path / "pose.onnx", points, places))
    # a box of the input's shape, 3 : 4; the network sees it 1.25 times as large, about its centre
    box = np.array([100.0, 50.0, 220.0, 210.0])
    image = np.zeros((400, 500, 3), np.uint8)
    people = People(np.stack([box, box + 30]), np.array([0.9, 0.8]))
    (found,) = pose([image], [people])
    assert found.keypoints is not None
    assert found.keypoints.shape == (2, 17, 3)
    size = np.array([120, 160]) * 1.25
    expected = places[:17] / [192, 256] * size + [160, 130] - size / 2
    np.testing.assert_allclose(found.keypoints[0, :, :2], expected, atol=1e-3)
    np.testing.assert_allclose(found.keypoints[1, :, :2], expected + 30, atol=1e-3)
    np.testing.assert_allclose(found.keypoints[..., 2], 0.75, atol=1e-6)
    np.testing.assert_array_equal(found.boxes, people.boxes)
    (nobody,) = pose([image], [People.none()])
    assert nobody.keypoints is not None
    assert nobody.keypoints.shape == (0, 17, 3)


def test_pose_files_that_cannot_be_used(tmp_path: Path) -> None:
    pytest.importorskip("rtmlib")
    from hbr.people.pose import RtmPose

    with pytest.raises(DetectorError, match="no such file"):
        RtmPose(tmp_path / "no.onnx")
    few = RtmPose(write_pose(tmp_path / "few.onnx", 5, np.full((5, 2), 9.0)))
    people = People(np.array([[0.0, 0, 9, 9]]), np.ones(1))
    with pytest.raises(DetectorError, match="has 5 key points; at least 17 are needed"):
        few([np.zeros((10, 10, 3), np.uint8)], [people])
