"""What is exported computes the same in the libraries that it is exported to."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file

from hbr.models import OneStepRestorer
from hbr.models.config import LoRAConfig
from hbr.models.exporting.adapters import Adapter, adapter_of, write_lora
from hbr.models.importing import import_weights
from hbr.models.loading import load_model
from hbr.models.lora import autoencoder_targets, inject, lora_state, unet_targets


def adapted(toy: OneStepRestorer, config: LoRAConfig) -> dict[str, Adapter]:
    """Random adapters on the model, as a training has them, and what is exported of them."""
    for part, find in (("unet", unet_targets), ("autoencoder", autoencoder_targets)):
        module = getattr(toy, part)
        inject(module, find(module), config)
        for tensor in lora_state(module).values():
            tensor.copy_(torch.randn_like(tensor) * 0.1)
    names = ("default_encoder", "default_decoder", "default_others")
    return {part: adapter_of(getattr(toy, part), names) for part in ("unet", "autoencoder")}


def metadata(file: Path) -> dict[str, str]:
    with safe_open(file, framework="pt") as opened:
        return dict(opened.metadata())


@torch.no_grad()
@pytest.mark.parametrize("config", [LoRAConfig(), LoRAConfig(rank=3, alpha=5.0)])
@pytest.mark.parametrize("told", [True, False], ids=["with metadata", "without"])
def test_diffusers_computes_the_same_with_the_lora(
    toy: OneStepRestorer, tmp_path: Path, config: LoRAConfig, told: bool
) -> None:
    unet = UNet2DConditionModel.from_config(toy.unet.config)
    unet.load_state_dict(toy.unet.state_dict())
    vae = AutoencoderKL.from_config(toy.autoencoder.config)
    vae.load_state_dict(toy.autoencoder.state_dict())
    parts = adapted(toy, config)
    file = write_lora(tmp_path / "lora.safetensors", parts, {"base": "toy"})
    assert metadata(file)["base"] == "toy"
    for module, prefix in ((unet, "unet"), (vae, "vae")):
        if told:
            module.load_lora_adapter(tmp_path, weight_name=file.name, prefix=prefix)
        else:  # as programs do that know the keys alone
            module.load_lora_adapter(load_file(file), prefix=prefix)
    z, p, x = torch.randn(2, 4, 32, 32), torch.randn(2, 4, 32), torch.rand(2, 3, 64, 64)
    epsilon = unet(z, torch.tensor(999), p).sample
    torch.testing.assert_close(epsilon, toy.predict(z, p), atol=1e-5, rtol=1e-5)
    mode = vae.encode(x * 2 - 1).latent_dist.mode() * 0.18215
    torch.testing.assert_close(mode, toy.encode(x), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_an_exported_lora_comes_in_again(
    toy: OneStepRestorer, toy_file: Path, tmp_path: Path
) -> None:
    parts = adapted(toy, LoRAConfig(rank=3, alpha=5.0))
    z, p, x = torch.randn(2, 4, 32, 32), torch.randn(2, 4, 32), torch.rand(2, 3, 64, 64)
    file = write_lora(tmp_path / "lora.safetensors", parts)
    out = import_weights(file, "lora", tmp_path / "out.safetensors", base=toy_file)
    got = load_model(out)
    torch.testing.assert_close(got.predict(z, p), toy.predict(z, p), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(got.encode(x), toy.encode(x), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_layer_of_another_rank_is_told_in_the_metadata(tmp_path: Path) -> None:
    a, b = torch.randn(4, 8), torch.randn(8, 4)
    adapter = Adapter({"x": a, "y": a[:2].clone()}, {"x": b, "y": b[:, :2].clone()})
    file = write_lora(tmp_path / "lora.safetensors", {"unet": adapter})
    told = json.loads(metadata(file)["lora_adapter_metadata"])
    assert told["unet.r"] == told["unet.lora_alpha"] == 4
    assert told["unet.rank_pattern"] == told["unet.alpha_pattern"] == {"^y$": 2}
