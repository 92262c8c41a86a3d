"""Against tensors of the public reference implementations (see ../shared/goldens/README.md)."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from hbr.models import OneStepRestorer, build, read_checkpoint
from hbr.models.importing import import_weights
from hbr.models.schedule import one_step
from toy_models import load_image_encoder


@pytest.fixture(scope="module")
def osediff(goldens: Path, tmp_path_factory: pytest.TempPathFactory) -> OneStepRestorer:
    folder = goldens / "osediff"
    out = tmp_path_factory.mktemp("osediff") / "osediff.safetensors"
    import_weights(folder / "osediff.pkl", "osediff", out, base=folder / "base")
    return build(read_checkpoint(out))


@pytest.fixture(scope="module")
def io(goldens: Path) -> dict[str, Tensor]:
    return load_file(goldens / "osediff" / "io.safetensors")


def stages(model: OneStepRestorer) -> dict[str, Callable[[dict[str, Tensor]], Tensor]]:
    """Each tensor of the reference from the ones before it; images are in [-1, 1] there."""
    factor = model.config.autoencoder.scaling_factor
    return {
        "posterior_mean": lambda t: model.encode(t["lq"] / 2 + 0.5) / factor,
        "z_l": lambda t: model.encode(t["lq"] / 2 + 0.5),
        "epsilon": lambda t: model.predict(t["z_l"], t["prompt_embeds"]),
        "z_h": lambda t: one_step(t["z_l"], t["epsilon"], model.alpha_bar),
        "restored": lambda t: model.decode(t["z_h"]) * 2 - 1,
    }


@torch.no_grad()
@pytest.mark.parametrize("name", ["posterior_mean", "z_l", "epsilon", "z_h", "restored"])
def test_each_stage_of_osediff(osediff: OneStepRestorer, io: dict[str, Tensor], name: str) -> None:
    # z_h reaches 35, where float32 itself is 4e-6 wide: hence the relative part
    torch.testing.assert_close(stages(osediff)[name](io), io[name], atol=1e-5, rtol=1e-6)


@torch.no_grad()
def test_osediff_as_a_whole(osediff: OneStepRestorer, io: dict[str, Tensor]) -> None:
    tensors = {"lq": io["lq"], "prompt_embeds": io["prompt_embeds"]}
    for name, stage in stages(osediff).items():
        tensors[name] = stage(tensors)
    restored = osediff(io["lq"] / 2 + 0.5, io["prompt_embeds"]) * 2 - 1
    assert torch.equal(restored, tensors["restored"])
    # merging rounds the weights once more; √(1−ᾱ)/√ᾱ = 14.6 magnifies what that does to ε
    for name, atol in {"z_l": 1e-6, "epsilon": 2e-5, "z_h": 3e-4, "restored": 3e-5}.items():
        torch.testing.assert_close(tensors[name], io[name], atol=atol, rtol=0)


@torch.no_grad()
def test_the_lora_of_osediff_matters(goldens: Path, io: dict[str, Tensor], tmp_path: Path) -> None:
    out = tmp_path / "base.safetensors"
    import_weights(goldens / "osediff" / "base", "diffusers", out)
    base = build(read_checkpoint(out))
    for name in ("z_l", "epsilon"):
        assert (stages(base)[name](io) - io[name]).abs().max() > 1e-3


@torch.no_grad()
def test_the_image_encoder_of_ram(goldens: Path, tmp_path: Path) -> None:
    out = tmp_path / "ram.safetensors"
    import_weights(goldens / "ram" / "ram.pth", "ram", out)
    encoder = load_image_encoder(out)
    tensors = load_file(goldens / "ram" / "io.safetensors")
    image = tensors["image_01"]
    torch.testing.assert_close(encoder.tokens(image), tensors["tokens"], atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder(image), tensors["projected"], atol=1e-5, rtol=0)
    # token 0 is the mean of the others
    tokens = encoder.tokens(image)
    torch.testing.assert_close(tokens[:, 0], tokens[:, 1:].mean(1), atol=1e-6, rtol=0)
