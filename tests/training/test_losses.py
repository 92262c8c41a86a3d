"""Losses of edges and of deep features: their numbers and gradients, and where weights come from.

tests/extras holds LPIPS and DISTS against the published packages, as losses too.
"""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor
from toy_training import settings

import toy_weights
from hbr.config import from_dict
from hbr.metrics import MetricError
from hbr.metrics.dists import DISTS
from hbr.metrics.lpips import LPIPS
from hbr.training.config import LossConfig, TrainConfig
from hbr.training.losses import Networks, edge_l1, load_networks, pixel_loss, sobel
from hbr.weights import find_weights

DEEP = {"l1": 0.0, "mse": 4.0, "lpips": 2.0, "dists": 0.5, "edge_dists": 0.25}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_weights.write(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def config(folder: Path) -> TrainConfig:
    loss = {**DEEP, "lpips_weights": str(folder), "dists_weights": str(folder)}
    return from_dict(TrainConfig, settings(Path("out"), loss=loss))


@pytest.fixture(scope="module")
def networks(config: TrainConfig) -> Networks:
    return load_networks(config)


@pytest.fixture(scope="module")
def deep(folder: Path) -> tuple[LPIPS, DISTS]:
    """The metrics as anyone would make them."""
    vgg = folder / toy_weights.NAMES["vgg"][0]
    linear = find_weights("lpips-vgg-lin", "test")
    dists = find_weights("dists-weights", "test")
    return LPIPS.from_files("vgg", vgg, linear), DISTS.from_files(vgg, dists)


def test_deep_terms_are_the_weighted_metrics(
    config: TrainConfig, networks: Networks, deep: tuple[LPIPS, DISTS]
) -> None:
    image, reference = toy_weights.pictures()
    terms = pixel_loss(image, reference, config.loss, networks)
    lpips, dists = deep
    torch.testing.assert_close(terms["lpips"], 2 * lpips(image, reference).mean())
    torch.testing.assert_close(terms["dists"], dists(image, reference).mean() / 2)
    of_edges = dists(sobel(image), sobel(reference)).mean() / 4
    torch.testing.assert_close(terms["edge_dists"], of_edges)
    # what a mean squared error of images in [-1, 1] would be
    torch.testing.assert_close(terms["mse"], F.mse_loss(image * 2 - 1, reference * 2 - 1))
    assert list(terms) == ["mse", "lpips", "dists", "edge_dists"]
    assert min(terms.values()) > 1e-3


def test_deep_terms_pull_on_the_image_and_on_no_weight(
    config: TrainConfig, networks: Networks
) -> None:
    image, reference = toy_weights.pictures()
    image.requires_grad_()
    for name, term in pixel_loss(image, reference, config.loss, networks).items():
        (slope,) = torch.autograd.grad(term, image)
        assert slope.isfinite().all(), name
        step = 1e-2 / slope.abs().max()
        moved = pixel_loss((image - step * slope).detach(), reference, config.loss, networks)
        assert moved[name] < term, name
    assert not any(p.requires_grad for net in networks.values() for p in net.parameters())


def test_deep_terms_are_computed_in_float32_whatever_is_around(
    config: TrainConfig, networks: Networks
) -> None:
    pair = toy_weights.pictures()
    plain = pixel_loss(*pair, config.loss, networks)
    with torch.autocast("cpu", torch.bfloat16):
        inside = pixel_loss(*pair, config.loss, networks)
    assert plain == inside


def test_a_network_is_loaded_once_and_only_where_a_phase_needs_it(folder: Path) -> None:
    deep, plain = {"lpips": 1.0, "lpips_weights": str(folder)}, {"l1": 1.0}
    phases = [{"steps": 3, "crop": 32, "batch": 1, "loss": loss} for loss in (deep, plain, deep)]
    # the training's own loss is that of no phase
    values = settings(Path("out"), phases=phases, loss={"dists": 1.0})
    assert list(load_networks(from_dict(TrainConfig, values))) == [("lpips", folder)]
    assert not load_networks(from_dict(TrainConfig, settings(Path("out"))))


def test_missing_weights_are_told_before_anything_is_written(tmp_path: Path, call_hbr) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(settings(tmp_path / "out", loss={"lpips": 2.0})))
    done = call_hbr("train", recipe, "--device", "cpu")
    assert (done.returncode, done.stdout) == (4, "")
    (line,) = done.stderr.splitlines()
    assert "loss.lpips needs the weights vgg16" in line
    assert "`hbr fetch vgg16`" in line
    assert not (tmp_path / "out").exists()


def test_other_weights_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "vgg.pth"
    torch.save({"features.0.weight": torch.zeros(1)}, file)
    loss = {"dists": 1.0, "dists_weights": str(file)}
    with pytest.raises(MetricError, match=r"vgg\.pth: features.0.weight is \[1\]"):
        load_networks(from_dict(TrainConfig, settings(tmp_path, loss=loss)))


def by_convolution(image: Tensor) -> Tensor:
    kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 4
    weight = torch.stack([kernel, kernel.T])[:, None]
    planes = F.pad(image, (1, 1, 1, 1), mode="replicate").flatten(0, 1)[:, None]
    return F.conv2d(planes, weight).square().sum(dim=1).sqrt().view_as(image)


def test_edges_are_sobel_s() -> None:
    image, reference = toy_weights.pictures()
    torch.testing.assert_close(sobel(image), by_convolution(image), rtol=1e-4, atol=2e-6)
    step = torch.zeros(1, 1, 6, 6)
    step[..., 3:] = 1.0
    columns = torch.tensor([0.0, 0, 1, 1, 0, 0]).expand(1, 1, 6, 6)
    torch.testing.assert_close(sobel(step), columns, rtol=0, atol=2e-6)
    expected = F.l1_loss(by_convolution(image), by_convolution(reference))
    terms = pixel_loss(image, reference, LossConfig(l1=0.0, edge=3.0))
    torch.testing.assert_close(terms["edge"], 3 * expected, rtol=1e-4, atol=1e-6)


def test_edges_of_a_flat_image_have_a_gradient() -> None:
    flat = torch.full((1, 3, 8, 8), 0.5, requires_grad=True)
    (slope,) = torch.autograd.grad(edge_l1(flat, torch.rand(1, 3, 8, 8)), flat)
    assert slope.isfinite().all()
