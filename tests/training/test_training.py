"""Training at toy size on real photos: it learns, it is reproducible, it survives being killed."""

import json

import pytest
import torch
import yaml
from toy_training import DATA, MODEL, settings, train

from hbr.apps.cli.train import train as train_command
from hbr.config import ConfigError, from_dict
from hbr.models import build, read_checkpoint
from hbr.models.identity import start_at_identity
from hbr.models.onestep import OneStepRestorer
from hbr.restoration import OutOfMemoryError
from hbr.training.config import LossConfig, OptimConfig, TrainConfig
from hbr.training.crops import CropSource, draw_corner
from hbr.training.data import TrainingPairs
from hbr.training.loop import Trainer, learning_rate
from hbr.training.losses import gradient_l1, negative_psnr, pixel_loss
from hbr.training.validation import validation_pairs


def losses(out):
    rows = [json.loads(line) for line in (out / "curves.jsonl").read_text().splitlines()]
    return {row["step"]: row["loss/l1"] for row in rows if "loss/l1" in row}


def test_a_training_writes_a_model_curves_and_pictures(tmp_path):
    values = settings(tmp_path)
    values["validation"] |= {"count": 3, "crop": 128}
    file = train(values)
    checkpoint = read_checkpoint(file)
    assert checkpoint.card["steps"] == "8"
    model = build(checkpoint)
    assert model(torch.rand(1, 3, 32, 32)).shape == (1, 3, 32, 32)
    rows = [json.loads(line) for line in (tmp_path / "curves.jsonl").read_text().splitlines()]
    assert "validation/psnr_gain" in rows[-1]
    assert (tmp_path / "pictures/000008.png").stat().st_size > 10_000
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_phase_can_have_a_loss_of_its_own(tmp_path):
    phases = [
        {"steps": 4, "crop": 32, "batch": 2},
        {"steps": 4, "crop": 32, "batch": 2, "loss": {"l1": 0.0, "mse": 1.0}},
    ]
    train(settings(tmp_path, phases=phases))
    rows = [json.loads(line) for line in (tmp_path / "curves.jsonl").read_text().splitlines()]
    assert "loss/mse" in rows[-2]
    assert "loss/l1" not in rows[-2]


def test_the_same_seed_gives_the_same_weights_and_another_does_not(tmp_path):
    files = [train(settings(tmp_path / n, seed=s)) for n, s in (("a", 0), ("b", 0), ("c", 1))]
    a, b, c = (read_checkpoint(f).tensors for f in files)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)


def test_a_processor_that_is_slower_in_bfloat16_is_said_at_the_start(tmp_path, monkeypatch):
    monkeypatch.setattr("hbr.training.loop.has_slow_bfloat16", lambda: True)
    said = {}
    for run, precision in (("a", "bfloat16"), ("a", "bfloat16"), ("b", "float32")):
        phases = [{"steps": 1, "crop": 32, "batch": 2}]
        values = settings(tmp_path / run, precision=precision, phases=phases)
        values["optim"] |= {"warmup": 0, "decay": 0}
        lines = said.setdefault(run, [])
        Trainer(from_dict(TrainConfig, values), report=lines.append).run()
    assert sum("--set precision=float32" in line for line in said["a"]) == 1
    assert not any("precision" in line for line in said["b"])


@pytest.mark.slow
def test_training_lowers_the_loss(tmp_path):
    """Eight coefficients of 48 lose detail at first; the decoder learns to put some of it back."""
    phases = [{"steps": 80, "crop": 32, "batch": 4}]
    optim = {"lr": 3e-3, "warmup": 5, "ema": 0.9, "decay": 20}
    data = {"sources": [{"photos": str(DATA)}], "workers": 0, "degradations": {"none": 1.0}}
    values = settings(tmp_path, phases=phases, optim=optim, data=data)
    train({**values, "validation": {**values["validation"], "every": 80}, "save_every": 80})
    curve = losses(tmp_path)
    assert curve[80] < 0.8 * curve[20]


def test_frozen_parts_stay_as_they_are(tmp_path):
    tensors = read_checkpoint(train(settings(tmp_path, freeze=["autoencoder"]))).tensors
    model = OneStepRestorer(from_dict(TrainConfig, settings(tmp_path)).model)
    start_at_identity(model)
    kept = model.autoencoder.decoder.conv_out.weight
    assert torch.equal(tensors["autoencoder.decoder.conv_out.weight"], kept)
    assert not torch.equal(tensors["unet.conv_in.weight"], model.unet.conv_in.weight)


def test_a_state_of_another_model_is_refused(tmp_path):
    train(settings(tmp_path))
    with pytest.raises(ConfigError, match="with seed 0, and now it is 5"):
        train(settings(tmp_path, seed=5))


def test_a_batch_depends_on_seed_and_step_alone(tmp_path):
    config = from_dict(TrainConfig, settings(tmp_path))
    first, second = TrainingPairs(config, 0), TrainingPairs(config, 4)
    from_start = list(first)
    assert [tuple(p.hq.shape) for p in from_start] == [(2, 3, 32, 32)] * 5 + [(1, 3, 64, 64)] * 3
    assert torch.equal(from_start[4].lq, next(iter(second)).lq)
    assert not torch.equal(from_start[0].hq, from_start[1].hq)


def test_validation_pairs_are_the_same_for_ever(tmp_path):
    values = settings(tmp_path)
    values["validation"] |= {"count": 3, "crop": 128}
    config = from_dict(TrainConfig, values).validation
    first, again = list(validation_pairs(config)), list(validation_pairs(config))
    assert len(first) == 3
    assert all(torch.equal(a.lq, b.lq) for a, b in zip(first, again, strict=True))


def test_no_crop_is_taken_of_a_photo_that_is_smaller(tmp_path):
    values = settings(tmp_path)
    values["validation"] |= {"count": 1, "crop": 4096}
    config = from_dict(TrainConfig, values).validation
    with pytest.raises(ConfigError, match=r"is \d+x\d+; validation crops are 4096 pixels"):
        next(validation_pairs(config))


def test_a_training_validates_by_the_photos_that_it_began_with(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "b.png").write_bytes((DATA / "blue.png").read_bytes())
    values = settings(tmp_path / "out")
    values["validation"] |= {"photos": str(photos), "every": 1}
    trainer = Trainer(from_dict(TrainConfig, values))
    (photos / "a.png").write_bytes(b"no photo")
    trainer.run()
    assert len(list((tmp_path / "out" / "pictures").iterdir())) == 8


def test_a_bad_photo_costs_only_itself(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").write_bytes(b"no photo")
    (photos / "b.png").write_bytes((DATA / "blue.png").read_bytes())
    values = settings(tmp_path / "out", data={"sources": [{"photos": str(photos)}], "workers": 0})
    pairs = TrainingPairs(from_dict(TrainConfig, values), 0)
    batches = list(pairs)
    assert len(batches) == 8
    assert {name for pair in batches for name in pair.skipped} == {str(photos / "a.jpg")}
    (photos / "b.png").unlink()
    with pytest.raises(ConfigError, match="2 of 2 photos could not be read"):
        pairs.batch(0)


def test_curves_that_a_kill_cut_short_are_no_obstacle(tmp_path):
    train(settings(tmp_path))
    curves = tmp_path / "curves.jsonl"
    whole = curves.read_text()
    curves.write_text(whole + '{"step": 8, "loss')
    train(settings(tmp_path))
    assert curves.read_text() == whole


def test_weights_to_start_from(tmp_path):
    first = train(settings(tmp_path / "first"))
    values = settings(tmp_path / "second", init=str(first), freeze=["autoencoder", "unet"])
    tensors = read_checkpoint(train(values)).tensors
    assert torch.equal(
        tensors["unet.conv_in.weight"], read_checkpoint(first).tensors["unet.conv_in.weight"]
    )
    other = {**MODEL, "timestep": 99}
    with pytest.raises(ConfigError, match="has a different configuration"):
        train(settings(tmp_path / "third", init=str(first), model=other))


def test_crops_fall_on_people(tmp_path):
    """With a box in the lower right corner, the crops never reach the upper left one."""
    boxes = tmp_path / "coco.json"
    box = {"image_id": 1, "category_id": 1, "bbox": [150, 150, 42, 42], "iscrowd": 0}
    coco = {
        "categories": [{"id": 1, "name": "person"}],
        "images": [{"id": 1, "file_name": "blue.png"}],
        "annotations": [box],
    }
    boxes.write_text(json.dumps(coco))
    values = settings(tmp_path)
    values["data"]["sources"] = [{"photos": str(DATA), "boxes": str(boxes)}]
    source = CropSource(from_dict(TrainConfig, values).data.sources[0])
    assert [source.photos.name(i) for i in range(len(source.photos))] == [str(DATA / "blue.png")]
    generator = torch.Generator().manual_seed(0)
    assert source.placed is not None
    found = [person.box for person in source.placed[0]]
    corners = [draw_corner(found, (192, 192), 64, generator) for _ in range(200)]
    assert min(min(c) for c in corners) >= 150 - 32
    assert max(max(c) for c in corners) == 192 - 64


def test_learning_rate_rises_holds_and_falls():
    config = OptimConfig(lr=1.0, warmup=10, decay=20)
    rates = [learning_rate(step, 100, config) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:80] == [1.0] * 71
    assert rates[90] == pytest.approx(0.5)
    assert rates[99] < 0.01


def test_losses_by_hand():
    a, b = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    b[0], b[1, :, :, 2:] = 0.1, 1.0
    assert float(negative_psnr(a, b, floor=0.0)) == pytest.approx((-2.0 - 0.30103) / 2, abs=1e-5)
    # one of three steps across is 1 in the second of two images, none along the columns
    assert float(gradient_l1(a, b)) == pytest.approx(1 / 3 / 2)
    terms = pixel_loss(a, b, LossConfig(l1=2.0, mse=0.5))
    assert set(terms) == {"l1", "mse"}
    assert float(terms["l1"]) == pytest.approx(2 * (0.1 + 0.5) / 2)


def test_a_start_at_the_identity_gives_the_input_back():
    config = from_dict(TrainConfig, settings("unused")).model
    torch.manual_seed(0)
    model = OneStepRestorer(config)
    start_at_identity(model)
    smooth = torch.nn.functional.interpolate(torch.rand(1, 3, 4, 4), (64, 64), mode="bicubic")
    with torch.no_grad():
        # eight coefficients of 48 hold a smooth image to a few per cent
        assert (model(smooth) - smooth).abs().mean() < 0.03


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"phases": [{"steps": 5, "crop": 30, "batch": 2}]}, "crop is 30"),
        ({"optim": {"warmup": 9}}, "decay"),
        ({"seed": -1}, "seed is -1"),
        ({"freeze": ["autoencoder", "vae"]}, "no part 'vae'"),
        ({"loss": {"l1": 0.0}}, "weights, not all 0"),
        ({"data": {"sources": [{"photos": "nowhere"}], "workers": 0}}, "nowhere is not a folder"),
        ({"data": {"sources": [], "workers": 0}}, "one source"),
    ],
)
def test_a_training_that_cannot_be_says_why(tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        train(settings(tmp_path, **change))


def test_too_little_memory_names_what_needs_less(tmp_path, monkeypatch):
    def full(self):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(Trainer, "run", full)
    recipe = tmp_path / "toy.yaml"
    recipe.write_text(yaml.safe_dump(settings(tmp_path / "out")))
    with pytest.raises(OutOfMemoryError, match=r"on cpu; increase optim.accumulate"):
        train_command(recipe, device="cpu")
