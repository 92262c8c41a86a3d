"""What the guidance of DiffBody takes in memory, at full size, counted with fake tensors."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from hbr.models.checkpoint import empty
from hbr.models.diffbody.config import DiffBodyConfig
from hbr.models.diffbody.model import DiffBody
from hbr.models.diffbody.parts import part_loss
from hbr.models.sampling import Guidance, guidance_gradient
from hbr.models.vsd import guided
from hbr.training.simulation import Meter, _make_fake


def peak(model: DiffBody, through: str) -> int:
    """Bytes beside the weights for one gradient at 512×512, with text guidance."""
    z, condition = torch.randn(1, 4, 64, 64), torch.randn(1, 9, 64, 64)
    p = torch.randn(1, 77, 1024)
    with torch.no_grad():
        wanted = model.parts(torch.rand(1, 3, 512, 512)).detach()
    guidance = Guidance(
        loss=lambda z_0: part_loss(model.parts(model.decode(z_0)), wanted, "cosine"),
        scale=1.0,
        through=through,
    )

    def network(z_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return model.predict(z_t, t, p, condition)

    meter = Meter()
    with meter:
        guidance_gradient(guidance, guided(network, network, 4.0), z, 500, 0.3)
    return meter.peak


@pytest.mark.slow
def test_the_gradient_at_the_clean_latent_takes_half_of_that_through_everything() -> None:
    model = empty(DiffBodyConfig())
    with FakeTensorMode():
        _make_fake(model)
        model.eval().requires_grad_(False)
        clean, full = peak(model, "z0"), peak(model, "full")
    assert clean < full / 2
    assert clean < 4e9
