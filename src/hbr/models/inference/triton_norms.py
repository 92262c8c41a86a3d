"""Kernels for what stands between the convolutions of a network, channels last, by Triton.

torch's own `GroupNorm` on CUDA works channels first: it copies activations before and after, and
one multiprocessor computes a whole group. Here the statistics are sums over chunks of pixels,
to which the bias of the convolution before is added, and normalising and SiLU are one pass.

Shapes: b batch, c channels, h w size.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

# As many programs are enough to keep the memory of the largest GPUs busy; the statistics of a group
# are added up by one program, which is slow for many chunks.
_PROGRAMS, _MOST_CHUNKS = 1024, 512
_PIXELS, _CHANNELS, _ELEMENTS = 32, 128, 4096


@triton.jit
def _sum_kernel(
    x, sums, pixels, channels,
    steps: tl.constexpr, block_p: tl.constexpr, block_c: tl.constexpr,
):  # fmt: skip
    """Of each channel in a chunk, sum and sum of squares of its distances to the first pixel."""
    image, chunk, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    c = part * block_c + tl.arange(0, block_c)
    here = c < channels
    x += image.to(tl.int64) * pixels * channels
    pivot = tl.load(x + c, mask=here, other=0.0).to(tl.float32)
    total = tl.zeros([block_p, block_c], tl.float32)
    squares = tl.zeros([block_p, block_c], tl.float32)
    first = chunk * steps * block_p
    x += first.to(tl.int64) * channels
    for step in range(steps):
        p = step * block_p + tl.arange(0, block_p)
        mask = (first + p < pixels)[:, None] & here[None, :]
        seen = tl.load(x + p[:, None] * channels + c[None, :], mask=mask, other=0.0)
        seen = tl.where(mask, seen.to(tl.float32) - pivot[None, :], 0.0)
        total += seen
        squares += seen * seen
    at = sums + ((image * tl.num_programs(1) + chunk) * 2) * channels + c
    tl.store(at, tl.sum(total, 0), mask=here)
    tl.store(at + channels, tl.sum(squares, 0), mask=here)


@triton.jit
def _affine_kernel(  # noqa: PLR0913
    x, sums, conv_bias, weight, bias, affine, pixels, channels, width, chunks, eps,
    has_bias: tl.constexpr, steps: tl.constexpr, block_s: tl.constexpr, block_c: tl.constexpr,
):  # fmt: skip
    """Of one group: what each of its channels is multiplied by, and what is added."""
    image, group = tl.program_id(0), tl.program_id(1)
    i = tl.arange(0, block_c)
    here = i < width
    c = group * width + i
    total = tl.zeros([block_c], tl.float32)
    squares = tl.zeros([block_c], tl.float32)
    sums += image * chunks * 2 * channels
    for step in range(steps):
        s = step * block_s + tl.arange(0, block_s)
        at = sums + s[:, None] * 2 * channels + c[None, :]
        mask = (s < chunks)[:, None] & here[None, :]
        total += tl.sum(tl.load(at, mask=mask, other=0.0), 0)
        squares += tl.sum(tl.load(at + channels, mask=mask, other=0.0), 0)
    shift = tl.zeros([block_c], tl.float32)
    if has_bias:
        shift = tl.load(conv_bias + c, mask=here, other=0.0).to(tl.float32)
    x += image.to(tl.int64) * pixels * channels
    pivot = tl.load(x + c, mask=here, other=0.0).to(tl.float32)
    means = pivot + shift + total / pixels  # of each channel; 0 beyond the group
    mean = tl.sum(means, 0) / width
    apart = tl.where(here, means - mean, 0.0)
    within = (squares - total * total / pixels) / pixels
    variance = tl.maximum(tl.sum(within + apart * apart, 0) / width, 0.0)
    gain = tl.load(weight + c, mask=here, other=0.0).to(tl.float32) / tl.sqrt(variance + eps)
    add = tl.load(bias + c, mask=here, other=0.0).to(tl.float32) + (shift - mean) * gain
    at = affine + image * 2 * channels + c
    tl.store(at, gain, mask=here)
    tl.store(at + channels, add, mask=here)


@triton.jit
def _apply_kernel(  # noqa: PLR0913
    x, affine, out, pixels, channels, with_silu: tl.constexpr,
    block_p: tl.constexpr, block_c: tl.constexpr,
):  # fmt: skip
    """x · gain + shift of each channel, and SiLU."""
    image, start, part = tl.program_id(1), tl.program_id(0), tl.program_id(2)
    c = part * block_c + tl.arange(0, block_c)
    here = c < channels
    gain = tl.load(affine + image * 2 * channels + c, mask=here, other=0.0)
    add = tl.load(affine + (image * 2 + 1) * channels + c, mask=here, other=0.0)
    p = tl.arange(0, block_p)
    first = start * block_p
    base = (image.to(tl.int64) * pixels + first) * channels
    at = p[:, None] * channels + c[None, :]
    mask = (first + p < pixels)[:, None] & here[None, :]
    y = tl.load(x + base + at, mask=mask, other=0.0).to(tl.float32) * gain[None, :] + add[None, :]
    if with_silu:
        y = y * tl.sigmoid(y)
    tl.store(out + base + at, y.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _add_kernel(x, bias, y, n, channels, has_x: tl.constexpr, block: tl.constexpr):
    """y += x + bias of each channel."""
    i = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    mask = i < n
    seen = tl.load(y + i, mask=mask, other=0.0).to(tl.float32)
    seen += tl.load(bias + i % channels, mask=mask, other=0.0).to(tl.float32)
    if has_x:
        seen += tl.load(x + i, mask=mask, other=0.0).to(tl.float32)
    tl.store(y + i, seen.to(y.dtype.element_ty), mask=mask)


def normalise(x: Tensor, norm: nn.GroupNorm, conv_bias: Tensor | None, *, silu: bool) -> Tensor:
    """See `hbr.models.inference.norms.normalise`; x and the result are channels last."""
    b, c, h, w = x.shape
    pixels, width = h * w, c // norm.num_groups
    block_c = min(triton.next_power_of_2(c), _CHANNELS)
    blocks = triton.cdiv(c, block_c)
    wanted = min(max(_PROGRAMS // (b * blocks), 1), _MOST_CHUNKS)
    steps = triton.next_power_of_2(triton.cdiv(pixels, _PIXELS * wanted))
    chunks = triton.cdiv(pixels, _PIXELS * steps)
    sums = torch.empty(b, chunks, 2, c, dtype=torch.float32, device=x.device)
    affine = torch.empty(b, 2, c, dtype=torch.float32, device=x.device)
    out = torch.empty_like(x)
    _sum_kernel[(b, chunks, blocks)](
        x, sums, pixels, c, steps=steps, block_p=_PIXELS, block_c=block_c
    )
    columns = triton.next_power_of_2(width)
    rows = max(1024 // columns, 1)
    _affine_kernel[(b, norm.num_groups)](
        x, sums, conv_bias, norm.weight, norm.bias, affine, pixels, c, width, chunks, norm.eps,
        has_bias=conv_bias is not None, steps=triton.cdiv(chunks, rows), block_s=rows,
        block_c=columns,
    )  # fmt: skip
    _apply_kernel[(triton.cdiv(pixels, 2 * _PIXELS), b, blocks)](
        x, affine, out, pixels, c, with_silu=silu, block_p=2 * _PIXELS, block_c=block_c
    )
    return out


def add_to(y: Tensor, bias: Tensor, x: Tensor | None = None) -> Tensor:
    """See `hbr.models.inference.norms.add_to`; y and x are channels last."""
    n = y.numel()
    _add_kernel[(triton.cdiv(n, _ELEMENTS),)](
        x, bias, y, n, y.shape[1], has_x=x is not None, block=_ELEMENTS
    )
    return y
