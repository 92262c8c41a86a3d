"""A step of the fine-tuning beside the same step put together from diffusers and peft.

Three U-Nets of diffusers stand where hbr has one with switched adapters: the generator, the frozen
prior, and the regularizer. The losses are written out from DESIGN §3.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from peft import LoraConfig
from torch import Tensor, nn
from toy_training import settings

from hbr.config import from_dict
from hbr.models import lora
from hbr.models.checkpoint import build
from hbr.models.importing.base import load_base
from hbr.models.onestep import OneStepRestorer
from hbr.training.adapters import add_adapters
from hbr.training.config import TrainConfig
from hbr.training.data import Pair, seeded
from hbr.training.losses import PixelTerms
from hbr.training.objectives import Losses, restoration
from hbr.training.random_state import RandomState

SCALING = 0.18215
MSE, L1, VSD, GUIDANCE = 4.0, 0.5, 0.7, 7.5
GENERATOR = ("default_encoder", "default_decoder", "default_others")
REGULARIZER = ("regularizer_encoder", "regularizer_decoder", "regularizer_others")


def config_of(out: Path) -> TrainConfig:
    vsd = {"weight": VSD, "guidance": GUIDANCE, "lora": {"rank": 3, "alpha": 5}}
    objective = {"kind": "restoration", "lora": {"rank": 4, "alpha": 8}, "vsd": vsd}
    return from_dict(
        TrainConfig, settings(out, objective=objective, loss={"mse": MSE, "l1": L1, "psnr": 0.0})
    )


def adapted(module: nn.Module, source: nn.Module, names: tuple[str, ...], alpha: float) -> None:
    """Put an adapter of peft on `module`, with the weights that hbr has under `names`."""
    weights: dict[str, Tensor] = {}
    for name, tensor in source.named_parameters():
        layer, found, rest = name.partition(".lora_")
        matrix, _, adapter = rest.removesuffix(".weight").partition(".")
        if found and adapter in names:
            weights[f"{layer}.lora_{matrix}"] = tensor.detach()
    layers = sorted({name.rpartition(".")[0] for name in weights})
    rank = len(weights[f"{layers[0]}.lora_A"])
    module.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules=layers))
    module.requires_grad_(False)
    for name, parameter in module.named_parameters():
        if ".lora_" in name:
            parameter.data.copy_(weights[name.removesuffix(".default.weight")])
            parameter.requires_grad_(True)


class Anew:
    """The same networks, each a module of its own."""

    def __init__(self, base: Path, model: OneStepRestorer) -> None:
        def unet() -> UNet2DConditionModel:
            return UNet2DConditionModel.from_pretrained(base / "unet").eval()

        self.vae = AutoencoderKL.from_pretrained(base / "vae").eval()
        self.generator, self.prior, self.regularizer = unet(), unet().requires_grad_(False), unet()
        adapted(self.vae, model.autoencoder, ("default_encoder",), 8)
        adapted(self.generator, model.unet, GENERATOR, 8)
        adapted(self.regularizer, model.unet, REGULARIZER, 5)

    def parts(self) -> dict[str, nn.Module]:
        return {"vae": self.vae, "generator": self.generator, "regularizer": self.regularizer}

    def gradients(self) -> dict[str, Tensor | None]:
        return {
            f"{part} {name.replace('.default.', '.')}": parameter.grad
            for part, module in self.parts().items()
            for name, parameter in module.named_parameters()
            if ".lora_" in name
        }


def gradients_of(model: OneStepRestorer) -> dict[str, Tensor | None]:
    """The gradients of hbr's adapters, by network, layer and matrix."""
    found: dict[str, Tensor | None] = {}
    for name, parameter in model.named_parameters():
        layer, is_lora, rest = name.partition(".lora_")
        if not is_lora:
            assert not layer.startswith(("unet", "autoencoder")) or parameter.grad is None, name
            continue
        matrix, _, adapter = rest.removesuffix(".weight").partition(".")
        network, _, layer = layer.partition(".")
        part = "vae" if network == "autoencoder" else adapter.partition("_")[0]
        part = {"default": "generator"}.get(part, part)
        found[f"{part} {layer}.lora_{matrix}.weight"] = parameter.grad
    return found


def calls_of(model: OneStepRestorer) -> list[tuple[str, ...]]:
    """Note at each call of the U-Net which adapters act; the list fills up with the calls."""
    calls: list[tuple[str, ...]] = []

    def note(*_: object) -> None:
        layers = lora.lora_layers(model.unet).values()
        acting = {n for one in layers if not one.disable_adapters for n in one.active_adapters}
        calls.append(tuple(name for name in (*GENERATOR, *REGULARIZER) if name in acting))

    model.unet.register_forward_pre_hook(note)
    return calls


@dataclass(frozen=True)
class Step:
    """One step of hbr, not yet minimised, and what it was made of."""

    model: OneStepRestorer
    anew: Anew
    pair: Pair
    prompt: Tensor
    negative: Tensor
    losses: Losses
    calls: list[tuple[str, ...]]


@pytest.fixture
def step(shared: Path, tmp_path: Path) -> Step:
    base = shared / "goldens" / "osediff" / "base"
    torch.manual_seed(0)
    model = build(load_base(base, "a person", print))
    assert isinstance(model, OneStepRestorer)
    config = config_of(tmp_path)
    model.requires_grad_(False)
    add_adapters(model, config)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            nn.init.normal_(parameter, std=0.1)
    pair = Pair(hq=torch.rand(2, 3, 64, 64), lq=torch.rand(2, 3, 64, 64))
    prompt = model.prompt(pair.lq).detach()
    negative = torch.randn(prompt.shape[1:])
    anew, calls = Anew(base, model), calls_of(model)
    losses = restoration(
        model,
        pair,
        config.objective,  # type: ignore[arg-type]
        RandomState(seeded(0, 0, 1)),
        PixelTerms(config.loss),
        negative,
    )
    return Step(model, anew, pair, prompt, negative, losses, calls)


def alpha_bars() -> Tensor:
    """ᾱ of Stable Diffusion 2.1-base, from its definition."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    return torch.from_numpy(np.cumprod(1 - betas)).float()


def noised(z: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """The noisy latent, and ᾱ at each t."""
    at = alpha_bars()[t].view(-1, 1, 1, 1)
    return at.sqrt() * z + (1 - at).sqrt() * noise, at


def restored(step: Step) -> tuple[Tensor, Tensor]:
    """The latent and the image of the one step, by the networks of diffusers."""
    mean = step.anew.vae.encode(2 * step.pair.lq - 1).latent_dist.mean
    z_l, at = mean * SCALING, alpha_bars()[999]
    epsilon = step.anew.generator(z_l, torch.tensor(999), step.prompt).sample
    z_h = (z_l - (1 - at).sqrt() * epsilon) / at.sqrt()
    return z_h, step.anew.vae.decode(z_h / SCALING).sample / 2 + 0.5


def distilled(step: Step, z_h: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """The distillation: mse(z, stop_grad(z − grad)), grad between the estimates of x0."""
    with torch.no_grad():
        z_t, at = noised(z_h, noise, t)
        negative = step.negative.expand_as(step.prompt)
        away, towards = (step.anew.prior(z_t, t, p).sample for p in (negative, step.prompt))
        prior = away + GUIDANCE * (towards - away)
        tuned = step.anew.regularizer(z_t, t, step.prompt).sample
        x0_prior, x0_tuned = ((z_t - (1 - at).sqrt() * e) / at.sqrt() for e in (prior, tuned))
        size = (z_h - x0_prior).abs().mean(dim=(1, 2, 3), keepdim=True)
        target = z_h - (x0_tuned - x0_prior) / size
    return F.mse_loss(z_h, target)


def assert_same(got: Mapping[str, Tensor | None], expected: Mapping[str, Tensor | None]) -> None:
    """The same adapters have a gradient, and the same one, to float32's width."""
    assert got.keys() == expected.keys()
    with_gradient = {name for name, tensor in expected.items() if tensor is not None}
    assert {name for name, tensor in got.items() if tensor is not None} == with_gradient
    for name in with_gradient:
        ours, theirs = got[name], expected[name]
        assert ours is not None
        assert theirs is not None
        assert theirs.abs().max() > 0, name
        scale = float(theirs.abs().max())
        torch.testing.assert_close(ours / scale, theirs / scale, atol=1e-3, rtol=0, msg=name)


def test_the_losses_and_every_gradient_of_the_generators_step(step: Step) -> None:
    draws = RandomState(seeded(0, 0, 1))
    z_h, image = restored(step)
    t, noise = draws.timesteps((20, 980), z_h), draws.noise(z_h)
    expected = {
        "mse": MSE * F.mse_loss(image, step.pair.hq),
        "l1": L1 * F.l1_loss(image, step.pair.hq),
        "vsd": VSD * distilled(step, z_h, noise, t),
    }
    assert step.losses.terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(step.losses.terms[name], value, rtol=1e-4, atol=0, msg=name)
    sum(step.losses.terms.values()).backward()  # type: ignore[union-attr]
    sum(expected.values()).backward()  # type: ignore[union-attr]
    got = gradients_of(step.model)
    assert {name.partition(" ")[0] for name, g in got.items() if g is not None} == {
        "vae",
        "generator",
    }
    assert_same(got, step.anew.gradients())


def test_the_loss_and_every_gradient_of_the_regularizers_step(step: Step) -> None:
    draws = RandomState(seeded(0, 0, 1))
    with torch.no_grad():
        z_h, _ = restored(step)
    # the draws of the distillation come first
    draws.timesteps((20, 980), z_h), draws.noise(z_h)
    t, noise = draws.timesteps((0, 1000), z_h), draws.noise(z_h)
    z_t, _ = noised(z_h, noise, t)
    expected = F.mse_loss(step.anew.regularizer(z_t, t, step.prompt).sample, noise)
    assert step.losses.then is not None
    terms = step.losses.then()
    assert terms.keys() == {"regularizer"}
    torch.testing.assert_close(terms["regularizer"], expected, rtol=1e-4, atol=0)
    terms["regularizer"].backward()
    expected.backward()
    got = gradients_of(step.model)
    assert {name.partition(" ")[0] for name, g in got.items() if g is not None} == {"regularizer"}
    assert_same(got, step.anew.gradients())


def test_which_adapters_act_in_which_call(step: Step) -> None:
    """Once as the generator, once as the regularizer, twice as the prior, guided; then again."""
    generator, *distillation = step.calls
    assert generator == GENERATOR
    assert Counter(distillation) == {REGULARIZER: 1, (): 2}
    # a backward pass that computes blocks again finds the generator
    layers = lora.lora_layers(step.model.unet).values()
    acting = {name for one in layers if not one.disable_adapters for name in one.active_adapters}
    assert acting == set(GENERATOR)
    step.calls.clear()
    assert step.losses.then is not None
    step.losses.then()
    assert step.calls == [REGULARIZER]


def test_the_weight_of_the_distillation_is_that_of_the_recipe(step: Step, tmp_path: Path) -> None:
    """The pixel losses keep theirs, and the gradient of the distillation grows with it."""
    terms = []
    for weight in (VSD, 3 * VSD):
        objective = config_of(tmp_path).objective
        vsd = {**vars(objective.vsd), "weight": weight}  # type: ignore[union-attr]
        objective = type(objective)(**{**vars(objective), "vsd": type(objective.vsd)(**vsd)})  # type: ignore[union-attr]
        losses = restoration(
            step.model,
            step.pair,
            objective,  # type: ignore[arg-type]
            RandomState(seeded(0, 0, 1)),
            PixelTerms(config_of(tmp_path).loss),
            step.negative,
        )
        terms.append({name: float(term.detach()) for name, term in losses.terms.items()})
    assert terms[1]["vsd"] == pytest.approx(3 * terms[0]["vsd"], rel=1e-5)
    assert terms[1]["mse"] == pytest.approx(terms[0]["mse"], rel=1e-5)
