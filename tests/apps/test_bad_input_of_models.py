"""`hbr restore` with settings and photos that suit some models only: one clear line each."""

import importlib.util
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

import toy_models
from hbr.models import save_checkpoint
from hbr.models.kinds import build_model

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Write = Callable[..., Path]


@pytest.fixture(scope="module")
def gan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a network that enlarges four times."""
    torch.manual_seed(0)
    config = toy_models.RRDBNET
    path = tmp_path_factory.mktemp("models") / "x4.safetensors"
    return save_checkpoint(path, config, build_model(config).state_dict())


@pytest.mark.parametrize(("scale", "size"), [(1, (1, 1)), (0.25, (1, 1)), (4, (4, 4)), (3, (3, 3))])
def test_a_photo_of_one_pixel_has_a_result(
    call_hbr: Run,
    photo: Write,
    gan: Path,
    tmp_path: Path,
    scale: float,
    size: tuple[int, int],
) -> None:
    photo(tmp_path / "one.png", size=(1, 1))
    out = tmp_path / "out.png"
    done = call_hbr(
        "restore", "-i", tmp_path / "one.png", "-o", out, "--model", gan, "--scale", scale
    )
    assert done.returncode == 0, done.stderr
    assert Image.open(out).size == size


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--fidelity", "2"), "fidelity is 2.0; it must be from 0, sharp, to 1, faithful"),
        (("--fidelity", "-0.1"), "fidelity is -0.1; it must be from 0, sharp, to 1, faithful"),
        (("--fidelity", "nan"), "fidelity is nan; it must be from 0, sharp, to 1, faithful"),
        (("--fidelity", "0.5"), "x4.safetensors has one end only; leave it out"),
        (("--prompt", "a man"), "takes no prompt"),
        (("--reduce", "0.5"), "reduce is 0.5; it must be auto, or a factor from 1 to 8"),
        (("--reduce", "much"), "'much' must be auto or a factor"),
        (("--reduce", "nan"), "reduce is nan"),
    ],
)
def test_settings_that_the_model_does_not_have_are_2(
    call_hbr: Run, photo: Write, gan: Path, tmp_path: Path, options: tuple[str, ...], says: str
) -> None:
    photo(tmp_path / "a.png")
    out = tmp_path / "o.png"
    done = call_hbr("restore", "-i", tmp_path / "a.png", "-o", out, "--model", gan, *options)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert says in line
    assert not out.exists()


def test_a_model_that_does_not_enlarge_is_not_given_a_smaller_photo(
    call_hbr: Run, photo: Write, toy: Path, tmp_path: Path
) -> None:
    photo(tmp_path / "a.png")
    asked = ("restore", "-i", tmp_path / "a.png", "-o", tmp_path / "o.png", "--model", toy)
    done = call_hbr(*asked, "--reduce", "2")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "does not enlarge" in line
    assert "--reduce" in line


@pytest.mark.parametrize("reduce", ["1", "2", "auto", "8"])
def test_one_pixel_reduced(
    call_hbr: Run, photo: Write, gan: Path, tmp_path: Path, reduce: str
) -> None:
    photo(tmp_path / "one.png", size=(1, 1))
    asked = ("restore", "-i", tmp_path / "one.png", "-o", tmp_path / "out.png", "--model", gan)
    done = call_hbr(*asked, "--reduce", reduce)
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "out.png").size == (1, 1)


@pytest.mark.skipif(importlib.util.find_spec("spandrel") is not None, reason="it is installed here")
@pytest.mark.parametrize("name", ["gan.pth", "gan.pt", "gan.ckpt", "gan.safetensors"])
def test_a_network_of_another_project_needs_an_extra(
    call_hbr: Run, photo: Write, tmp_path: Path, name: str
) -> None:
    from safetensors.torch import save_file

    weights = {"conv_first.weight": torch.ones(4, 3, 3, 3)}
    if name.endswith("safetensors"):
        save_file(weights, tmp_path / name)
    else:
        torch.save(weights, tmp_path / name)
    photo(tmp_path / "a.png")
    out = tmp_path / "o.png"
    done = call_hbr("restore", "-i", tmp_path / "a.png", "-o", out, "--model", tmp_path / name)
    assert (done.returncode, done.stdout) == (4, "")
    (line,) = done.stderr.splitlines()
    assert f"{name} is not a model of hbr" in line
    assert "`hbr models import`" in line
    assert "pip install 'hbr[spandrel]'" in line
    assert not out.exists()
