"""SwinIR at toy size; tests/extras holds it against spandrel's network."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import hbr
from hbr.config import ConfigError
from hbr.models import WeightsError, load_model, save_checkpoint
from hbr.models.checkpoint import empty
from hbr.models.importing import import_weights, recognise
from hbr.models.swinir import SwinIR, WindowAttention, shifted_window_mask
from hbr.models.swinir_config import SwinIRConfig

TOY = SwinIRConfig(
    embed_dim=8,
    depths=(2, 2),
    num_heads=(2, 2),
    window_size=4,
    unshuffle=2,
    upscale=2,
    width=8,
    native_size=64,
    name="toy",
)


def toy(config: SwinIRConfig = TOY) -> SwinIR:
    torch.manual_seed(0)
    return SwinIR(config).eval().requires_grad_(False)


def test_the_full_size_has_the_published_shapes() -> None:
    shapes = {n: tuple(t.shape) for n, t in empty(SwinIRConfig()).state_dict().items()}
    assert shapes["conv_first.1.weight"] == (180, 192, 3, 3)
    assert shapes["layers.7.residual_group.blocks.5.attn.qkv.weight"] == (540, 180)
    assert shapes["layers.0.residual_group.blocks.0.attn.relative_position_bias_table"] == (225, 6)
    assert shapes["conv_up3.weight"] == (64, 64, 3, 3)
    # 48 blocks of norms, qkv, proj, bias table and MLP; 8 convolutions; and what is around them
    block = 2 * 360 + (180 * 540 + 540) + (180 * 180 + 180) + 225 * 6
    block += (180 * 360 + 360) + (360 * 180 + 180)
    outside = (192 * 180 * 9 + 180) + 2 * 360 + 9 * (180 * 180 * 9 + 180)
    outside += (180 * 64 * 9 + 64) + 4 * (64 * 64 * 9 + 64) + (64 * 3 * 9 + 3)
    assert sum(np.prod(shape) for shape in shapes.values()) == 48 * block + outside


def test_windows_attend_within_themselves_alone() -> None:
    attention = WindowAttention(4, 2, 2)
    x = torch.randn(3, 4, 4)
    changed = x.clone()
    changed[1] += 1
    before, after = attention(x, None), attention(changed, None)
    assert torch.equal(before[[0, 2]], after[[0, 2]])
    assert not torch.allclose(before[1], after[1])


def test_the_bias_depends_on_the_relative_position() -> None:
    attention = WindowAttention(2, 2, 1)
    # cells (0,0) (0,1) (1,0) (1,1): the same offset has the same index
    index = attention.relative_position_index
    assert index[0, 1] == index[2, 3] != index[1, 0]
    assert index[0, 2] == index[1, 3] != index[0, 1]
    assert index.unique().tolist() == list(range(9))


def test_the_mask_parts_what_the_shift_brought_together() -> None:
    mask = shifted_window_mask(4, 8, 4, 2)  # two windows side by side
    assert mask.shape == (2, 16, 16)
    # left: rows 2 and 3 came from the other side; right: rows and columns did
    assert mask[0, 0].tolist() == [0.0] * 8 + [-100.0] * 8
    assert mask[1, 0].view(4, 4).tolist() == [[0, 0, -100, -100]] * 2 + [[-100] * 4] * 2


@pytest.mark.parametrize(("unshuffle", "upscale"), [(2, 2), (1, 2), (4, 8)])
def test_the_result_has_the_size_that_the_configuration_says(unshuffle: int, upscale: int) -> None:
    config = SwinIRConfig(
        **{**TOY.__dict__, "unshuffle": unshuffle, "upscale": upscale, "native_size": 64}
    )
    x = torch.rand(2, 3, 16, 32)
    f = config.factor
    assert toy(config)(x).shape == (2, 3, 16 * f, 32 * f)
    assert config.capabilities.upscale == f


def test_the_body_is_a_residual(tmp_path: Path) -> None:
    """With a body of zeros, only convolutions between first and last remain."""
    model = toy()
    for parameter in model.conv_after_body.parameters():
        parameter.zero_()
    x = torch.rand(1, 3, 16, 16)
    first = model.conv_first[1](F.pixel_unshuffle(x - model.mean, 2))
    up = F.interpolate(F.leaky_relu(model.conv_before_upsample[0](first), 0.01), scale_factor=2)
    up = F.leaky_relu(model.conv_hr(F.leaky_relu(model.conv_up1(up), 0.2)), 0.2)
    assert torch.allclose(model(x), model.conv_last(up) + model.mean, atol=1e-6)


@pytest.mark.parametrize("factor", [1, 2])
def test_a_photo_of_any_size_goes_through(tmp_path: Path, factor: int) -> None:
    config = SwinIRConfig(**{**TOY.__dict__, "unshuffle": 2 // factor})
    path = save_checkpoint(tmp_path / "toy.safetensors", config, toy(config).state_dict())
    restorer = hbr.Restorer.from_pretrained(path, device="cpu", dtype="float32")
    photo = np.random.default_rng(0).integers(0, 256, (33, 50, 3), dtype=np.uint8)
    assert restorer(photo).pixels.shape == (33, 50, 3)
    assert restorer(photo, scale=2).pixels.shape == (66, 100, 3)


def published(model: SwinIR) -> dict[str, torch.Tensor]:
    """The weights as a published file has them, with the constants that it stores."""
    tensors = dict(model.state_dict())
    for name, module in model.named_modules():
        if isinstance(module, WindowAttention):
            tensors[f"{name}.relative_position_index"] = module.relative_position_index
    tensors["layers.0.residual_group.blocks.1.attn_mask"] = torch.zeros(4, 16, 16)
    return tensors


@pytest.mark.parametrize("wrapper", ["params_ema", "state_dict", None, "safetensors"])
def test_published_weights_come_in(tmp_path: Path, wrapper: str | None) -> None:
    model = toy()
    tensors = published(model)
    if wrapper == "safetensors":
        source = tmp_path / "swinir.safetensors"
        save_file(tensors, source)
    else:
        source = tmp_path / "swinir.ckpt"
        torch.save({wrapper: tensors} if wrapper else tensors, source)
    assert recognise(source).kind == "swinir"
    out = import_weights(source, "auto", tmp_path / "out.safetensors")
    found = load_model(out)
    assert (found.config.depths, found.config.num_heads) == ((2, 2), (2, 2))
    assert (found.config.unshuffle, found.config.upscale) == (2, 2)
    assert (found.config.embed_dim, found.config.window_size, found.config.width) == (8, 4, 8)
    x = torch.rand(1, 3, 16, 16)
    assert torch.allclose(found(x), model(x), atol=1e-6)


def test_another_variant_is_one_clear_line(tmp_path: Path) -> None:
    tensors = {
        n: t for n, t in published(toy()).items() if not n.startswith(("conv_up", "conv_hr"))
    }
    save_file(tensors, tmp_path / "swinir.safetensors")
    with pytest.raises(WeightsError, match="`hbr restore --model` runs"):
        import_weights(tmp_path / "swinir.safetensors", "swinir", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"embed_dim": 7}, "num_heads"),
        ({"depths": ()}, "depths"),
        ({"upscale": 3}, "upscale"),
        ({"unshuffle": 4}, "unshuffle"),
        ({"native_size": 60}, "native_size"),
        ({"width": 0}, "width"),
    ],
)
def test_a_configuration_names_what_is_wrong(change: dict, field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        SwinIRConfig(**{**TOY.__dict__, **change})
