"""Encoder and decoder in stripes compute what they compute as a whole, also at the seams."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import toy_models
from hbr.config import from_dict
from hbr.image import read_photo
from hbr.models import RestorerConfig, load_model
from hbr.models.inference import stripes
from hbr.models.inference.folding import REWRITES, optimize
from hbr.models.inference.layers import ResidualBlock

NANO = from_dict(RestorerConfig, toy_models.TRAINED)
ALL_BUT_STRIPES = [name for name in REWRITES if name != "stripes"]
PATTERNS = {"first": torch.contiguous_format, "last": torch.channels_last}


@pytest.fixture
def height(monkeypatch):
    """Sets how many rows at most a stripe has, of a width of 64 and 16 channels in float64."""

    def set_height(rows: int) -> list[tuple[int, ...]]:
        monkeypatch.setattr(stripes, "STRIPE", rows * 64 * 16 * 8)
        monkeypatch.setattr(stripes, "LARGE", 1)
        seen: list[tuple[int, ...]] = []
        moments = stripes.moments

        def counted(norm, x):
            seen.append(tuple(x.shape))
            return moments(norm, x)

        monkeypatch.setattr(stripes, "moments", counted)
        return seen

    return set_height


def toy(config: RestorerConfig) -> nn.Module:
    """In float64, with statistics, scales and shifts that all differ."""
    model = toy_models.build(config).double()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data += (0.1 if parameter.dim() == 1 else 0.02) * noise
    return model


@pytest.mark.parametrize("layout", PATTERNS)
@pytest.mark.parametrize("config", [toy_models.CONFIG, NANO], ids=["osdhuman", "nano"])
def test_stripes_of_any_height_are_exact_in_float64(config, layout, height) -> None:
    image = torch.rand(2, 3, 52, 44, generator=torch.Generator().manual_seed(2)).double()
    whole = optimize(toy(config), ALL_BUT_STRIPES)
    z_l = whole.encode(image)
    image_of_z = whole.decode(z_l)
    striped = optimize(toy(config).to(memory_format=PATTERNS[layout]))
    assert striped.savings[-1].rewrite == "stripes"
    for rows in (1, 3, 7, 64):
        seen = height(rows)
        made = striped.encode(image.contiguous(memory_format=PATTERNS[layout]))
        torch.testing.assert_close(made, z_l, atol=1e-9, rtol=1e-9)
        made = striped.decode(made)
        torch.testing.assert_close(made, image_of_z, atol=1e-9, rtol=1e-9)
        # each image by itself; two norms in each block, and the last one
        layers = [layer for part in striped.autoencoder for layer in part.layers]
        n_blocks = sum(isinstance(layer, ResidualBlock) for layer in layers)
        assert len(seen) == 2 * (2 * n_blocks + 2)
        assert {shape[0] for shape in seen} == {1}


@pytest.mark.parametrize("size", [(13, 8), (12, 9), (2, 2)])
def test_downsampling_pads_below_and_to_the_right_only(size, height) -> None:
    height(2)
    model = toy(toy_models.CONFIG)
    layer = model.autoencoder.encoder.down_blocks[0].downsamplers[0]
    x = torch.rand(1, 16, *size, generator=torch.Generator().manual_seed(3)).double()
    torch.testing.assert_close(stripes.downsample(layer, x), layer(x), atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_statistics_are_those_of_the_image_though_its_mean_is_large(dtype, height) -> None:
    height(2)
    norm = nn.GroupNorm(4, 16, eps=0.0)
    generator = torch.Generator().manual_seed(4)
    ramp = torch.linspace(0, 2, 65)[:, None]  # stripes differ, and the last is lower
    x = (torch.randn(1, 16, 65, 32, generator=generator) + 30 + ramp).to(dtype)
    mean, var = stripes.moments(norm, x)
    assert mean.dtype == var.dtype == torch.float32
    groups = x.double().unflatten(1, (4, 4))
    of_groups = torch.var_mean(groups, dim=(0, 2, 3, 4), correction=0)
    for made, exact in zip((var, mean), of_groups, strict=True):
        torch.testing.assert_close(made.double(), exact.repeat_interleave(4), atol=0, rtol=1e-5)


def test_no_activation_of_nano_is_large_at_its_tile_size(monkeypatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(
        stripes, "_is_large", lambda x: sizes.append(x.numel() * x.element_size()) or False
    )
    model = optimize(load_model("nano"))  # in float32, where they are largest
    with torch.inference_mode():
        model(torch.rand(1, 3, 512, 512))
    assert 0 < max(sizes) < stripes.LARGE


def test_nano_in_stripes_is_as_near_to_float32_as_the_whole(height) -> None:
    photo = read_photo("examples/lq/suit.jpg").tensor()[..., :96, :128]
    models = [
        optimize(load_model("nano", dtype=dtype)) for dtype in (torch.float32, torch.bfloat16)
    ]
    with torch.inference_mode():
        exact, whole = (model(photo) for model in models)  # its activations are small
        seen = height(8)
        exact_striped, striped = (model(photo) for model in models)
    assert seen
    assert 0 < (exact_striped - exact).abs().max() < 0.01 / 255
    errors = [F.mse_loss(image, exact) for image in (whole, striped)]
    assert errors[1] < 1.2 * errors[0]


def test_where_operations_are_recorded_nothing_is_cut(height, monkeypatch) -> None:
    seen, image = height(8), torch.rand(2, 3, 64, 64).double()
    striped = optimize(toy(toy_models.CONFIG))
    expected = striped.encode(image)
    assert seen
    seen.clear()
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(striped.encode(image), expected, atol=1e-9, rtol=1e-9)
    assert seen == []
