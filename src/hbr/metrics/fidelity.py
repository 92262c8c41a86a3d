"""Full-reference measures that need no weights.

Shapes: b batch, h w pixels. Images are RGB in [0, 1].
"""

import torch
import torch.nn.functional as F
from torch import Tensor


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
