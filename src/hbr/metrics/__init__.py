"""Numbers from pixels."""

from hbr.metrics.fidelity import psnr, ssim

__all__ = ["psnr", "ssim"]
