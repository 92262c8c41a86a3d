"""The one-step model as the public code runs it, from diffusers, peft and transformers alone.

float32 with the channels first, LoRA adapters beside the weights, one tile after the other, no
rewrites: what hbr's speed is compared with. Nothing of hbr is used here.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from transformers import SwinConfig, SwinModel


@dataclass(frozen=True)
class Numbers:
    """What the networks are built from, by the names of diffusers and transformers."""

    autoencoder: dict[str, Any]
    unet: dict[str, Any]
    swin: dict[str, Any]
    projected: int
    queries: tuple[int, int]
    heads: int
    timestep: int
    alpha_bar: float
    patch_size: int
    scaling: float
    refiner: dict[str, int] | None = None


class PlainRestorer(nn.Module):
    """Encode, one step of the U-Net, decode."""

    def __init__(self, numbers: Numbers, rank: int = 4, alpha: float = 8.0) -> None:
        super().__init__()
        self.numbers = numbers
        self.autoencoder = AutoencoderKL(**numbers.autoencoder)
        self.unet = UNet2DConditionModel(**numbers.unet)
        self.prompt = PlainPrompt(numbers)
        self.refiner = None if numbers.refiner is None else PlainRefiner(**numbers.refiner)
        if rank:
            _add_adapters(self.unet, lambda name: "time_emb" not in name, rank, alpha)
            _add_adapters(
                self.autoencoder,
                lambda name: name.startswith("encoder.") or name == "quant_conv",
                *(rank, alpha),
            )
        self.eval().requires_grad_(False)

    def encode(self, image: Tensor) -> Tensor:
        """[1, 3, h, w] in [0, 1] → the scaled mode of the posterior."""
        x = F.pixel_unshuffle(image * 2 - 1, self.numbers.patch_size)
        return self.autoencoder.encode(x).latent_dist.mode() * self.numbers.scaling

    def denoise(self, z: Tensor, prompt: Tensor) -> Tensor:
        """One step."""
        t = torch.tensor(self.numbers.timestep)
        epsilon = self.unet(z, t, encoder_hidden_states=prompt).sample
        a = self.numbers.alpha_bar
        return (z - (1 - a) ** 0.5 * epsilon) / a**0.5

    def decode(self, z: Tensor) -> Tensor:
        """The latent as an image [1, 3, h, w], about [0, 1], not refined."""
        x = self.autoencoder.decode(z / self.numbers.scaling).sample
        return F.pixel_shuffle(x, self.numbers.patch_size) / 2 + 0.5

    def forward(self, image: Tensor) -> Tensor:
        """Restore one tile."""
        made = self.decode(self.denoise(self.encode(image), self.prompt(image)))
        return made if self.refiner is None else self.refiner(made, image)

    def tiles(self, image: Tensor, edge: int, overlap: int) -> Tensor:
        """Restore an image tile by tile, with equal weights where tiles overlap."""
        made, weight = torch.zeros_like(image), torch.zeros_like(image)
        for top in _starts(image.shape[2], edge, overlap):
            for left in _starts(image.shape[3], edge, overlap):
                at = (..., slice(top, top + edge), slice(left, left + edge))
                made[at] += self(image[at].contiguous())
                weight[at] += 1
        return made / weight


class PlainPrompt(nn.Module):
    """HFIE: Swin's tokens with their mean in front, projected; learnable queries attend to them."""

    def __init__(self, numbers: Numbers) -> None:
        super().__init__()
        self.size = numbers.swin["image_size"]
        self.swin = SwinModel(SwinConfig(**numbers.swin), add_pooling_layer=False)
        count, width = numbers.queries
        d = numbers.projected
        self.image_proj = nn.Linear(self.swin.num_features, d)
        self.query = nn.Parameter(torch.randn(count, width) * 0.02)
        self.attention = nn.MultiheadAttention(
            width, numbers.heads, kdim=d, vdim=d, batch_first=True
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, image: Tensor) -> Tensor:
        """[b, 3, h, w] in [0, 1] → [b, queries, width]."""
        x = F.interpolate(image, (self.size, self.size), mode="bilinear")
        mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
        x = (x - mean.view(3, 1, 1)) / std.view(3, 1, 1)
        x = self.swin(pixel_values=x).last_hidden_state
        x = self.image_proj(torch.cat([x.mean(1, keepdim=True), x], dim=1))
        p, _ = self.attention(self.query.expand(len(x), -1, -1), x, x, need_weights=False)
        return self.norm(p)


class PlainRefiner(nn.Module):
    """Residual blocks of two convolutions on pixel-unshuffled images."""

    def __init__(self, width: int, blocks: int, patch_size: int, sees_input: bool) -> None:
        super().__init__()
        channels = 3 * patch_size**2
        self.patch_size, self.sees_input = patch_size, sees_input
        self.conv_in = nn.Conv2d(channels * (2 if sees_input else 1), width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({f"conv{i}": nn.Conv2d(width, width, 3, padding=1) for i in (1, 2)})
            for _ in range(blocks)
        )
        self.conv_out = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, image: Tensor, lq: Tensor) -> Tensor:
        """[b, 3, h, w], about [0, 1], and what it was restored from → the same."""
        seen = torch.cat([image, lq], dim=1) if self.sees_input else image
        x = self.conv_in(F.pixel_unshuffle(seen * 2 - 1, self.patch_size))
        for block in self.blocks:
            x = x + block["conv2"](F.silu(block["conv1"](F.silu(x))))
        return image + F.pixel_shuffle(self.conv_out(F.silu(x)), self.patch_size) / 2


def _add_adapters(module: nn.Module, wanted: Any, rank: int, alpha: float) -> None:
    names = [
        name
        for name, layer in module.named_modules()
        if isinstance(layer, (nn.Conv2d, nn.Linear)) and wanted(name)
    ]
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=names, init_lora_weights=False)
    inject_adapter_in_model(config, module)


def _starts(size: int, edge: int, overlap: int) -> list[int]:
    last = max(0, size - edge)
    return [*range(0, last, edge - overlap), last]
