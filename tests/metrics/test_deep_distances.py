"""LPIPS and DISTS; tests/extras holds them against the published packages."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import toy_weights
from hbr.metrics import MetricError, find_metric, load_metric
from hbr.metrics.backbones import Backbone, Net
from hbr.metrics.dists import DISTS, L2Pooling
from hbr.metrics.lpips import LPIPS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_weights.write(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def pair() -> tuple[Tensor, Tensor]:
    return toy_weights.pictures()


# What the packages lpips 0.1.4 and pyiqa 0.1.16 give with these weights and pictures; the tests in
# tests/extras compute them anew.
GOLDEN = {
    "vgg": (0.07735233, 0.18653521),
    "alex": (0.15691763, 0.16699842),
    "dists": (0.00757814, 0.01324809),
}


@pytest.mark.parametrize("name", ["vgg", "alex", "dists"])
def test_values(name: str, folder: Path, pair: tuple[Tensor, Tensor]) -> None:
    if name == "dists":
        model: torch.nn.Module = DISTS.from_files(
            folder / toy_weights.NAMES["vgg"][0], folder / "weights.pt"
        )
    else:
        net: Net = "vgg" if name == "vgg" else "alex"
        model = LPIPS.from_files(net, *(folder / file for file in toy_weights.NAMES[net]))
    torch.testing.assert_close(model(*pair), torch.tensor(GOLDEN[name]), rtol=2e-4, atol=1e-6)
    same = model(pair[0], pair[0])
    assert same.abs().max() < 1e-6
    torch.testing.assert_close(model(*pair)[1:], model(pair[0][1:], pair[1][1:]))


@pytest.mark.parametrize("make", [lambda: LPIPS("alex"), DISTS])
def test_it_is_a_loss_that_pulls_towards_the_reference(make: type[DISTS]) -> None:
    model = make()
    reference = toy_weights.pictures()[1]
    # a black part has features of zeros, where a careless square root has no gradient
    reference[:, :, :40] = 0
    image = (reference + 0.1).clamp(0, 1).requires_grad_()
    before = model(image, reference).sum()
    (slope,) = torch.autograd.grad(before, image)
    assert slope.isfinite().all()
    assert slope.abs().max() > 0
    step = 1e-3 / slope.abs().max()
    assert model((image - step * slope).detach(), reference).sum() < before
    assert not any(p.requires_grad for p in model.parameters())


def test_pooling_of_a_constant_is_the_constant() -> None:
    pooled = L2Pooling(2)(torch.full((1, 2, 9, 9), 3.0))
    assert pooled.shape == (1, 2, 5, 5)
    torch.testing.assert_close(pooled[..., 1:-1, 1:-1], torch.full((1, 2, 3, 3), 3.0))


def test_loading_by_name(
    folder: Path, tmp_path: Path, pair: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MetricError, match=r"needs the weights vgg16.*`hbr fetch vgg16`"):
        load_metric("lpips-vgg")
    with pytest.raises(MetricError, match=r"needs the weights alexnet.*`hbr fetch alexnet`"):
        load_metric("lpips")
    # a file of the user's own is taken as it is; the linear layers come with torchmetrics
    lpips = load_metric("lpips", weights=folder / "alexnet.safetensors")
    assert lpips.info is find_metric("lpips-alex")
    value = lpips(*pair)
    assert value.dtype == torch.float64
    assert (value > 0).all()
    # found by its name in a folder of weights
    shutil.copy(folder / "vgg16.tv_in1k.safetensors", tmp_path)
    monkeypatch.setenv("HBR_WEIGHTS", str(tmp_path))
    assert torch.equal(load_metric("dists")(*pair), load_metric("dists", weights=folder)(*pair))
    with pytest.raises(MetricError, match="64 pixels"):
        lpips(pair[0][..., :32], pair[1][..., :32])


@pytest.mark.parametrize("case", ["torn", "pickle", "code", "other", "shape", "hash", "missing"])
def test_wrong_weights_are_one_clear_line(case: str, tmp_path: Path) -> None:
    path = tmp_path / "alexnet-owt-7be5be79.pth"
    state = toy_weights.features("alex")
    told = {
        "torn": "cannot be read as weights",
        "pickle": "cannot be read as weights",
        "code": "cannot be read as weights",
        "other": "has no features.8.weight; these are other weights",
        "shape": r"features.0.weight is \[64, 3, 3, 3\]; it should be",
        "hash": "its SHA-256 is .* it should be 7be5be79; delete it, then `hbr fetch alexnet`",
        "missing": "there is no such file",
    }
    if case == "code":
        torch.save({"features.0.weight": print}, path)
    elif case != "missing":
        if case == "other":
            del state["features.8.weight"]
        elif case == "shape":
            state["features.0.weight"] = torch.zeros(64, 3, 3, 3)
        torch.save(state, path)
        if case == "torn":
            path.write_bytes(path.read_bytes()[:1000])
        elif case == "pickle":  # one that takes from an empty stack
            path.write_bytes(b"\x80\x02\x86.")
    with pytest.raises(MetricError, match=told[case]):
        load_metric("lpips-alex", weights=tmp_path if case == "hash" else path)


def test_a_classifier_s_other_weights_are_left(tmp_path: Path) -> None:
    path = tmp_path / "all.safetensors"
    save_file({**toy_weights.features("alex"), "classifier.1.weight": torch.ones(2)}, path)
    Backbone("alex").load({**toy_weights.features("alex"), "x": torch.ones(1)}, path)
    assert Backbone("vgg").widths == [64, 128, 256, 512, 512]
    assert Backbone("alex").widths == [64, 192, 384, 256, 256]
