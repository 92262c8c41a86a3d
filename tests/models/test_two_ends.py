"""Files with two ends: any blend of them, its default, and what cannot be."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

import hbr
import toy_models
from hbr.config import ConfigError, from_dict, to_dict
from hbr.image import Photo, write_photo
from hbr.models import WeightsError, load_model, read_checkpoint, save_checkpoint
from hbr.models.fidelity import write_two_ends
from hbr.models.files import read_header, read_metadata
from hbr.models.onestep import OneStepRestorer
from hbr.training.config import TrainConfig
from hbr.training.start import load_initial_weights


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """Two models that differ in the U-Net alone, and the file of both."""
    torch.manual_seed(0)
    model = toy_models.build()
    config = model.config
    faithful = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.unet.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("ends")
    files = [folder / "faithful.safetensors", folder / "sharp.safetensors"]
    for file, state in zip(files, (faithful, model.state_dict()), strict=True):
        save_checkpoint(file, config, state, card={"licence": file.stem})
    return (*files, write_two_ends(folder / "both.safetensors", *files, 0.25))


def test_each_end_and_what_lies_between(ends):
    faithful, sharp = (load_model(file).state_dict() for file in ends[:2])
    for fidelity in (None, 0.0, 0.25, 0.7, 1.0):
        part = 0.25 if fidelity is None else fidelity
        both = load_model(ends[2], fidelity=fidelity).state_dict()
        assert both.keys() == faithful.keys()
        for name, tensor in both.items():
            expected = part * faithful[name] + (1 - part) * sharp[name]
            torch.testing.assert_close(tensor, expected, atol=2e-3, rtol=1e-3)
    moved = max(float((faithful[n] - sharp[n]).abs().max()) for n in faithful)
    assert moved > 0.1


def test_the_new_file_may_have_a_colour_fix_of_its_own(ends, call_hbr, tmp_path):
    out = tmp_path / "both.safetensors"
    done = call_hbr("models", "join", *ends[:2], "-o", out, "--color", "none")
    assert (done.returncode, done.stdout.strip()) == (0, str(out))
    assert read_header(ends[0]).config.capabilities.color == "wavelet"
    assert read_header(out).config.capabilities.color == "none"
    restored = hbr.Restorer.from_pretrained(out, "cpu")(torch.rand(3, 64, 64))
    assert restored.provenance["color"] == "none"
    one = tmp_path / "one.safetensors"
    assert call_hbr("models", "extract", out, "--fidelity", "1", "-o", one).returncode == 0
    assert read_header(one).config.capabilities.color == "none"
    with pytest.raises(ConfigError, match="color is 'sepia'; it must be one of wavelet, adain, no"):
        write_two_ends(out, *ends[:2], 0.5, "sepia")
    networks = [toy_models.write_rrdbnet(tmp_path / f"{i}.safetensors") for i in range(2)]
    with pytest.raises(ConfigError, match="models of kind rrdbnet have no choice of it"):
        write_two_ends(out, *networks, 0.5, "none")


def test_a_blend_lies_between_and_has_one_end(ends, call_hbr, tmp_path):
    out = tmp_path / "blend.safetensors"
    done = call_hbr("models", "blend", *ends[:2], "-o", out, "--share", "0.8")
    assert (done.returncode, done.stdout.strip()) == (0, str(out))
    assert read_header(out).fidelity is None
    assert read_header(out).card == {"licence": "sharp"}
    first, second, made = (load_model(file).state_dict() for file in (*ends[:2], out))
    for name, tensor in made.items():
        torch.testing.assert_close(tensor, 0.2 * first[name] + 0.8 * second[name])
    for arguments, message in (
        ((*ends[:2], "--share", "1.1"), "share is 1.1; it must be from 0, FIRST, to 1, SECOND"),
        ((ends[0], ends[2]), "both.safetensors has two ends already"),
    ):
        done = call_hbr("models", "blend", *arguments, "-o", tmp_path / "no.safetensors")
        assert done.returncode != 0
        assert message in done.stderr
        assert not (tmp_path / "no.safetensors").exists()


def test_an_extract_is_what_the_fidelity_gives(ends, call_hbr, tmp_path):
    for fidelity in (0.0, 0.3, 1.0):
        out = tmp_path / f"{fidelity}.safetensors"
        done = call_hbr("models", "extract", ends[2], "--fidelity", fidelity, "-o", out)
        assert (done.returncode, done.stdout.strip()) == (0, str(out)), done.stderr
        assert read_header(out).fidelity is None
        assert read_header(out).card == {"licence": "faithful"}
        expected = load_model(ends[2], fidelity=fidelity).state_dict()
        extracted = load_model(out).state_dict()
        assert extracted.keys() == expected.keys()
        assert all(torch.equal(tensor, extracted[name]) for name, tensor in expected.items())
    joined = write_two_ends(tmp_path / "joined.safetensors", out, tmp_path / "0.0.safetensors", 0.5)
    again, first = (load_model(file, fidelity=0.5).state_dict() for file in (joined, ends[2]))
    for name, tensor in first.items():
        torch.testing.assert_close(again[name], tensor, atol=1e-4, rtol=1e-3)
    for arguments, message in (
        ((ends[2], "--fidelity", 2), "fidelity is 2.0; it must be from 0, sharp, to 1, faithful"),
        ((ends[0], "--fidelity", 1), "faithful.safetensors has one end only"),
    ):
        done = call_hbr("models", "extract", *arguments, "-o", tmp_path / "no.safetensors")
        assert done.returncode != 0
        assert message in done.stderr
        assert not (tmp_path / "no.safetensors").exists()


def test_what_the_ends_share_is_there_once(ends):
    _, shapes = read_metadata(ends[2])
    names = {name for name in shapes if name.startswith("sharp.")}
    assert names
    assert all(name.startswith("sharp.unet.") for name in names)
    header = read_header(ends[2])
    assert (header.fidelity, len(header.sharp)) == (0.25, len(names))
    assert header.shapes == read_header(ends[0]).shapes
    assert header.card == {"licence": "faithful"}
    assert all(tensor.dtype == torch.float16 for tensor in load_file(ends[2]).values())


def test_other_readers_see_the_default(ends):
    """Exports, imports and trainings read the file as one of a single end."""
    held = read_checkpoint(ends[2]).tensors
    loaded = load_model(ends[2]).state_dict()
    assert held.keys() == loaded.keys()
    for name, tensor in loaded.items():
        torch.testing.assert_close(held[name].float(), tensor, atol=1e-6, rtol=0)
    sharp = read_checkpoint(ends[2], fidelity=0.0).tensors
    for name, tensor in read_checkpoint(ends[1]).tensors.items():
        torch.testing.assert_close(sharp[name].float(), tensor, atol=2e-3, rtol=1e-3)


def test_a_restorer_says_its_fidelity(ends):
    photo = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(1))
    made = {}
    for fidelity in (None, 0.0, 0.25, 1.0):
        restorer = hbr.Restorer.from_pretrained(ends[2], dtype="float32", fidelity=fidelity)
        restored = restorer(photo, color="none")
        assert restored.provenance["fidelity"] == (0.25 if fidelity is None else fidelity)
        made[fidelity] = restored.tensor
    assert torch.equal(made[None], made[0.25])
    assert not torch.equal(made[0.0], made[1.0])
    single = hbr.Restorer.from_pretrained(ends[0], dtype="float32")
    assert single(photo).provenance["fidelity"] is None


@pytest.mark.parametrize("fidelity", [-0.1, 2.0, float("nan")])
def test_a_fidelity_out_of_range(ends, fidelity, tmp_path):
    with pytest.raises(ConfigError, match=r"fidelity is .*; it must be from 0, sharp, to 1"):
        load_model(ends[2], fidelity=fidelity)
    with pytest.raises(ConfigError, match="fidelity"):
        write_two_ends(tmp_path / "out.safetensors", *ends[:2], fidelity)


def test_a_model_with_one_end_takes_none(ends):
    with pytest.raises(ConfigError, match=r"0\.5, but faithful.safetensors has one end only"):
        load_model(ends[0], fidelity=0.5)


def test_ends_that_do_not_go_together(ends, toy, tmp_path):
    out = tmp_path / "out.safetensors"
    other = tmp_path / "other.safetensors"
    config = replace(toy.config, name="another")
    save_checkpoint(other, config, OneStepRestorer(config).state_dict())
    for pair, message in (
        ((ends[0], other), "different configurations"),
        ((ends[2], ends[1]), "has two ends already"),
        ((ends[0], ends[0]), "the same weights"),
        ((ends[0], tmp_path / "none.safetensors"), "no such model file"),
    ):
        with pytest.raises(WeightsError, match=message):
            write_two_ends(out, *pair, 0.5)
        assert not out.exists()


@pytest.mark.parametrize("damage", ["default", "shape", "name"])
def test_a_damaged_file_is_told(ends, damage, tmp_path):
    tensors = load_file(ends[2])
    metadata, _ = read_metadata(ends[2])
    first = next(name for name in tensors if name.startswith("sharp."))
    if damage == "default":
        metadata["fidelity"] = "1.5"
    elif damage == "shape":
        tensors[first] = torch.zeros(1, 2, 3)
    else:
        tensors["sharp.unet.nothing"] = tensors.pop(first)
    file = tmp_path / "damaged.safetensors"
    save_file(tensors, file, metadata=metadata)
    with pytest.raises(WeightsError, match=r"fidelity|other end differs"):
        load_model(file)


def test_the_commands(ends, call_hbr, tmp_path):
    joined = tmp_path / "joined.safetensors"
    made = call_hbr("models", "join", ends[0], ends[1], "-o", joined, "--fidelity", "0.25")
    assert made.returncode == 0
    assert read_metadata(joined) == read_metadata(ends[2])
    expected = load_file(ends[2])
    assert all(torch.equal(tensor, expected[name]) for name, tensor in load_file(joined).items())
    assert "fidelity: 0.25" in call_hbr("models", "show", joined).stdout.splitlines()
    photo = tmp_path / "photo.png"
    write_photo(Photo.from_array((torch.rand(32, 32, 3) * 255).byte().numpy()), photo)
    restore = ("restore", "-i", photo, "-o", tmp_path / "out", "--dtype", "float32", "--model")
    done = call_hbr(*restore, joined, "--fidelity", "0.7", "--log-format", "json")
    assert done.returncode == 0
    lines = (done.stdout + done.stderr).splitlines()
    records = [json.loads(line) for line in lines if "provenance" in line]
    assert records[0]["provenance"]["fidelity"] == 0.7
    for model, fidelity, message in (
        (joined, "2", "fidelity is 2.0; it must be from 0, sharp, to 1, faithful"),
        (ends[0], "0.5", "faithful.safetensors has one end only; leave it out"),
    ):
        failed = call_hbr(*restore, model, "--fidelity", fidelity, "--overwrite")
        assert failed.returncode == 2
        assert message in failed.stderr
        assert "Traceback" not in failed.stderr


@pytest.mark.parametrize("fidelity", [None, 0.0, 1.0])
def test_a_training_starts_from_the_end_that_it_names(ends, toy, tmp_path, fidelity):
    config = from_dict(
        TrainConfig,
        {
            "model": to_dict(toy.config),
            "data": {"sources": [{"photos": str(tmp_path)}]},
            "validation": {"photos": str(tmp_path)},
            "phases": [{"steps": 1, "crop": 64, "batch": 1}],
            "optim": {"warmup": 0},
            "out": str(tmp_path / "out"),
            "init": {"base": str(ends[2]), "fidelity": fidelity},
        },
    )
    model = OneStepRestorer(toy.config)
    load_initial_weights(model, config)
    expected = load_model(ends[2], fidelity=fidelity).state_dict()
    for name, tensor in model.unet.state_dict().items():
        torch.testing.assert_close(tensor, expected[f"unet.{name}"], atol=1e-6, rtol=0)
