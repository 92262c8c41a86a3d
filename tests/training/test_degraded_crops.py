"""How crops are degraded for a training: with a margin, and by recipes of YAML files."""

import dataclasses

import cv2
import pytest
import torch
import yaml
from toy_training import settings

from hbr.config import ConfigError, from_dict, to_dict
from hbr.degradation import RECIPES
from hbr.training import crops
from hbr.training.config import LossConfig, TrainConfig, ValidationConfig
from hbr.training.data import TrainingPairs
from hbr.training.losses import pixel_loss
from hbr.training.validation import validation_pairs


def config(tmp_path, phases=((1, 32, 64),), **data):
    values = settings(tmp_path)
    values["phases"] = [dict(zip(("steps", "crop", "batch"), p, strict=True)) for p in phases]
    values["optim"] |= {"warmup": 0, "decay": 0}
    values["data"] |= data
    return from_dict(TrainConfig, values)


def repeats(image, phase):
    """Whether an image repeats its pixels 4×4 times, from row and column `phase` on."""
    x = image[:, phase[0] :, phase[1] :]
    h, w = (edge // 4 * 4 for edge in x.shape[-2:])
    blocks = x[:, :h, :w].unfold(1, 4, 4).unfold(2, 4, 4)
    return bool((blocks == blocks[..., :1, :1]).all())


def enlarged_by_area(tmp_path, **data):
    """LQ of 64 crops, each 4 times smaller and back by area."""
    recipe = dataclasses.replace(RECIPES["none"], scale=4, back_modes=(1.0, 0.0, 0.0))
    file = tmp_path / "area.yaml"
    file.write_text(yaml.safe_dump(to_dict(recipe)))
    made = config(tmp_path, degradations={str(file): 1.0}, mirror=False, **data)
    return TrainingPairs(made, 0).batch(0)


def test_a_crop_may_start_anywhere_on_the_grid(tmp_path):
    lq = enlarged_by_area(tmp_path, margin=16, shift_prob=1.0).lq
    assert lq.shape == (64, 3, 32, 32)
    phases = [(y, x) for y in range(4) for x in range(4)]
    found = {next(p for p in phases if repeats(image, p)) for image in lq}
    assert len(found) > 10


@pytest.mark.parametrize("data", [{}, {"margin": 16, "shift_prob": 0.0}])
def test_otherwise_it_starts_at_its_corner(tmp_path, data):
    lq = enlarged_by_area(tmp_path, **data).lq
    assert all(repeats(image, (0, 0)) for image in lq)


def test_part_of_the_crops_is_shifted(tmp_path):
    lq = enlarged_by_area(tmp_path, margin=16, shift_prob=0.25).lq
    shifted = sum(not repeats(image, (0, 0)) for image in lq)
    assert 6 <= shifted <= 26  # 15 of 64 expected: one in 16 of the shifted falls on the grid


def test_hq_and_lq_are_the_same_square(tmp_path):
    pair = TrainingPairs(config(tmp_path, degradations={"none": 1.0}, margin=32), 0).batch(0)
    assert torch.equal(pair.hq, pair.lq)


def test_targets_can_be_sharpened_while_inputs_stay(tmp_path):
    plain = TrainingPairs(config(tmp_path, degradations={"none": 1.0}), 0).batch(0)
    values = {"degradations": {"none": 1.0}, "sharpen": [1.5, 0.4]}
    sharp = TrainingPairs(config(tmp_path, **values), 0).batch(0)
    assert torch.equal(sharp.lq, plain.lq)

    # away from the border of the crop, an unsharp mask by another library
    for target, photo in zip(sharp.hq[:8], plain.hq[:8], strict=True):
        image = photo.permute(1, 2, 0).numpy()
        soft = cv2.GaussianBlur(image, (13, 13), 1.5)
        expected = (image + 0.4 * (image - soft)).clip(0, 1)
        found = target.permute(1, 2, 0).numpy()
        assert abs(found - expected)[6:-6, 6:-6].max() < 1e-5
        assert abs(found - image).max() > 0.01


def one_by_one(tmp_path, **data):
    """HQ and LQ, each [64, 3, 32, 32], of 64 batches of one crop, which the last draws change."""
    pairs = list(TrainingPairs(config(tmp_path, ((64, 32, 1),), **data), 0))
    return torch.cat([p.hq for p in pairs]), torch.cat([p.lq for p in pairs])


def test_photos_that_were_made_smaller_can_be_crisp_in_input_and_target(tmp_path):
    small = {"degradations": {"none": 1.0}, "shrink_prob": 0.75, "shrink": [0.5, 0.6]}
    plain, _ = one_by_one(tmp_path, **small)
    hq, lq = one_by_one(tmp_path, **small, crisp_prob=1.0, crisp=[0.9, 0.9])
    assert torch.equal(hq, lq)
    changed = [i for i in range(64) if not torch.equal(hq[i], plain[i])]
    assert 36 <= len(changed) <= 58  # 48 expected; photos that keep their size keep their pixels
    for i in changed[:8]:
        image, found = (x[i].permute(1, 2, 0).numpy() for x in (plain, hq))
        added = abs(found - image)[6:-6, 6:-6].mean()
        # 0.9 times what the Gaussians of σ 0.5 and 1 take away, by another library
        least, most = (
            0.9 * abs(image - cv2.GaussianBlur(image, (13, 13), sigma))[6:-6, 6:-6].mean()
            for sigma in (0.5, 1.0)
        )
        assert 0.95 * least < added < 1.05 * most


def test_what_is_crisp_is_no_target_to_sharpen(tmp_path):
    small = {"degradations": {"none": 1.0}, "shrink_prob": 1.0, "shrink": [0.5, 0.6]}
    plain, _ = one_by_one(tmp_path, **small)
    targets, _ = one_by_one(tmp_path, **small, sharpen=[1.5, 0.4])
    hq, lq = one_by_one(tmp_path, **small, sharpen=[1.5, 0.4], crisp_prob=0.5)
    soft = [torch.equal(a, b) for a, b in zip(lq, plain, strict=True)]
    assert 20 <= sum(soft) <= 44
    for i in range(64):
        assert torch.equal(hq[i], targets[i] if soft[i] else lq[i])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"crisp_prob": 2.0}, r"crisp_prob is 2\.0; it must be in \[0, 1\]"),
        ({"crisp": [0.0, 1.0]}, "two amounts above 0"),
        ({"crisp": [1.0, 0.5]}, "two amounts above 0"),
        ({"crisp": [1.0, float("inf")]}, "two amounts above 0"),
        ({"crisp_prob": 0.5, "latents": {"cache": "latents"}}, "0 with `latents`"),
        ({"crisp_prob": 0.5, "conditions": {"source": "hq"}}, "with `conditions` of hq"),
        ({"sharpen": [4.0, 0.4]}, r"σ in \(0, 3\] and an amount above 0"),
        ({"sharpen": [1.5, 0.0]}, r"σ in \(0, 3\] and an amount above 0"),
        ({"sharpen": [1.5, float("inf")]}, r"σ in \(0, 3\] and an amount above 0"),
        ({"sharpen": [1.5, 0.4], "latents": {"cache": "latents"}}, "null with `latents`"),
        ({"sharpen": [1.5, 0.4], "conditions": {"source": "hq"}}, "with `conditions` of hq"),
    ],
)
def test_a_sharpening_that_cannot_be(tmp_path, values, message):
    with pytest.raises(ConfigError, match=message):
        config(tmp_path, **values)


def test_a_recipe_of_a_file_is_as_good_as_a_name(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(to_dict(RECIPES["light"])))
    for recipe in (str(file), "light"):
        pairs = TrainingPairs(config(tmp_path, ((1, 32, 4),), degradations={recipe: 1.0}), 0)
        pair = pairs.batch(0)
        validation = dataclasses.replace(pairs.config.validation, recipe=recipe, count=1)
        (seen,) = validation_pairs(validation)
        if recipe != "light":
            first, first_seen = pair, seen
    assert torch.equal(first.lq, pair.lq)
    assert torch.equal(first_seen.lq, seen.lq)


@pytest.mark.parametrize("recipe", ["lihgt", "none.yaml"])
def test_a_recipe_that_is_not_there_names_the_field(tmp_path, recipe):
    with pytest.raises(ConfigError, match=r"degradations.*(lihgt|none\.yaml)"):
        config(tmp_path, degradations={recipe: 1.0})
    with pytest.raises(ConfigError, match=r"recipe.*(lihgt|none\.yaml)"):
        ValidationConfig(photos=tmp_path, recipe=recipe)


@pytest.mark.parametrize(("field", "value"), [("margin", 8), ("margin", -16), ("shift_prob", 2.0)])
def test_margins_that_cannot_be(tmp_path, field, value):
    with pytest.raises(ConfigError, match=field):
        config(tmp_path, **{field: value})


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_deep_networks_compute_in_the_precision_asked_for(precision):
    seen = []

    class Deep(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Conv2d(3, 2, 1)

        def forward(self, image, target):
            seen.append(self.layer(image).dtype)
            return (self.layer(image) - self.layer(target)).abs().mean(dim=(1, 2, 3))

    image = torch.rand(2, 3, 8, 8, requires_grad=True)
    loss = LossConfig(l1=0.0, lpips=2.0, precision=precision)
    with torch.autocast("cpu", torch.bfloat16):
        terms = pixel_loss(image, torch.rand(2, 3, 8, 8), loss, {("lpips", None): Deep()})
    assert seen == [getattr(torch, precision)]
    assert terms["lpips"].dtype == torch.float32
    terms["lpips"].backward()
    assert image.grad.abs().sum() > 0


def test_photos_that_are_kept_are_read_once_and_make_the_same_pairs(tmp_path, monkeypatch):
    read, reads = crops.read_upright, []

    def counted(photos, index):
        reads.append(index)
        return read(photos, index)

    monkeypatch.setattr(crops, "read_upright", counted)
    plain = TrainingPairs(config(tmp_path), 0).batch(0)
    photos = set(reads)
    assert len(reads) == 64 > len(photos)
    reads.clear()
    kept = TrainingPairs(config(tmp_path, kept_gb=1.0), 0).batch(0)
    assert sorted(reads) == sorted(photos)
    torch.testing.assert_close((kept.lq, kept.hq), (plain.lq, plain.hq), atol=0, rtol=0)
    reads.clear()
    TrainingPairs(config(tmp_path, kept_gb=1e-6), 0).batch(0)  # no photo is so small
    assert len(reads) == 64
    with pytest.raises(ConfigError, match="kept_gb"):
        config(tmp_path, kept_gb=-1.0)
