from pathlib import Path

import pytest
import torch

from hbr.models import OneStepRestorer, RestorerConfig, save_checkpoint
from hbr.models.config import (
    AutoencoderConfig,
    HFIEConfig,
    ImageEncoderConfig,
    UNetConfig,
)

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
    encoder = ImageEncoderConfig(
        image_size=64, embed_dim=16, depths=(2, 2), num_heads=(2, 2), window_size=4, proj_dim=16
    )
    config = RestorerConfig(
        autoencoder=AutoencoderConfig(
            block_out_channels=(16, 16), layers_per_block=1, norm_num_groups=8
        ),
        unet=UNetConfig(
            block_out_channels=(16, 32),
            attention=(True, True),
            attention_head_dim=(1, 2),
            layers_per_block=1,
            cross_attention_dim=32,
            norm_num_groups=8,
        ),
        prompt=HFIEConfig(encoder=encoder, n_queries=4, width=32, heads=2),
        native_size=64,
        name="toy",
    )
    torch.manual_seed(0)
    return OneStepRestorer(config).eval().requires_grad_(False)


@pytest.fixture
def toy_file(toy: OneStepRestorer, tmp_path: Path) -> Path:
    """The model file of `toy`."""
    return save_checkpoint(tmp_path / "toy.safetensors", toy.config, toy.state_dict())
