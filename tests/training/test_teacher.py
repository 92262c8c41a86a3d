"""Distillation: what the teacher's images are, where they are believed, and what is compared."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor
from toy_training import settings, train

import toy_models
from hbr.config import ConfigError, from_dict
from hbr.models import save_checkpoint
from hbr.models.rrdbnet import RRDBNet
from hbr.training import Trainer
from hbr.training.config import TrainConfig
from hbr.training.data import Pair
from hbr.training.random_state import RandomState
from hbr.training.teacher import load_teacher, smoothed, taught

TOY = toy_models.RRDBNET


def of_one_colour() -> RRDBNet:
    """A teacher whose images are grey whatever it sees, so that all of them is low frequencies."""
    model = RRDBNet(TOY)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.conv_last.bias.fill_(0.5)
    return model.eval()


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return save_checkpoint(tmp_path / "teacher.safetensors", TOY, of_one_colour().state_dict())


def images(seed: int, n: int = 2, size: int = 64) -> Tensor:
    noise = torch.rand(n, 3, size // 8, size // 8, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, scale_factor=8, mode="bicubic").clamp(0, 1)


def test_low_frequencies_are_the_photo_s() -> None:
    hq = images(0)
    damaged = (hq + 0.3 * torch.randn(hq.shape, generator=torch.Generator())).clamp(0, 1)
    target = taught(of_one_colour(), damaged, hq)
    torch.testing.assert_close(target, smoothed(hq, 17), atol=2e-6, rtol=0)
    assert (target - hq).abs().mean() > 0.05


def test_it_has_no_say_where_the_input_is_closer() -> None:
    hq = images(0)
    assert torch.equal(taught(of_one_colour(), hq, hq), hq)
    # damaged on the left only
    half = hq.clone()
    half[..., :32] = 1 - half[..., :32]
    target = taught(of_one_colour(), half, hq)
    torch.testing.assert_close(target[..., :16], smoothed(hq, 17)[..., :16], atol=2e-6, rtol=0)
    assert torch.equal(target[..., 56:], hq[..., 56:])


def test_it_sees_the_image_at_its_own_size() -> None:
    """A teacher that repeats pixels gives back the low resolution of its input."""
    model = RRDBNet(TOY)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for name in ("conv_first", "conv_up1", "conv_up2", "conv_hr", "conv_last"):
            for channel in range(3):
                model.get_submodule(name).weight[channel, channel, 1, 1] = 1
    squares = F.interpolate(images(1, size=64)[..., ::4, ::4], scale_factor=4, mode="nearest")
    lq = F.interpolate(squares[..., ::4, ::4], scale_factor=4, mode="bicubic").clamp(0, 1)
    inverted = 1 - squares  # so that the teacher is believed, and only its details are taken
    target = taught(model, lq, inverted)
    seen = target - smoothed(inverted, 17)
    expected = squares - smoothed(squares, 17)
    inside = (..., slice(20, 44), slice(20, 44))
    rest = (seen - expected)[inside].square().mean()
    assert rest < 0.1 * expected[inside].square().mean()


def test_box_filters_keep_flat_images_and_fit_small_ones() -> None:
    flat = torch.full((1, 3, 5, 40), 0.3)
    torch.testing.assert_close(smoothed(flat, 17), flat)
    x = images(3)
    torch.testing.assert_close(
        smoothed(x, 5)[..., 8:-8, 8:-8], F.avg_pool2d(F.avg_pool2d(x, 5, 1), 5, 1)[..., 4:-4, 4:-4]
    )


def test_a_share_of_the_batch_is_compared_with_the_teacher(tmp_path: Path, teacher: Path) -> None:
    objective = {"kind": "restoration", "discriminator": {"width": 4}}
    loss = {"l1": 1.0, "adversarial": 0.1, "teacher": 0.5, "teacher_model": str(teacher)}
    values = settings(tmp_path / "out", loss=loss, objective=objective)
    trainer = Trainer(from_dict(TrainConfig, values), report=lambda line: None)
    model, config = trainer.model, trainer.config.loss
    hq = images(4)
    pair = Pair(
        hq=hq, lq=(hq + 0.2 * torch.randn(hq.shape, generator=torch.Generator())).clamp(0, 1)
    )

    def losses(teacher: float) -> tuple[Tensor, Tensor]:
        draws = RandomState(torch.Generator().manual_seed(0))
        weights = replace(config, teacher=teacher)
        both = trainer.objective.losses(model, pair, weights, draws)
        return both.terms["l1"], both.then()["discriminator"]

    image = model(pair.lq).float()
    target = taught(of_one_colour(), pair.lq[:1], hq[:1])
    with torch.no_grad():
        half, against = losses(0.5)
        torch.testing.assert_close(
            half, F.l1_loss(image, torch.cat([target, hq[1:]])), atol=2e-3, rtol=0
        )
        none, against_hq = losses(0.0)
        torch.testing.assert_close(none, F.l1_loss(image, hq))
    assert half != none
    # what is real for the discriminator is HQ either way
    torch.testing.assert_close(against, against_hq, atol=1e-4, rtol=0)


def test_a_training_is_taught(tmp_path: Path, teacher: Path) -> None:
    loss = {"l1": 1.0, "teacher": 1.0, "teacher_model": str(teacher)}
    file = train(settings(tmp_path / "taught", loss=loss))
    assert file.read_bytes() != train(settings(tmp_path / "plain", loss={"l1": 1.0})).read_bytes()


def test_teachers_that_enlarge_nothing_are_refused(tmp_path: Path, call_hbr) -> None:
    recipe = tmp_path / "recipe.yaml"
    loss = {"l1": 1.0, "teacher": 0.5, "teacher_model": "nano"}
    recipe.write_text(yaml.safe_dump(settings(tmp_path / "out", loss=loss)))
    done = call_hbr("train", recipe, "--device", "cpu")
    assert (done.returncode, done.stdout) == (4, "")
    (line,) = done.stderr.splitlines()
    assert "loss.teacher_model is nano, which does not enlarge" in line
    assert not (tmp_path / "out").exists()


def test_it_is_frozen(teacher: Path) -> None:
    model = load_teacher(str(teacher), "cpu")
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": {"teacher": 1.5}},
        {"loss": {"teacher": 0.5}, "memory": {"decode_crop": 16}},
        {"loss": {"teacher": 0.5}, "objective": {"kind": "diffusion"}},
    ],
)
def test_settings_that_do_not_fit_name_the_field(tmp_path: Path, changes: dict) -> None:
    with pytest.raises(ConfigError, match="teacher"):
        from_dict(TrainConfig, settings(tmp_path, **changes))


@pytest.mark.parametrize("sizes", [(6,), (1,) * 6, (4, 2), (2, 2, 2)])
@pytest.mark.parametrize("share", [0.0, 0.34, 0.67, 1.0])
def test_the_share_is_of_the_whole_batch_however_it_is_split(
    sizes: tuple[int, ...], share: float
) -> None:
    first, counts = 0, []
    for size in sizes:
        draws = RandomState(torch.Generator(), sum(sizes), first)
        counts.append(draws.first_of(share, torch.zeros(size, 3, 8, 8)))
        first += size
    assert sum(counts) == round(share * 6)
    # the first ones of the batch, without a gap
    full = [n == size for n, size in zip(counts, sizes, strict=True)]
    assert full == sorted(full, reverse=True)
