"""The second-order degradation: reproducible, within its ranges, the same alone and in a batch."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from hbr.config import ConfigError, from_dict, to_dict
from hbr.degradation import (
    RECIPES,
    BlurConfig,
    Degradation,
    FadingConfig,
    Recipe,
    StageConfig,
    degrade,
    draw,
    pipeline,
)
from hbr.image import read_photo

DATA = Path(__file__).parents[1] / "data"
REAL_ESRGAN = RECIPES["real-esrgan"]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images():
    smooth = torch.rand(4, 3, 8, 8, generator=generator(1))
    return torch.nn.functional.interpolate(smooth, (96, 80), mode="bicubic").clamp(0, 1)


def test_a_pair_is_made_again_from_its_record(images):
    drawn = draw(REAL_ESRGAN, 4, generator())
    record = json.dumps([to_dict(d) for d in drawn])
    again = [from_dict(Degradation, values) for values in json.loads(record)]
    assert again == drawn
    assert torch.equal(degrade(images, again), degrade(images, drawn))


@pytest.mark.parametrize("shared_sizes", [False, True])
def test_alone_or_in_a_batch_is_the_same(images, shared_sizes):
    recipe = dataclasses.replace(REAL_ESRGAN, shared_sizes=shared_sizes)
    drawn = draw(recipe, 4, generator(3))
    assert len({d.sizing for d in drawn}) == (1 if shared_sizes else 4)
    together = degrade(images, drawn)
    for i in range(4):
        alone = degrade(images[i : i + 1], drawn[i : i + 1])
        # a JPEG coefficient on the verge of rounding may fall to the other side
        assert (together[i] - alone[0]).abs().mean() < 1e-4


def test_size_range_and_damage(images):
    drawn = draw(REAL_ESRGAN, 4, generator())
    out = degrade(images, drawn)
    assert out.shape == images.shape
    assert 0 <= float(out.min()) <= float(out.max()) <= 1
    assert ((out - images) ** 2).mean() > 1e-4
    small = degrade(images, drawn, resize_back=False)
    assert small.shape == (4, 3, 24, 20)
    for image in (out, small):
        torch.testing.assert_close(image * 255, (image * 255).round(), atol=1e-3, rtol=0)


def test_the_second_stage_works_at_the_size_of_the_result(images, monkeypatch):
    """As published: its resize is relative to 1/4 of the image, not to the image."""
    sizes = []

    for name in ("_resize_stage", "resize"):
        step = getattr(pipeline, name)

        def spy(x, *args, step=step):
            out = step(x, *args)
            sizes.append(tuple(out.shape[-2:]))
            return out

        monkeypatch.setattr(pipeline, name, spy)
    drawn = draw(REAL_ESRGAN, 1, generator(4))
    degrade(images[:1], drawn)
    first, second = (stage.resize for stage in drawn[0].stages)
    assert sizes == [
        (int(96 * first), int(80 * first)),
        *[(int(24 * second), int(20 * second))] * 2,  # of the stage, and of what it calls
        (24, 20),
        (96, 80),
    ]


def test_the_recipe_without_stages_changes_nothing(images):
    assert torch.equal(degrade(images, draw(RECIPES["none"], 4, generator())), images)


def test_light_damage_is_lighter(images):
    def error(name):
        return ((degrade(images, draw(RECIPES[name], 4, generator(2))) - images) ** 2).mean()

    assert error("light") < error("real-esrgan") / 2


def test_libjpeg_gives_nearly_the_same_pair():
    """Through both stages; measured 5.9 levels on average, where the damage itself is 13.6."""
    photo = read_photo(DATA / "purple.jpg").tensor().expand(4, -1, -1, -1)
    drawn = draw(REAL_ESRGAN, 4, generator(5))
    ours = degrade(photo, drawn)
    real = degrade(photo, [dataclasses.replace(d, jpeg="libjpeg") for d in drawn])
    assert 0 < (real - ours).abs().mean() * 255 < 6.8
    assert abs(float((ours - photo).abs().mean() / (real - photo).abs().mean()) - 1) < 0.1


def test_draws_follow_the_recipe():
    """Frequencies over 4,000 draws, within four standard deviations."""
    n = 4000
    drawn = draw(REAL_ESRGAN, n, generator(7))

    def share(hits, probability):
        deviation = (probability * (1 - probability) / n) ** 0.5
        assert abs(sum(hits) / n - probability) < 4 * deviation

    first, second = [d.stages[0] for d in drawn], [d.stages[1] for d in drawn]
    share((s.resize > 1 for s in first), 0.2)
    share((s.resize < 1 for s in first), 0.7)
    share((s.resize > 1 for s in second), 0.3)
    share((s.kernel is not None for s in second), 0.8)
    share((s.kernel.shape == "sinc" for s in first), 0.1)
    share((s.kernel.shape == "generalized" for s in first), 0.9 * 0.15)
    share((s.noise.kind == "gaussian" for s in first), 0.5)
    share((s.noise.grey for s in second), 0.4)
    share((d.final_sinc is not None for d in drawn), 0.8)
    share((d.sinc_first for d in drawn), 0.5)
    for mode in ("area", "bilinear", "bicubic"):
        share((d.back_mode == mode for d in drawn), 1 / 3)
    assert all(0.15 <= s.resize <= 1.5 and 30 <= s.jpeg_quality <= 95 for s in first)
    assert all(0.3 <= s.resize <= 1.2 for s in second)
    assert {s.kernel.size for s in first} == set(range(7, 22, 2))
    gaussian = [s.noise.amount for s in second if s.noise.kind == "gaussian"]
    assert 1 <= min(gaussian) < 2
    assert 24 < max(gaussian) <= 25


def test_tiny_images_survive():
    for size in (1, 3, 9):
        tiny = torch.rand(2, 3, size, size, generator=generator())
        assert degrade(tiny, draw(REAL_ESRGAN, 2, generator())).shape == tiny.shape


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Recipe(scale=0), "scale"),
        (lambda: Recipe(scales=(2, 0)), "scales"),
        (lambda: Recipe(back_modes=(0.0, 0.0, 0.0)), "back_modes"),
        (lambda: Recipe(final_modes=(1.0,) * 8), "final_modes"),
        (lambda: StageConfig(camera_read=(0.5, 1.5)), "camera_read"),
        (lambda: StageConfig(sharpen_sigma=(1.0, 9.0)), "sharpen_sigma"),
        (lambda: StageConfig(jpeg_shift_prob=-0.5), "jpeg_shift_prob"),
        (lambda: BlurConfig(defocus_radius=(1.0, 20.0)), "defocus_radius"),
        (lambda: BlurConfig(shake_length=(1.0, 40.0)), "shake_length"),
        (lambda: FadingConfig(black=(0.1, 0.6), white=(0.1, 0.6)), "black"),
        (lambda: StageConfig(resize_range=(1.2, 1.5)), "resize_range"),
        (lambda: StageConfig(jpeg_quality=(0.0, 95.0)), "jpeg_quality"),
        (lambda: BlurConfig(prob=1.5), "prob"),
        (lambda: BlurConfig(sizes=(8, 20)), "sizes"),
        (lambda: from_dict(Recipe, {"jpeg": "mine"}), "jpeg"),
        (lambda: from_dict(Recipe, {"noize": 1}), "noize"),
    ],
)
def test_a_recipe_that_cannot_be_names_its_field(make, field):
    with pytest.raises(ConfigError, match=field):
        make()


def test_one_degradation_an_image(images):
    with pytest.raises(ValueError, match="3 degradations for 4 images"):
        degrade(images, draw(REAL_ESRGAN, 3, generator()))
