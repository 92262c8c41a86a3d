"""The real classes at toy size with random weights; ONNX graphs that say what went in."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from hbr.image import read_photo
from hbr.people.boxes import MAX_PEOPLE, non_maximum_suppression
from hbr.people.detectors import in_batches, load_detector
from hbr.people.detr import detr_detector, preparation, select_people
from hbr.people.onnx_files import LAYOUTS, place
from hbr.people.types import DetectorError
from hbr.weights import entries

NAMES = {0: "dog", 1: "tree", 2: "Person"}
PROCESSOR = {
    "do_normalize": False,
    "do_rescale": True,
    "resample": 2,
    "size": {"height": 64, "width": 64},
}


def toy(kind: str) -> Any:
    """A detector of a few thousand weights whose third class is the person."""
    import transformers

    torch.manual_seed(0)
    resnet = transformers.RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    small = {
        "id2label": NAMES,
        "d_model": 32,
        "num_queries": 30,
        "decoder_layers": 2,
        "decoder_attention_heads": 4,
        "decoder_ffn_dim": 32,
    }
    encoder = {
        "encoder_hidden_dim": 32,
        "encoder_ffn_dim": 32,
        "encoder_attention_heads": 4,
        "encoder_in_channels": [8, 16, 16],
        "decoder_in_channels": [32, 32, 32],
        "backbone_config": resnet,
    }
    if kind == "rf_detr":
        backbone = transformers.RfDetrDinov2Config(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=64,
            patch_size=8,
            num_windows=2,
            out_indices=[1, 2],
        )
        del small["decoder_attention_heads"]
        heads = {"decoder_self_attention_heads": 4, "decoder_cross_attention_heads": 4}
        config = transformers.RfDetrConfig(backbone_config=backbone, group_detr=1, **small, **heads)
        return transformers.RfDetrForObjectDetection(config)
    if kind == "d_fine":
        stage = {
            "stem_channels": [3, 8, 8],
            "stage_in_channels": [8, 8, 8, 16],
            "stage_mid_channels": [8, 8, 8, 8],
            "stage_out_channels": [8, 8, 16, 16],
            "hidden_sizes": [8, 8, 16, 16],
            "stage_num_blocks": [1, 1, 1, 1],
            "stage_numb_of_layers": [1, 1, 1, 1],
            "out_features": ["stage2", "stage3", "stage4"],
        }
        encoder["backbone_config"] = transformers.HGNetV2Config(**stage)
        config = transformers.DFineConfig(**small, **encoder, layer_scale=1)
        return transformers.DFineForObjectDetection(config)
    classes = {
        "rt_detr": (transformers.RTDetrConfig, transformers.RTDetrForObjectDetection),
        "rt_detr_v2": (transformers.RTDetrV2Config, transformers.RTDetrV2ForObjectDetection),
    }
    make_config, make_model = classes[kind]
    return make_model(make_config(**small, **encoder))


def save(kind: str, folder: Path, *, lively: bool = False) -> Path:
    """A toy in a folder; a lively one sees the image, where others give all places one score."""
    model = toy(kind)
    for parameter in model.parameters() if lively else ():
        if parameter.dim() > 1:
            torch.nn.init.kaiming_normal_(parameter.data)
    for name, parameter in model.named_parameters():
        if "class_embed" in name and name.endswith("bias"):
            parameter.data[2] += 3  # of 90 scores, the best are not all of dogs and trees
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return folder


@pytest.fixture
def photos(shared: Path) -> list[np.ndarray]:
    """Three photos of different shapes, uint8 RGB."""
    folder = shared / "photos" / "coco-cc" / "images"
    names = ("000000456496.jpg", "000000096493.jpg", "000000261061.jpg")
    images = [read_photo(folder / name).pixels for name in names]
    assert all(image.dtype == np.uint8 for image in images)
    return images


@pytest.mark.parametrize(
    "kind",
    ["rt_detr", pytest.param("rt_detr_v2", marks=pytest.mark.slow), "d_fine", "rf_detr"],
)
def test_transformers(kind: str, tmp_path: Path, photos: list[np.ndarray]) -> None:
    folder = save(kind, tmp_path)
    detector = load_detector(folder, threshold=0.0, batch_size=2)
    found = detector(photos)
    assert [len(people) for people in found] == [30, 30, 30]
    for people, image in zip(found, photos, strict=True):
        height, width = image.shape[:2]
        assert (people.boxes >= 0).all()
        assert (people.boxes <= [width, height, width, height]).all()
        assert (np.diff(people.scores) <= 0).all()
    one_by_one = [load_detector(folder, threshold=0.0, batch_size=1)([p])[0] for p in photos]
    for together, alone in zip(found, one_by_one, strict=True):
        np.testing.assert_allclose(together.scores, alone.scores, atol=1e-5)
    high = float(found[0].scores[3:5].mean())
    assert len(load_detector(folder, threshold=high)(photos[:1])[0]) == 4
    assert detector([]) == []


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["rt_detr", "d_fine"])
def test_transformers_on_a_gpu(
    kind: str, tmp_path: Path, photos: list[np.ndarray], gpu: str
) -> None:
    # of equal scores, each device would keep others
    folder = save(kind, tmp_path, lively=True)
    cpu = load_detector(folder, threshold=0.0, batch_size=2)(photos)
    there = load_detector(folder, device=gpu, threshold=0.0, batch_size=2)(photos)
    for expected, found in zip(cpu, there, strict=True):
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3)


def test_same_as_the_library(tmp_path: Path, photos: list[np.ndarray]) -> None:
    """Before and after the network, the same numbers as transformers' own processor."""
    from transformers import RTDetrForObjectDetection, RTDetrImageProcessorPil

    folder = save("rt_detr", tmp_path)
    processor = RTDetrImageProcessorPil.from_pretrained(folder)
    model = RTDetrForObjectDetection.from_pretrained(folder).eval()
    detector = detr_detector(str(folder), threshold=0.0)
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    prepare = preparation(settings, str(folder))
    for image in photos:
        inputs = processor(images=Image.fromarray(image), return_tensors="pt")
        torch.testing.assert_close(prepare(image), inputs["pixel_values"][0], atol=1e-6, rtol=0)
        with torch.inference_mode():
            out = model(**inputs)
        (theirs,) = processor.post_process_object_detection(out, 0.0, [image.shape[:2]])
        people = theirs["labels"] == 2
        boxes, scores = theirs["boxes"][people].numpy(), theirs["scores"][people].numpy()
        (found,) = detector([image])
        # the library keeps the best 30 of 30 queries × 3 classes
        h, w = image.shape[:2]
        np.testing.assert_allclose(found.scores[: len(scores)], scores, atol=1e-5)
        expected = np.clip(boxes, 0, [w, h, w, h])
        np.testing.assert_allclose(found.boxes[: len(boxes)], expected, atol=1e-2)
        assert len(boxes) > 0


def test_people_are_chosen_by_name() -> None:
    logits = torch.tensor([[9.0, 0.0, -1.0], [0.0, 9.0, 2.0], [0.0, 0.0, 1.0]])
    boxes = torch.tensor([[0.5, 0.5, 1, 1], [0.5, 0.5, 0.5, 0.2], [0.9, 0.5, 0.4, 0.4]])
    people = select_people(logits, boxes, [2], 0.5, (100, 200))
    np.testing.assert_allclose(people.boxes, [[50, 40, 150, 60], [140, 30, 200, 70]], atol=1e-4)
    np.testing.assert_allclose(people.scores, 1 / (1 + np.exp([-2.0, -1.0])), atol=1e-6)


def test_transformers_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save("rt_detr", tmp_path / "toy")
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {"0": "dog", "1": "cat", "2": "tree"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(DetectorError, match="has no person class; its classes are dog, cat, tree"):
        load_detector(folder)
    edge = PROCESSOR | {"size": {"shortest_edge": 800}}
    (folder / "preprocessor_config.json").write_text(json.dumps(edge))
    with pytest.raises(DetectorError, match="a fixed height and width is needed"):
        load_detector(folder)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(DetectorError, match="cannot be loaded"):
        load_detector(folder)
    with pytest.raises(DetectorError, match="nobody/has-this: the detector cannot be loaded"):
        load_detector("nobody/has-this")
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    with pytest.raises(DetectorError, match="of the type bert; it must be one of rt_detr"):
        load_detector(folder)
    for wrong in ({"threshold": 2}, {"batch_size": 0}):
        with pytest.raises(DetectorError, match=next(iter(wrong))):
            load_detector(folder, **wrong)  # type: ignore[arg-type]


def test_weights_of_transformers_that_cannot_be_used(tmp_path: Path) -> None:
    from safetensors.torch import load, save_file

    path = save("rt_detr", tmp_path / "toy") / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DetectorError, match="toy: the detector cannot be loaded"):
        load_detector(path.parent)
    weights = load(whole)
    name = next(name for name in weights if weights[name].ndim == 4)
    save_file(weights | {name: torch.zeros(1, 1, 1, 1)}, path, {"format": "pt"})
    with pytest.raises(DetectorError, match="toy: the detector cannot be loaded"):
        load_detector(path.parent)
    save_file({"other": torch.zeros(1)}, path, {"format": "pt"})
    with pytest.raises(DetectorError, match=r"toy holds different weights: \d+ are missing"):
        load_detector(path.parent)


def test_out_of_memory_halves_the_batch(caplog: pytest.LogCaptureFixture) -> None:
    sizes: list[int] = []

    def run(batch: Sequence[np.ndarray]) -> list[int]:
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return [int(image[0, 0, 0]) for image in batch]

    images = [np.full((1, 1, 3), n, np.uint8) for n in range(7)]
    with caplog.at_level(logging.WARNING):
        found, fits = in_batches(images, run, 8)
    assert found == list(range(7))
    assert (fits, sizes) == (1, [7, 3, 1, 1, 1, 1, 1, 1, 1])
    assert "in 3 images at a time" in caplog.text

    def never(batch: Sequence[np.ndarray]) -> list[int]:
        raise MemoryError

    with pytest.raises(MemoryError, match="out of memory on one image"):
        in_batches(images, never, 4)

    def broken(batch: Sequence[np.ndarray]) -> list[int]:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        in_batches(images, broken, 4)


Nodes = tuple[list[Any], list[Any], list[Any]]


def write_onnx(
    path: Path, outputs: dict[str, np.ndarray], shape: list[Any], names: str = ""
) -> Path:
    """A graph that gives these arrays for each image of the batch, whatever comes in."""
    nodes, constants, infos = [], [], []
    for name, array in outputs.items():
        constants.append(numpy_helper.from_array(array[None], f"{name}_value"))
        # 0 × the mean of each image, to make the constant as long as the batch
        rank = array.ndim + 1
        axes = numpy_helper.from_array(np.array([1, 2, 3]), f"{name}_axes")
        flat = numpy_helper.from_array(np.array([-1] + [1] * array.ndim), f"{name}_flat")
        zero = numpy_helper.from_array(np.array(0, np.float32), f"{name}_zero")
        constants += [axes, flat, zero]
        nodes += [
            helper.make_node("ReduceMean", ["images", axes.name], [f"{name}_m"], keepdims=0),
            helper.make_node("Mul", [f"{name}_m", zero.name], [f"{name}_n"]),
            helper.make_node("Reshape", [f"{name}_n", flat.name], [f"{name}_z"]),
        ]
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        nodes.append(helper.make_node("Cast", [f"{name}_z"], [f"{name}_c"], to=kind))
        nodes.append(helper.make_node("Add", [f"{name}_c", f"{name}_value"], [name]))
        infos.append(helper.make_tensor_value_info(name, kind, [shape[0], *array.shape]))
        assert rank == len([shape[0], *array.shape])
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "toy", [images], infos, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    if names:
        helper.set_model_props(model, {"names": names})
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def whole(h: int, w: int, size: int, middle: bool) -> np.ndarray:
    """Where an image of h × w lies in a letterbox, x0 y0 x1 y1."""
    ratio = size / max(h, w)
    new_w, new_h = round(w * ratio), round(h * ratio)
    x, y = ((size - new_w) // 2, (size - new_h) // 2) if middle else (0, 0)
    return np.array([x, y, x + new_w, y + new_h], np.float32)


@pytest.mark.parametrize("layout", ["yolox", "rtmdet"])
@pytest.mark.parametrize("batch", ["b", 1, 4])
def test_boxes_come_back_from_the_corner(tmp_path: Path, layout: str, batch: Any) -> None:
    """A box around the whole image in the network's input is one around the whole photo."""
    h, w = 300, 500
    box = whole(h, w, 640, middle=False)
    dets = np.array(
        [[*box, 0.9], [0, 0, 9, 9, 0.3], [*box / 2, 0.95], [1, 1, 2, 2, 0.9]], np.float32
    )
    labels = np.array([0, 0, 0, 5])
    path = write_onnx(tmp_path / "x.onnx", {"dets": dets, "labels": labels}, [batch, 3, 640, 640])
    detector = load_detector(path, layout=layout)
    found = detector([np.zeros((h, w, 3), np.uint8)] * 3)
    assert len(found) == 3
    for people in found:
        np.testing.assert_allclose(people.boxes, [[0, 0, w / 2, h / 2], [0, 0, w, h]], atol=1e-3)
        np.testing.assert_allclose(people.scores, [0.95, 0.9], atol=1e-6)
    with pytest.raises(
        DetectorError, match="its layout cannot be inferred from its outputs dets, labels"
    ):
        load_detector(path)


@pytest.mark.parametrize("shape", [(300, 500), (500, 300), (64, 64), (1000, 999)])
def test_boxes_come_back_from_the_middle(tmp_path: Path, shape: tuple[int, int]) -> None:
    h, w = shape
    x0, y0, x1, y1 = whole(h, w, 320, middle=True)
    centre = [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]
    rows = [
        [*centre, 0.1, 0.8],
        [*(np.array(centre) - [0, 0, 3, 3]), 0.1, 0.7],
        [10, 10, 4, 4, 0.9, 0.1],
    ]
    out = np.array(rows, np.float32).T  # [4 + classes, n]
    names = "{0: 'dog', 1: 'person'}"
    path = write_onnx(tmp_path / "x.onnx", {"output0": out}, ["b", 3, 320, 320], names)
    (people,) = load_detector(path)([np.zeros((h, w, 3), np.uint8)])
    # the second is the same person, the third a dog
    np.testing.assert_allclose(people.boxes, [[0, 0, w, h]], atol=1e-2)
    np.testing.assert_allclose(people.scores, [0.8], atol=1e-6)


def test_boxes_come_back_from_another_shape(tmp_path: Path) -> None:
    logits = np.array([[0, 3.0], [5, -5]], np.float32)
    boxes = np.array([[0.5, 0.25, 0.5, 0.5], [0.5, 0.5, 1, 1]], np.float32)
    outputs = {"logits": logits, "pred_boxes": boxes}
    path = write_onnx(tmp_path / "x.onnx", outputs, ["b", 3, 64, 96])
    (people,) = load_detector(path, classes=["dog", "person"])([np.zeros((100, 400, 3), np.uint8)])
    np.testing.assert_allclose(people.boxes, [[100, 0, 300, 50]], atol=1e-4)
    np.testing.assert_allclose(people.scores, [1 / (1 + np.exp(-3))], atol=1e-6)


def test_what_the_network_sees() -> None:
    image = np.zeros((10, 20, 3), np.uint8)
    image[..., 0] = 200  # red
    pixels, scale, _ = place(image, LAYOUTS["yolox"], (40, 40))
    assert pixels.shape == (3, 40, 40)
    assert pixels[:, 0, 0].tolist() == [0, 0, 200]  # BGR, not scaled
    assert pixels[:, 39, 39].tolist() == [114, 114, 114]
    assert scale == (2, 2)
    pixels, _, offset = place(image, LAYOUTS["yolo"], (40, 40))
    np.testing.assert_allclose(pixels[:, 20, 0], [200 / 255, 0, 0], atol=1e-6)
    assert offset == (0, 10)
    pixels, _, _ = place(image, LAYOUTS["rtmdet"], (40, 40))
    expected = (np.array([0, 0, 200]) - [103.53, 116.28, 123.675]) / [57.375, 57.12, 58.395]
    np.testing.assert_allclose(pixels[:, 0, 0], expected, atol=1e-5)


def test_suppression_by_brute_force() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        corner = rng.uniform(0, 20, (12, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(0.1, 20, (12, 2))], axis=1)
        scores = rng.permutation(12) / 12
        kept: list[int] = []
        for n in np.argsort(-scores):

            def iou(a: np.ndarray, b: np.ndarray) -> float:
                w = min(a[2], b[2]) - max(a[0], b[0])
                h = min(a[3], b[3]) - max(a[1], b[1])
                both = max(w, 0) * max(h, 0)
                area = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
                return float(both / (sum(area) - both))

            if all(iou(boxes[n], boxes[k]) <= 0.3 for k in kept):
                kept.append(int(n))
        assert non_maximum_suppression(boxes, scores, 0.3).tolist() == kept


def test_onnx_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match="no such file"):
        load_detector(tmp_path / "no.onnx")
    (tmp_path / "x.onnx").write_bytes(b"no graph")
    with pytest.raises(DetectorError, match=r"x\.onnx is a text file"):
        load_detector(tmp_path / "x.onnx")
    with pytest.raises(DetectorError, match="layout is 'nms'; it must be one of yolox"):
        load_detector(tmp_path / "x.onnx", layout="nms")


@pytest.mark.parametrize(
    ("outputs", "shape", "layout"),
    [
        ({"out": (5, 9)}, ["b", 1, 64, 64], None),  # grey pictures
        ({"out": (4, 9)}, ["b", 3, 64, 64], None),  # boxes without scores
        ({"out": (25200, 85)}, ["b", 3, 64, 64], None),  # YOLOv5
        ({"out": (5, 9)}, ["b", 3, 64, 64], "yolox"),
        ({"out": (5, 9)}, ["b", 3, 64, 64], "detr"),
    ],
)
def test_onnx_of_another_layout(
    tmp_path: Path, outputs: dict[str, Any], shape: list[Any], layout: str | None
) -> None:
    arrays = {name: np.zeros(size, np.float32) for name, size in outputs.items()}
    path = write_onnx(tmp_path / "x.onnx", arrays, shape)
    with pytest.raises(DetectorError, match=r"x\.onnx (takes|has the outputs) "):
        load_detector(path, layout=layout)


def test_a_detector_that_gives_nonsense(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    corner = np.random.default_rng(0).uniform(0, 600, (10_000, 2))
    size = np.full((10_000, 2), 4.0)
    scores = np.linspace(0.6, 0.9, 10_000)[:, None]
    dets = np.concatenate([corner, corner + size, scores], axis=1).astype(np.float32)
    dets[-1, 2] = np.nan
    outputs = {"dets": dets, "labels": np.zeros(10_000, np.int64)}
    path = write_onnx(tmp_path / "x.onnx", outputs, ["b", 3, 640, 640])
    with caplog.at_level(logging.WARNING):
        (people,) = load_detector(path, layout="yolox")([np.zeros((640, 640, 3), np.uint8)])
    assert len(people) == MAX_PEOPLE
    assert np.isfinite(people.boxes).all()
    assert people.scores[0] == pytest.approx(dets[-2, 4])
    assert "are not finite, and left out: 1" in caplog.text
    assert "gives 9999 boxes in one photo" in caplog.text


def test_missing_extras_are_named() -> None:
    from hbr.people.pose import RtmPose

    if not _has("ultralytics"):
        with pytest.raises(DetectorError, match=r"hbr\[ultralytics\].*AGPL-3\.0"):
            load_detector("yolo11n")
    if not _has("rtmlib"):
        with pytest.raises(DetectorError, match=r"hbr\[rtmlib\]"):
            RtmPose("x.onnx")


def _has(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None


def test_known_detectors_are_taken_from_where_fetch_puts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("hbr.people.detr.detr_detector", lambda name, **_: asked.append(name))
    monkeypatch.setenv("HBR_WEIGHTS", str(tmp_path))
    load_detector("rtdetr")
    folder = tmp_path / "rtdetr"
    folder.mkdir()
    for file in entries()["rtdetr"].files:
        (folder / file.path).touch()
    load_detector("rtdetr")
    load_detector("someone/else")
    assert asked == ["PekingU/rtdetr_v2_r50vd", str(folder), "someone/else"]
