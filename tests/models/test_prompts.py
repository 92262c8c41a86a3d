"""Prompt extractors behind one interface: tags, texts, HFIE; files that hold all they need."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import hbr
import toy_models
import toy_tagger
from hbr.config import ConfigError, from_dict
from hbr.models import RestorerConfig, WeightsError, load_model, read_checkpoint, save_checkpoint
from hbr.models.checkpoint import empty
from hbr.models.config import DAPEConfig, HFIEConfig, TextPromptConfig
from hbr.models.files import read_metadata
from hbr.models.importing import ArgumentError, import_weights
from hbr.models.onestep import build_prompt
from hbr.models.tagger import write_list
from hbr.models.text import embed_text, load_text_encoder


@pytest.fixture(scope="module")
def base(goldens: Path) -> Path:
    return goldens / "osediff" / "base"


@pytest.fixture(scope="module")
def ram(goldens: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_tagger.write_ram(tmp_path_factory.mktemp("ram"), goldens)


@pytest.fixture(scope="module")
def dape_file(base: Path, ram: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A restorer whose prompt is the tags: the base, RAM's tagger, DAPE."""
    folder = tmp_path_factory.mktemp("dape")
    dape = toy_tagger.write_dape(folder / "DAPE.pth")
    return import_weights(ram, "tagger", folder / "dape.safetensors", base=base, dape=dape)


PROMPT = {"kind": "dape", "tagger": toy_tagger.TAGGER, "text": toy_tagger.TEXT}


def test_every_kind_gives_a_prompt_of_its_shape():
    encoder = {"image_size": 32, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2]}
    encoder |= {"window_size": 4, "proj_dim": 16}
    hfie = {"kind": "hfie", "n_queries": 5, "width": 16, "heads": 2, "encoder": encoder}
    for values in (hfie, {"kind": "text", "n_queries": 5, "width": 16}):
        unet = {"cross_attention_dim": 16}
        config = from_dict(RestorerConfig, {"prompt": values, "unet": unet}).prompt
        prompt = build_prompt(config)
        assert prompt(torch.rand(2, 3, 40, 50)).shape == (2, 5, 16)
        assert not hasattr(prompt, "embed")
    assert (config.n_queries, config.width) == (5, 16)


def test_the_generator_of_the_paper():
    """SD 2.1-base, T_L = 999, p = HFIE(I_L) of 77×1024 of which query and attention are trained."""
    config = RestorerConfig()
    assert config.timestep == 999
    assert isinstance(config.prompt, HFIEConfig)
    assert (config.prompt.n_queries, config.prompt.width) == (77, 1024)
    model = empty(config).to("meta")
    image = torch.rand(1, 3, 512, 512, device="meta")
    assert model.prompt(image).shape == (1, 77, 1024)
    assert model(image).shape == (1, 3, 512, 512)
    assert model.alpha_bar**0.5 == pytest.approx(0.0682649, abs=1e-7)
    model.prompt.encoder.requires_grad_(False)
    trained = {n for n, parameter in model.prompt.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[0] for name in trained} == {"query", "attention", "norm"}


def test_the_embedder_samples_an_image_as_the_published_tagger_does():
    """Four times too large, each pixel is the mean of the inner 2x2 of a square of 4x4."""
    encoder = toy_models.build().prompt.encoder
    image = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    rows = (image[..., 1::4, :] + image[..., 2::4, :]) / 2
    sampled = (rows[..., 1::4] + rows[..., 2::4]) / 2
    assert sampled.shape[-2:] == (encoder.image_size,) * 2
    with torch.no_grad():
        assert torch.allclose(encoder.tokens(image), encoder.tokens(sampled), atol=1e-5)


def test_tags_become_the_prompt_of_their_text(dape_file, base):
    model = load_model(dape_file)
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    tags = model.prompt.tagger.tags(images)
    assert model.prompt.describe(images) == [", ".join(names) for names in tags]
    expected = torch.stack([embed_text(base, ", ".join(names)) for names in tags])
    assert torch.allclose(model.prompt(images), expected, atol=1e-6)
    model.prompt.tagger.list.put(write_list(toy_tagger.TAGS, [0.0] * 5))
    everything = embed_text(base, "bride, man, red carpet, sky, umbrella")
    assert torch.allclose(model.prompt(images)[1], everything, atol=1e-6)
    model.prompt.template = "{tags}, ,"
    assert model.prompt.describe(images)[0].endswith("umbrella, ,")


def test_one_file_holds_all_of_it(dape_file, base, ram, tmp_path):
    """Weights, tokenizer and list of tags: the files that it was made of are not needed."""
    alone = Path(shutil.copy(dape_file, tmp_path / "alone.safetensors"))
    model = load_model(alone)
    assert isinstance(model.config.prompt, DAPEConfig)
    assert model.prompt.tagger.list.value == (list(toy_tagger.TAGS), list(toy_tagger.THRESHOLDS))
    for text in ("a photo, of it", "", " ", "Ünïcode 照片 <|endoftext|> x", "photo " * 200):
        assert torch.equal(model.embed(text)[0], embed_text(base, text))
    restored = hbr.Restorer(model)(torch.rand(3, 70, 50))
    assert restored.pixels.shape == (70, 50, 3)


def test_the_file_survives_another_round(dape_file, tmp_path):
    checkpoint = read_checkpoint(dape_file)
    again = save_checkpoint(
        tmp_path / "half.safetensors", checkpoint.config, checkpoint.tensors, dtype=torch.bfloat16
    )
    _, shapes = read_metadata(again)
    assert shapes == read_metadata(dape_file)[1]
    images = torch.rand(1, 3, 64, 64)
    for dtype in (torch.float16, torch.bfloat16):
        model = load_model(again, dtype=dtype)
        assert model.prompt(images).dtype == dtype
        assert model(images).isfinite().all()
        assert model(images).shape == images.shape
    assert model.prompt.tagger.list.value == (list(toy_tagger.TAGS), list(toy_tagger.THRESHOLDS))


def test_a_text_stands_in_for_the_tags(dape_file, toy, goldens):
    restorer = hbr.Restorer.from_pretrained(dape_file, device="cpu", dtype="float32")
    assert restorer.capabilities.takes_prompt
    photo = torch.rand(3, 80, 60, generator=torch.Generator().manual_seed(0))
    own = restorer(photo, tile=128, batch=2)
    written = restorer(photo, tile=128, batch=2, prompt="a portrait")
    assert (own.pixels != written.pixels).any()
    assert written.provenance["prompt"] == "a portrait"
    with torch.no_grad():
        p = restorer.model.embed("a portrait")
        tile = torch.nn.functional.pad(photo[None, :, :64], (0, 4))
        expected, tags = restorer.model(tile, p), restorer.model(tile)
    assert not torch.allclose(expected, tags)
    with pytest.raises(ValueError, match="toy takes no prompt: it has no text encoder"):
        hbr.Restorer(toy, name="toy")(photo, prompt="a portrait")


def test_nothing_of_it_is_trained_and_nothing_of_it_keeps_a_graph(dape_file):
    config = read_checkpoint(dape_file).config.prompt
    prompt = build_prompt(config)
    assert not any(parameter.requires_grad for parameter in prompt.parameters())


def test_the_published_osediff_goes_over_it(dape_file, goldens, tmp_path):
    """OSEDiff as it is published: its U-Net, and the tags of each image."""
    out = tmp_path / "osediff.safetensors"
    import_weights(goldens / "osediff" / "osediff.pkl", "osediff", out, base=dape_file)
    io = load_file(goldens / "osediff" / "io.safetensors")
    model = load_model(out)
    with torch.no_grad():
        restored = model((io["lq"] + 1) / 2, io["prompt_embeds"])
    assert torch.allclose(restored * 2 - 1, io["restored"], atol=1e-4)
    assert isinstance(model.config.prompt, DAPEConfig)


def test_half_of_a_file_is_an_error(dape_file, tmp_path):
    tensors = dict(read_checkpoint(dape_file).tensors)
    metadata, _ = read_metadata(dape_file)

    def changed(**values):
        path = tmp_path / "changed.safetensors"
        save_file({**tensors, **values}, path, metadata=metadata)
        return load_model(path)

    image = torch.rand(1, 3, 64, 64)
    listing, tokenizer = "prompt.tagger.list.data", "prompt.text.tokenizer.data"
    with pytest.raises(WeightsError, match="list of tags is missing or damaged"):
        changed(**{listing: torch.tensor([255] * 9, dtype=torch.uint8) // 4}).prompt(image)
    with pytest.raises(WeightsError, match="a text in the model file is damaged"):
        changed(**{listing: torch.full((9,), 255, dtype=torch.uint8)}).prompt(image)
    with pytest.raises(WeightsError, match=r"has 3 tags; its tagger knows 5"):
        changed(**{listing: tensors[listing][:30]}).prompt(image)
    with pytest.raises(WeightsError, match="tokenizer is missing or damaged"):
        changed(**{tokenizer: tensors[tokenizer][:50]}).embed("a")
    with pytest.raises(WeightsError, match=r"tokenizer.data is \(1, 2\)"):
        changed(**{tokenizer: torch.zeros(1, 2, dtype=torch.uint8)})


def test_a_tagger_needs_what_it_needs(ram, base, dape_file, toy_file, tmp_path):
    out = tmp_path / "o.safetensors"
    with pytest.raises(ArgumentError, match="--kind tagger needs --base"):
        import_weights(ram, "tagger", out, base=toy_file)
    with pytest.raises(ArgumentError, match="needs --kind tagger"):
        import_weights(ram, "ram", out, dape=ram)
    with pytest.raises(ArgumentError, match="--prompt"):
        import_weights(ram, "tagger", out, base=base, prompt="a")
    bare = tmp_path / "bare"
    shutil.copytree(base, bare)
    shutil.rmtree(bare / "text_encoder")
    with pytest.raises(WeightsError, match="has no text_encoder/"):
        import_weights(ram, "tagger", out, base=bare)
    assert not out.exists()


def test_a_template_has_a_place_for_the_tags():
    with pytest.raises(ConfigError, match="template is 'a photo'"):
        DAPEConfig(template="a photo")


def test_the_text_encoder_is_read_with_its_sizes(base):
    config, encoder = load_text_encoder(base)
    assert config == from_dict(DAPEConfig, PROMPT).text
    assert encoder(["a", "b"]).shape == (2, 77, 64)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert TextPromptConfig().text == " "
