"""`hbr restore --model FILE` and `hbr.Restorer` with model files of other projects."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from toy_networks import ARCHITECTURES, BSRGAN, REAL_ESRGAN, Evil, rrdb, rrdb_weights

import hbr
from hbr.files import sha256
from hbr.models import load_model
from hbr.models.spandrel import SpandrelNetwork, read_network

PHOTO = Path(__file__).parents[1] / "data" / "purple.jpg"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def lq(tmp_path: Path) -> Path:
    path = tmp_path / "lq.png"
    Image.open(PHOTO).convert("RGB").crop((100, 200, 156, 240)).save(path)
    return path


@pytest.fixture
def gan(tmp_path: Path) -> Path:
    torch.save({"params_ema": rrdb_weights(REAL_ESRGAN)}, tmp_path / "x4.pth")
    return tmp_path / "x4.pth"


def tensor(path: Path) -> Tensor:
    """[1, 3, h, w] in [0, 1]."""
    pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB")))
    return pixels.permute(2, 0, 1)[None] / 255


def levels(a: Tensor, b: Tensor) -> float:
    """The largest difference, in levels of 255."""
    assert a.shape == b.shape
    return float((a - b.clamp(0, 1)).abs().max() * 255)


def test_restore_takes_the_file(call_hbr: Run, lq: Path, gan: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    asked = ("restore", "-i", lq, "-o", out, "--model", gan, "--dtype", "float32")
    done = call_hbr(*asked, "--scale", 4, "--log-format", "json")
    assert done.returncode == 0, done.stderr
    expected = rrdb(tensor(lq), rrdb_weights(REAL_ESRGAN), REAL_ESRGAN)
    assert 0.05 < expected.std() < 1, "a picture, not a plain"
    assert levels(tensor(out), expected) <= 1
    assert sha256(gan) in done.stdout + done.stderr
    again = call_hbr(*asked, "--overwrite")  # at the photo's own size
    assert again.returncode == 0, again.stderr
    assert Image.open(out).size == (56, 40)


def test_show_tells_architecture_and_factor(call_hbr: Run, gan: Path) -> None:
    done = call_hbr("models", "show", gan, "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["summary"] == "ESRGAN, a network of another project"
    assert shown["capabilities"]["upscale"] == 4
    weights = rrdb_weights(REAL_ESRGAN)
    assert shown["parameters"]["all"] == sum(tensor.numel() for tensor in weights.values())


def test_safetensors_of_another_project(lq: Path, tmp_path: Path) -> None:
    weights = rrdb_weights(BSRGAN)
    save_file(weights, tmp_path / "bsrgan.safetensors", metadata={"format": "pt"})
    restorer = hbr.Restorer.from_pretrained(tmp_path / "bsrgan.safetensors", dtype="float32")
    made = restorer(lq, scale=4)
    assert levels(made.tensor, rrdb(tensor(lq), weights, BSRGAN)) <= 1
    assert (made.provenance["model"], made.provenance["color"]) == ("bsrgan", "none")


@pytest.mark.parametrize("name", ["SCUNet", "SwinIR", "SPAN", "HAT"])
def test_the_factor_of_the_network_is_a_capability(lq: Path, tmp_path: Path, name: str) -> None:
    make, factor, _ = ARCHITECTURES[name]
    torch.save(make().state_dict(), tmp_path / "toy.pth")
    model = load_model(tmp_path / "toy.pth")
    assert model.capabilities.upscale == factor
    made = hbr.Restorer(model)(lq, scale=factor).tensor
    with torch.no_grad():
        direct = make()(tensor(lq))
    assert direct.std() > 0.01
    assert levels(made, direct) <= 1


def test_a_large_photo_in_tiles_is_the_whole(tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    Image.open(PHOTO).convert("RGB").crop((0, 0, 197, 141)).save(large)
    torch.save(ARCHITECTURES["Real-ESRGAN general v3"][0]().state_dict(), tmp_path / "toy.pth")
    restorer = hbr.Restorer.from_pretrained(tmp_path / "toy.pth", dtype="float32")
    whole, tiled = (restorer(large, scale=4, tile=tile) for tile in (0, 256))
    assert whole.provenance["tiles"] == 1 < tiled.provenance["tiles"]
    assert levels(tiled.tensor, whole.tensor) <= 1.01


def test_a_network_that_tiles_would_spoil_sees_the_whole_photo(tmp_path: Path) -> None:
    torch.save(ARCHITECTURES["SPAN"][0]().state_dict(), tmp_path / "toy.pth")
    network = read_network(tmp_path / "toy.pth")
    whole = replace(network, capabilities=replace(network.capabilities, whole=True))
    large = np.asarray(Image.open(PHOTO).convert("RGB").resize((800, 60)))
    for file, tiles in ((network, 2), (whole, 1)):
        model = SpandrelNetwork(file, torch.device("cpu"), torch.float32)
        assert hbr.Restorer(model)(large, scale=2).provenance["tiles"] == tiles


def write_evil(path: Path) -> None:
    torch.save({"conv_first.weight": Evil()}, path)


def write_cut(path: Path) -> None:
    torch.save(rrdb_weights(REAL_ESRGAN), path)
    path.write_bytes(path.read_bytes()[:5000])


def write_unknown(path: Path) -> None:
    torch.save({"a.weight": torch.ones(3)}, path)


def write_grey(path: Path) -> None:
    torch.save(rrdb_weights(REAL_ESRGAN, colours=1), path)


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (write_evil, "cannot be read as weights alone, and nothing else in it is run"),
        (write_cut, "cannot be read as weights alone"),
        (write_unknown, "no architecture that spandrel"),
        (write_grey, "ESRGAN from 1 to 1 channels, not RGB"),
    ],
)
def test_files_that_are_none_are_one_line_and_4(
    call_hbr: Run,
    lq: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[[Path], None],
    says: str,
) -> None:
    monkeypatch.setenv("EVIL", str(tmp_path / "evil"))
    write(tmp_path / "x.pth")
    done = call_hbr("restore", "-i", lq, "-o", tmp_path / "o.png", "--model", tmp_path / "x.pth")
    assert (done.returncode, done.stdout) == (4, "")
    (line,) = done.stderr.splitlines()
    assert says in line
    assert not (tmp_path / "evil").exists()
    assert not (tmp_path / "o.png").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--fidelity", "0.5"), "x4.pth has one end only"),
        (("--fidelity", "2"), "from 0, sharp, to 1, faithful"),
        (("--dtype", "float8"), "--dtype"),
        (("--tile", "1"), "at least"),
        (("--prompt", "a man"), "takes no prompt"),
    ],
)
def test_settings_that_do_not_fit_are_2(
    call_hbr: Run, lq: Path, gan: Path, tmp_path: Path, options: tuple[str, ...], says: str
) -> None:
    done = call_hbr("restore", "-i", lq, "-o", tmp_path / "o.png", "--model", gan, *options)
    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())
    assert not (tmp_path / "o.png").exists()


def test_a_comparison_takes_the_file(call_hbr: Run, lq: Path, gan: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = call_hbr("compare", lq, "-o", page, "--models", f"nano,{gan}")
    assert done.returncode == 0, done.stderr
    assert "x4" in page.read_text()
