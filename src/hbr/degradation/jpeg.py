"""JPEG at 4:2:0: differentiable up to rounding, and by libjpeg.

Shapes: b batch, h w pixels, n 8×8 blocks of one plane.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

# ITU-T T.81, Annex K.1, Tables K.1 and K.2, row by row
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
# The differentiable JPEG that this line of research trains with quantises luminance with Table K.1
# transposed. It is matched here, for pairs like the papers'; libjpeg uses the table as printed.
_LUMINANCE_TRANSPOSED = tuple(zip(*_LUMINANCE, strict=True))
# JFIF 1.02: full-range BT.601
_TO_YCBCR = (
    (0.299, 0.587, 0.114),
    (-0.168736, -0.331264, 0.5),
    (0.5, -0.418688, -0.081312),
)
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


@functools.lru_cache
def _dct_matrix() -> Tensor:
    """The orthonormal 8-point DCT-II, [frequency, position]."""
    position = torch.arange(8, dtype=torch.float64)
    frequency = position[:, None]
    basis = torch.cos((2 * position + 1) * frequency * math.pi / 16) / 2
    basis[0] /= math.sqrt(2)
    return basis.float()


def quality_factor(quality: Tensor) -> Tensor:
    """libjpeg's scaling of the quantisation tables at a quality of 1 to 100, as a factor."""
    quality = quality.float()
    return torch.where(quality < 50, 5000.0 / quality, 200.0 - 2.0 * quality) / 100.0


def _compress_plane(plane: Tensor, table: tuple[tuple[int, ...], ...], factor: Tensor) -> Tensor:
    """Quantise the DCT of [b, h, w] (multiples of 8, in 0–255), and transform it back."""
    dct = _dct_matrix().to(plane)
    steps = torch.tensor(table, dtype=plane.dtype, device=plane.device) * factor.view(-1, 1, 1, 1)
    blocks = rearrange(plane - 128.0, "b (y i) (x j) -> b (y x) i j", i=8, j=8)  # [b, n, 8, 8]
    levels = torch.round(dct @ blocks @ dct.T / steps)
    blocks = dct.T @ (levels * steps) @ dct + 128.0
    return rearrange(blocks, "b (y x) i j -> b (y i) (x j)", y=plane.shape[-2] // 8)


def jpeg(image: Tensor, quality: Tensor) -> Tensor:
    """JPEG of a batch by differentiable operations; rounding has no gradient.

    Args:
        image: [b, 3, h, w] in [0, 1].
        quality: [b], 1 to 100, whole or not.

    Returns:
        [b, 3, h, w] in [0, 1], not rounded to 8 bits.
    """
    h, w = image.shape[-2:]
    factor = quality_factor(quality).to(image)
    x = F.pad(image, (0, -w % 16, 0, -h % 16)) * 255.0
    to_ycbcr, to_rgb = (
        torch.tensor(m, dtype=x.dtype, device=x.device) for m in (_TO_YCBCR, _TO_RGB)
    )
    ycbcr = torch.einsum("bchw,dc->bdhw", x, to_ycbcr)
    y = ycbcr[:, 0]
    chroma = F.avg_pool2d(ycbcr[:, 1:] + 128.0, 2)  # [b, 2, h/2, w/2]
    y = _compress_plane(y, _LUMINANCE_TRANSPOSED, factor)
    cb, cr = (_compress_plane(chroma[:, i], _CHROMINANCE, factor) for i in range(2))
    chroma = F.interpolate(torch.stack([cb, cr], dim=1), scale_factor=2, mode="nearest") - 128.0
    rgb = torch.einsum("bchw,dc->bdhw", torch.cat([y[:, None], chroma], dim=1), to_rgb)
    return (rgb[..., :h, :w] / 255.0).clamp(0, 1)


def libjpeg(image: Tensor, quality: Tensor) -> Tensor:
    """JPEG of a batch by libjpeg, through 8-bit pixels and files in memory.

    Arguments and result as `jpeg`, which it agrees with up to its own whole-numbered tables,
    colour conversion and smoother chroma; no gradient passes.
    """
    import cv2

    pixels = (image.detach().clamp(0, 1) * 255).round().byte().cpu()
    out = []
    for picture, q in zip(rearrange(pixels, "b c h w -> b h w c").numpy(), quality, strict=True):
        flags = [cv2.IMWRITE_JPEG_QUALITY, round(float(q))]
        _, file = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), flags)
        back = cv2.imdecode(file, cv2.IMREAD_COLOR)
        out.append(torch.from_numpy(np.ascontiguousarray(back[..., ::-1])))  # type: ignore[index]
    return rearrange(torch.stack(out), "b h w c -> b c h w").to(image) / 255.0
