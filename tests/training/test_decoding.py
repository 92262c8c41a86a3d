"""Distilling a decoder: cut from its teacher, trained alone, and used by `--decoder`."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file
from toy_training import DATA, LATENT, NARROW, distilling, train

import hbr
import toy_models
from hbr.config import ConfigError, from_dict
from hbr.files import sha256
from hbr.image import read_photo
from hbr.metrics import psnr
from hbr.models import RestorerConfig, load_model, save_checkpoint
from hbr.models.autoencoder_config import DecoderConfig, LatentSpace
from hbr.models.decoder_files import read_decoder
from hbr.models.decoders import MARK, build_decoder
from hbr.models.identity import start_at_identity
from hbr.models.onestep import OneStepRestorer
from hbr.models.pruning import fold_post_quant, prune_decoder
from hbr.training.config import TrainConfig
from hbr.training.data import Pair, seeded
from hbr.training.loop import Trainer
from hbr.training.losses import TEACHER_DECODER
from hbr.training.objectives import build_objective
from hbr.training.random_state import RandomState

TINY = {**NARROW, "kind": "tiny", "block_out_channels": [12, 12], "patch_size": 2}
WIDE = DecoderConfig(
    latent=LatentSpace(channels=4, factor=4, scaling_factor=0.18215),
    block_out_channels=(16, 32, 32),
    layers_per_block=1,
    norm_num_groups=8,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A model whose autoencoder works."""
    config = from_dict(RestorerConfig, toy_models.TRAINED)
    torch.manual_seed(0)
    model = OneStepRestorer(config)
    start_at_identity(model)
    path = tmp_path_factory.mktemp("base") / "base.safetensors"
    return save_checkpoint(path, config, model.state_dict())


def test_a_cut_to_the_same_width_is_the_same_decoder():
    torch.manual_seed(0)
    wide = build_decoder(WIDE)
    made = build_decoder(WIDE)
    made.load_state_dict({**made.state_dict(), **prune_decoder(wide.state_dict(), WIDE, WIDE)})
    z = torch.randn(1, 4, 5, 6)
    with torch.no_grad():
        torch.testing.assert_close(made(z), wide(z), rtol=0, atol=0)


@pytest.mark.parametrize("groups", [8, 4])
def test_a_cut_keeps_the_weightiest_channels_of_each_group(groups):
    torch.manual_seed(0)
    weights = build_decoder(WIDE).state_dict()
    rows = torch.tensor([1, 2, 5, 7, 8, 11, 12, 14, 17, 19, 20, 23, 26, 27, 28, 31])  # 2 of each 4
    weights["conv_in.weight"][rows] *= 100
    narrow = dataclasses.replace(WIDE, block_out_channels=(8, 16, 16), norm_num_groups=groups)
    made = prune_decoder(weights, WIDE, narrow)
    assert torch.equal(made["conv_in.weight"], weights["conv_in.weight"][rows])
    assert torch.equal(
        made["mid_block.resnets.0.norm1.weight"], weights["mid_block.resnets.0.norm1.weight"][rows]
    )
    query = weights["mid_block.attentions.0.to_q.weight"]
    assert torch.equal(made["mid_block.attentions.0.to_q.weight"], query[rows][:, rows])
    decoder = build_decoder(narrow)
    names = set(decoder.state_dict()) - {MARK}
    assert set(made) == names
    decoder.load_state_dict({**decoder.state_dict(), **made})  # every shape fits


def test_a_cut_begins_nearer_to_its_teacher_than_chance(base):
    teacher = load_model(base)
    ours = DecoderConfig(**{**NARROW, "latent": LatentSpace(**LATENT), "block_out_channels": (16,)})
    own = teacher.autoencoder
    folded = fold_post_quant(
        own.decoder.state_dict(), own.post_quant_conv.weight, own.post_quant_conv.bias
    )
    cut = prune_decoder(folded, teacher.config.autoencoder.decoding, ours)
    z = torch.randn(1, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = own.decode(z).sample
        torch.manual_seed(0)
        decoder = build_decoder(ours)
        by_chance = (decoder(z) - wanted).square().mean()
        decoder.load_state_dict({**decoder.state_dict(), **cut})
        assert (decoder(z) - wanted).square().mean() < by_chance


def test_the_convolution_before_the_decoder_goes_into_its_first():
    torch.manual_seed(0)
    decoder, conv = build_decoder(WIDE).double(), torch.nn.Conv2d(4, 4, 1).double()
    z = torch.randn(1, 4, 6, 6).double()
    made = fold_post_quant(decoder.state_dict(), conv.weight, conv.bias)
    first = torch.nn.Conv2d(4, 32, 3, padding=1).double()
    first.load_state_dict({n: made[f"conv_in.{n}"] for n in ("weight", "bias")})
    with torch.no_grad():
        expected, got = decoder.conv_in(conv(z)), first(z)
    torch.testing.assert_close(got[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"block_out_channels": (8, 16, 32)}, r"made narrower, equal where it is"),
        ({"block_out_channels": (16, 64, 64)}, r"made narrower"),
        ({"layers_per_block": 2}, r"decoder\.layers_per_block"),
        ({"mid_attention": False}, r"decoder\.mid_attention"),
    ],
)
def test_what_cannot_be_cut_is_said(changes, told):
    weights = build_decoder(WIDE).state_dict()
    with pytest.raises(ConfigError, match=told):
        prune_decoder(weights, WIDE, dataclasses.replace(WIDE, **changes))


@pytest.mark.parametrize("decoder", [NARROW, TINY])
def test_only_the_decoder_is_trained_and_serves_its_model(tmp_path, base, decoder):
    path = train(distilling(tmp_path, base, decoder))
    made, given = load_file(path), load_file(base)
    for name in given:
        if not name.startswith(("autoencoder.decoder", "autoencoder.post_quant_conv")):
            assert torch.equal(made[name], given[name]), name
    assert not [name for name in made if "post_quant_conv" in name]
    alone = read_decoder(tmp_path / "decoder.safetensors")
    assert alone.config == load_model(path).config.autoencoder.decoder
    for name, tensor in alone.tensors.items():
        assert torch.equal(tensor, made[f"autoencoder.decoder.{name}"]), name
    assert float(alone.tensors[MARK].norm()) == pytest.approx(1)
    file = tmp_path / "decoder.safetensors"
    restorer = hbr.Restorer.from_pretrained(base, dtype="float32", decoder=file)
    photo = DATA / "purple.jpg"
    with_file = restorer(photo, size=64)
    whole = hbr.Restorer.from_pretrained(path, dtype="float32")(photo, size=64)
    assert (with_file.pixels == whole.pixels).all()
    assert with_file.provenance["decoder"] == {"name": str(file), "sha256": sha256(file)}
    own = hbr.Restorer.from_pretrained(base, dtype="float32")(photo, size=64)
    assert (own.pixels != with_file.pixels).any()


@pytest.mark.slow
def test_it_comes_nearer_to_its_teacher(tmp_path, base):
    """One that begins at random; the steps after its first are what brings it nearer."""

    def trained(name, steps):
        phases = [{"steps": steps, "crop": 32, "batch": 4}]
        optim = {"lr": 3e-3, "warmup": 0, "decay": 0, "ema": 0.5}
        more = {"phases": phases, "optim": optim, "save_every": 100}
        return load_model(train(distilling(tmp_path / name, base, TINY, **more)))

    teacher = load_model(base)
    pixels = read_photo(DATA / "purple.jpg").pixels[:64, :64]
    z = teacher.encode(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 255)
    wanted = teacher.decode(z).clamp(0, 1)
    first, last = (
        float(psnr(trained(name, steps).decode(z).clamp(0, 1), wanted))
        for name, steps in (("first", 1), ("last", 40))
    )
    assert last > first + 2


def test_it_resumes_bit_for_bit(tmp_path, base):
    values = distilling(tmp_path / "whole", base)
    whole = load_file(train(values))
    values = distilling(tmp_path / "parts", base, save_every=2)
    trainer = Trainer(from_dict(TrainConfig, values), report=lambda line: None)
    saved = trainer._save

    def stop():
        saved()
        if trainer.state.step == 4:
            raise KeyboardInterrupt

    trainer._save = stop
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    again = load_file(train(values))
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_the_discriminator_is_trained_and_left_out_of_the_files(tmp_path, base):
    objective = {"kind": "decoder", "pruned": True, "discriminator": {"width": 4}}
    loss = {"l1": 1.0, "adversarial": 0.1}
    values = distilling(tmp_path, base, objective=objective, loss=loss)
    trainer = Trainer(from_dict(TrainConfig, values), report=lambda line: None)
    before = trainer.model.discriminator.last.weight.detach().clone()
    path = trainer.run()
    assert not torch.equal(trainer.model.discriminator.last.weight, before)
    assert not [name for name in load_file(path) if "discriminator" in name]
    assert "loss/adversarial" in (tmp_path / "curves.jsonl").read_text()


def losses(base, tmp_path, **objective):
    values = distilling(tmp_path, base, objective={"kind": "decoder", **objective})
    config = from_dict(TrainConfig, values)
    trainer = Trainer(config, report=lambda line: None)
    networks = {TEACHER_DECODER: trainer.objective and _teacher(base)}
    built = build_objective(config, networks)
    generator = torch.Generator().manual_seed(0)
    hq, lq = (torch.rand(2, 3, 32, 32, generator=generator) for _ in range(2))
    trainer.model.eval()
    return (
        trainer.model,
        built.losses(trainer.model, Pair(hq=hq, lq=lq), config.loss, RandomState(seeded(0))),
        hq,
        lq,
    )


def _teacher(base):
    from hbr.training.config import InitConfig
    from hbr.training.decoding import load_teacher_decoder

    return load_teacher_decoder(InitConfig(base=base), "cpu")


def test_restored_latents_follow_the_teacher_and_encoded_ones_the_photo(tmp_path, base):
    model, made, hq, lq = losses(base, tmp_path, restored=0.5, target="photo", latent=0.3)
    own = load_model(base)
    with torch.no_grad():
        z = torch.cat([own.restore_latent(lq[:1]), own.encode(hq[1:])])
        image = model.decode(z)
        wanted = torch.cat([own(lq[:1]).clamp(0, 1), hq[1:]])
        latent = (own.encode(image) - own.encode(wanted)).abs().mean()
    assert set(made.terms) == {"l1", "latent"}
    torch.testing.assert_close(made.terms["l1"], (image - wanted).abs().mean())
    torch.testing.assert_close(made.terms["latent"], 0.3 * latent)
    assert made.then is None


@pytest.mark.parametrize("sees_input", [False, True])
def test_the_teacher_has_the_refiner_of_its_model(tmp_path, base, sees_input):
    refiner = {"width": 8, "blocks": 1, "patch_size": 2, "sees_input": sees_input}
    refined = {**toy_models.TRAINED, "refiner": refiner}
    config = from_dict(RestorerConfig, refined)
    torch.manual_seed(0)
    model = OneStepRestorer(config)
    for weight in model.refiner.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    path = save_checkpoint(tmp_path / "refined.safetensors", config, model.state_dict())
    lq = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        z = model.restore_latent(lq)
        torch.testing.assert_close(_teacher(path)(z, lq), load_model(path).decode(z, lq))
    assert "refiner" not in str(list(load_file(train(distilling(tmp_path / "out", path)))))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"init": None}, "init.base is None; it must be given"),
        ({"model": toy_models.TRAINED}, "model.autoencoder.decoder is None"),
        ({"loss": {"adversarial": 0.1}}, "0 without `objective.discriminator`"),
        ({"objective": {"kind": "decoder", "restored": 2}}, "restored"),
        ({"objective": {"kind": "decoder", "latent": -1}}, "latent"),
    ],
)
def test_a_recipe_that_cannot_be_is_said(tmp_path, base, changes, told):
    with pytest.raises(ConfigError, match=told):
        from_dict(TrainConfig, distilling(tmp_path, base, **changes))


def test_a_base_of_other_latents_is_said(tmp_path, base):
    other = {**toy_models.TRAINED["autoencoder"], "latent_channels": 12}
    config = from_dict(RestorerConfig, {**toy_models.TRAINED, "autoencoder": other})
    path = save_checkpoint(
        tmp_path / "other.safetensors", config, OneStepRestorer(config).state_dict()
    )
    with pytest.raises(ConfigError, match=r"autoencoder\.latent_channels is 12 there"):
        train(distilling(tmp_path / "out", path))
