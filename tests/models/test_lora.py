import pytest
import torch
from torch import Tensor, nn

from hbr.models import OneStepRestorer, WeightsError
from hbr.models.autoencoder_config import AutoencoderConfig
from hbr.models.config import LoRAConfig, UNetConfig
from hbr.models.lora import (
    autoencoder_targets,
    inject,
    load_lora,
    lora_layers,
    lora_state,
    merge,
    unet_targets,
)
from hbr.models.networks import build_autoencoder, build_unet


def randomize(module: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    state = {
        name: torch.randn(t.shape, generator=generator) * 0.1
        for name, t in lora_state(module).items()
    }
    load_lora(module, state, "the test")
    return state


def with_lora(toy: OneStepRestorer, config: LoRAConfig) -> OneStepRestorer:
    inject(toy.unet, unet_targets(toy.unet), config)
    inject(toy.autoencoder, autoencoder_targets(toy.autoencoder), config)
    randomize(toy.unet)
    randomize(toy.autoencoder)
    return toy


def test_layers_of_the_full_size() -> None:
    with torch.device("meta"):
        unet = build_unet(UNetConfig(), 4)
        autoencoder = build_autoencoder(AutoencoderConfig())
    targets = unet_targets(unet)
    inject(unet, targets, LoRAConfig())
    assert {name: len(layers) for name, layers in targets.items()} == {
        "default_encoder": 94,
        "default_decoder": 148,
        "default_others": 16,
    }
    layers = lora_layers(unet)
    assert len(layers) == 258
    assert not any("norm" in name or "time_emb" in name for name in layers)
    for adapter, names in targets.items():
        assert all(list(layers[name].lora_A) == [adapter] for name in names)
        assert all(layers[name].scaling == {adapter: 2.0} for name in names)

    inject(autoencoder, autoencoder_targets(autoencoder), LoRAConfig())
    names = list(lora_layers(autoencoder))
    assert len(names) == 32
    assert "quant_conv" in names
    assert "post_quant_conv" not in names
    assert not any(name.startswith("decoder") for name in names)


@torch.no_grad()
@pytest.mark.parametrize("config", [LoRAConfig(), LoRAConfig(rank=3, alpha=5.0)])
def test_merged_is_the_same_as_beside(toy: OneStepRestorer, config: LoRAConfig) -> None:
    x, p = torch.rand(1, 3, 64, 64), torch.randn(1, 4, 32)
    plain_names = set(toy.state_dict())
    z_l, epsilon = toy.encode(x), toy.predict(torch.ones(1, 4, 32, 32), p)
    with_lora(toy, config)
    z_beside, epsilon_beside = toy.encode(x), toy.predict(torch.ones(1, 4, 32, 32), p)
    assert (z_beside - z_l).abs().max() > 1e-3
    assert (epsilon_beside - epsilon).abs().max() > 1e-2

    merge(toy.unet)
    merge(toy.autoencoder)
    assert set(toy.state_dict()) == plain_names
    assert not lora_layers(toy)
    torch.testing.assert_close(toy.encode(x), z_beside, atol=1e-5, rtol=1e-5)
    merged = toy.predict(torch.ones(1, 4, 32, 32), p)
    torch.testing.assert_close(merged, epsilon_beside, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_fresh_adapter_changes_nothing(toy: OneStepRestorer) -> None:
    x = torch.rand(1, 3, 64, 64)
    before = toy.encode(x)
    inject(toy.autoencoder, autoencoder_targets(toy.autoencoder), LoRAConfig())
    assert torch.equal(toy.encode(x), before)


def test_only_the_adapters_learn(toy: OneStepRestorer) -> None:
    toy.requires_grad_(True)
    inject(toy.unet, unet_targets(toy.unet), LoRAConfig())
    learning = {name for name, p in toy.unet.named_parameters() if p.requires_grad}
    assert learning == set(lora_state(toy.unet))


def test_keys_must_fit_exactly(toy: OneStepRestorer) -> None:
    inject(toy.unet, unet_targets(toy.unet), LoRAConfig())
    state = randomize(toy.unet)
    name = "conv_in.lora_A.default_encoder.weight"
    for wrong, message in (
        ({k: v for k, v in state.items() if k != name}, f"the weight {name} is missing"),
        ({**state, "more": torch.ones(1)}, "the model has no weight more"),
        ({**state, name: torch.ones(2, 2)}, rf"{name} is \(2, 2\)"),
    ):
        with pytest.raises(WeightsError, match=message):
            load_lora(toy.unet, wrong, "file")


def test_a_layer_that_is_not_there_is_named(toy: OneStepRestorer) -> None:
    for name in ("down_blocks.9.conv", "down_blocks.0.resnets.0.norm1"):
        with pytest.raises(WeightsError, match=name):
            inject(toy.unet, {"default": (name,)}, LoRAConfig())
