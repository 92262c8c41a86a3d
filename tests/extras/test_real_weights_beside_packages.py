"""The real weights out of packages: the same numbers as the reference implementations with them."""

import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from hbr.metrics import load_metric
from hbr.metrics.backbones import Net
from hbr.metrics.dists import DISTS
from hbr.metrics.files import read_state
from hbr.metrics.lpips import LPIPS
from hbr.metrics.niqe import niqe, read_niqe
from hbr.models import load_model
from hbr.models.rrdbnet import RRDBNet
from hbr.models.rrdbnet_config import RRDBNetConfig
from hbr.weights import Member, PackageFile, entries
from hbr.weights.packages import read_members


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    """A damaged photo, and the photo, [1, 3, 224, 200]."""
    file = sorted((Path(__file__).parents[2] / "examples" / "lq").glob("*.jpg"))[0]
    photo = cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)[:224, :200]
    bad = cv2.imdecode(cv2.imencode(".jpg", photo, [cv2.IMWRITE_JPEG_QUALITY, 10])[1], 1)
    one, other = (
        torch.from_numpy(p.astype(np.float32) / 255).permute(2, 0, 1) for p in (bad, photo)
    )
    return one[None].contiguous(), other[None].contiguous()


def package_file(name: str) -> Path:
    """A file that torchmetrics ships."""
    file = entries()[name].find()
    assert file is not None
    return file


def classifier(name: str, file: Path) -> Callable[..., torch.nn.Module]:
    """What stands in for torchvision's function: its network, with weights out of a file."""
    import torchvision

    make = getattr(torchvision.models, name)

    def real(**_: object) -> torch.nn.Module:
        with torch.device("meta"):
            model = make()
        state = {k: v for k, v in load_file(file).items() if k.startswith("features.")}
        features = {k.removeprefix("features."): v for k, v in state.items()}
        model.features.to_empty(device="cpu").load_state_dict(features)
        return model

    return real


@pytest.mark.parametrize(("net", "name"), [("alex", "alexnet"), ("vgg", "vgg16")])
@pytest.mark.weights
def test_lpips(
    net: Net,
    name: str,
    package_weights: Path,
    pair: tuple[Tensor, Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import lpips
    import torchvision

    file = package_weights / f"{name}.safetensors"
    monkeypatch.setattr(torchvision.models, name, classifier(name, file))
    theirs = lpips.LPIPS(net=net, verbose=False)  # with the linear layers that it ships
    ours = LPIPS.from_files(net, file, package_file(f"lpips-{net}-lin"))
    with torch.no_grad():
        expected = theirs(*pair, normalize=True).flatten()
    assert expected.min() > 0.05
    torch.testing.assert_close(ours(*pair), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.weights
def test_dists(
    package_weights: Path, pair: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    import DISTS_pytorch
    import torchvision

    file = package_weights / "vgg16.safetensors"
    monkeypatch.setattr(torchvision.models, "vgg16", classifier("vgg16", file))
    theirs = DISTS_pytorch.DISTS(load_weights=False)
    published = torch.load(Path(DISTS_pytorch.__file__).with_name("weights.pt"), weights_only=True)
    shipped = read_state(package_file("dists-weights"))
    for name in ("alpha", "beta"):
        assert torch.equal(published[name], shipped[name])
        getattr(theirs, name).data = published[name]
    ours = DISTS.from_files(file, package_file("dists-weights"))
    expected = theirs(*pair).reshape(-1)
    assert expected.min() > 0.01
    torch.testing.assert_close(ours(*pair), expected, rtol=1e-4, atol=1e-6)


NIQE_SOURCE = PackageFile(
    pypi="basicsr==1.4.2",
    dist="sdist",
    members=(
        Member(
            path="basicsr/metrics/niqe.py",
            size=8352,
            sha256="78113e6f2d8227adcc3519cf305c637e305b1fc826cc6d538cae1c0e68699123",
        ),
        Member(
            path="basicsr/utils/matlab_functions.py",
            size=6962,
            sha256="29a3a3d209ce15724202bfb01415e5d4e574e7b853090551a7938c7b78ec4975",
        ),
    ),
    convert="none",
)


def basicsr_niqe(folder: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """BasicSR's NIQE alone: its package imports parts of torchvision that are gone."""
    (folder / "archive").mkdir()
    sources = read_members(NIQE_SOURCE, folder / "archive")
    scipy_filters = types.ModuleType("scipy.ndimage.filters")
    scipy_filters.convolve = importlib.import_module("scipy.ndimage").convolve
    registry = types.ModuleType("basicsr.utils.registry")
    registry.METRIC_REGISTRY = types.SimpleNamespace(register=lambda: lambda function: function)
    utilities = types.ModuleType("basicsr.metrics.metric_util")
    utilities.reorder_image = utilities.to_y_channel = lambda image, **_: image
    for name in ("basicsr", "basicsr.utils", "basicsr.metrics"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    for module in (scipy_filters, registry, utilities):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    for path, source in reversed(sources.items()):  # niqe.py imports the other
        name = path.removesuffix(".py").replace("/", ".")
        module = types.ModuleType(name)
        exec(compile(source, path, "exec"), module.__dict__)
        monkeypatch.setitem(sys.modules, name, module)
    return sys.modules["basicsr.metrics.niqe"]


@pytest.mark.weights
def test_niqe(
    package_weights: Path,
    pair: tuple[Tensor, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = package_weights / "niqe_pris_params.npz"
    theirs = basicsr_niqe(tmp_path, monkeypatch)
    monkeypatch.setattr(theirs, "__file__", str(file), raising=False)
    photo = pair[1]
    noise = torch.randn(photo.shape, generator=torch.Generator().manual_seed(0))
    # without flat blocks, which ours counts as pyiqa does, and BasicSR in another way
    for image in (photo, (photo + 0.05 * noise).clamp(0, 1)):
        bgr = (image[0].permute(1, 2, 0).numpy() * 255).round()[..., ::-1].copy()
        expected = theirs.calculate_niqe(bgr, 0, convert_to="gray")
        assert 1 < expected < 40
        assert niqe(image, read_niqe(file)).item() == pytest.approx(expected, rel=2e-3)


@pytest.mark.weights
def test_brisque_tells_a_damaged_photo(
    package_weights: Path, pair: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HBR_WEIGHTS", str(package_weights))
    damaged, photo = (load_metric("brisque")(image).item() for image in pair)
    assert 0 <= photo < damaged <= 100


def upscaled(network: torch.nn.Module, image: Tensor) -> Tensor:
    with torch.inference_mode():
        return network(image)


def by_spandrel(state: dict[str, Tensor], image: Tensor) -> Tensor:
    import spandrel

    found = spandrel.ModelLoader(device="cpu").load_from_state_dict(dict(state))
    assert (found.architecture.name, found.scale) == ("ESRGAN", 4)
    return upscaled(found.model, image)


def test_rrdbnet_is_spandrels(pair: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(0)
    ours = RRDBNet(RRDBNetConfig(blocks=2, width=16)).eval()
    image = pair[0][..., :24, :20]
    made = upscaled(ours, image)
    assert made.shape == (1, 3, 96, 80)
    torch.testing.assert_close(made, by_spandrel(ours.state_dict(), image), rtol=1e-5, atol=1e-6)


@pytest.mark.weights
def test_real_esrgan_is_spandrels_and_the_ncnn_original(
    package_weights: Path, pair: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    import ncnn

    file = package_weights / "realesrgan-x4plus" / "realesrgan-x4plus.safetensors"
    image = pair[0][..., 60:92, 60:100].contiguous()
    made = upscaled(load_model(file), image)
    state = {name: tensor.float() for name, tensor in load_file(file).items()}
    assert (made - by_spandrel(state, image)).abs().max() < 1e-4
    (source,) = entries()["realesrgan-x4plus"].files[0].all_sources
    assert isinstance(source, PackageFile)
    (tmp_path / "archive").mkdir()
    for path, data in read_members(source, tmp_path / "archive").items():
        (tmp_path / Path(path).name).write_bytes(data)
    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = 1
    net.load_param(str(tmp_path / "realesrgan-x4plus.param"))
    net.load_model(str(tmp_path / "realesrgan-x4plus.bin"))
    extractor = net.create_extractor()
    given = ncnn.Mat(image[0].numpy()).clone()
    extractor.input("data", given)
    _, out = extractor.extract("output")
    assert np.abs(np.array(out) - made[0].numpy()).max() < 1 / 255
