"""Filtering of images, each with its own kernel, reflected at the borders.

Small kernels go through a convolution in space, large ones through the Fourier transform, whose
time does not grow with the kernel. Shapes: b batch, c channels, h w pixels, k kernel edge.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from scipy.fft import next_fast_len
from torch import Tensor

from hbr.degradation.kernels import pad_kernel

SPATIAL_KERNEL = 21
"""The largest edge of a small kernel."""

# A processor filters so many channels at once: the strips of an image are further ones.
_LANES = 16
_LEAST_ROWS = 8


def filter_each(images: Tensor, kernels: Sequence[Tensor]) -> Tensor:
    """Filter each image with its own small kernel.

    Args:
        images: [b, c, h, w].
        kernels: b of them, [k, k] with odd k up to `SPATIAL_KERNEL`.
    """
    b, c, h = images.shape[:3]
    size = max(kernel.shape[-1] for kernel in kernels)
    weight = torch.stack([pad_kernel(kernel, size) for kernel in kernels]).to(images)  # [b, k, k]
    # reflection needs more pixels than it mirrors, regardless of the other kernels
    mode = "reflect" if min(images.shape[-2:]) > SPATIAL_KERNEL // 2 else "replicate"
    padded = F.pad(images, (size // 2,) * 4, mode=mode)
    n = max(min(_LANES // (b * c), h // _LEAST_ROWS), 1)  # strips of rows
    rows = -(-h // n)
    padded = F.pad(padded, (0, 0, 0, n * rows - h))
    strips = padded.unfold(2, rows + size - 1, rows)  # [b, c, n, w, rows]
    flat = rearrange(strips, "b c n w rows -> 1 (b c n) rows w")
    weight = weight.repeat_interleave(c * n, dim=0)[:, None]
    out = F.conv2d(flat, weight, groups=b * c * n)
    return rearrange(out, "1 (b c n) rows w -> b c (n rows) w", b=b, c=c)[:, :, :h]


def filter_large(image: Tensor, kernel: Tensor) -> Tensor:
    """Filter an image [c, h, w] with a kernel [k, k] of any odd edge."""
    h, w = image.shape[-2:]
    margin = kernel.shape[-1] // 2
    mode = "reflect" if min(h, w) > margin else "replicate"
    padded = F.pad(image[None].float(), (margin,) * 4, mode=mode)[0]
    # what wraps around falls on rows and columns that are cut off
    size = [next_fast_len(edge, real=True) for edge in padded.shape[-2:]]
    spectrum = torch.fft.rfft2(padded, s=size)
    response = torch.fft.rfft2(kernel.to(padded), s=size)
    out = torch.fft.irfft2(spectrum * response.conj(), s=size)
    return out[..., :h, :w].to(image.dtype)
