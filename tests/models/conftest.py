from pathlib import Path

import pytest

import toy_models
from hbr.models import OneStepRestorer, save_checkpoint

GOLDENS = Path(__file__).parents[2].parent / "shared" / "goldens"


@pytest.fixture(scope="session")
def goldens() -> Path:
    """The tensors of the reference implementations, beside the repository."""
    if not GOLDENS.is_dir():
        pytest.skip("../shared/goldens is missing: parity with the references was NOT checked")
    return GOLDENS


@pytest.fixture
def toy() -> OneStepRestorer:
    """A restorer with random weights: HFIE, 64×64."""
    return toy_models.build()


@pytest.fixture
def toy_file(toy: OneStepRestorer, tmp_path: Path) -> Path:
    """The model file of `toy`."""
    return save_checkpoint(tmp_path / "toy.safetensors", toy.config, toy.state_dict())
