"""Measures of the people: colours against scikit-image, the rest against their formulas."""

from dataclasses import dataclass

import cv2
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from skimage.color import deltaE_ciede2000, rgb2lab

from hbr.metrics import MetricError, load_metric
from hbr.metrics.ciede import ciede2000, lab
from hbr.metrics.person import keypoint_agreement, sharpness_ratios


@dataclass
class People:
    boxes: np.ndarray
    keypoints: np.ndarray | None = None
    masks: np.ndarray | None = None


def one_person(mask):
    return People(np.array([[0.0, 0, 1, 1]]), masks=mask[None])


@pytest.fixture
def mask():
    """A round person in the middle of 192x192."""
    y, x = np.mgrid[:192, :192]
    return np.hypot(y - 96, x - 96) < 60


def test_ciede2000_equals_scikit_image():
    generator = np.random.default_rng(0)
    one, other = generator.random((2, 500, 3))
    other[:250] = np.clip(one[:250] + generator.normal(0, 0.02, (250, 3)), 0, 1)
    other[:20, 1:] = other[:20, :1]  # greys
    np.testing.assert_allclose(lab(one), rgb2lab(one), atol=1e-3)
    expected = deltaE_ciede2000(rgb2lab(one), rgb2lab(other))
    np.testing.assert_allclose(ciede2000(rgb2lab(one), rgb2lab(other)), expected, atol=1e-7)


# Sharma, Wu and Dalal 2005, Table 1, lines 1, 7, 10, 11, 17, 25, 34
@pytest.mark.parametrize(
    ("one", "other", "difference"),
    [
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 0, 0), (50, -1, 2), 2.3669),
        ((50, 2.49, -0.001), (50, -2.49, 0.001), 7.1792),
        ((50, 2.49, -0.001), (50, -2.49, 0.0011), 7.2195),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((2.0776, 0.0795, -1.135), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_ciede2000_equals_the_published_table(one, other, difference):
    found = ciede2000(np.array(one, dtype=float), np.array(other, dtype=float))
    assert found == pytest.approx(difference, abs=1e-4)


def test_colour_error_counts_the_person_alone(pairs, tensor, mask):
    bad, photo = pairs["tie-reddish"]
    metric = load_metric("person-colour")
    inside = np.where(mask[..., None], bad, photo)
    outside = np.where(mask[..., None], photo, bad)
    people = [one_person(mask)]
    whole = metric(tensor(bad), tensor(photo), people=people).item()
    assert whole > 2
    assert metric(tensor(inside), tensor(photo), people=people).item() == pytest.approx(whole)
    assert metric(tensor(outside), tensor(photo), people=people).item() == 0


def test_colour_error_of_plain_colours_is_their_difference(tensor, mask):
    one, other = np.full((192, 192, 3), (200, 120, 90)), np.full((192, 192, 3), (190, 130, 90))
    found = load_metric("person-colour")(
        tensor(one.astype(np.uint8)), tensor(other.astype(np.uint8)), people=[one_person(mask)]
    )
    expected = deltaE_ciede2000(*(rgb2lab(np.array([c]) / 255.0) for c in (one[0, 0], other[0, 0])))
    assert found.item() == pytest.approx(expected[0], abs=1e-3)


def test_colour_error_cares_little_for_texture(pairs, tensor, mask):
    people = [one_person(mask)]
    metric = load_metric("person-colour")
    errors = {k: metric(*map(tensor, pairs[f"blue-{k}"]), people=people).item() for k in
              ("blurred", "noisy", "reddish")}  # fmt: skip
    assert max(errors["blurred"], errors["noisy"]) < errors["reddish"] / 2


def test_sharpness_is_told_apart_inside_and_outside(pairs, tensor, mask):
    photo = pairs["tie-noisy"][1]
    soft = cv2.GaussianBlur(photo, (0, 0), 1.5)
    mixed = np.where(mask[..., None], soft, photo)
    inside, outside = sharpness_ratios(tensor(mixed), tensor(photo), one_person(mask))
    assert inside < 0.8
    assert outside == 1
    back = sharpness_ratios(tensor(photo), tensor(mixed), one_person(mask))
    assert back == pytest.approx((1 / inside, 1))
    given = {"people": [one_person(mask)]}
    octaves = load_metric("person-sharpness")(tensor(mixed), tensor(photo), **given).item()
    assert octaves == pytest.approx(-np.log2(inside))
    assert load_metric("background-sharpness")(tensor(mixed), tensor(photo), **given).item() == 0


def by_hand(found, known, area):
    """OKS of one person as COCO's evaluation writes it."""
    sigmas = [26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]
    terms = []
    for (x, y, _), (u, v, seen), sigma in zip(found, known, sigmas, strict=True):
        if seen > 0:
            k = 2 * sigma / 1000
            terms.append(np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * area * k**2)))
    return float(np.mean(terms))


def test_keypoint_agreement_is_oks_of_the_best_match():
    generator = np.random.default_rng(0)
    points = generator.uniform(0, 100, (3, 17, 3))
    points[..., 2] = 2
    points[1, 5:, 2] = 0
    points[2, :, 2] = 0  # not to be seen: does not count
    boxes = np.array([[0.0, 0, 80, 90], [5, 5, 60, 70], [0, 0, 10, 10]])
    moved = points + generator.normal(0, 4, points.shape) * (1, 1, 0)
    reference = People(boxes, points)
    expected = [by_hand(moved[i], points[i], 0.53 * a) for i, a in ((0, 7200), (1, 55 * 65))]
    turned = People(boxes[[1, 0]], moved[[1, 0]])
    assert keypoint_agreement(turned, reference) == pytest.approx(np.mean(expected))
    alone = People(boxes[:1], moved[:1])
    assert keypoint_agreement(alone, reference) == pytest.approx(expected[0] / 2)
    none = People(np.zeros((0, 4)), np.zeros((0, 17, 3)))
    assert keypoint_agreement(none, reference) == 0
    assert keypoint_agreement(reference, reference) == 1
    assert np.isnan(keypoint_agreement(reference, none))
    lost = points.copy()
    lost[0] = np.nan
    assert keypoint_agreement(People(boxes[:2], lost[:2]), reference) == 0.5

    image = torch.rand(2, 3, 100, 100)
    found = load_metric("person-keypoints")(
        image, image, people=[reference, none], restored_people=[turned, none]
    )
    assert found[0].item() == pytest.approx(np.mean(expected))
    assert found[1].isnan()


def test_keypoint_agreement_takes_the_area_of_masks():
    points = np.full((1, 17, 3), 20.0)
    masks = np.zeros((1, 50, 50), dtype=bool)
    masks[0, :30, :30] = True
    reference = People(np.array([[0.0, 0, 50, 50]]), points, masks)
    moved = points + np.array([3, 0, 0])
    expected = by_hand(moved[0], points[0], 900)
    assert keypoint_agreement(People(reference.boxes, moved), reference) == pytest.approx(expected)


PERSON = ("person-colour", "person-sharpness", "background-sharpness")


@pytest.mark.parametrize("name", PERSON)
def test_pictures_without_people_are_no_number(name):
    image = torch.rand(2, 3, 50, 60)
    none = People(np.zeros((0, 4)), masks=np.zeros((0, 50, 60), dtype=bool))
    empty = one_person(np.zeros((50, 60), dtype=bool))
    assert load_metric(name)(image, image, people=[none, empty]).isnan().all()


@pytest.mark.parametrize("name", PERSON)
def test_people_that_do_not_fit_are_said(name, mask):
    image = torch.rand(1, 3, 50, 60)
    metric = load_metric(name)
    with pytest.raises(MetricError, match="needs the people in the references, and none"):
        metric(image, image)
    with pytest.raises(MetricError, match="1 pictures but 2 people in the references"):
        metric(image, image, people=[one_person(mask)] * 2)
    with pytest.raises(MetricError, match="a mask is 192x192, its picture 60x50"):
        metric(image, image, people=[one_person(mask)])
    with pytest.raises(
        MetricError, match="needs masks, and the people in the references have none"
    ):
        metric(image, image, people=[People(np.zeros((1, 4)))])


def test_keypoints_of_the_restored_are_asked_for():
    image = torch.rand(1, 3, 50, 60)
    people = [People(np.zeros((1, 4)), np.ones((1, 17, 3)))]
    with pytest.raises(MetricError, match="people found in the restored pictures, and none"):
        load_metric("person-keypoints")(image, image, people=people)


@pytest.fixture
def network(tmp_path):
    """A network of the right shape: the mean of each of 8x8 tiles of each channel, less 100."""
    sides = [14, 14]
    nodes = [
        helper.make_node("AveragePool", ["face"], ["tiles"], kernel_shape=sides, strides=sides),
        helper.make_node("Sub", ["tiles", "hundred"], ["centred"]),
        helper.make_node("Flatten", ["centred"], ["embedding"]),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "faces",
        [helper.make_tensor_value_info("face", TensorProto.FLOAT, [1, 3, 112, 112])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, 192])],
        [helper.make_tensor("hundred", TensorProto.FLOAT, [], [100.0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path = tmp_path / "face_recognition_sface_2021dec.onnx"
    onnx.save(model, path)
    return path


def face_at(x, y, scale, seen=2.0):
    """Nose and eyes where ArcFace's template has them, moved and scaled."""
    points = np.zeros((1, 17, 3))
    template = {0: (56.0252, 71.7366), 2: (38.2946, 51.6963), 1: (73.5318, 51.5014)}
    for index, (u, v) in template.items():
        points[0, index] = (x + scale * u, y + scale * v, seen)
    return People(np.array([[x, y, x + 112.0, y + 112]]), points)


def test_identity_distance_is_that_of_the_aligned_crops(pairs, tensor, network):
    bad, photo = pairs["tie-blurred"]
    metric = load_metric("face-identity", weights=network.parent)
    found = metric(tensor(bad), tensor(photo), people=[face_at(30, 40, 1)]).item()
    vectors = []
    for picture in (bad, photo):
        crop = picture[40:152, 30:142].astype(float)
        vectors.append(
            crop.reshape(8, 14, 8, 14, 3).mean(axis=(1, 3)).transpose(2, 0, 1).ravel() - 100
        )
    a, b = vectors
    expected = 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert expected > 1e-5
    assert found == pytest.approx(expected, rel=1e-3)
    assert metric(tensor(photo), tensor(photo), people=[face_at(30, 40, 1)]).item() < 1e-9
    # another face stands for another person
    turned = tensor(np.ascontiguousarray(photo[::-1]))
    assert metric(turned, tensor(photo), people=[face_at(30, 40, 1)]).item() > 10 * found


def test_large_faces_are_averaged_down(pairs, tensor, network):
    bad, photo = pairs["tie-blurred"]
    metric = load_metric("face-identity", weights=network)
    small = metric(tensor(bad), tensor(photo), people=[face_at(30, 40, 1)]).item()
    large = [np.kron(p, np.ones((4, 4, 1), np.uint8)) for p in (bad, photo)]
    # pixel i becomes 4i … 4i + 3, whose middle is 4i + 1.5
    people = face_at(4 * 30 + 1.5, 4 * 40 + 1.5, 4)
    assert metric(*map(tensor, large), people=[people]).item() == pytest.approx(small, rel=0.1)
    # what repeats faster than the crop's pixels is not picked up by chance
    stripes = large[1].copy()
    stripes[:, 1::4] = 255 - stripes[:, 1::4]
    grey = (large[1].astype(float) * 0.75 + (255.0 - large[1]) * 0.25).round().astype(np.uint8)
    assert metric(tensor(stripes), tensor(grey), people=[people]).item() < 0.01


def test_faces_that_tell_nothing_are_left_out(pairs, tensor, network):
    photo = tensor(pairs["tie-blurred"][1])
    metric = load_metric("face-identity", weights=network)
    small, unseen = face_at(0, 0, 0.2), face_at(0, 0, 1, seen=0.0)
    for people in (small, unseen, People(np.zeros((0, 4)))):
        assert metric(photo, photo, people=[people]).isnan().all()


def test_files_that_are_no_face_network(tmp_path, network):
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"no onnx")
    with pytest.raises(MetricError, match=r"bad\.onnx is a text file, not weights"):
        load_metric("face-identity", weights=bad)
    model = onnx.load(network)
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 96
    onnx.save(model, bad)
    with pytest.raises(
        MetricError, match=r"a face network takes \[b, 3, 112, 112\]|cannot be run by ONNX Runtime"
    ):
        load_metric("face-identity", weights=bad)
