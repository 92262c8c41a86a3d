"""OSEDiff of other sizes, ranks and seeds, beside the same put together from diffusers and peft.

The composition here shares no line with hbr: networks of diffusers, adapters of peft, the formulas
of DESIGN §3 written out.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from peft import LoraConfig
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from hbr.models import lora
from hbr.models.checkpoint import build, read_checkpoint
from hbr.models.config import LoRAConfig, ScheduleConfig
from hbr.models.importing import import_weights
from hbr.models.importing.base import load_diffusers_base
from hbr.models.networks import build_unet
from hbr.models.schedule import alphas_cumprod, one_step
from hbr.models.vsd import Predict, guided, regularizer_loss, vsd_gradient, vsd_loss

UNET = ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")
CONVOLUTIONS = ("conv", "conv1", "conv2", "conv_in", "conv_out", "conv_shortcut")


@dataclass(frozen=True)
class Size:
    unet: tuple[int, ...]
    vae: tuple[int, ...]
    prompt: int
    rank_unet: int
    rank_vae: int
    seed: int


SIZES = (
    Size((24, 32), (8, 16), prompt=48, rank_unet=6, rank_vae=3, seed=1),
    Size((16, 16, 32), (16, 8, 8), prompt=32, rank_unet=2, rank_vae=5, seed=2),
)


def layers(module: nn.Module, ends: tuple[str, ...]) -> list[str]:
    """Every layer whose name ends so, as the published code looks for them."""
    return [
        name
        for name, layer in module.named_modules()
        if isinstance(layer, (nn.Conv2d, nn.Linear))
        and any(name == end or name.endswith("." + end) for end in ends)
    ]


class Published:
    """The networks with their adapters, the checkpoint and the base folder that they leave."""

    def __init__(self, size: Size, text: Path, folder: Path) -> None:
        torch.manual_seed(size.seed)
        levels = len(size.unet)
        self.vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * len(size.vae),
            up_block_types=("UpDecoderBlock2D",) * len(size.vae),
            block_out_channels=size.vae,
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=64,
        ).eval()
        self.unet = UNet2DConditionModel(
            sample_size=16,
            down_block_types=("CrossAttnDownBlock2D",) * (levels - 1) + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (levels - 1),
            block_out_channels=size.unet,
            layers_per_block=1,
            attention_head_dim=(2,) * levels,
            cross_attention_dim=size.prompt,
            norm_num_groups=8,
            use_linear_projection=True,
        ).eval()
        self.unet.save_pretrained(folder / "unet")
        self.vae.save_pretrained(folder / "vae")
        clip = CLIPTextConfig(
            vocab_size=1000,
            hidden_size=size.prompt,
            intermediate_size=size.prompt,
            num_hidden_layers=1,
            num_attention_heads=2,
            bos_token_id=998,
            eos_token_id=999,
        )
        CLIPTextModel(clip).save_pretrained(folder / "text_encoder")
        for part in ("tokenizer", "scheduler"):
            shutil.copytree(text / part, folder / part)
        self._adapt(size)

    def _adapt(self, size: Size) -> None:
        names = layers(self.unet, UNET + CONVOLUTIONS)
        down = [n for n in names if n.startswith(("down_blocks", "conv_in"))]
        up = [n for n in names if n.startswith(("up_blocks", "conv_out"))]
        self.modules = {
            "encoder": down,
            "decoder": up,
            "others": [n for n in names if n not in {*down, *up}],
        }
        for name, targets in self.modules.items():
            config = LoraConfig(r=size.rank_unet, target_modules=targets)
            self.unet.add_adapter(config, adapter_name=f"default_{name}")
        encoder = layers(self.vae.encoder, UNET + CONVOLUTIONS)
        self.of_vae = [f"encoder.{n}" for n in encoder] + ["quant_conv"]
        config = LoraConfig(r=size.rank_vae, target_modules=self.of_vae)
        self.vae.add_adapter(config, adapter_name="default_encoder")
        self.adapters = [f"default_{name}" for name in self.modules]
        self.unet.set_adapter(self.adapters)
        for module in (self.unet, self.vae):
            for name, parameter in module.named_parameters():
                if "lora_" in name:
                    nn.init.normal_(parameter, std=0.1)

    def checkpoint(self, size: Size) -> dict[str, Any]:
        state = self.unet.state_dict()
        return {
            "vae_lora_encoder_modules": self.of_vae,
            **{f"unet_lora_{name}_modules": found for name, found in self.modules.items()},
            "rank_unet": size.rank_unet,
            "rank_vae": size.rank_vae,
            "state_dict_unet": {k: v for k, v in state.items() if "lora" in k or "conv_in" in k},
            "state_dict_vae": {k: v for k, v in self.vae.state_dict().items() if "lora" in k},
        }

    def network(self, p: Tensor, *, adapted: bool) -> Predict:
        def predict(z_t: Tensor, t: Tensor) -> Tensor:
            if adapted:
                self.unet.enable_adapters()
            else:
                self.unet.disable_adapters()
            return self.unet(z_t, t, p).sample

        return predict


@pytest.fixture(scope="module", params=SIZES, ids=lambda size: f"seed {size.seed}")
def case(
    request: pytest.FixtureRequest, goldens: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Size, Published, Path]:
    folder = tmp_path_factory.mktemp("osediff")
    published = Published(request.param, goldens / "osediff" / "base", folder / "base")
    torch.save(published.checkpoint(request.param), folder / "osediff.pkl")
    return request.param, published, folder


def alpha_bars() -> Tensor:
    """ᾱ of Stable Diffusion 2.1-base, from its definition."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    return torch.from_numpy(np.cumprod(1 - betas)).float()


@torch.no_grad()
def test_every_stage_of_the_generator(case: tuple[Size, Published, Path]) -> None:
    size, published, folder = case
    out = folder / "out.safetensors"
    import_weights(folder / "osediff.pkl", "auto", out, base=folder / "base")
    model = build(read_checkpoint(out))
    lq, p = torch.rand(2, 3, 64, 64) * 2 - 1, torch.randn(2, 77, size.prompt)
    image = lq / 2 + 0.5
    mean = published.vae.encode(lq).latent_dist.mean
    z_l = mean * 0.18215
    epsilon = published.network(p, adapted=True)(z_l, torch.tensor(999))
    alpha_bar = alpha_bars()[999]
    z_h = (z_l - (1 - alpha_bar).sqrt() * epsilon) / alpha_bar.sqrt()
    restored = published.vae.decode(z_h / 0.18215).sample
    plain = published.network(p, adapted=False)(z_l, torch.tensor(999))
    assert (plain - epsilon).abs().max() > 1e-2  # the adapters matter
    for name, got, expected in (
        ("posterior_mean", model.encode(image) / 0.18215, mean),
        ("z_l", model.encode(image), z_l),
        ("epsilon", model.predict(z_l, p), epsilon),
        ("z_h", one_step(z_l, epsilon, model.alpha_bar), z_h),
        ("restored", model.decode(z_h) * 2 - 1, restored),
    ):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-6, msg=lambda m, n=name: n + m)


def test_the_distillation_and_the_regularizer(case: tuple[Size, Published, Path]) -> None:
    size, published, folder = case
    base = load_diffusers_base(folder / "base")
    unet = build_unet(base.unet, 4).eval()
    own = {n.removeprefix("unet."): t for n, t in base.tensors.items() if n.startswith("unet.")}
    unet.load_state_dict(own)
    targets = {f"default_{name}": tuple(found) for name, found in published.modules.items()}
    lora.inject(unet, targets, LoRAConfig(size.rank_unet, 8.0))
    saved = torch.load(folder / "osediff.pkl", weights_only=True)["state_dict_unet"]
    lora.load_lora(unet, {n: t for n, t in saved.items() if ".lora_" in n}, "osediff.pkl")

    def ours(prompt: Tensor, adapters: list[str]) -> Predict:
        def predict(z_t: Tensor, t: Tensor) -> Tensor:
            lora.activate(unet, adapters)
            return unet(z_t, t, prompt).sample

        return predict

    z = torch.randn(2, 4, 16, 16, requires_grad=True)
    noise, t = torch.randn(2, 4, 16, 16), torch.tensor([137, 742])
    p, negative = torch.randn(2, 77, size.prompt), torch.randn(2, 77, size.prompt)
    gradient = vsd_gradient(
        z,
        noise,
        t,
        alphas_cumprod(ScheduleConfig()),
        frozen=guided(ours(p, []), ours(negative, []), 7.5),
        finetuned=ours(p, published.adapters),
    )
    loss = vsd_loss(z, gradient)
    loss.backward()

    at = alpha_bars()[t].view(2, 1, 1, 1)
    z_t = at.sqrt() * z.detach() + (1 - at).sqrt() * noise
    with torch.no_grad():
        away = published.network(negative, adapted=False)(z_t, t)
        prior = away + 7.5 * (published.network(p, adapted=False)(z_t, t) - away)
        tuned = published.network(p, adapted=True)(z_t, t)
        x0_prior, x0_tuned = ((z_t - (1 - at).sqrt() * e) / at.sqrt() for e in (prior, tuned))
        weight = (z.detach() - x0_prior).abs().mean(dim=(1, 2, 3), keepdim=True)
        grad = (x0_tuned - x0_prior) / weight
    torch.testing.assert_close(gradient, grad, atol=1e-5, rtol=0)
    torch.testing.assert_close(loss.detach(), (grad**2).mean(), atol=1e-5, rtol=0)
    assert z.grad is not None
    torch.testing.assert_close(z.grad, 2 * grad / grad.numel(), atol=1e-5, rtol=0)

    followed = regularizer_loss(
        z, noise, t, alphas_cumprod(ScheduleConfig()), ours(p, published.adapters)
    )
    followed.backward()
    published.unet.zero_grad()
    expected = F.mse_loss(published.network(p, adapted=True)(z_t, t), noise)
    expected.backward()
    torch.testing.assert_close(followed, expected, atol=1e-5, rtol=0)
    theirs = {n: x.grad for n, x in published.unet.named_parameters() if ".lora_" in n}
    graded = {n: x.grad for n, x in unet.named_parameters() if ".lora_" in n}
    assert graded.keys() == theirs.keys()
    for name, value in graded.items():
        torch.testing.assert_close(value, theirs[name], atol=1e-5, rtol=0, msg=name)
