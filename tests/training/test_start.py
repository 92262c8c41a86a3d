"""What a training starts from: published layouts at toy size, and what does not fit them."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_training import MODEL, settings, train

import toy_tagger
from hbr.config import ConfigError, from_dict
from hbr.image import read_photo
from hbr.models import OneStepRestorer, WeightsError, read_checkpoint
from hbr.models.importing import import_weights
from hbr.models.text import embed_text
from hbr.restoration import Restorer
from hbr.training.config import InitConfig, TrainConfig
from hbr.training.data import Pair
from hbr.training.loop import Trainer
from hbr.training.objectives import build_objective, distillation
from hbr.training.random_state import RandomState
from hbr.training.start import embed_negative, load_initial_weights

# ../shared/goldens/osediff/base
UNET = {
    "block_out_channels": [16, 16, 32, 32],
    "attention": [True, True, True, False],
    "attention_head_dim": [1, 1, 2, 2],
    "layers_per_block": 1,
    "cross_attention_dim": 64,
    "norm_num_groups": 8,
}
AUTOENCODER = {"block_out_channels": [8, 8, 16, 16], "layers_per_block": 1, "norm_num_groups": 8}
HFIE = {"kind": "hfie", "width": 64, "heads": 4, "encoder": toy_tagger.ENCODER}
TEXT = {"kind": "text", "width": 64, "text": "a person"}
DAPE = {"kind": "dape", "tagger": toy_tagger.TAGGER, "text": toy_tagger.TEXT}
VSD = {"weight": 1.0, "lora": {"rank": 2}}
ADAPTED = {"kind": "restoration", "lora": {"rank": 2}, "vsd": VSD}


@pytest.fixture(scope="module")
def base() -> Path:
    folder = Path(__file__).parents[2].parent / "shared" / "goldens" / "osediff" / "base"
    if not folder.is_dir():
        pytest.skip("../shared/goldens is missing: the start was NOT checked")
    return folder


@pytest.fixture(scope="module")
def ram(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_tagger.write_ram(tmp_path_factory.mktemp("ram"), base.parents[1])


def config_of(out: Path, prompt: dict, init: object, **changes: object) -> TrainConfig:
    """A training of the toy base for two steps."""
    model = {
        "autoencoder": {**AUTOENCODER, **changes.pop("autoencoder", {})},
        "unet": {**UNET, **changes.pop("unet", {})},
        "prompt": prompt,
        "native_size": 64,
    }
    values = {
        "model": model,
        "init": init,
        "start": "random",
        "phases": [{"steps": 2, "crop": 64, "batch": 1}],
        "optim": {"lr": 1e-3, "warmup": 0},
        "validation": {"photos": str(Path(__file__).parents[1] / "data"), "count": 1, "crop": 64},
        **changes,
    }
    return from_dict(TrainConfig, settings(out, **values))


def started(config: TrainConfig) -> OneStepRestorer:
    torch.manual_seed(0)
    model = OneStepRestorer(config.model)
    load_initial_weights(model, config)
    return model


def test_osdhuman_starts_from_a_base_and_ram(base, ram, tmp_path):
    config = config_of(tmp_path, HFIE, {"base": str(base), "image_encoder": str(ram)})
    model = started(config)
    io = load_file(base.parent / "io.safetensors")
    unet = load_file(base / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(model.unet.state_dict()[n], t) for n, t in unet.items())
    vae = load_file(base / "vae" / "diffusion_pytorch_model.safetensors")
    assert torch.equal(model.autoencoder.encoder.conv_in.weight, vae["encoder.conv_in.weight"])
    seen = load_file(base.parents[1] / "ram" / "io.safetensors")
    projected = model.prompt.encoder(seen["image_01"])
    assert torch.allclose(projected, seen["projected"], atol=1e-5)
    assert model((io["lq"] + 1) / 2).shape == io["lq"].shape


def test_freezing_the_encoder_leaves_query_attention_and_norm(base, ram, tmp_path):
    init = {"base": str(base), "image_encoder": str(ram)}
    config = config_of(tmp_path, HFIE, init, freeze=["prompt.encoder"], objective=ADAPTED)
    trainer = Trainer(config, report=lambda line: None)
    trained = {n.split(".")[1] for n in trainer.state.trained if n.startswith("prompt.")}
    assert trained == {"query", "attention", "norm"}
    others = [n for n in trainer.state.trained if not n.startswith("prompt.")]
    assert all(".lora_" in name for name in others)


def test_an_imported_image_encoder_is_the_same(base, ram, tmp_path):
    file = import_weights(ram, "ram", tmp_path / "encoder.safetensors")
    config = config_of(tmp_path, HFIE, {"image_encoder": str(file)})
    encoder = started(config).prompt.encoder.state_dict()
    both = {"base": str(base), "image_encoder": str(ram)}
    expected = started(config_of(tmp_path, HFIE, both)).prompt.encoder.state_dict()
    assert all(torch.equal(encoder[name], tensor) for name, tensor in expected.items())


def test_a_text_is_embedded_at_the_start(base, tmp_path):
    for text in ("a person", " "):
        model = started(config_of(tmp_path, {**TEXT, "text": text}, {"base": str(base)}))
        assert torch.equal(model.prompt.embedding, embed_text(base, text))


def test_a_text_comes_with_a_model_of_the_same(base, tmp_path):
    file = import_weights(base, "diffusers", tmp_path / "b.safetensors", prompt="a person")
    for init in (str(file), {"base": str(file)}):
        model = started(config_of(tmp_path, TEXT, init))
        assert torch.equal(model.prompt.embedding, embed_text(base, "a person"))
    with pytest.raises(
        ConfigError, match=r"'a cat'; it needs a text encoder, which .*b.safetensors lacks"
    ):
        started(config_of(tmp_path, {**TEXT, "text": "a cat"}, str(file)))
    null = started(config_of(tmp_path, {**TEXT, "text": " "}, str(file)))
    assert not null.prompt.embedding.any()  # a base without a text encoder: zeros


def test_dape_from_the_start_to_a_restored_photo(base, ram, tmp_path, call_hbr):
    """Tags of the HQ photo in training; those of the LQ photo, or the user's text, afterwards."""
    dape = toy_tagger.write_dape(tmp_path / "DAPE.pth")
    init = {"base": str(base), "image_encoder": str(ram), "dape": str(dape)}
    objective = {**ADAPTED, "prompt_from": "hq", "vsd": {**VSD, "negative_prompt": "blurred"}}
    config = config_of(tmp_path / "out", DAPE, init, objective=objective)
    file = Trainer(config, report=lambda line: None).run()
    made = import_weights(ram, "tagger", tmp_path / "m.safetensors", base=base, dape=dape)
    before, after = read_checkpoint(made).tensors, read_checkpoint(file).tensors
    assert before.keys() == after.keys()
    same = {n for n in before if torch.equal(before[n], after[n])}
    assert {n for n in before if n.startswith(("prompt.", "autoencoder.decoder"))} <= same
    assert any(n.startswith("unet.") for n in before.keys() - same)
    photo = next((Path(__file__).parents[1] / "data").glob("*.png"))
    out = tmp_path / "text.png"
    done = call_hbr("restore", "-i", photo, "-o", out, "--model", file, "--prompt", "a portrait")
    assert done.returncode == 0
    by_tags = Restorer.from_pretrained(file)(photo)
    assert (read_photo(out).pixels != by_tags.pixels).any()
    done = call_hbr("restore", "-i", photo, "-o", tmp_path / "x.png", "--prompt", "a")
    assert done.returncode == 2
    assert "nano takes no prompt: it has no text encoder" in done.stderr


def test_names_stand_for_what_was_fetched(base, ram, tmp_path, monkeypatch):
    weights = tmp_path / "weights"
    monkeypatch.setenv("HBR_WEIGHTS", str(weights))
    init = {"base": "sd-2.1-base", "image_encoder": "ram-swin-l"}
    with pytest.raises(WeightsError, match=r"`hbr fetch sd-2.1-base`"):
        started(config_of(tmp_path, DAPE, init))
    shutil.copytree(base, weights / "sd-2.1-base")
    with pytest.raises(WeightsError, match="`hbr fetch ram-swin-l`"):
        started(config_of(tmp_path, DAPE, init))
    (weights / "ram-swin-l").mkdir()
    shutil.copy(ram, weights / "ram-swin-l" / "ram_swin_large_14m.pth")
    with pytest.raises(WeightsError, match="`hbr fetch ram-tags`"):
        started(config_of(tmp_path, DAPE, init))
    (weights / "ram-tags").mkdir()
    for name in ("ram_tag_list.txt", "ram_tag_list_threshold.txt"):
        shutil.copy(ram.with_name(name), weights / "ram-tags")
    model = started(config_of(tmp_path, DAPE, init))
    assert model.prompt.tagger.list.value[1] == list(toy_tagger.THRESHOLDS)
    with pytest.raises(WeightsError, match="`hbr fetch dape` gets them"):
        started(config_of(tmp_path, DAPE, {**init, "dape": "dape"}))
    (weights / "dape").mkdir()
    toy_tagger.write_dape(weights / "dape" / "DAPE.pth")
    merged = started(config_of(tmp_path, DAPE, {**init, "dape": "dape"}))
    layer = model.prompt.tagger.layers[0].query.weight
    assert not torch.equal(merged.prompt.tagger.layers[0].query.weight, layer)
    (weights / "sd-2.1-base" / "unet" / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"unet/config.json.*`hbr fetch sd-2.1-base`"):
        started(config_of(tmp_path, DAPE, init))


def test_a_training_of_every_weight_goes_on_with_its_tags(base, ram, tmp_path):
    """Without adapters `init` is not read again: tokenizer and tags come out of the state."""
    init = {"base": str(base), "image_encoder": str(ram)}
    config = config_of(tmp_path, DAPE, init, save_every=1)
    first = Trainer(config, report=lambda line: None)
    first.run()
    second = Trainer(config, report=lambda line: None)
    image = torch.rand(1, 3, 64, 64)
    assert second.state.step == 2
    assert torch.equal(second.model.prompt(image), first.model.prompt(image))


# --- what does not fit


def one_line(error: pytest.ExceptionInfo) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_base_of_other_sizes_names_the_first(base, tmp_path):
    init = {"base": str(base)}
    wide = {"block_out_channels": [8, 8, 16, 24]}
    with pytest.raises(ConfigError, match=r"autoencoder.block_out_channels is \[8, 8, 16") as error:
        started(config_of(tmp_path, TEXT, init, autoencoder=wide))
    assert str(base) in one_line(error)
    with pytest.raises(ConfigError, match=r"unet.layers_per_block is 1 there, 2 in `model`"):
        started(config_of(tmp_path, TEXT, init, unet={"layers_per_block": 2}))


def test_a_cross_attention_of_another_width_is_named(base, tmp_path):
    narrow = {**HFIE, "width": 32}
    with pytest.raises(ConfigError, match=r"unet.cross_attention_dim is 64 there, the width") as e:
        started(config_of(tmp_path, narrow, {"base": str(base)}, unet={"cross_attention_dim": 32}))
    one_line(e)
    with pytest.raises(ConfigError, match=r"prompt.width is 32; it must be .*cross_attention_dim"):
        config_of(tmp_path, narrow, {"base": str(base)})


def test_the_v_predicting_base_is_refused(base, tmp_path):
    folder = tmp_path / "2.1"
    shutil.copytree(base, folder)
    file = folder / "scheduler" / "scheduler_config.json"
    file.chmod(0o644)
    values = json.loads(file.read_text())
    file.unlink()
    file.write_text(json.dumps({**values, "prediction_type": "v_prediction"}))
    with pytest.raises(WeightsError, match="v_prediction"):
        started(config_of(tmp_path, TEXT, {"base": str(folder)}))


def test_a_ram_without_image_proj_is_named(base, ram, tmp_path):
    tensors = torch.load(ram, weights_only=True)["model"]
    del tensors["image_proj.weight"]
    torch.save({"model": tensors}, tmp_path / "ram.pth")
    init = {"base": str(base), "image_encoder": str(tmp_path / "ram.pth")}
    for prompt in (HFIE, DAPE):
        with pytest.raises(WeightsError, match=r"ram.pth: the weight image_proj.weight is miss"):
            started(config_of(tmp_path, prompt, init))


def test_another_image_encoder_is_named(base, ram, tmp_path):
    init = {"base": str(base), "image_encoder": str(ram)}
    other = {**HFIE, "encoder": {**toy_tagger.ENCODER, "num_heads": [2, 2, 2, 4]}}
    with pytest.raises(ConfigError, match=r"prompt.encoder.num_heads is \[2, 2, 4, 4\] there"):
        started(config_of(tmp_path, other, init))
    with pytest.raises(ConfigError, match="a text prompt does not use an image"):
        started(config_of(tmp_path, TEXT, init))
    tagger = {**toy_tagger.TAGGER, "n_tags": 6}
    with pytest.raises(ConfigError, match=r"prompt.tagger.n_tags is 5 there, 6 in `model`"):
        started(config_of(tmp_path, {**DAPE, "tagger": tagger}, init))
    text = {**toy_tagger.TEXT, "layers": 3}
    with pytest.raises(
        ConfigError, match=r"a different text encoder: prompt.text.layers is 2 there"
    ):
        started(config_of(tmp_path, {**DAPE, "text": text}, init))


def test_half_a_dape_says_what_is_missing(base, ram, tmp_path):
    with pytest.raises(ConfigError, match=r"needs init.image_encoder: a RAM checkpoint"):
        started(config_of(tmp_path, DAPE, {"base": str(base)}))
    with pytest.raises(ConfigError, match=r"needs init.base with a text encoder"):
        started(config_of(tmp_path, DAPE, {"image_encoder": str(ram)}))


@pytest.fixture
def toy_prior(base, tmp_path) -> Path:
    return import_weights(base, "diffusers", tmp_path / "prior.safetensors")


def test_settings_that_need_a_start_are_refused_at_once(tmp_path):
    for prompt, message in (
        (TEXT, r"model.prompt.text is 'a person'; it must be blank without an `init`"),
        (DAPE, r"init is None; it must be given: the prompt `dape` needs"),
    ):
        with pytest.raises(ConfigError, match=message):
            config_of(tmp_path, prompt, None)
    config_of(tmp_path, {**TEXT, "text": " "}, None)
    vsd = {"vsd": {"negative_prompt": "blurred"}, "lora": {}}
    with pytest.raises(ConfigError, match="negative_prompt is 'blurred'; it must be null without"):
        config_of(tmp_path, HFIE, None, objective={"kind": "restoration", **vsd})


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ({}, "init.base is None; it must be given, or `image_encoder`"),
        ({"base": "b", "stage1": "s"}, "init.stage1 is .*; it must be left out for models of kind"),
        ({"base": "b", "dape": "d"}, "init.dape is .*; it must be left out"),
        ({"base": "b", "imgae_encoder": "r"}, "init.imgae_encoder is not known"),
        (3, "init is 3; it must be a path"),
    ],
)
def test_a_wrong_start_is_named(tmp_path, init, message):
    with pytest.raises(ConfigError, match=message):
        config_of(tmp_path, HFIE, init)


def test_a_start_is_plain_data(tmp_path):
    config = config_of(tmp_path, HFIE, {"base": "sd-2.1-base", "image_encoder": "ram-swin-l"})
    assert config.init == InitConfig(base=Path("sd-2.1-base"), image_encoder=Path("ram-swin-l"))
    assert config_of(tmp_path, HFIE, "m.safetensors").init == Path("m.safetensors")


# --- the negative prompt, and the prompt from the HQ image


def test_the_prior_is_guided_away_from_the_negative_prompt(base, tmp_path):
    """Against the goldens: what the reference guides away from is a text too."""
    io = load_file(base.parent / "io.safetensors")
    vsd = {**VSD, "negative_prompt": "painting, blurred"}
    objective = {**ADAPTED, "vsd": vsd}
    config = config_of(tmp_path, TEXT, {"base": str(base)}, objective=objective)
    trainer = Trainer(config, report=lambda line: None)
    negative = embed_negative(trainer.model, config)
    assert torch.equal(negative, embed_text(base, "painting, blurred"))
    p, z = io["prompt_embeds"], io["vsd_latents"].clone().requires_grad_()

    def loss(away):
        draws = RandomState(torch.Generator().manual_seed(3))
        return distillation(trainer.model, z, p, config.objective.vsd, draws, away)

    assert not torch.allclose(loss(negative), loss(None))
    assert torch.allclose(loss(torch.zeros(5, 64)), loss(None), rtol=1e-4)
    assert loss(p[0]).item() != loss(negative).item()


def test_a_negative_prompt_needs_a_text_encoder(base, toy_prior, tmp_path):
    objective = {**ADAPTED, "vsd": {**VSD, "negative_prompt": "blurred"}}
    config = config_of(tmp_path, {**TEXT, "text": ""}, str(toy_prior), objective=objective)
    with pytest.raises(ConfigError, match=r"negative_prompt is 'blurred'; it needs a text encod"):
        Trainer(config, report=lambda line: None)


@pytest.mark.parametrize("source", ["lq", "hq"])
def test_training_and_validation_make_the_prompt_of_the_same_image(tmp_path, source):
    values = settings(tmp_path, objective={"kind": "restoration", "prompt_from": source})
    config = from_dict(TrainConfig, values)
    torch.manual_seed(0)
    model = OneStepRestorer(config.model)
    seen = []
    model.prompt.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    objective = build_objective(config)
    hq, lq = torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    pair = Pair(hq=hq, lq=lq)
    objective.losses(model, pair, config.loss, RandomState(torch.Generator()))
    objective.validate(model, pair, 0)
    expected = pair.hq if source == "hq" else pair.lq
    assert len(seen) == 2
    assert all(torch.equal(image, expected) for image in seen)


def test_what_another_training_changed_can_be_added(tmp_path):
    """Its weights move by the same amount, wherever they start; others stay the base's."""
    before = train(settings(tmp_path / "before"))
    after = train(settings(tmp_path / "after", init=str(before)))
    refined = {**MODEL, "refiner": {"width": 8, "blocks": 1}}
    base = train(settings(tmp_path / "base", model=refined, init=str(before), seed=7))
    init = {"base": str(base), "difference": [str(before), str(after)]}
    config = from_dict(TrainConfig, settings(tmp_path / "both", model=refined, init=init))
    model = OneStepRestorer(config.one_step)
    load_initial_weights(model, config)
    was, moved = load_file(base), dict(model.state_dict())
    old, new = load_file(before), load_file(after)
    for name, tensor in moved.items():
        change = new[name] - old[name] if name in old else torch.zeros(())
        torch.testing.assert_close(tensor, was[name] + change, atol=1e-6, rtol=0)
    assert any(not torch.equal(new[name], old[name]) for name in old)

    other = settings(tmp_path / "other", init={**init, "base": str(before)})
    other["init"]["difference"] = [str(before), str(base)]  # has a refiner
    with pytest.raises(ConfigError, match=r"init\.difference: refiner"):
        load_initial_weights(model, from_dict(TrainConfig, other))
    with pytest.raises(ConfigError, match="difference"):
        InitConfig(difference=(before, after), image_encoder=before)
