import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from hbr.models import (
    OneStepRestorer,
    RestorerConfig,
    WeightsError,
    build,
    load_model,
    read_checkpoint,
    save_checkpoint,
)
from hbr.models.checkpoint import One, empty, skip_unit_scaling
from hbr.models.files import write_tensors
from hbr.models.inspection import describe


def test_a_file_gives_the_same_model_back(toy: OneStepRestorer, toy_file: Path) -> None:
    x = torch.rand(2, 3, 64, 64)
    expected = toy(x)
    assert torch.equal(build(read_checkpoint(toy_file))(x), expected)
    loaded = load_model(toy_file)
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    # other memory layout, other order of sums, and the one step magnifies it by 14.6
    torch.testing.assert_close(loaded(x), expected, atol=2e-4, rtol=0)


def test_weights_and_computation_have_the_dtype_asked_for(toy_file: Path) -> None:
    model = load_model(toy_file, dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    restored = model(torch.rand(1, 3, 64, 64))
    assert restored.dtype == torch.float32
    assert torch.isfinite(restored).all()


def test_divisions_by_one_are_left_out(toy: OneStepRestorer, toy_file: Path) -> None:
    assert toy.unet.mid_block.resnets[0].output_scale_factor == 1.0
    model = build(read_checkpoint(toy_file))
    assert isinstance(model.unet.mid_block.resnets[0].output_scale_factor, One)
    assert isinstance(model.autoencoder.decoder.mid_block.attentions[0].rescale_output_factor, One)
    x = torch.rand(2, 3)
    assert x / One() is x
    two = nn.Module()
    two.output_scale_factor = 2.0
    skip_unit_scaling(two)
    assert two.output_scale_factor == 2.0


def test_convolutions_have_the_channels_last(toy_file: Path) -> None:
    weight = load_model(toy_file).unet.conv_in.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_a_file_in_bfloat16_loads_in_any_dtype(toy: OneStepRestorer, tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    save_checkpoint(path, toy.config, toy.state_dict(), dtype=torch.bfloat16)
    model = load_model(path)
    assert model.dtype == torch.float32
    assert torch.equal(model.unet.conv_in.weight, toy.unet.conv_in.weight.bfloat16().float())


def test_built_weights_are_a_copy(toy_file: Path) -> None:
    checkpoint = read_checkpoint(toy_file)
    model = build(checkpoint)
    model.unet.conv_in.weight.zero_()
    assert checkpoint.tensors["unet.conv_in.weight"].abs().sum() > 0


def test_the_full_size_is_built_without_memory() -> None:
    model = empty(RestorerConfig())
    assert {p.device.type for p in model.parameters()} == {"meta"}
    # Swin-L and its projection, U-Net and VAE of Stable Diffusion 2.1, attention over 77 queries
    assert sum(p.numel() for p in model.unet.parameters()) == 865_910_724
    assert sum(p.numel() for p in model.autoencoder.parameters()) == 83_653_863


def test_a_missing_extra_or_misshaped_weight_is_named(toy: OneStepRestorer, tmp_path: Path) -> None:
    path = tmp_path / "wrong.safetensors"
    whole = dict(toy.state_dict())
    name = "unet.conv_in.weight"
    for tensors, message in (
        ({k: v for k, v in whole.items() if k != name}, f"the weight {name} is missing"),
        ({**whole, "unet.more": torch.ones(1)}, "the model has no weight unet.more"),
        ({**whole, name: whole[name][:, :1]}, r"unet.conv_in.weight is \(16, 1, 3, 3\)"),
    ):
        save_checkpoint(path, toy.config, tensors)
        with pytest.raises(WeightsError, match=message):
            load_model(path)
        with pytest.raises(WeightsError, match=message):
            build(read_checkpoint(path), path)


def test_damaged_and_foreign_files_are_errors(toy_file: Path, tmp_path: Path) -> None:
    data = toy_file.read_bytes()
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(data[: len(data) // 2])
    with pytest.raises(WeightsError, match="damaged"):
        load_model(cut)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": torch.ones(1)}, foreign)
    with pytest.raises(WeightsError, match="is not a model of hbr"):
        load_model(foreign)
    (tmp_path / "empty.safetensors").touch()
    with pytest.raises(WeightsError, match="damaged"):
        load_model(tmp_path / "empty.safetensors")
    with pytest.raises(WeightsError, match="there is no such model file"):
        load_model(tmp_path / "none.safetensors")


@pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX's")
def test_a_file_of_weights_may_be_read_by_whom_other_files_may(tmp_path):
    (tmp_path / "other").write_text("x")
    file = write_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(1)}, {})
    assert file.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_the_same_content_is_the_same_file_from_any_process(tmp_path):
    metadata = {name: f'{name} é\u2028\U0001f600"\\/\x01\x7f\n' for name in "qwertyuiopasdfg"}
    code = (
        "import json, sys, torch; from hbr.models.files import write_tensors\n"
        "write_tensors(sys.argv[1], {'a': torch.arange(5.0)}, json.loads(sys.argv[2]))"
    )
    files = []
    for i, given in enumerate((metadata, dict(reversed(metadata.items())))):
        file = tmp_path / f"{i}.safetensors"
        subprocess.run([sys.executable, "-c", code, file, json.dumps(given)], check=True)
        files.append(file.read_bytes())
    assert files[0] == files[1]
    with safe_open(file, framework="pt") as opened:
        assert opened.metadata() == metadata
        assert torch.equal(opened.get_tensor("a"), torch.arange(5.0))


def test_an_image_encoder_without_its_configuration_is_one_clear_line(tmp_path: Path) -> None:
    file = tmp_path / "encoder.safetensors"
    save_file({"w": torch.zeros(1)}, file, {"format": "hbr image encoder"})
    with pytest.raises(WeightsError, match=r"encoder.safetensors: its configuration is not valid"):
        describe(file)
