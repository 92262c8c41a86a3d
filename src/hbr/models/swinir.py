"""SwinIR (Liang et al. 2021), the first stage of DiffBIR and DiffBody.

The names of the weights are those of the published files.

Shapes: b images, h w in cells (pixels after the unshuffle), c channels, n windows, l cells of a
window, k heads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from hbr.models.protocol import Conditions, Place
from hbr.models.swinir_config import SwinIRConfig

# the mean colour of DIV2K, which the published networks subtract
_MEAN = (0.4488, 0.4371, 0.4040)
_SLOPE = 0.2


def shifted_window_mask(h: int, w: int, window: int, shift: int) -> Tensor:
    """Compute which cells of the windows of a shifted image do not belong together.

    After a cyclic shift, windows at the lower and right edge contain cells from opposite sides of
    the image, which must not attend to each other (Liu et al. 2021, Fig. 4).

    Returns:
        float32 [n, l, l]: 0, or −100 between cells from different sides.
    """
    rows, columns = torch.arange(h), torch.arange(w)
    # 0 far from the end, 1 in the last window, 2 in the part that was moved there
    row = (rows >= h - window).int() + (rows >= h - shift).int()
    column = (columns >= w - window).int() + (columns >= w - shift).int()
    region = row[:, None] * 3 + column
    region = rearrange(region, "(y a) (x b) -> (y x) (a b)", a=window, b=window)
    return (region[:, :, None] != region[:, None]).float() * -100.0


class WindowAttention(nn.Module):
    """Self-attention within windows, with a learnt bias for each relative position."""

    relative_position_index: Tensor

    def __init__(self, dim: int, window: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        table = torch.zeros((2 * window - 1) ** 2, heads)
        self.relative_position_bias_table = nn.Parameter(nn.init.trunc_normal_(table, std=0.02))
        y, x = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
        y, x = y.flatten(), x.flatten()
        rows = y[:, None] - y + window - 1
        index = rows * (2 * window - 1) + x[:, None] - x + window - 1  # [l, l]
        self.register_buffer("relative_position_index", index, persistent=False)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """[b·n, l, c] and a mask [n, l, l] that is added to the scores → the same shape as x."""
        q, k, v = rearrange(self.qkv(x), "m l (three k d) -> three m k l d", three=3, k=self.heads)
        bias = rearrange(
            self.relative_position_bias_table[self.relative_position_index], "i j k -> 1 k i j"
        )
        if mask is not None:
            bias = bias + mask.to(bias)[:, None].repeat(len(x) // len(mask), 1, 1, 1)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        return self.proj(rearrange(out, "m k l d -> m l (k d)"))


class SwinBlock(nn.Module):
    """Attention within windows, shifted in every second block, then an MLP."""

    def __init__(self, dim: int, heads: int, window: int, shift: int, mlp: int) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, window, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, mlp), "fc2": nn.Linear(mlp, dim)})

    def forward(self, x: Tensor) -> Tensor:
        """[b, h, w, c] → the same shape; h and w are multiples of the window."""
        _, h, w, _ = x.shape
        shift, window = self.shift, self.window
        seen, mask = self.norm1(x), None
        if shift:
            seen = seen.roll((-shift, -shift), dims=(1, 2))
            mask = shifted_window_mask(h, w, window, shift).to(x.device)
        seen = rearrange(seen, "b (y p) (x q) c -> (b y x) (p q) c", p=window, q=window)
        seen = rearrange(
            self.attn(seen, mask),
            "(b y x) (p q) c -> b (y p) (x q) c",
            y=h // window,
            x=w // window,
            p=window,
        )
        x = x + (seen.roll((shift, shift), dims=(1, 2)) if shift else seen)
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class ResidualSwinGroup(nn.Module):
    """Blocks and a convolution, and a residual around them ("RSTB")."""

    def __init__(self, config: SwinIRConfig, depth: int, heads: int) -> None:
        super().__init__()
        dim, window = config.embed_dim, config.window_size
        blocks = [
            SwinBlock(dim, heads, window, window // 2 if i % 2 else 0, int(dim * config.mlp_ratio))
            for i in range(depth)
        ]
        self.residual_group = nn.ModuleDict({"blocks": nn.Sequential(*blocks)})
        self.conv = _convolution(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[b, h, w, c] → the same shape."""
        seen = rearrange(self.residual_group["blocks"](x), "b h w c -> b c h w")
        return x + rearrange(self.conv(seen), "b c h w -> b h w c")


class SwinIR(nn.Module):
    """A SwinIR that is a `hbr.models.Model`; with `config.factor` 1 it keeps the size."""

    mean: Tensor

    def __init__(self, config: SwinIRConfig) -> None:
        super().__init__()
        self.config, self.capabilities = config, config.capabilities
        self.gradient_checkpointing = False
        dim, width = config.embed_dim, config.width
        first = _convolution(3 * config.unshuffle**2, dim)
        # published files with an unshuffle have it in front, and so the convolution is number 1
        unshuffled = nn.Sequential(nn.PixelUnshuffle(config.unshuffle), first)
        self.conv_first = unshuffled if config.unshuffle > 1 else first
        self.patch_embed = nn.ModuleDict({"norm": nn.LayerNorm(dim)})
        groups = zip(config.depths, config.num_heads, strict=True)
        self.layers = nn.ModuleList(ResidualSwinGroup(config, *group) for group in groups)
        self.norm = nn.LayerNorm(dim)
        self.conv_after_body = _convolution(dim, dim)
        self.conv_before_upsample = nn.Sequential(_convolution(dim, width), nn.LeakyReLU())
        self.ups = [f"conv_up{i + 1}" for i in range(config.upscale.bit_length() - 1)]
        for name in self.ups:
            self.add_module(name, _convolution(width, width))
        self.conv_hr = _convolution(width, width)
        self.conv_last = _convolution(width, 3)
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1), persistent=False)

    def enable_gradient_checkpointing(self) -> None:
        """Keep only the inputs of the groups for the backward pass."""
        self.gradient_checkpointing = True

    def forward(self, image: Tensor) -> Tensor:
        """Restore: [b, 3, H, W] in [0, 1] → the same size times `config.factor`, not clamped.

        H and W are multiples of `window_size · unshuffle`.
        """
        first = self.conv_first(image - self.mean.to(image.dtype))
        x = self.patch_embed["norm"](rearrange(first, "b c h w -> b h w c"))
        for layer in self.layers:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)
            else:
                x = layer(x)
        x = first + self.conv_after_body(rearrange(self.norm(x), "b h w c -> b c h w"))
        x = self.conv_before_upsample(x)
        for name in self.ups:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = F.leaky_relu(self.get_submodule(name)(x), _SLOPE)
        x = self.conv_last(F.leaky_relu(self.conv_hr(x), _SLOPE))
        return x + self.mean.to(x.dtype)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.conv_last.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.conv_last.weight.device

    def restore(self, tiles: Tensor, places: Sequence[Place], conditions: Conditions) -> Tensor:
        """See `Model.restore`; an enlarging network sees one of each square of equal pixels."""
        f = self.capabilities.upscale
        return self(tiles[:, :, ::f, ::f].to(self.dtype)).float()


def _convolution(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)
