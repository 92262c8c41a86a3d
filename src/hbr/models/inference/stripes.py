"""An autoencoder's encoder or decoder in stripes of rows: the same function with less memory.

Where activations are large, each residual block normalises, activates and convolves some rows at a
time, with one row above and below them. The statistics of a `GroupNorm` are those of the whole
image, taken in a pass before. So no more than a block's input and one convolution of it are in
memory as a whole.

Shapes: b batch, c channels, h w size, g groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.vae import Decoder, Encoder
from diffusers.models.downsampling import Downsample2D
from torch import Tensor, nn

from hbr.models.inference.layers import ResidualBlock
from hbr.models.inference.norms import is_traced, normalise

STRIPE, LARGE = 2**22, 2**24
"""Bytes of activations in a stripe, and of those that are not computed as a whole."""

Write = Callable[[slice, Tensor], None]
"""Takes rows of the output, and what a convolution made for them."""


class Striped(nn.Module):
    """An encoder or decoder of diffusers as a chain of layers, large ones in stripes on a CPU.

    A batch is then computed one image at a time, which also bounds memory.
    """

    def __init__(self, network: Encoder | Decoder) -> None:
        """Take over a network whose residual blocks are `ResidualBlock`."""
        super().__init__()
        self.layers = nn.ModuleList(_layers(network))
        self.norm, self.conv_out = network.conv_norm_out, network.conv_out

    def forward(self, x: Tensor) -> Tensor:
        """[b, c, h, w] → [b, c', h', w'], as the network."""
        striped = x.device.type == "cpu" and not is_traced()  # few operations
        if striped and len(x) > 1:
            return torch.cat([self(one) for one in x.split(1)])
        for layer in self.layers:
            large = striped and _is_large(x)
            if large and isinstance(layer, ResidualBlock):
                x = residual_block(layer, x)
            elif large and isinstance(layer, Downsample2D):
                x = downsample(layer, x)
            else:
                x = layer(x)
        if striped and _is_large(x):
            return last_convolution(self.norm, self.conv_out, x)
        return cast(Tensor, self.conv_out(normalise(x, self.norm, silu=True)))


def residual_block(block: ResidualBlock, x: Tensor) -> Tensor:
    """A residual block in stripes; its result takes the memory of x [1, c, h, w] if it can."""
    y = _empty(x, block.conv1.out_channels, x.shape[2:])

    def keep(rows: slice, made: Tensor) -> None:
        y[:, :, rows] = made

    def add(rows: slice, made: Tensor) -> None:
        if block.shortcut is None:
            x[:, :, rows] += made
        else:  # what y held in these rows is not needed any more
            y[:, :, rows] = made.add_(block.shortcut(x[:, :, rows]))

    _convolve(block.norm1, block.conv1, x, keep)
    _convolve(block.norm2, block.conv2, y, add)
    return x if block.shortcut is None else y


def last_convolution(norm: nn.GroupNorm, conv: nn.Conv2d, x: Tensor) -> Tensor:
    """conv(SiLU(norm(x))) in stripes: [1, c, h, w] → [1, c', h, w]."""
    y = _empty(x, conv.out_channels, x.shape[2:], conv.weight.dtype)

    def keep(rows: slice, made: Tensor) -> None:
        y[:, :, rows] = made

    _convolve(norm, conv, x, keep)
    return y


def downsample(layer: Any, x: Tensor) -> Tensor:
    """An encoder's downsampling in stripes: [1, c, h, w] → [1, c, h / 2, w / 2], rounded down.

    Its convolution has stride 2, and one zero below and to the right of the image.
    """
    conv, (h, w) = layer.conv, x.shape[2:]
    y = _empty(x, conv.out_channels, (h // 2, w // 2))
    for rows in _stripes(y, height=_height(x) // 2):
        seen = x[:, :, 2 * rows.start : 2 * rows.stop + 1]
        below = 2 * (rows.stop - rows.start) + 1 - seen.shape[2]
        y[:, :, rows] = F.conv2d(F.pad(seen, (0, 1, 0, below)), conv.weight, conv.bias, stride=2)
    return y


def moments(norm: nn.GroupNorm, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance that a `GroupNorm` takes for each channel of x [1, c, h, w], from stripes.

    Each [c], in float32 or better.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    zeros, ones = x.new_zeros(x.shape[1], dtype=dtype), x.new_ones(x.shape[1], dtype=dtype)
    parts = [  # for each stripe and channel; its running means are of no use, but give the dtype
        torch.ops.aten.batch_norm_update_stats(x[:, :, rows], zeros, ones, 0.0)
        for rows in _stripes(x)
    ]
    mean, var = (torch.stack(part).double() for part in zip(*parts, strict=True))
    sizes = [rows.stop - rows.start for rows in _stripes(x)]
    weight = torch.tensor(sizes, dtype=torch.float64, device=x.device)[:, None, None] / x.shape[2]
    mean, var = (part.unflatten(1, (norm.num_groups, -1)) for part in (mean, var))  # [s, g, c / g]
    whole = (weight * mean).sum(dim=0).mean(dim=1, keepdim=True)  # [g, 1]
    spread = (weight * (var + (mean - whole).square())).sum(dim=0).mean(dim=1, keepdim=True)
    channels = mean.shape[2]
    whole, spread = (m.expand(-1, channels).flatten().to(dtype) for m in (whole, spread))
    return whole, spread


def _convolve(norm: nn.GroupNorm, conv: nn.Conv2d, x: Tensor, write: Write) -> None:
    """conv(SiLU(norm(x))), 3×3, in stripes of x [1, c, h, w].

    Rows come in order, and only when those of x are not needed any more.
    """
    mean, var = moments(norm, x)
    height = _height(x)
    weight, bias = (p.to(mean.dtype) for p in (norm.weight, norm.bias))
    # two rows of the stripe before, the stripe, and one of zeros below the image
    window = _empty(x, x.shape[1], (height + 3, x.shape[3]))
    window[:, :, :2] = 0
    nothing = x.new_empty(0, dtype=mean.dtype), x.new_empty(0, dtype=mean.dtype)
    for rows in _stripes(x):
        n, last = rows.stop - rows.start, rows.stop == x.shape[2]
        inside = window[:, :, 2 : 2 + n]
        torch.native_batch_norm(
            *(x[:, :, rows], weight, bias, mean, var, False, 0.0, norm.eps), out=(inside, *nothing)
        )
        F.silu(inside, inplace=True)
        if last:
            window[:, :, 2 + n] = 0
        start = 0 if rows.start else 1
        seen = window[:, :, start : 2 + n + last].to(conv.weight.dtype)
        made = F.conv2d(seen, conv.weight, conv.bias, padding=(0, 1))
        write(slice(rows.start - 1 + start, rows.stop - 1 + last), made)
        if not last:
            window[:, :, :2] = window[:, :, n : n + 2]


def _stripes(x: Tensor, height: int | None = None) -> Iterator[slice]:
    """The rows of x [b, c, h, w] in stripes."""
    height, h = height or _height(x), x.shape[2]
    return (slice(top, min(top + height, h)) for top in range(0, h, height))


def _height(x: Tensor) -> int:
    """Rows of x [1, c, h, w] in a stripe; at least 2."""
    return max(2, STRIPE // (x[:, :, 0].numel() * x.element_size()))


def _is_large(x: Tensor) -> bool:
    return x.numel() * x.element_size() >= LARGE


def _empty(x: Tensor, channels: int, size: Any, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor [1, channels, *size] in the layout of x."""
    last = x.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty(
        (1, channels, *size), dtype=dtype or x.dtype, device=x.device, memory_format=layout
    )


def _layers(network: Any) -> Iterator[nn.Module]:
    """The layers of an encoder or decoder in order, without its last three."""
    encodes = isinstance(network, Encoder)
    yield network.conv_in
    if encodes:
        yield from _levels(network.down_blocks, "downsamplers")
    middle = network.mid_block
    yield middle.resnets[0]
    for attention, block in zip(middle.attentions, middle.resnets[1:], strict=True):
        if attention is not None:
            yield attention
        yield block
    if not encodes:
        yield from _levels(network.up_blocks, "upsamplers")


def _levels(blocks: Any, between: str) -> Iterator[nn.Module]:
    for block in blocks:
        yield from block.resnets
        yield from getattr(block, between) or ()
