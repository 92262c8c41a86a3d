"""Decoders in place of a model's own: published ones against diffusers, and latents that differ."""

import dataclasses
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import hbr
import toy_decoders
import toy_diffbody
import toy_models
from hbr.config import ConfigError
from hbr.files import sha256
from hbr.models import WeightsError, load_model, save_checkpoint
from hbr.models.autoencoder_config import DecoderConfig
from hbr.models.decoder_files import DecoderFile, read_decoder, write_decoder
from hbr.models.decoders import MARK, build_decoder, latent_mark
from hbr.models.exporting.folder import export_folder
from hbr.models.inference.folding import REWRITES, optimize
from hbr.models.loading import open_model
from hbr.weights import FoundFile


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model on latents as Stable Diffusion's, and published decoders for it at toy size."""
    folder = tmp_path_factory.mktemp("decoders")
    tiny, light = toy_decoders.taesd(), toy_decoders.light()
    toy_models.write(folder / "model.safetensors", toy_decoders.CONFIG)
    toy_decoders.write_author(folder / "author.safetensors", tiny)
    toy_decoders.write_author(folder / "author.pth", tiny)
    toy_decoders.write_diffusers(folder / "diffusers.safetensors", tiny)
    toy_decoders.write_light(folder / "light.pth", light)
    return folder


def swapped(files, decoder, dtype=torch.float32):
    path = files / decoder if isinstance(decoder, str) else decoder
    found = FoundFile(str(path), path, sha256(path))
    opened = open_model(files / "model.safetensors", found)
    return opened.load(torch.device("cpu"), dtype, None)


def latents(dtype=torch.float32):
    return torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(3)).to(dtype)


@pytest.mark.parametrize("name", ["author.safetensors", "author.pth", "diffusers.safetensors"])
def test_taesd_decodes_as_in_diffusers_in_every_layout(files, name, caplog):
    """A pipeline gives it the latents of the U-Net as they are: no factor, no shift."""
    tiny, z = toy_decoders.taesd(), latents() * 4  # some beyond the soft clamp at 3
    assert (tiny.config.scaling_factor, tiny.config.shift_factor) == (1.0, 0.0)
    model = swapped(files, name)
    with torch.no_grad():
        expected = tiny.decode(z / tiny.config.scaling_factor).sample / 2 + 0.5
        made = model.decode(z)
        divided = tiny.decode(z / 0.18215).sample / 2 + 0.5
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-6)
    assert (made - divided).abs().max() > 1e-3  # the factor of Stable Diffusion matters
    assert made.shape == (2, 3, 24, 40)
    assert f"{name} does not say which latents it decodes" in caplog.text


def test_the_half_width_decoder_decodes_as_in_diffusers(files):
    model, light, z = swapped(files, "light.pth"), toy_decoders.light(), latents()
    with torch.no_grad():
        expected = light.decode(z / 0.18215).sample / 2 + 0.5
        torch.testing.assert_close(model.decode(z), expected, rtol=0, atol=1e-5)
    assert model.config.autoencoder.decoder == DecoderConfig(block_out_channels=(32,) * 4)


@pytest.mark.parametrize("name", ["author.pth", "light.pth"])
def test_the_rest_of_the_model_is_as_it_was(files, name):
    with_own = load_model(files / "model.safetensors")
    model, image = swapped(files, name), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.encode(image), with_own.encode(image), rtol=0, atol=0)
        assert (model(image) - with_own(image)).abs().max() > 0.01
    names = set(model.state_dict())
    assert not [n for n in names if n.startswith("autoencoder.post_quant_conv")]
    kept = {n for n in with_own.state_dict() if not n.startswith("autoencoder.decoder")}
    assert {n for n in kept if "post_quant" not in n} <= names


@pytest.mark.parametrize("name", ["author.pth", "light.pth"])
def test_rewrites_change_nothing_in_exact_arithmetic(files, name):
    model, image = swapped(files, name, torch.float64), torch.rand(1, 3, 64, 72).double()
    with torch.no_grad():
        expected = model.decode(model.encode(image))
        folded = optimize(model)
        z = folded.encode(image)
        torch.testing.assert_close(folded.decode(z).float(), expected.float(), rtol=0, atol=1e-5)
    names = {saving.rewrite for saving in folded.savings}
    assert "post-quant" not in names
    assert ("blocks" in names, names <= set(REWRITES)) == (True, True)


def test_a_restorer_names_its_decoder_and_takes_it_along_to_its_sibling(files, tmp_path):
    path = files / "light.pth"
    restorer = hbr.Restorer.from_pretrained(
        files / "model.safetensors", dtype="float32", decoder=path
    )
    photo = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    made = restorer(photo)
    assert made.provenance["decoder"] == {"name": str(path), "sha256": sha256(path)}
    assert restorer._again(fidelity=None).decoder == restorer.decoder
    own = hbr.Restorer.from_pretrained(files / "model.safetensors", dtype="float32")(photo)
    assert own.provenance["decoder"] is None
    assert not np.array_equal(made.pixels, own.pixels)


def test_a_decoder_of_ones_own_is_a_file_and_knows_its_latents(files, tmp_path):
    config = DecoderConfig(block_out_channels=(16,) * 4, layers_per_block=1, norm_num_groups=4)
    model = load_model(files / "model.safetensors").autoencoder
    mark = latent_mark(model.post_quant_conv.weight, model.decoder.conv_in.weight)
    weights = {**build_decoder(config).state_dict(), MARK: mark}
    path = write_decoder(tmp_path / "own.safetensors", DecoderFile(config, weights))
    again = read_decoder(path)
    assert (again.config, again.guessed) == (config, False)
    assert torch.equal(again.tensors[MARK], mark)
    assert swapped(files, path).config.autoencoder.decoder == config
    # of the same shape, but of another training
    torch.manual_seed(9)
    other = toy_models.OneStepRestorer(toy_decoders.CONFIG)
    save_checkpoint(tmp_path / "other.safetensors", toy_decoders.CONFIG, other.state_dict())
    with pytest.raises(ConfigError, match=r"trained for the latents of another model than other"):
        open_model(tmp_path / "other.safetensors", FoundFile("own", path, ""))
    # rounded to bfloat16, the model is the same
    rounded = save_checkpoint(
        tmp_path / "bf16.safetensors",
        toy_decoders.CONFIG,
        load_file(files / "model.safetensors"),
        dtype=torch.bfloat16,
    )
    assert open_model(rounded, FoundFile("own", path, "")).capabilities.latent == config.latent


def test_a_model_with_a_decoder_in_place_is_a_file_too(files, tmp_path):
    model = swapped(files, "light.pth")
    path = save_checkpoint(tmp_path / "whole.safetensors", model.config, model.state_dict())
    z = latents()
    torch.testing.assert_close(load_model(path).decode(z), model.decode(z), rtol=0, atol=0)
    with pytest.raises(WeightsError, match="a diffusers folder has no place for it"):
        export_folder(path, tmp_path / "folder")
    from_model = read_decoder(path)
    assert not from_model.guessed
    torch.testing.assert_close(swapped(files, path).decode(z), model.decode(z), rtol=0, atol=0)


def test_a_model_of_many_steps_takes_one_too(files, shared, tmp_path):
    base = shared / "goldens" / "osediff" / "base"
    toy = toy_diffbody.toy_model(base)
    path = save_checkpoint(tmp_path / "diffbody.safetensors", toy.config, toy.state_dict())
    config = toy.config.autoencoder.decoding
    decoder = write_decoder(
        tmp_path / "decoder.safetensors", DecoderFile(config, build_decoder(config).state_dict())
    )
    model = open_model(path, FoundFile("decoder", decoder, "")).load(
        torch.device("cpu"), torch.float32, None
    )
    z = torch.randn(1, config.latent.channels, 4, 4)
    assert model.config.autoencoder.decoder == config
    assert (model.decode(z) - toy.decode(z)).abs().max() > 1e-3


def nano(files):
    from hbr.weights import find_model

    return find_model("nano"), files / "author.pth"


def without_latents(files):
    from hbr.models.kinds import build_model

    config = toy_models.RRDBNET
    path = files / "rrdbnet.safetensors"
    return save_checkpoint(path, config, build_model(config).state_dict()), files / "author.pth"


def sixteen_channels(files):
    model = files / "model.safetensors"
    path = files / "taesd3.pth"
    return model, toy_decoders.write_author(path, toy_decoders.taesd(channels=16))


@pytest.mark.parametrize(
    ("case", "told"),
    [
        (nano, r"latents of 4 channels for 8×8 pixels, scaled by 0\.18215; those of nano\.sa"),
        (without_latents, "rrdbnet.safetensors has no latents to decode; leave it out"),
        (sixteen_channels, "for latents of 16 channels for 8×8 pixels"),
    ],
)
def test_another_latent_is_one_line_with_the_remedy(files, case, told):
    model, decoder = case(files)
    with pytest.raises(ConfigError, match=told) as caught:
        open_model(model, FoundFile("taesd", decoder, ""))
    text = str(caught.value)
    assert text.startswith("decoder is taesd, ")
    assert "leave it out" in text
    assert "\n" not in text


def own_decoder(files):
    return files / "model.safetensors", "is a model with its own decoder"


def half_a_decoder(files):
    path = files / "half.safetensors"
    weights = load_file(files / "author.safetensors")
    save_file({n: t for n, t in weights.items() if not n.startswith("4.")}, path)
    return path, "half.safetensors"


def flux(files):
    """FLUX.2's has norms in its middle, which Stable Diffusion's has not."""
    path = files / "flux.safetensors"
    weights = load_file(files / "author.safetensors")
    save_file({**weights, "4.pool.0.weight": torch.zeros(24, 6, 1, 1)}, path)
    return path, "the model has no weight layers.3.pool.0.weight"


def no_weights(files):
    path = files / "text.pth"
    path.write_text("<html>")
    return path, "text.pth"


def other_weights(files):
    path = files / "other.safetensors"
    save_file({"linear.weight": torch.zeros(2, 2)}, path)
    return path, "contains no decoder that hbr knows"


def tiny_weights_and_another(files):
    path = files / "mark.safetensors"
    save_file({"layers.0.weight": torch.zeros(4, 4, 3, 3), "made_for": torch.zeros(1)}, path)
    return path, "contains no decoder that hbr knows"


@pytest.mark.parametrize(
    "case", [own_decoder, half_a_decoder, flux, no_weights, other_weights, tiny_weights_and_another]
)
def test_what_is_no_decoder_is_one_line(files, case):
    path, told = case(files)
    with pytest.raises(WeightsError, match=re.escape(told)) as caught:
        read_decoder(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"block_out_channels": (64, 128)}, "latent.factor"),
        ({"kind": "tiny"}, "one width for all levels"),
        ({"block_out_channels": (8,) * 4}, "a multiple of norm_num_groups 32"),
        ({"patch_size": 3}, "patch_size"),
    ],
)
def test_a_configuration_checks_itself(changes, told):
    with pytest.raises(ConfigError, match=told):
        DecoderConfig(**changes)


def test_a_refiner_belongs_to_the_own_decoder():
    config = toy_decoders.CONFIG
    autoencoder = dataclasses.replace(config.autoencoder, decoder=DecoderConfig())
    from hbr.models.config import RefinerConfig

    with pytest.raises(ConfigError, match="refiner"):
        dataclasses.replace(config, autoencoder=autoencoder, refiner=RefinerConfig())
