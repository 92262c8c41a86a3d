"""Which pixels are people: MediaPipe's network out of its file, and models of transformers."""

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
from hbr.people.segmentation import (
    SelfieNetwork,
    load_person_segmenter,
    person_mask,
    selfie_segmenter,
    transformers_segmenter,
)
from hbr.people.types import DetectorError
from hbr.weights import DownloadError, WeightsError, entries
from hbr.weights.conversion import convert
from hbr.weights.tflite import read_tflite
from toy_tflite import convolutions, tflite_file

DATA = Path(__file__).parent.parent / "data"
NAME = "selfie-segmentation"


def test_the_selfie_network_comes_out_of_its_package(
    index: toy.Index,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call_hbr: Callable[..., Any],
) -> None:
    monkeypatch.setenv("HBR_WEIGHTS", str(tmp_path / "weights"))
    network = selfie_network()
    path, data = "toy/selfie.tflite", tflite_file(convolutions(network))
    index.add_wheel("toy-selfie", "0.10", {path: data}, "cp311-cp311-win32")
    toy.known(monkeypatch, NAME, {path: data}, pypi="toy-selfie==0.10", dist="cp311-cp311-win32")
    assert not entries()[NAME].installed
    with pytest.raises(WeightsError, match="`hbr fetch selfie-segmentation` gets them"):
        load_person_segmenter(NAME)
    done = call_hbr("fetch", NAME)
    assert done.returncode == 0, done.stderr
    segment = load_person_segmenter(NAME)
    assert entries()[NAME].installed
    image = read_photo(DATA / "tie.png").pixels
    image = np.ascontiguousarray(image[:120, :90])
    mask = segment(image)
    assert mask.shape == (120, 90)
    assert mask.dtype == np.float32
    assert 0 <= mask.min() < mask.max() <= 1
    # as the network says it that the file was made of, whose weights are float16 there
    square = cv2.resize(image, (256, 256), interpolation=cv2.INTER_LINEAR)
    with torch.no_grad():
        expected = network(torch.from_numpy(square).permute(2, 0, 1)[None] / 255)[0, 0].numpy()
    np.testing.assert_allclose(mask, cv2.resize(expected, (90, 120)), atol=2e-2)


def selfie_network() -> SelfieNetwork:
    torch.manual_seed(0)
    return SelfieNetwork().eval()


def test_padding_is_that_of_tensorflow() -> None:
    """One pixel in the middle of 256 reaches the outputs that TensorFlow's SAME says."""
    network = selfie_network()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.stem.weight.fill_(1)  # 3x3, stride 2: nothing before, one after
    seen: list[torch.Tensor] = []
    network.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    image = torch.zeros(1, 3, 256, 256)
    image[..., 0, 255] = 1.0
    network(image)
    found = torch.nonzero(seen[0][0, 0]).tolist()
    assert found == [[0, 127]]
    image = torch.zeros(1, 3, 256, 256)
    image[..., 2, 4] = 1.0  # the last row of the first window, the first of the second
    network(image)
    assert torch.nonzero(seen[1][0, 0]).tolist() == [[0, 1], [0, 2], [1, 1], [1, 2]]


def test_convolutions_of_tensorflow_lite_in_their_order() -> None:
    wanted = convolutions(selfie_network())
    found = read_tflite(tflite_file(wanted), "x.tflite")
    assert len(found) == len(wanted) == 55
    for (weight, bias), (_, given, given_bias) in zip(found, wanted, strict=True):
        assert np.array_equal(weight, given.astype(np.float16))
        assert np.array_equal(bias, given_bias.astype(np.float16))


def test_a_damaged_file_of_tensorflow_lite_is_one_line() -> None:
    layers = convolutions(selfie_network())
    whole = tflite_file(layers)
    path = "toy/selfie.tflite"
    for data, told in (
        (b"", "is no network of TensorFlow Lite"),
        (b"x" * 100, "is no network of TensorFlow Lite"),
        (whole[:9], "is damaged: "),
        (tflite_file(layers[:-1]), "has 54 convolutions; the network has 55"),
        (tflite_file(layers, "unknown"), "hbr knows no operation number 90"),
        (tflite_file(layers, "custom"), "hbr knows no operation Own"),
    ):
        with pytest.raises(DownloadError, match=f"^{path}:? {told}") as error:
            convert(NAME, {path: data})
        assert "\n" not in str(error.value)
    rng = np.random.default_rng(0)
    for _ in range(60):  # whatever is cut or overwritten, nothing but this error or other numbers
        data = bytearray(whole[: rng.integers(8, len(whole))] if rng.random() < 0.5 else whole)
        for at in rng.integers(0, min(len(data), 30_000), 40):
            data[at] = rng.integers(256)
        with contextlib.suppress(DownloadError):
            convert(NAME, {path: bytes(data)})


def test_the_mask_of_a_person_is_that_of_their_box() -> None:
    """A segmenter that takes bright pixels for people."""
    shapes: list[tuple[int, ...]] = []

    def segment(image: np.ndarray) -> np.ndarray:
        shapes.append(image.shape)
        return image[..., 0].astype(np.float32) / 255

    image = np.zeros((100, 200, 3), np.uint8)
    image[20:80, 50:70] = 255
    image[20:80, 150:190] = 255  # somebody else
    mask = person_mask(segment, image, (44.5, 20.0, 80.0, 80.5))
    assert mask is not None
    assert mask.shape == (61, 36)
    assert np.array_equal(mask, image[20:81, 44:80, 0] / 255)
    assert shapes == [(68, 68, 3)]  # 1.1 of the longer edge
    # at an edge of the photo, and beyond it
    mask = person_mask(segment, image, (150.0, -10.0, 215.0, 200.0))
    assert mask is not None
    assert mask.shape == (100, 50)
    assert person_mask(segment, image, (80.0, 20.0, 140.0, 80.0)) is None  # nobody is marked
    assert person_mask(segment, image, (300.0, 20.0, 340.0, 80.0)) is None  # outside
    assert person_mask(segment, image, (50.0, 20.0, 149.0, 80.0)) is None  # a fifth is


def test_weights_of_another_network(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file(selfie_network().state_dict(), path)
    assert selfie_segmenter(path)(np.zeros((1, 1, 3), np.uint8)).shape == (1, 1)
    assert selfie_segmenter(path)(np.zeros((3, 900, 3), np.uint8)).shape == (3, 900)
    weights = load_file(path)
    save_file(weights | {"stem.weight": torch.zeros(1)}, path)
    with pytest.raises(DetectorError, match=r"x\.safetensors holds no SelfieNetwork"):
        selfie_segmenter(path)


@pytest.mark.parametrize("labels", [["background", "hat", "shirt"], ["sky", "person", "tree"]])
def test_a_segmentation_model_gives_the_share_of_people(tmp_path: Path, labels) -> None:
    import transformers

    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        hidden_sizes=[8, 8], depths=[1, 1], num_attention_heads=[1, 1], sr_ratios=[2, 1],
        num_encoder_blocks=2, patch_sizes=[7, 3], strides=[4, 2], mlp_ratios=[2, 2],
        decoder_hidden_size=8, id2label=dict(enumerate(labels)),
    )  # fmt: skip
    model = transformers.SegformerForSemanticSegmentation(config).eval()
    model.save_pretrained(tmp_path)
    size = {"height": 32, "width": 32}
    transformers.SegformerImageProcessor(size=size).save_pretrained(tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8)
    got = transformers_segmenter(tmp_path)(image)
    assert got.shape == (48, 40)
    assert got.dtype == np.float32
    assert 0 <= got.min() <= got.max() <= 1
    given = transformers.SegformerImageProcessor(size=size)(images=image, return_tensors="pt")
    with torch.no_grad():
        shares = model(**given).logits.softmax(dim=1)[0].numpy()
    share = shares[1] + shares[2] if labels[0] == "background" else shares[1]
    assert np.allclose(got, cv2.resize(share, (40, 48)), atol=1e-5)


def test_a_folder_that_is_no_segmentation_model_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match="is no segmentation model") as error:
        transformers_segmenter(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.weights
@pytest.mark.xdist_group("real-packages")
def test_the_real_network_tells_the_person_from_the_rest(
    package_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HBR_WEIGHTS", str(package_weights))
    segment = load_person_segmenter(NAME)
    for name, person, rest in (
        # places in the photos: (y, x)
        ("purple.jpg", [(90, 230), (250, 260), (380, 150)], [(20, 60), (30, 330), (300, 335)]),
        ("tie.png", [(70, 90), (170, 90)], [(20, 20), (100, 170)]),
        ("blue.png", [(80, 100), (160, 60)], [(20, 20), (70, 20)]),
    ):
        mask = segment(read_photo(DATA / name).pixels)
        assert all(mask[place] > 0.9 for place in person), name
        assert all(mask[place] < 0.2 for place in rest), name
    assert entries()[NAME].licence == "Apache-2.0"
