"""Image quality metrics: one table, and the implementation of each.

`load_metric("psnr-y")(image, reference)` gives one number per image; `METRICS` is the table.
Importing this loads no torch.
"""

from typing import TYPE_CHECKING

from hbr.lazy import lazy
from hbr.metrics.base import Metric, MetricError, MetricInfo
from hbr.metrics.table import METRICS, find_metric, load_metric

if TYPE_CHECKING:
    from hbr.metrics.fidelity import psnr, ssim

__all__ = [
    "METRICS",
    "Metric",
    "MetricError",
    "MetricInfo",
    "find_metric",
    "load_metric",
    "psnr",
    "ssim",
]

__getattr__, __dir__ = lazy(__name__, dict.fromkeys(("psnr", "ssim"), "hbr.metrics.fidelity"))
