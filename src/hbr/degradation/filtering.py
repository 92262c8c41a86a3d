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

_COPIED = 1 << 22


def filter_each(images: Tensor, kernels: Sequence[Tensor]) -> Tensor:
    """Filter each image with its own small kernel.

    Args:
        images: [b, c, h, w].
        kernels: b of them, [k, k] with odd k up to `SPATIAL_KERNEL`.
    """
    size = max(kernel.shape[-1] for kernel in kernels)
    weight = torch.stack([pad_kernel(kernel, size) for kernel in kernels]).to(images)  # [b, k, k]
    # reflection needs more pixels than it mirrors, regardless of the other kernels
    mode = "reflect" if min(images.shape[-2:]) > SPATIAL_KERNEL // 2 else "replicate"
    padded = F.pad(images, (size // 2,) * 4, mode=mode)
    flat = rearrange(padded, "b c h w -> c b h w")
    rows = images.shape[-2]
    if images.device.type == "cpu":
        # the convolution copies k² numbers a pixel: by strips they fit into the cache
        rows = max(_COPIED // (images.shape[-1] * size**2), 1)
    strips = [
        F.conv2d(flat[:, :, y : y + rows + size - 1], weight[:, None], groups=len(kernels))
        for y in range(0, images.shape[-2], rows)
    ]  # [c, b, rows, w] each
    return rearrange(torch.cat(strips, dim=2), "c b h w -> b c h w")


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
