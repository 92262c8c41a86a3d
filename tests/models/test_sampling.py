"""Samplers against independent calculations in float64, and against diffusers' schedulers."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor

from hbr.models.config import ScheduleConfig
from hbr.models.sampling import (
    Guidance,
    guidance_gradient,
    in_windows,
    posterior,
    respaced,
    sample_ddim,
    sample_guided,
    sample_unipc,
)
from hbr.models.schedule import one_step

SCHEDULE = ScheduleConfig()
SHAPE = (2, 3, 4, 5)


def alphas() -> np.ndarray:
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=np.float64) ** 2
    return np.cumprod(1 - betas)


def drawn(seed: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(z: Tensor, t: Tensor) -> Tensor:
    """Something that depends on everything: pixels, channels, neighbours, time."""
    mixed = z.roll(1, dims=1) * 0.3 + z.roll(1, dims=3) * 0.2
    return torch.tanh(z * 0.7 + mixed + t.view(-1, 1, 1, 1).to(z) / 1000)


@pytest.mark.parametrize("n", [1, 2, 7, 50, 1000])
def test_timesteps_are_even_and_begin_with_pure_noise(n: int) -> None:
    steps = respaced(SCHEDULE, n)
    expected = np.round(np.arange(1000, 0, -1000 / n)) - 1
    assert steps.timesteps == tuple(expected.astype(int)[:n])
    assert (len(steps), steps.timesteps[0]) == (n, 999)
    assert all(a > b for a, b in pairwise(steps.timesteps))
    at = alphas()[list(steps.timesteps)]
    assert np.abs(np.array(steps.alpha_bar) - at).max() < 1e-12
    assert steps.previous == (*steps.alpha_bar[1:], 1.0)


@pytest.mark.parametrize(("strength", "first"), [(1.0, 999), (0.2, 199), (0.0001, 0)])
def test_a_lower_strength_leaves_out_the_noisiest_timesteps(strength: float, first: int) -> None:
    steps = respaced(SCHEDULE, 4, strength)
    assert steps.timesteps[0] == first
    assert len(steps) == min(4, first + 1)
    assert np.abs(np.array(steps.alpha_bar) - alphas()[list(steps.timesteps)]).max() < 1e-12
    assert steps.previous == (*steps.alpha_bar[1:], 1.0)


@pytest.mark.parametrize("n", [1, 3, 50, 1000])
def test_mean_and_variance_are_those_of_bayes(n: int) -> None:
    """The product of q(z_t | z_prev) and q(z_prev | z_0), two Gaussians of z_prev."""
    steps = respaced(SCHEDULE, n)
    for i in {0, n // 2, n - 1}:
        a_t, a_prev = steps.alpha_bar[i], steps.previous[i]
        z_t, z_0 = drawn(1), drawn(2)
        mean, variance = posterior(z_t, z_0, a_t, a_prev)
        if a_prev == 1:
            assert variance == 0
            assert torch.allclose(mean, z_0, atol=1e-12)
            continue
        alpha = a_t / a_prev
        # as a density of z_prev: N(z_t / √α, (1 − α) / α) · N(√ᾱ_prev z_0, 1 − ᾱ_prev)
        precision = alpha / (1 - alpha) + 1 / (1 - a_prev)
        weighted = (z_t / alpha**0.5) * alpha / (1 - alpha) + a_prev**0.5 * z_0 / (1 - a_prev)
        assert abs(variance - 1 / precision) < 1e-12
        assert (mean - weighted / precision).abs().max() < 1e-10


@pytest.mark.parametrize("t", [0, 199, 399, 999])
def test_the_clean_latent_is_the_one_that_noise_was_added_to(t: int) -> None:
    z_0, epsilon, a = drawn(1), drawn(2), alphas()[t]
    z_t = a**0.5 * z_0 + (1 - a) ** 0.5 * epsilon
    assert one_step(z_t, epsilon, a).dtype == torch.float64
    assert (one_step(z_t, epsilon, a) - z_0).abs().max() < 1e-10


@pytest.mark.parametrize("n", [1, 10, 37, 50])
@pytest.mark.parametrize("scale", [None, 0.0])
def test_without_guidance_it_is_ddpm(n: int, scale: float | None) -> None:
    scheduler = DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="trailing",
        variance_type="fixed_small",
        clip_sample=False,
    )
    scheduler.alphas_cumprod = torch.from_numpy(alphas())
    scheduler.one = torch.tensor(1.0, dtype=torch.float64)
    scheduler.set_timesteps(n)
    z = drawn(0)
    for i, t in enumerate(scheduler.timesteps, 1):
        # without noise: the scheduler takes the generator's, which is then replaced by ours
        epsilon = network(z, t.expand(2))
        mean = scheduler.step(epsilon, int(t), z, generator=torch.Generator().manual_seed(5))
        variance = scheduler._get_variance(int(t)) if t > 0 else torch.tensor(0.0)
        theirs = torch.randn(SHAPE, generator=torch.Generator().manual_seed(5), dtype=z.dtype)
        z = mean.prev_sample - variance**0.5 * theirs * (t > 0)
        if i < n:
            z = z + variance**0.5 * drawn(i)
    count = iter(range(1, n + 1))
    guidance = None if scale is None else Guidance(loss=lambda z: z.sum(), scale=scale)
    got = sample_guided(
        network, drawn(0), respaced(SCHEDULE, n), lambda z: drawn(next(count)), guidance
    )
    assert (got - z).abs().max() < 1e-6
    count = iter(range(1, n + 1))
    steps = respaced(SCHEDULE, n)
    plain = sample_guided(network, drawn(0), steps, lambda z: drawn(next(count)), None)
    assert torch.equal(plain, got)


@pytest.mark.parametrize("n", [1, 10, 50])
def test_ddim_is_that_of_diffusers(n: int) -> None:
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="trailing",
        clip_sample=False,
    )
    scheduler.alphas_cumprod = torch.from_numpy(alphas())
    scheduler.set_timesteps(n)
    z = drawn(0)
    for t in scheduler.timesteps:
        z = scheduler.step(network(z, t.expand(2)), int(t), z).prev_sample
    assert (sample_ddim(network, drawn(0), respaced(SCHEDULE, n)) - z).abs().max() < 1e-6


DEVIATION = 0.7


def of_a_gaussian(z: Tensor, t: Tensor) -> Tensor:
    """The exact ε where the clean latents are N(0, 0.7²)."""
    a = torch.from_numpy(alphas())[t].view(-1, 1, 1, 1)
    return (1 - a).sqrt() * z / (a * DEVIATION**2 + 1 - a)


def test_the_flow_of_a_gaussian_ends_where_it_must() -> None:
    """Against the solution of the probability flow, z_0 = z_T · σ / √(ᾱ σ² + 1 − ᾱ)."""
    z, a = drawn(0), alphas()[999]
    expected = z * DEVIATION / math.sqrt(a * DEVIATION**2 + 1 - a)

    def errors(n: int) -> tuple[float, float]:
        steps = respaced(SCHEDULE, n)
        ddim = sample_ddim(of_a_gaussian, z, steps)
        unipc = sample_unipc(of_a_gaussian, z, SCHEDULE, steps)
        return tuple(float((got - expected).abs().max()) for got in (ddim, unipc))

    few, many = errors(50), errors(1000)
    assert many[0] < few[0] / 10 < 0.01
    assert many[1] < few[1] / 10 < 0.004
    # of second order, it gets closer with as many steps
    assert few[1] < few[0] / 2


def test_ddpm_samples_the_gaussian() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(1, 1, 200, 200, generator=generator, dtype=torch.float64)
    noise = lambda z: torch.randn(z.shape, generator=generator, dtype=z.dtype)  # noqa: E731
    got = sample_guided(of_a_gaussian, z, respaced(SCHEDULE, 1000), noise, None)
    # 40,000 samples: their deviation has an error of 0.35 %
    assert abs(float(got.std()) / DEVIATION - 1) < 0.02


def loss(z_0: Tensor) -> Tensor:
    return (torch.sin(z_0) * z_0.roll(1, dims=2)).square().sum()


@pytest.mark.parametrize("through", ["z0", "full"])
def test_the_gradient_is_that_of_finite_differences(through: str) -> None:
    z_t, t = drawn(3), 399
    a = float(alphas()[t])
    guidance = Guidance(loss=loss, scale=1.0, through=through)
    with torch.inference_mode():
        z_0, gradient = guidance_gradient(guidance, network, z_t.clone(), t, a)
    at = torch.tensor([t, t])
    assert (z_0 - one_step(z_t, network(z_t, at), a)).abs().max() < 1e-12

    def value(z: Tensor) -> float:
        return float(loss(one_step(z, network(z, at), a) if through == "full" else z))

    base, step = (z_t if through == "full" else z_0), 1e-6
    for index in [(0, 0, 0, 0), (1, 2, 3, 4), (0, 1, 2, 3)]:
        moved = torch.zeros(SHAPE, dtype=torch.float64)
        moved[index] = step
        slope = (value(base + moved) - value(base - moved)) / (2 * step)
        assert abs(slope - float(gradient[index])) < 1e-6 * max(1, abs(slope))


def test_a_step_moves_by_the_scale_times_its_noise() -> None:
    """Two steps; the first moves the mean, and the noise is none."""
    steps, zero = respaced(SCHEDULE, 2), torch.zeros_like
    guidance = Guidance(loss=loss, scale=0.3, window=(0.0, 0.5))
    plain: list[Tensor] = []
    moved: list[Tensor] = []
    z = drawn(0)

    def kept(into: list[Tensor]):
        def predict(z: Tensor, t: Tensor) -> Tensor:
            into.append(z.detach().clone())
            return network(z, t)

        return predict

    sample_guided(kept(plain), z, steps, zero, None)
    sample_guided(kept(moved), z, steps, zero, guidance)
    deviation = posterior(z, z, steps.alpha_bar[0], steps.previous[0])[1] ** 0.5
    _, gradient = guidance_gradient(guidance, network, z, 999, steps.alpha_bar[0])
    for image in range(2):
        shift = plain[1][image] - moved[1][image]
        rms = float(gradient[image].square().mean().sqrt())
        assert torch.allclose(shift, 0.3 * deviation * gradient[image] / rms, atol=1e-10)
        assert abs(float(shift.square().mean().sqrt()) - 0.3 * deviation) < 1e-9


def test_guidance_lowers_its_loss() -> None:
    target = drawn(9)

    def sampled(scale: float, repeats: int = 1) -> float:
        generator = torch.Generator().manual_seed(1)
        noise = lambda z: torch.randn(z.shape, generator=generator, dtype=z.dtype)  # noqa: E731
        guidance = Guidance(
            loss=lambda z: (z - target).square().sum(), scale=scale, repeats=repeats
        )
        z = sample_guided(of_a_gaussian, drawn(0), respaced(SCHEDULE, 20), noise, guidance)
        return float((z - target).square().mean())

    assert sampled(0.5) < 0.8 * sampled(0)
    assert sampled(0.5, repeats=3) < 0.8 * sampled(0, repeats=3)


def test_between_repetitions_noise_leads_back() -> None:
    """Two steps of which the first is made twice, by hand."""
    steps, z = respaced(SCHEDULE, 2), drawn(0)
    guidance = Guidance(loss=loss, scale=0.4, window=(0.0, 0.5), repeats=2)
    noises = iter([drawn(10), drawn(11), drawn(12)])
    got = sample_guided(network, z, steps, lambda z: next(noises), guidance)
    (a, _), (previous, _) = steps.alpha_bar, steps.previous
    for again in (1, 0):
        z_0, gradient = guidance_gradient(guidance, network, z, 999, a)
        mean, variance = posterior(z, z_0, a, previous)
        rms = gradient.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        z = mean + variance**0.5 * (drawn(10 if again else 12) - 0.4 * gradient / rms)
        if again:
            z = (a / previous) ** 0.5 * z + (1 - a / previous) ** 0.5 * drawn(11)
    z_0 = one_step(z, network(z, torch.tensor([499, 499])), steps.alpha_bar[1])
    assert (got - z_0).abs().max() < 1e-10


def test_repeats_and_window_decide_how_often_the_network_runs() -> None:
    calls: list[int] = []
    seen: list[tuple[int, int]] = []

    def counted(z: Tensor, t: Tensor) -> Tensor:
        calls.append(int(t[0]))
        return network(z, t)

    guidance = Guidance(loss=loss, scale=0.1, window=(0.5, 1.0), repeats=2)
    steps = respaced(SCHEDULE, 4)
    sample_guided(
        counted, drawn(0), steps, drawn_like, guidance, lambda i, n, z: seen.append((i, n))
    )
    assert calls == [999, 749, 499, 499, 249, 249]
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def drawn_like(z: Tensor) -> Tensor:
    return torch.ones_like(z)


@pytest.mark.parametrize("scale", [1e300, math.inf])
def test_an_enormous_scale_is_one_clear_line(scale: float) -> None:
    guidance = Guidance(loss=loss, scale=scale)
    with pytest.raises(FloatingPointError, match="use a lower --guidance"):
        sample_guided(network, drawn(0).float(), respaced(SCHEDULE, 3), drawn_like, guidance)


@pytest.mark.parametrize("size", [(6, 6), (9, 20), (23, 7)])
def test_windows_of_a_local_network_leave_no_seam(size: tuple[int, int]) -> None:
    x = drawn(4, (1, 2, *size))
    sizes = []

    def local(part: Tensor) -> Tensor:
        sizes.append(part.shape[-2:])
        return torch.cat([part.square(), part[:, :1]], dim=1)

    got = in_windows(local, x, edge=8, overlap=3)
    assert got.shape == (1, 3, *size)
    assert (got - torch.cat([x.square(), x[:, :1]], dim=1)).abs().max() < 1e-6
    assert all(max(each) <= 8 for each in sizes)
    assert (len(sizes) > 1) == (max(size) > 8)


def test_neighbouring_windows_fade_into_each_other() -> None:
    numbers = iter(range(100))
    got = in_windows(
        lambda part: torch.full_like(part, next(numbers)), drawn(0, (1, 1, 8, 12)), 8, 4
    )
    row = got[0, 0, 4]
    assert row[0] == 0
    assert row[-1] == 1
    assert bool((row.diff() >= 0).all())
    assert row.diff().max() < 0.8
