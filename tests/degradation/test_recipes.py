"""The named recipes: their published ranges, their strengths, and recipes from files."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
import yaml

from hbr.config import ConfigError, from_dict, to_dict
from hbr.degradation import (
    RECIPES,
    BlurConfig,
    Recipe,
    StageConfig,
    degrade,
    draw,
    find_recipe,
    pipeline,
    weakened,
)
from hbr.degradation.filtering import filter_each, filter_large
from hbr.image import read_photo

ROOT = Path(__file__).parents[2]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def photo():
    return read_photo(ROOT / "tests/data/purple.jpg").tensor()[..., :256, :256]


@pytest.mark.parametrize(
    ("name", "sigma", "down", "noise", "quality"),
    [
        ("codeformer", (1, 15), (1, 30), (0, 20), (30, 90)),
        ("diffbir", (0.1, 12), (1, 12), (0, 15), (30, 100)),
    ],
)
def test_ranges_as_published(name, sigma, down, noise, quality):
    """Over 4,000 draws every range is filled, uniformly: its mean within four deviations."""
    n = 4000
    drawn = draw(RECIPES[name], n, generator(3))
    stages = [d.stages[0] for d in drawn]
    for (low, high), values in (
        (sigma, [s.kernel.arguments[0] for s in stages]),
        (down, [1 / s.resize for s in stages]),
        (noise, [s.noise.amount for s in stages]),
        (quality, [s.jpeg_quality for s in stages]),
    ):
        assert low - 1e-9 <= min(values) < low + (high - low) / 50
        assert high - (high - low) / 50 < max(values) <= high + 1e-9
        deviation = (high - low) / 12**0.5 / n**0.5
        assert abs(sum(values) / n - (low + high) / 2) < 4 * deviation
    isotropic = sum(s.kernel.arguments[0] == s.kernel.arguments[1] for s in stages)
    assert abs(isotropic - n / 2) < 4 * (n / 4) ** 0.5
    assert {(s.kernel.shape, s.kernel.size) for s in stages} == {("gaussian", 41)}
    assert {(s.mode, s.noise.kind, s.noise.grey) for s in stages} == {
        ("bilinear", "gaussian", False)
    }
    assert all(d.final_sinc is None and not d.sinc_first for d in drawn)


def test_diffbir_step_by_step(photo, monkeypatch):
    """Blur, smaller, noise, JPEG there, and back: {[(I ⊗ k)↓r + n]_JPEG}↑r."""
    steps = []
    for name in ("_filter", "_resize_stage", "_add_noise", "_jpeg", "resize"):
        step = getattr(pipeline, name)

        def spy(x, *args, step=step, name=name):
            out = step(x, *args)
            if not torch.equal(out, x):
                steps.append((name, tuple(out.shape[-2:])))
            return out

        monkeypatch.setattr(pipeline, name, spy)
    drawn = draw(RECIPES["diffbir"], 1, generator(1))
    factor = drawn[0].stages[0].resize
    assert factor < 0.5
    out = degrade(photo, drawn)
    small = (int(256 * factor),) * 2
    assert steps == [
        ("_filter", (256, 256)),
        ("_resize_stage", small),
        ("_add_noise", small),
        ("_jpeg", small),
        ("resize", (256, 256)),
    ]
    torch.testing.assert_close(out * 255, (out * 255).round(), atol=1e-3, rtol=0)


def test_both_filters_agree(photo):
    """In space and through the Fourier transform, on a kernel without symmetry."""
    kernel = torch.rand(21, 21, generator=generator(2), dtype=torch.float64)
    kernel /= kernel.sum()
    for image in (photo, photo[..., :10, :7]):  # the latter is too small to be reflected
        in_space = filter_each(image, [kernel])[0]
        torch.testing.assert_close(filter_large(image[0], kernel), in_space, atol=2e-6, rtol=0)


def test_a_large_kernel_beside_a_small_one(photo):
    """Alone or in a batch, each image gets its own filter."""
    (large,) = draw(RECIPES["diffbir"], 1, generator(5))
    stage = large.stages[0]
    small = dataclasses.replace(
        large,
        stages=(dataclasses.replace(stage, kernel=dataclasses.replace(stage.kernel, size=11)),),
    )
    bare = dataclasses.replace(large, stages=(dataclasses.replace(stage, kernel=None),))
    group = [large, small, bare]
    together = degrade(photo.expand(3, -1, -1, -1), group)
    for i, drawn in enumerate(group):
        alone = degrade(photo, [drawn])[0]
        assert (together[i] - alone).abs().mean() < 1e-4
    assert (together[0] - together[1]).abs().mean() > 1e-3


@pytest.mark.parametrize(
    "name",
    [
        *("real-esrgan", "codeformer", "diffbir", "light"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("motion-blur", "photo")),
    ],
)
def test_more_strength_is_more_damage(photo, name):
    photo = photo[..., :128, :128]
    errors = []
    for strength in (0.0, 0.25, 0.5, 0.75, 1.0):
        drawn = draw(weakened(RECIPES[name], strength), 16, generator(11))
        out = degrade(photo.expand(16, -1, -1, -1), drawn)
        errors.append(float((out - photo).square().mean()))
    assert errors == sorted(errors)
    assert errors[-1] > 1.3 * errors[0]
    assert weakened(RECIPES[name], 1.0) == RECIPES[name]


@pytest.mark.parametrize("name", ["real-esrgan", "diffbir", "motion-blur", "photo", "small"])
def test_strength_leaves_the_choices(name):
    """Kinds, shapes, sizes of kernels, seeds and odds are drawn alike at every strength."""

    def choices(seed, strength):
        (drawn,) = draw(weakened(RECIPES[name], strength), 1, generator(seed))
        kernels = [s.kernel for s in drawn.stages] + [drawn.final_sinc]
        return (
            [k and (k.shape, k.size) for k in kernels],
            [(s.mode, s.noise and (s.noise.kind, s.noise.seed)) for s in drawn.stages],
            (drawn.final_mode, drawn.sinc_first),
            [(m.stage, m.angle, m.whole, m.seed) for m in drawn.motions],
        )

    for seed in range(20):
        assert choices(seed, 0.3) == choices(seed, 1.0) == choices(seed, 0.0)


def test_the_mild_end():
    recipe = weakened(RECIPES["diffbir"], 0.0)
    (drawn,) = draw(recipe, 1, generator())
    stage = drawn.stages[0]
    assert stage.kernel.arguments[:2] == (0.1, 0.1)
    assert (stage.resize, stage.noise.amount, stage.jpeg_quality) == (1, 0, 100)
    for strength in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError, match="strength"):
            weakened(recipe, strength)


def test_a_recipe_from_a_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(to_dict(RECIPES["motion-blur"])))
    assert find_recipe(str(file)) == RECIPES["motion-blur"]
    assert find_recipe("light") is RECIPES["light"]
    file.write_text("stages: [{blurr: {}}]")
    with pytest.raises(ConfigError, match=r"mine.yaml: stages\[0\].blurr is not known"):
        find_recipe(str(file))
    with pytest.raises(ConfigError, match="No such file"):
        find_recipe(str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match=r"one of real-esrgan, .*motion-blur"):
        find_recipe("real-esrgn")


@pytest.mark.parametrize(
    "make",
    [
        lambda: BlurConfig(sigma=(0.2, math.inf)),
        lambda: BlurConfig(shapes=(math.inf, 1.0, 0.0, 0.0, 0.0, 0.0)),
        lambda: StageConfig(noise_sigma=(0.0, math.inf)),
        lambda: StageConfig(resize_range=(0.5, math.inf)),
    ],
)
def test_infinity_is_no_severity(make):
    with pytest.raises(ConfigError, match="inf"):
        make()


@pytest.mark.parametrize("kind", [Recipe, StageConfig])
def test_modes_have_weights(kind):
    name = "final_modes" if kind is Recipe else "resize_modes"
    for weights in ([], [0.0, 0.0], [-1.0, 2.0], [1.0] * 8):
        with pytest.raises(ConfigError, match=f"{name} is .* weights"):
            from_dict(kind, {name: weights})


def test_the_recipe_in_the_docs_is_one():
    text = (ROOT / "docs/degradations.md").read_text(encoding="utf-8")
    recipe = from_dict(Recipe, yaml.safe_load(text.split("```yaml\n")[1].split("```")[0]))
    drawn = draw(recipe, 50, generator())
    assert any(d.motions for d in drawn)
    assert all(d.stages[0].jpeg_quality is None or d.stages[0].jpeg_quality >= 40 for d in drawn)
