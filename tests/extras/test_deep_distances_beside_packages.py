"""LPIPS and DISTS against the published packages, all with the same weights."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import toy_weights
from hbr.metrics.backbones import Backbone, Net
from hbr.metrics.dists import DISTS
from hbr.metrics.lpips import LPIPS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_weights.write(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def pair() -> tuple[Tensor, Tensor]:
    return toy_weights.pictures()


def toy_classifier(net: Net) -> Callable[..., torch.nn.Module]:
    """What stands in for torchvision's function: the same network, with weights that are here."""
    import torchvision

    make = torchvision.models.vgg16 if net == "vgg" else torchvision.models.alexnet

    def toy(**_: object) -> torch.nn.Module:
        with torch.device("meta"):
            model = make()
        model.features.to_empty(device="cpu").load_state_dict(
            {k.removeprefix("features."): v for k, v in toy_weights.features(net).items()}
        )
        return model

    return toy


@pytest.mark.parametrize("net", ["vgg", "alex"])
def test_torchvision_names_and_shapes_its_weights_alike(net: Net) -> None:
    import torchvision

    with torch.device("meta"):
        theirs = torchvision.models.vgg16() if net == "vgg" else torchvision.models.alexnet()
    shapes = {k: v.shape for k, v in theirs.state_dict().items() if k.startswith("features")}
    assert {k: v.shape for k, v in Backbone(net).state_dict().items()} == shapes


@pytest.mark.parametrize("package", ["lpips", "pyiqa"])
@pytest.mark.parametrize("net", ["vgg", "alex"])
def test_lpips_equals_the_packages(
    net: Net,
    package: str,
    folder: Path,
    pair: tuple[Tensor, Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torchvision

    name = "vgg16" if net == "vgg" else "alexnet"
    monkeypatch.setattr(torchvision.models, name, toy_classifier(net))
    features, linear = (folder / name for name in toy_weights.NAMES[net])
    ours = LPIPS.from_files(net, features, linear)
    if package == "lpips":
        import lpips

        theirs = lpips.LPIPS(net=net, model_path=str(linear), verbose=False)
    else:
        from pyiqa.archs.lpips_arch import LPIPS as Theirs  # noqa: N811

        theirs = Theirs(net=net, pretrained_model_path=str(linear))
    with torch.no_grad():
        expected = theirs(*pair, normalize=True).flatten()
    assert expected.min() > 0.01
    torch.testing.assert_close(ours(*pair), expected, rtol=1e-5, atol=1e-7)
    # as a loss, too: the published training gives it images in [-1, 1], ours are in [0, 1]
    image, reference = pair[0].clone().requires_grad_(), pair[1]
    (slope,) = torch.autograd.grad(ours(image, reference).mean(), image)
    (expected,) = torch.autograd.grad(
        theirs(image * 2 - 1, reference * 2 - 1, normalize=False).mean(), image
    )
    assert expected.abs().max() > 1e-6
    torch.testing.assert_close(slope, expected, rtol=1e-4, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize("package", ["piq", "pyiqa"])
def test_dists_equals_the_packages(
    package: str, folder: Path, pair: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision

    toy_vgg = toy_classifier("vgg")
    weights = folder / "weights.pt"
    ours = DISTS.from_files(folder / toy_weights.NAMES["vgg"][0], weights)(*pair)
    monkeypatch.setattr(torchvision.models, "vgg16", toy_vgg)
    if package == "piq":
        import piq

        monkeypatch.setattr("piq.perceptual.vgg16", toy_vgg, raising=False)
        published = torch.load(weights)
        total = sum(t.sum() for t in published.values())  # piq takes it for granted that it is 1
        normed = {name: t / total for name, t in published.items()}
        monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *a, **k: normed)
        theirs = piq.DISTS(reduction="none")
    else:
        from pyiqa.archs.dists_arch import DISTS as Theirs  # noqa: N811

        theirs = Theirs(pretrained_model_path=str(weights))
    with torch.no_grad():
        expected = theirs(*pair).flatten()
    assert expected.min() > 0.005
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)
