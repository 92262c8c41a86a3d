"""Rewrites for inference are exact: in float64, and in float32 far below 1/255 of a pixel."""

import dataclasses
import functools

import pytest
import torch
import torch.nn.functional as F

import toy_models
from hbr.config import ConfigError, from_dict
from hbr.image import read_photo
from hbr.models import OneStepRestorer, RestorerConfig, load_model
from hbr.models.config import LoRAConfig, RefinerConfig
from hbr.models.inference.folding import REWRITES, optimize
from hbr.models.inference.layers import attend, upsampling_kernel
from hbr.models.inference.restorer import FoldedRestorer
from hbr.models.lora import autoencoder_targets, inject, lora_layers, unet_targets

REFINER = RefinerConfig(width=8, blocks=1, sees_input=True)
NANO = dataclasses.replace(from_dict(RestorerConfig, toy_models.TRAINED), refiner=REFINER)
CONFIGS = {
    "osdhuman": toy_models.CONFIG,
    "fixed prompt": toy_models.FIXED_PROMPT,
    "nano": NANO,
    "blind refiner": dataclasses.replace(
        NANO, refiner=dataclasses.replace(REFINER, sees_input=False)
    ),
}


def restorer(config: RestorerConfig, adapters: bool = False) -> OneStepRestorer:
    """In float64, with no weight that is zero or one, and biases everywhere."""
    model = toy_models.build(config).double()
    if adapters:
        inject(model.unet, unet_targets(model.unet), LoRAConfig())
        inject(model.autoencoder, autoencoder_targets(model.autoencoder), LoRAConfig())
        model.double().eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data += 0.1 * noise if parameter.dim() == 1 else 0.02 * noise
    return model


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    # neither square nor alone
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(2)).double()


@pytest.fixture(scope="module")
def expected(image):
    """What a model makes of the image before any rewrite, by its configuration and adapters."""

    @functools.cache
    def of(config: str, adapters: bool) -> torch.Tensor:
        return optimize(restorer(CONFIGS[config], adapters), ())(image)

    return of


def test_before_any_rewrite_it_computes_what_the_model_does(image) -> None:
    for config in CONFIGS.values():
        expected = restorer(config)(image)
        folded = optimize(restorer(config), ())
        assert folded.savings == ()
        # the model itself ends in float32
        torch.testing.assert_close(folded(image).float(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", REWRITES)
def test_each_rewrite_is_exact_in_float64(name, image, expected) -> None:
    seen = 0
    for key, config in CONFIGS.items():
        adapters = name == "adapters"
        folded = optimize(restorer(config, adapters), [name])
        seen += len(folded.savings)
        assert all(saving.rewrite == name and saving.layers for saving in folded.savings)
        torch.testing.assert_close(folded(image), expected(key, adapters), atol=1e-9, rtol=1e-9)
    assert seen  # it did something


@pytest.mark.parametrize("key", CONFIGS)
def test_all_rewrites_together_are_exact_in_float64(key, image, expected) -> None:
    folded = optimize(restorer(CONFIGS[key], adapters=True))
    torch.testing.assert_close(folded(image), expected(key, True), atol=1e-9, rtol=1e-9)
    assert not any(lora_layers(part) for part in (folded.unet, folded.encoder, folded.to_latent))


def test_savings_are_counted(image) -> None:
    model = restorer(toy_models.CONFIG)
    before = sum(p.numel() for p in model.parameters())
    folded = optimize(model)
    assert before - sum(p.numel() for p in folded.parameters()) == sum(
        saving.parameters for saving in folded.savings
    )
    layers = {saving.rewrite: saving.layers for saving in folded.savings}
    # 2 levels of 1 + 2 residual blocks and 2 in the middle, in the U-Net, encoder and decoder
    assert layers["timestep"] == 2 + 4 + 2
    assert layers["blocks"] == (2 + 2) + (4 + 2)
    assert layers["upsampling"] == 1 + 1


def test_no_pixel_of_nano_changes_by_a_255th_in_float32() -> None:
    photo = read_photo("examples/lq/suit.jpg").tensor()[..., :192, :256]
    with torch.inference_mode():
        expected = load_model("nano")(photo)
        folded = optimize(load_model("nano"))
        assert len(folded.savings) == len(REWRITES) - 2  # it has no adapters, and no fixed prompt
        assert (folded(photo) - expected).abs().max() < 0.01 / 255
        assert torch.equal(folded(photo), folded(photo))


def test_nearest_upsampling_and_convolution_are_one_transposed_convolution() -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, 3, 5, 7, generator=generator).double()
    weight = torch.randn(4, 3, 3, 3, generator=generator).double()
    bias = torch.randn(4, generator=generator).double()
    expected = F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), weight, bias, padding=1)
    kernel = upsampling_kernel(weight)
    torch.testing.assert_close(
        F.conv_transpose2d(x, kernel, bias, stride=2, padding=1), expected, atol=1e-12, rtol=0
    )
    assert kernel.numel() == 4 * 3 * 16  # for 4 pixels, in place of 4 · 9


def test_sizes_that_do_not_halve_are_upsampled_as_diffusers_does() -> None:
    image = torch.rand(1, 3, 60, 44, generator=torch.Generator().manual_seed(5)).double()
    assert toy_models.CONFIG.multiple_of == 4
    image = image[..., :58, :42]  # latents of 29×21, which the U-Net halves to 15×11
    expected = optimize(restorer(toy_models.CONFIG), ())(image)
    folded = optimize(restorer(toy_models.CONFIG), ["upsampling"])
    torch.testing.assert_close(folded(image), expected, atol=1e-9, rtol=1e-9)


def test_padding_counts_where_post_quant_is_folded(image) -> None:
    """Folding the bias of `post_quant_conv` alone would be wrong at the border, as here."""
    expected = optimize(restorer(toy_models.CONFIG), ())(image)
    folded = optimize(restorer(toy_models.CONFIG), ["post-quant"])
    folded.from_latent.shift.zero_()
    assert (folded(image) - expected).abs().max() > 1e-3


def test_a_post_quant_conv_that_cannot_be_inverted_is_left_alone(image) -> None:
    model = restorer(toy_models.CONFIG)
    model.autoencoder.post_quant_conv.weight[1].copy_(model.autoencoder.post_quant_conv.weight[0])
    folded = optimize(model, ["post-quant"])
    assert folded.savings == ()
    assert torch.isfinite(folded(image)).all()


@pytest.mark.parametrize("tokens", [(300, 300), (700, 300), (300, 20), (20, 300)])
def test_attention_in_blocks_is_attention(tokens) -> None:
    n, m = tokens
    generator = torch.Generator().manual_seed(4)
    q, k, v = (torch.randn(2, 3, size, 16, generator=generator) for size in (n, m, m))
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    halved = [x.bfloat16() for x in (q, k, v)]
    torch.testing.assert_close(attend(*halved).double(), exact, atol=0.02, rtol=0.02)
    torch.testing.assert_close(attend(q, k, v).double(), exact, atol=1e-5, rtol=1e-5)


def test_in_bfloat16_it_is_as_near_to_float32_as_the_model_was() -> None:
    photo = read_photo("examples/lq/suit.jpg").tensor()[..., :192, :256]
    with torch.inference_mode():
        exact = load_model("nano")(photo)
        before = load_model("nano", dtype=torch.bfloat16)(photo)
        after = optimize(load_model("nano", dtype=torch.bfloat16))(photo)
    errors = [(made - exact).square().mean() for made in (before, after)]
    assert errors[1] < 1.2 * errors[0]


def test_it_is_a_model_as_the_others() -> None:
    folded = optimize(toy_models.build(dataclasses.replace(NANO, refiner=RefinerConfig(width=8))))
    assert isinstance(folded, FoldedRestorer)
    assert folded.capabilities == NANO.capabilities
    assert (folded.dtype, folded.device) == (torch.float32, torch.device("cpu"))
    assert not folded.training
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    with pytest.raises(ConfigError, match="rewrite is 'everything'; it must be one of adapters, "):
        optimize(toy_models.build(NANO), ["everything"])
