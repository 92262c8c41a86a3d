"""Each step of a degradation, measured on its output: noise, borders, JPEG, resizing, optics."""

import dataclasses
import io
import math

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import ndimage

from hbr.degradation import (
    RECIPES,
    BlurConfig,
    Degradation,
    Recipe,
    StageConfig,
    degrade,
    draw,
    kernels,
)
from hbr.degradation import jpeg as differentiable_jpeg
from hbr.degradation.drawing import Fading, Kernel, Stage
from hbr.degradation.filtering import filter_each, filter_large
from hbr.degradation.jpeg import quality_factor
from hbr.degradation.noise import Noise, add_noise
from hbr.degradation.resizing import MODES, resize

EMPTY = Stage(kernel=None, resize=1.0, mode="bicubic", noise=None, jpeg_quality=None)


def one_stage(**fields):
    stage = dataclasses.replace(EMPTY, **fields)
    return Degradation(
        stages=(stage,),
        final_mode="bicubic",
        final_sinc=None,
        sinc_first=False,
        scale=1,
        jpeg="differentiable",
    )


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def flat(value, size=256):
    return torch.full((3, size, size), value)


def structured(h=96, w=80, seed=1):
    smooth = torch.rand(1, 3, h // 8, w // 8, generator=generator(seed))
    return F.interpolate(smooth, (h, w), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("sigma", [2.0, 10.0, 25.0])
@pytest.mark.parametrize("grey", [False, True])
def test_gaussian_noise_has_the_drawn_sigma(sigma, grey):
    """Through the whole pipeline, whose rounding to 8 bits adds a variance of 1/12."""
    drawn = one_stage(noise=Noise(kind="gaussian", amount=sigma, grey=grey, seed=5))
    out = degrade(flat(0.5)[None], [drawn])[0] * 255
    expected = math.sqrt(sigma**2 + 1 / 12)
    for channel in out:
        assert float(channel.std()) == pytest.approx(expected, rel=0.02)
    assert torch.equal(out[0], out[1]) == grey
    assert float(out.mean()) == pytest.approx(127.5, abs=0.3)


@pytest.mark.parametrize("scale", [0.5, 2.0])
@pytest.mark.parametrize("grey", [False, True])
def test_poisson_noise_grows_with_the_light(scale, grey):
    """256 levels are in use, so white counts 256 photons: σ² = scale²·v/256 at the level v."""
    ramp = (torch.arange(256) / 255).expand(3, 2000, 256)
    noise = add_noise(ramp, Noise(kind="poisson", amount=scale, grey=grey, seed=3)) - ramp
    assert torch.equal(noise[0], noise[1]) == grey
    for channel in noise:
        ratio = channel[:, 8:].var(dim=0) / (scale**2 * ramp[0, 0, 8:] / 256)
        assert float(ratio.mean()) == pytest.approx(1, rel=0.02)
        assert float(ratio[:80].mean() / ratio[-80:].mean()) == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("sigma", [2.0, 8.0])
def test_camera_noise_has_the_drawn_sigma_at_mid_grey(sigma):
    out = (
        add_noise(flat(0.5, 512), Noise(kind="camera", amount=sigma, grey=True, seed=7, read=0.3))
        * 255
    )
    assert float(out.std()) == pytest.approx(sigma, rel=0.02)
    assert torch.equal(out[0], out[2])


@pytest.mark.parametrize(("value", "read"), [(0.25, 0.2), (0.8, 0.2), (0.25, 0.9)])
def test_camera_noise_follows_the_light(value, read):
    """Var(x) = σ²(read + (1 − read)·x/x_mid) in linear light, seen through the curve's slope."""
    out = add_noise(
        flat(value, 512), Noise(kind="camera", amount=2.0, grey=True, seed=7, read=read)
    )
    x, middle = value**2.2, 0.5**2.2

    def slope(linear):
        return linear ** (1 / 2.2 - 1) / 2.2

    on_sensor = 2.0 / slope(middle) * math.sqrt(read + (1 - read) * x / middle)
    assert float(out.std()) * 255 == pytest.approx(on_sensor * slope(x), rel=0.03)


def test_camera_noise_is_demosaiced():
    """Bilinear: green keeps 5/8 of its variance, red and blue 9/16; neighbours then agree."""
    drawn = Noise(kind="camera", amount=3.0, grey=False, seed=7, read=0.5)
    out = (add_noise(flat(0.5, 512), drawn) - 0.5)[:, 8:-8, 8:-8] * 255
    for channel, share in zip(out, (9 / 16, 5 / 8, 9 / 16), strict=True):
        assert float(channel.var()) == pytest.approx(9 * share, rel=0.04)
        beside = (channel[:, 1:] * channel[:, :-1]).mean() / channel.var()
        assert float(beside) > 0.3
    assert abs(float(torch.corrcoef(out.flatten(1))[0, 1])) < 0.02
    mixed = add_noise(flat(0.5, 512), dataclasses.replace(drawn, mixing=0.3)) * 255
    correlated = torch.corrcoef(mixed.flatten(1))
    # rows of the correction (1.6, −0.3, −0.3): what one channel gains the others lose
    assert float(correlated[0, 1]) < -0.2
    assert float(mixed.mean()) == pytest.approx(127.5, abs=0.1)


def test_borders_are_reflected():
    """Against SciPy, whose "mirror" is PyTorch's "reflect"; zeros or copies would be far off."""
    image = torch.rand(1, 3, 40, 33, generator=generator(2))
    kernel = torch.rand(21, 21, generator=generator(3), dtype=torch.float64)
    kernel /= kernel.sum()
    expected = np.stack(
        [ndimage.correlate(c, kernel.numpy(), mode="mirror") for c in image[0].double().numpy()]
    )
    for out in (filter_each(image, [kernel])[0], filter_large(image[0], kernel)):
        np.testing.assert_allclose(out.numpy(), expected, atol=2e-6)
    blurred = one_stage(kernel=Kernel("gaussian", 21, (3.0, 3.0, 0.0)))
    white = degrade(torch.ones(1, 3, 40, 33), [blurred])
    assert float(white.min()) == 1


@pytest.mark.parametrize("quality", [10, 35, 50, 75, 95])
def test_jpeg_quality_is_libjpegs(quality):
    """The quantisation tables that libjpeg writes are Annex K's times the factor, rounded."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG", quality=quality)
    tables = Image.open(file).quantization
    factor = float(quality_factor(torch.tensor([quality])))
    for number, first in ((0, 16), (1, 17)):
        expected = min(max(math.floor(first * factor + 0.5), 1), 255)
        assert tables[number][0] == expected


def test_blocks_of_a_jpeg_may_start_anywhere():
    """With a corner of (5, 3), blocks start at row 11 and column 13: there it is a plain JPEG."""
    image = structured(96, 96)
    out = degrade(image, [one_stage(jpeg_quality=30.0, jpeg_corner=(5, 3))])
    inner = differentiable_jpeg(image[..., 11:91, 13:93], torch.tensor([30.0]))
    inner = (inner * 255).round() / 255
    torch.testing.assert_close(out[..., 11:91, 13:93], inner, atol=1e-3, rtol=0)
    plain = degrade(image, [one_stage(jpeg_quality=30.0)])
    assert (plain - out).abs().mean() > 1e-3


@pytest.mark.parametrize("size", [(31, 20), (96, 160), (200, 44)])
@pytest.mark.parametrize(
    ("mode", "pillows"),
    [
        ("lanczos", Image.Resampling.LANCZOS),
        ("bilinear-antialias", Image.Resampling.BILINEAR),
        ("bicubic-antialias", Image.Resampling.BICUBIC),
    ],
)
def test_filtered_resizing_is_pillows(size, mode, pillows):
    image = structured()[0]
    out = resize(image[None], size, mode)[0]
    for ours, channel in zip(out, image, strict=True):
        theirs = Image.fromarray(channel.numpy()).resize(size[::-1], pillows)
        np.testing.assert_allclose(ours.numpy(), np.asarray(theirs), atol=2e-5)


def test_a_first_stage_filters_by_its_factor():
    """Half the size with antialiasing, by the factor as by the size; without, there is aliasing."""
    image = torch.rand(1, 3, 64, 64, generator=generator())
    small = {}
    for mode in ("bicubic", "bicubic-antialias"):
        drawn = dataclasses.replace(one_stage(resize=0.5, mode=mode), scale=2)
        small[mode] = degrade(image, [drawn], resize_back=False)
    expected = resize(image, (32, 32), "bicubic-antialias").clamp(0, 1)
    torch.testing.assert_close(small["bicubic-antialias"], expected, atol=1 / 255, rtol=0)
    assert (small["bicubic"] - expected).abs().max() > 0.05


@pytest.mark.parametrize("mode", MODES)
def test_resizing_keeps_flat_images_and_sizes(mode):
    for size in ((1, 1), (13, 7), (64, 64)):
        out = resize(flat(0.3, 32)[None], size, mode)
        assert out.shape == (1, 3, *size)
        torch.testing.assert_close(out, torch.full_like(out, 0.3), atol=1e-6, rtol=0)


def test_sharpening_is_an_unsharp_mask():
    """x + a·(x − Gσ∗x), clipped; SciPy's Gaussian at the same truncation."""
    image = structured() * 0.6 + 0.2
    out = degrade(image, [one_stage(sharpening=(1.2, 0.8))])[0]
    x = image[0].double().numpy()
    soft = np.stack([ndimage.gaussian_filter(c, 1.2, mode="mirror", truncate=5) for c in x])
    np.testing.assert_allclose(
        out.numpy(), (x + 0.8 * (x - soft)).clip(0, 1), atol=0.5 / 255 + 1e-4
    )
    assert torch.equal(
        degrade(flat(0.2)[None], [one_stage(sharpening=(1.2, 0.8))]), flat(0.2)[None]
    )


@pytest.mark.parametrize("radius", [1.0, 2.5, 8.0])
def test_defocus_is_a_disc(radius):
    """Its variance along an axis is r²/4, and nothing lies outside of it."""
    kernel = kernels.disc(21, radius)
    axis = torch.arange(21, dtype=torch.float64) - 10
    assert float((kernel * axis**2).sum()) == pytest.approx(radius**2 / 4, rel=0.1, abs=0.16)
    distance = torch.hypot(axis[:, None], axis[None])
    assert float(kernel[distance > radius + 0.5].sum()) == 0
    inside = kernel[distance <= radius - 0.5]
    assert float(inside.max() - inside.min()) < 1e-12
    assert float(kernel.sum()) == pytest.approx(1)


def test_fading_is_linear_in_each_channel():
    fading = Fading(black=(0.1, 0.05, 0.0), white=(0.9, 0.8, 1.0))
    drawn = dataclasses.replace(one_stage(), fading=fading)
    ramp = (torch.arange(256) / 255).expand(1, 3, 4, 256)
    out = degrade(ramp, [drawn])[0, :, 0]
    for channel, black, white in zip(out, fading.black, fading.white, strict=True):
        expected = black + ramp[0, 0, 0] * (white - black)
        torch.testing.assert_close(channel, expected, atol=0.5 / 255 + 1e-6, rtol=0)


def test_the_public_pipeline_without_noise():
    """Resizes, JPEGs and rounding in the order, and with the calls, of the public training code.

    The recipe draws no kernel and no noise, so that what is left is a function of the image.
    """
    quiet = [
        dataclasses.replace(s, blur=dataclasses.replace(s.blur, prob=0.0), noise_prob=0.0)
        for s in RECIPES["real-esrgan"].stages
    ]
    recipe = dataclasses.replace(RECIPES["real-esrgan"], stages=tuple(quiet), final_sinc_prob=0.0)
    image = structured(120, 88)
    h, w = image.shape[-2:]
    seen = set()
    for seed in range(24):
        (drawn,) = draw(recipe, 1, generator(seed))
        first, second = drawn.stages
        x = F.interpolate(image, scale_factor=first.resize, mode=first.mode)
        x = differentiable_jpeg(x.clamp(0, 1), torch.tensor([first.jpeg_quality]))
        size = (int(h / 4 * second.resize), int(w / 4 * second.resize))
        x = F.interpolate(x, size=size, mode=second.mode).clamp(0, 1)  # as adding noise does
        for step in ("sinc", "jpeg") if drawn.sinc_first else ("jpeg", "sinc"):
            if step == "sinc":
                x = F.interpolate(x, size=(h // 4, w // 4), mode=drawn.final_mode)
            else:
                x = differentiable_jpeg(x.clamp(0, 1), torch.tensor([second.jpeg_quality]))
        x = F.interpolate(x, size=(h, w), mode=drawn.back_mode)
        expected = (x * 255).round().clamp(0, 255) / 255
        assert torch.equal(degrade(image, [drawn]), expected)
        seen.add(drawn.back_mode)
    assert seen == {"area", "bilinear", "bicubic"}


def test_the_public_pipelines_own_files(shared):
    """About a third of them repeat each pixel of the small image 4×4 times, as "area" does.

    Where they do, resizing down and back as hbr resizes gives the file again, to the last bit.
    """
    repeated = 0
    files = sorted((shared / "photos/clothing-co-parsing/val-lq").glob("*.webp"))
    for file in files:
        pixels = torch.from_numpy(cv2.imread(str(file))).permute(2, 0, 1)[None].float() / 255
        blocks = pixels.unfold(2, 4, 4).unfold(3, 4, 4)
        if bool((blocks == blocks[..., :1, :1]).all()):
            repeated += 1
            back = resize(pixels[..., ::4, ::4], (512, 512), "area")
            assert torch.equal((back * 255).round(), (pixels * 255).round())
    expected = len(files) / 3
    assert abs(repeated - expected) < 3 * math.sqrt(expected * 2 / 3)


def test_photo_has_what_photos_have():
    """Every kind of damage is drawn, as often as the recipe says; each draw gives a valid image."""
    n = 2000
    drawn = draw(RECIPES["photo"], n, generator(4))
    first, second = [d.stages[0] for d in drawn], [d.stages[1] for d in drawn]

    def share(hits, probability):
        deviation = math.sqrt(probability * (1 - probability) / n)
        assert abs(sum(hits) / n - probability) < 4 * deviation

    share((s.noise is not None and s.noise.kind == "camera" for s in first), 0.81)
    share((s.kernel is not None and s.kernel.shape == "disc" for s in first), 0.6 * 0.4)
    share((s.kernel is not None and s.kernel.shape == "trajectory" for s in first), 0.36 * 0.3)
    share((s.sharpening is not None for s in first), 0.4)
    share((s.jpeg_quality is not None for s in second), 0.9)
    share((d.fading is not None for d in drawn), 0.05)
    share((bool(d.motions) for d in drawn), 0.1)
    weights = RECIPES["photo"].final_modes
    for mode, weight in zip(MODES, weights, strict=True):
        share((d.final_mode == mode for d in drawn), weight / sum(weights))
    corners = {s.jpeg_corner for s in first}
    assert {c[0] for c in corners} == {c[1] for c in corners} == set(range(16))
    image = structured(64, 48).expand(40, -1, -1, -1)
    out = degrade(image, drawn[:40])
    assert out.shape == image.shape
    assert 0 <= float(out.min()) <= float(out.max()) <= 1
    alone = degrade(image[:1], drawn[7:8])
    assert (alone[0] - out[7]).abs().mean() < 1e-4


def test_noise_jpeg_leaves_the_size_alone():
    """Noise, JPEG, both or neither; never resized; a draw of JPEG alone is libjpeg's file."""
    n = 2000
    drawn = draw(RECIPES["noise-jpeg"], n, generator(5))
    stages = [d.stages[0] for d in drawn]
    for hits, probability in (
        ([s.noise is not None for s in stages], 0.6),
        ([s.jpeg_quality is not None for s in stages], 0.75),
        ([s.noise is None and s.jpeg_quality is None for s in stages], 0.4 * 0.25),
        ([s.kernel is not None for s in stages], 0.15),
    ):
        deviation = math.sqrt(probability * (1 - probability) / n)
        assert abs(sum(hits) / n - probability) < 4 * deviation
    assert all(d.scale == 1 and len(d.stages) == 1 and d.stages[0].resize == 1 for d in drawn)
    image = structured(96, 80)
    plain = (None, None, (0, 0))
    at = next(
        i
        for i, s in enumerate(stages)
        if (s.noise, s.kernel, s.jpeg_corner) == plain and s.jpeg_quality
    )
    pixels = (image[0].permute(1, 2, 0) * 255).round().byte().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=round(stages[at].jpeg_quality))
    saved = torch.from_numpy(np.array(Image.open(file)).astype("float32")).permute(2, 0, 1) / 255
    assert float((degrade(image, [drawn[at]])[0] - saved).abs().max()) <= 1 / 255 + 1e-6


def test_web_is_a_jpeg_of_a_good_photo():
    """Always a JPEG file of middling to high quality, a quarter with a little noise, no blur."""
    drawn = draw(RECIPES["web"], 1000, generator(6))
    stages = [d.stages[0] for d in drawn]
    qualities = [s.jpeg_quality for s in stages]
    assert 55 <= min(qualities) < 58
    assert 94 < max(qualities) <= 97
    assert 0.2 < sum(s.noise is not None for s in stages) / 1000 < 0.3
    assert all(s.kernel is None and s.resize == 1 for s in stages)
    assert all(d.scale == 1 and len(d.stages) == 1 for d in drawn)
    image = structured(96, 80).expand(32, -1, -1, -1)
    worst = ((degrade(image, drawn[:32]) - image) ** 2).mean(dim=(1, 2, 3)).max()
    assert 10 * math.log10(1 / worst) > 25


def test_another_scale_for_every_draw():
    recipe = Recipe(stages=(StageConfig(blur=BlurConfig(prob=0.0)),), scales=(2, 3, 4))
    drawn = draw(recipe, 300, generator())
    counts = [sum(d.scale == scale for d in drawn) for scale in (2, 3, 4)]
    assert sum(counts) == 300
    assert min(counts) > 70
    assert degrade(structured(96, 72), drawn[:1], resize_back=False).shape[-2:] == (
        96 // drawn[0].scale,
        72 // drawn[0].scale,
    )
