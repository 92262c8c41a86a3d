"""The refiner: it starts as the identity, learns, and goes wherever its model goes."""

import pytest
import torch
from toy_training import MODEL, settings, train

from hbr.config import ConfigError, from_dict
from hbr.models import RestorerConfig, WeightsError, load_model, read_checkpoint, save_checkpoint
from hbr.models.exporting.folder import export_folder
from hbr.models.importing import import_weights
from hbr.models.onestep import OneStepRestorer
from hbr.models.part_files import load_prompt, load_refiner
from hbr.training.config import LossConfig, TrainConfig
from hbr.training.data import seeded
from hbr.training.losses import PixelTerms, random_squares
from hbr.training.random_state import RandomState
from hbr.training.start import load_initial_weights

REFINED = {**MODEL, "refiner": {"width": 8, "blocks": 2}}
SEEING = {**MODEL, "refiner": {"width": 8, "blocks": 2, "sees_input": True}}


@torch.no_grad()
def test_it_starts_as_the_identity_and_sees_across_patches():
    torch.manual_seed(0)
    model = OneStepRestorer(from_dict(RestorerConfig, REFINED)).eval()
    image = torch.rand(1, 3, 32, 32)
    assert torch.equal(model.refiner(image), image)
    torch.nn.init.normal_(model.refiner.conv_out.weight)
    changed = image.clone()
    changed[..., 15, 15] += 0.5  # the corner of a 4×4 patch
    moved = (model.refiner(changed) - model.refiner(image)).abs().amax(dim=(0, 1)) > 1e-4
    assert moved[16, 16]  # of the next patch
    assert not moved[:2].any()  # its reach: six convolutions, on squares of 2×2


def test_a_training_starts_one_on_a_model_without(tmp_path):
    plain = train(settings(tmp_path / "plain"))
    refined = train(settings(tmp_path / "refined", model=REFINED, init=str(plain)))
    assert read_checkpoint(refined).config.refiner is not None
    assert load_model(refined).refiner.conv_out.weight.abs().max() > 0  # trained
    again = settings(tmp_path / "again", model=REFINED, init=str(refined), freeze=["refiner"])
    assert torch.equal(
        load_model(train(again)).refiner.conv_out.weight,
        load_model(refined).refiner.conv_out.weight,
    )
    with pytest.raises(ConfigError, match="refiner"):
        train(settings(tmp_path / "no", init=str(refined)))


def test_one_that_sees_the_input_goes_on_from_one_that_does_not(tmp_path):
    refined = train(settings(tmp_path / "refined", model=REFINED))
    before = load_model(refined).eval()
    image = torch.rand(1, 3, 64, 64)
    values = settings(tmp_path / "seeing", model=SEEING, init=str(refined))
    model = OneStepRestorer(from_dict(RestorerConfig, SEEING)).eval()
    load_initial_weights(model, from_dict(TrainConfig, values))
    with torch.no_grad():
        torch.testing.assert_close(model(image), before(image), atol=1e-6, rtol=1e-5)
    seeing = train(values)
    weight = load_model(seeing).refiner.conv_in.weight
    assert weight.shape[1] == 2 * before.refiner.conv_in.weight.shape[1]
    assert weight.chunk(2, dim=1)[1].abs().max() > 0  # it has begun to use it
    # what a training without changed is added to one with
    init = {"base": str(seeing), "difference": [str(refined), str(refined)]}
    load_initial_weights(model, from_dict(TrainConfig, {**values, "init": init}))
    torch.testing.assert_close(model.refiner.conv_in.weight, weight)
    with pytest.raises(ConfigError, match=r"init: .*refiner"):
        train(settings(tmp_path / "no", model=REFINED, init=str(seeing)))
    with pytest.raises(ValueError, match="needs the input"):
        model.decode(model.encode(image))


def test_what_it_sees_is_the_input_of_the_model():
    torch.manual_seed(0)
    model = OneStepRestorer(from_dict(RestorerConfig, SEEING)).eval().requires_grad_(False)
    torch.nn.init.normal_(model.refiner.conv_out.weight)
    lq, other = torch.rand(2, 1, 3, 64, 64)
    z = model.restore_latent(lq)
    assert torch.equal(model.decode(z, lq), model(lq))
    moved = (model.decode(z, other) - model(lq)).abs().amax(dim=(0, 1))
    assert moved.min() > 0
    # a decoded square sees the same square of the input
    pixels = PixelTerms(LossConfig(l1=1.0), decode_crop=32)
    compared = pixels(model, z, lq, lq, RandomState(seeded(1)))
    cut, seen = random_squares(z, (lq,), 32, RandomState(seeded(1)))
    torch.testing.assert_close(compared.image, model.decode(cut, seen))


def test_only_a_restoration_may_see_its_input(tmp_path):
    values = settings(tmp_path, model=SEEING, objective={"kind": "autoencoder"})
    with pytest.raises(ConfigError, match=r"sees_input is True; it must be false unless"):
        from_dict(TrainConfig, values)


@torch.no_grad()
@pytest.mark.parametrize("config", [REFINED, SEEING], ids=["decoded", "seeing"])
def test_a_folder_carries_it(config, tmp_path):
    torch.manual_seed(0)
    model = OneStepRestorer(from_dict(RestorerConfig, config)).eval()
    torch.nn.init.normal_(model.refiner.conv_out.weight)
    file = save_checkpoint(tmp_path / "model.safetensors", model.config, model.state_dict())
    folder = export_folder(file, tmp_path / "folder")
    card = (folder / "README.md").read_text()
    program = {}
    exec(card.split("```python\n")[1].split("```")[0].replace('"."', repr(str(folder))), program)
    image = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(program["restore"](image), model(image), atol=1e-4, rtol=1e-4)
    back = read_checkpoint(import_weights(folder, "auto", tmp_path / "back.safetensors"))
    assert back.config == model.config
    assert all(torch.equal(back.tensors[name], t) for name, t in model.state_dict().items())
    with pytest.raises(WeightsError, match="does not contain a prompt extractor"):
        load_prompt(folder / "refiner.safetensors")
    with pytest.raises(WeightsError, match="does not contain a refiner"):
        load_refiner(folder / "prompt.safetensors")
    (folder / "refiner.safetensors").unlink()
    with pytest.raises(WeightsError, match="refiner"):
        import_weights(folder, "auto", tmp_path / "no.safetensors")


@pytest.mark.parametrize(
    ("refiner", "message"),
    [
        ({"width": 0}, "refiner.width is 0"),
        ({"blocks": 0}, "refiner.blocks is 0"),
        ({"patch_size": 3}, "refiner.patch_size is 3"),
    ],
)
def test_what_cannot_be_built_says_why(refiner, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(RestorerConfig, {**MODEL, "refiner": refiner})
