"""Samplers of many steps as plain functions: DDPM, DDIM, UniPC, and DDPM with guidance.

z are latents in float32 or better, ε what the network predicts, z̃_0 the clean latent that follows
from both (DiffBody Eq. 5). Nothing is drawn from a global generator: the noise is an argument.

Shapes: b batch, c latent channels, h w latent size, n steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hbr.models.config import ScheduleConfig
from hbr.models.schedule import alphas_cumprod, one_step
from hbr.models.vsd import Predict

DrawNoise = Callable[[Tensor], Tensor]
"""Draws Gaussian noise in shape, dtype and device of the given latents."""

Watch = Callable[[int, int, Tensor], None]
"""Called after each step with the number of steps done, their total, and z̃_0."""

_SMALLEST = 1e-20


@dataclass(frozen=True)
class Steps:
    """The timesteps of a sampling, from the noisiest on.

    Attributes:
        timesteps: t of each step, descending.
        alpha_bar: ᾱ_t of each step.
        previous: ᾱ that each step leads to; the last is 1.
    """

    timesteps: tuple[int, ...]
    alpha_bar: tuple[float, ...]
    previous: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.timesteps)


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """How a loss of the clean image steers the steps (DiffBody Algorithm 1).

    Attributes:
        loss: of z̃_0 [b, c, h, w], summed over the batch: a scalar.
        scale: s. The mean of a step moves by s · σ · g / RMS(g), g the gradient of the loss and σ
            the deviation of the noise of the step, so that s = 1 moves it as far as the noise does.
            The paper gives neither s nor a normalisation; without one, the gradient's size would
            depend on the size of the image and on the loss.
        through: "z0" is the gradient with respect to z̃_0, with the U-Net outside the graph;
            "full" is that with respect to z_t, through the U-Net.
        window: the part of the steps that is guided, from 0, the first, to 1, the last.
        repeats: how often each guided step is made; between them, noise leads back to z_t.
    """

    loss: Callable[[Tensor], Tensor]
    scale: float
    through: Literal["z0", "full"] = "z0"
    window: tuple[float, float] = (0.0, 1.0)
    repeats: int = 1

    def covers(self, step: int, steps: int) -> bool:
        """Whether step `step` (from 0) of `steps` is guided."""
        low, high = self.window
        return self.scale > 0 and low <= (step + 0.5) / steps <= high


def respaced(schedule: ScheduleConfig, n: int, strength: float = 1.0) -> Steps:
    """Choose n evenly spaced timesteps of a schedule, from the noisiest that `strength` allows.

    This is "trailing" spacing (Lin et al. 2023, "Common Diffusion Noise Schedules and Sample Steps
    Are Flawed"), with which 1 step and as many as the schedule has both make sense.

    Args:
        schedule: the noise schedule.
        n: 1 or more; reduced to the timesteps that there are.
        strength: the part of the schedule that they lie in, from its end, in (0, 1].
    """
    whole = max(1, round(schedule.steps * strength))
    n = min(n, whole)
    timesteps = [round(whole * (1 - i / n)) - 1 for i in range(n)]
    alphas = alphas_cumprod(schedule)
    at = [float(alphas[t]) for t in timesteps]
    return Steps(tuple(timesteps), tuple(at), (*at[1:], 1.0))


def posterior(z_t: Tensor, z_0: Tensor, alpha_bar: float, previous: float) -> tuple[Tensor, float]:
    """Mean and variance of q(z_prev | z_t, z_0) (Ho et al. 2020, Eq. 7), the variance fixed small.

    Args:
        z_t, z_0: [b, c, h, w].
        alpha_bar, previous: ᾱ of z_t and of z_prev.

    Returns:
        the mean [b, c, h, w], and β̃ = (1 − ᾱ_prev) / (1 − ᾱ_t) · (1 − ᾱ_t / ᾱ_prev).
    """
    alpha = alpha_bar / previous
    share = (1 - previous) / (1 - alpha_bar)
    mean = previous**0.5 * (1 - alpha) / (1 - alpha_bar) * z_0 + alpha**0.5 * share * z_t
    return mean, share * (1 - alpha)


def sample_guided(
    predict: Predict,
    z: Tensor,
    steps: Steps,
    noise: DrawNoise,
    guidance: Guidance | None,
    watch: Watch | None = None,
) -> Tensor:
    """Sample with DDPM, the mean of each step shifted against a gradient (DiffBody Algorithm 1).

    Without guidance these are the ancestral steps of DDPM (Ho et al. 2020, Algorithm 2) on respaced
    timesteps.

    Args:
        predict: the network, (z_t, t [b]) → ε.
        z: z_T [b, c, h, w].
        steps: from `respaced`.
        noise: called once before each step but the last, and once more for each repetition.
        guidance: None, or a scale of 0, samples with DDPM.
        watch: called after each step.

    Returns:
        z_0 [b, c, h, w].

    Raises:
        FloatingPointError: latents or gradient are not finite.
    """
    for i, t in enumerate(steps.timesteps):
        alpha_bar, previous = steps.alpha_bar[i], steps.previous[i]
        guide = guidance if guidance and guidance.covers(i, len(steps)) else None
        for again in reversed(range(guide.repeats if guide else 1)):
            if guide:
                z_0, gradient = guidance_gradient(guide, predict, z, t, alpha_bar)
            else:
                z_0, gradient = one_step(z, predict(z, _batch(t, z)), alpha_bar), None
            mean, variance = posterior(z, z_0, alpha_bar, previous)
            deviation = variance**0.5
            if guide and gradient is not None:
                mean = mean - guide.scale * deviation * _normalised(gradient)
            last = i == len(steps) - 1
            z = mean if last else mean + deviation * noise(mean)
            _check_finite(z, i)
            if again:
                alpha = alpha_bar / previous
                z = alpha**0.5 * z + (1 - alpha) ** 0.5 * noise(z)
        if watch:
            watch(i + 1, len(steps), z_0)
    return z


def guidance_gradient(
    guidance: Guidance, predict: Predict, z_t: Tensor, t: int, alpha_bar: float
) -> tuple[Tensor, Tensor]:
    """Compute z̃_0 and the gradient of the guidance's loss, with respect to z̃_0 or to z_t.

    Args:
        guidance: the loss, and what its gradient goes through.
        predict: the network.
        z_t: [b, c, h, w].
        t, alpha_bar: the step.

    Returns:
        z̃_0 and the gradient, each [b, c, h, w], both without a graph.
    """
    through_network = guidance.through == "full"
    with torch.inference_mode(False), torch.set_grad_enabled(through_network):
        # a tensor of inference mode cannot be part of a graph, but its copy can
        z_t = z_t.clone().requires_grad_(through_network)
        z_0 = one_step(z_t, predict(z_t, _batch(t, z_t)), alpha_bar)
    with torch.inference_mode(False), torch.enable_grad():
        if not through_network:
            z_0 = z_0.detach().clone().requires_grad_()
        loss = guidance.loss(z_0)
        (gradient,) = torch.autograd.grad(loss, z_t if through_network else z_0)
    return z_0.detach(), gradient


def sample_ddim(predict: Predict, z: Tensor, steps: Steps, watch: Watch | None = None) -> Tensor:
    """Sample with DDIM, η = 0 (Song et al. 2021, Eq. 12): z_T decides the result.

    diffusers' scheduler gives the same where n divides the schedule; otherwise it pairs each ᾱ_t
    with an ᾱ that the next step does not start from.
    """
    for i, t in enumerate(steps.timesteps):
        epsilon = predict(z, _batch(t, z))
        z_0 = one_step(z, epsilon, steps.alpha_bar[i])
        previous = steps.previous[i]
        z = previous**0.5 * z_0 + (1 - previous) ** 0.5 * epsilon.to(z_0.dtype)
        _check_finite(z, i)
        if watch:
            watch(i + 1, len(steps), z_0)
    return z


def sample_unipc(
    predict: Predict, z: Tensor, schedule: ScheduleConfig, steps: Steps, watch: Watch | None = None
) -> Tensor:
    """Sample with UniPC of second order (Zhao et al. 2023), through diffusers' scheduler."""
    from diffusers import UniPCMultistepScheduler

    scheduler = UniPCMultistepScheduler(
        num_train_timesteps=schedule.steps,
        beta_start=schedule.beta_start,
        beta_end=schedule.beta_end,
        beta_schedule="scaled_linear",
        timestep_spacing="trailing",
        final_sigmas_type="zero",
    )
    scheduler.set_timesteps(len(steps), device=z.device)
    for i, t in enumerate(steps.timesteps):
        epsilon = predict(z, _batch(t, z))
        z_0 = one_step(z, epsilon, steps.alpha_bar[i])
        z = scheduler.step(epsilon, scheduler.timesteps[i], z).prev_sample
        _check_finite(z, i)
        if watch:
            watch(i + 1, len(steps), z_0)
    return z


def in_windows(network: Callable[[Tensor], Tensor], x: Tensor, edge: int, overlap: int) -> Tensor:
    """Run a network over overlapping windows and blend what it gives.

    The steps of all samplers are linear in z and ε, so blending ε at every step is blending the
    latents at every step: with the noise drawn for the whole, no seam can appear (MultiDiffusion,
    Bar-Tal et al. 2023).

    Args:
        network: [b, c, h', w'] → [b, c', h', w'].
        x: [b, c, h, w].
        edge: of a window, in cells of x; a dimension that is smaller has one window.
        overlap: the least that neighbours share, less than `edge`.

    Returns:
        [b, c', h, w].
    """
    h, w = x.shape[-2:]
    if max(h, w) <= edge:
        return network(x)
    total, weights = None, torch.zeros(h, w, device=x.device)
    for top in _starts(h, edge, overlap):
        for left in _starts(w, edge, overlap):
            part = x[..., top : top + edge, left : left + edge]
            made = network(part)
            window = _ramp(part.shape[-2], overlap, x.device)[:, None] * _ramp(
                part.shape[-1], overlap, x.device
            )
            if total is None:
                total = made.new_zeros(*made.shape[:-2], h, w)
            at = (..., slice(top, top + edge), slice(left, left + edge))
            total[at] += made * window.to(made.dtype)
            weights[at] += window
    assert total is not None
    return total / weights.to(total.dtype)


def _starts(size: int, edge: int, overlap: int) -> list[int]:
    """First cells of as few windows as cover `size`, evenly spaced."""
    if size <= edge:
        return [0]
    n = -(-(size - overlap) // (edge - overlap))
    return [round(i * (size - edge) / (n - 1)) for i in range(n)]


def _ramp(size: int, overlap: int, device: torch.device) -> Tensor:
    """Weights that fall off towards both ends, never to 0: [size]."""
    distance = torch.arange(size, device=device) + 0.5
    distance = torch.minimum(distance, size - distance)
    return torch.sin(torch.pi / 2 * (distance / max(overlap, 1)).clamp(max=1)) ** 2


def _batch(t: int, z: Tensor) -> Tensor:
    return torch.full((len(z),), t, device=z.device)


def _normalised(gradient: Tensor) -> Tensor:
    """The gradient divided by its root mean square, for each image; zeros stay zeros."""
    rms = gradient.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    return gradient / rms.clamp(min=_SMALLEST)


def _check_finite(z: Tensor, step: int) -> None:
    if not bool(z.isfinite().all()):
        raise FloatingPointError(
            f"step {step + 1} of the sampling gave values that are not finite; use a lower "
            "--guidance or --text-guidance, or --dtype float32"
        )
