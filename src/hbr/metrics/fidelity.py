"""PSNR and SSIM, on Y as the papers report them and on RGB.

Shapes: b batch, h w pixels. Images are RGB in [0, 1]. `psnr` and `ssim` are differentiable and run
where their tensors are, for training; the others run on the CPU and are used in tables.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hbr.metrics.planes import Plane, for_each, gaussian, levels, luma, valid

_WINDOW = gaussian(11, 1.5)


def psnr(image: Tensor, reference: Tensor) -> Tensor:
    """Peak signal-to-noise ratio over R, G and B, in dB: two [b, 3, h, w] → [b]."""
    mse = ((image.double() - reference.double()) ** 2).mean(dim=(1, 2, 3))
    return -10.0 * torch.log10(mse.clamp(min=1e-12))


def ssim(image: Tensor, reference: Tensor) -> Tensor:
    """Structural similarity, mean over R, G and B: two [b, 3, h, w] → [b].

    Gaussian window of 11 pixels and σ 1.5, K = (0.01, 0.03), no border (Wang et al. 2004).
    """
    axis = torch.arange(11, dtype=torch.float64, device=image.device) - 5
    window = torch.exp(-(axis**2) / (2 * 1.5**2))
    window = window / window.sum()
    b, c, h, w = image.shape
    x, y = (t.double().reshape(b * c, 1, h, w) for t in (image, reference))

    def blur(t: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(t, window.view(1, 1, 11, 1)), window.view(1, 1, 1, 11))

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    score = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    score = score / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return score.reshape(b, -1).mean(dim=1)


def psnr_y(image: Tensor, reference: Tensor) -> Tensor:
    """PSNR in dB on Y of YCbCr (BT.601, 16–235), not rounded, peak 255: two [b, 3, h, w] → [b].

    The definition used in the papers' tables. Equal images give 120 dB, so that means stay finite.
    """

    def score(x: Plane, y: Plane) -> float:
        return float(-10 * np.log10(max(float(np.mean((x - y) ** 2)) / 255**2, 1e-12)))

    return for_each(score, luma(image), luma(reference))


def psnr_rgb(image: Tensor, reference: Tensor) -> Tensor:
    """PSNR as in `psnr`, computed on the CPU from whole 8-bit levels: two [b, 3, h, w] → [b]."""
    errors = np.mean((levels(image) - levels(reference)) ** 2, axis=(1, 2, 3)) / 255**2
    return torch.from_numpy(-10 * np.log10(np.maximum(errors, 1e-12)))


def ssim_y(image: Tensor, reference: Tensor) -> Tensor:
    """SSIM on Y of YCbCr (BT.601, 16–235), not rounded, peak 255: two [b, 3, h, w] → [b].

    The window of Wang et al. 2004 (11 pixels, σ 1.5), only where it lies wholly in the picture.
    """
    return for_each(lambda x, y: float(np.mean(ssim_maps(x, y)[0])), luma(image), luma(reference))


def ssim_rgb(image: Tensor, reference: Tensor) -> Tensor:
    """SSIM as in `ssim`, mean over R, G and B, computed on the CPU: two [b, 3, h, w] → [b]."""
    scores = [
        np.mean([np.mean(ssim_maps(x, y)[0]) for x, y in zip(one, other, strict=True)])
        for one, other in zip(levels(image), levels(reference), strict=True)
    ]
    return torch.tensor(np.array(scores), dtype=torch.float64)


def ssim_maps(x: Plane, y: Plane) -> tuple[Plane, Plane]:
    """SSIM and its contrast-structure term at each position of the window.

    Wang et al. 2004, Eq. 13 with K = (0.01, 0.03) and the peak 255; two planes [h, w] → two
    [h - 10, w - 10].
    """
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_x, mean_y = valid(x, _WINDOW), valid(y, _WINDOW)
    product = mean_x * mean_y
    squares = mean_x**2 + mean_y**2
    # only the sum of the two variances is needed
    variances = valid(x * x + y * y, _WINDOW) - squares
    covariance = valid(x * y, _WINDOW) - product
    structure = (2 * covariance + c2) / (variances + c2)
    return (2 * product + c1) / (squares + c1) * structure, structure
