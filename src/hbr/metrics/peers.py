"""Metrics computed by the package pyiqa, as reported in papers.

pyiqa is under PolyForm-Noncommercial-1.0.0, which is logged once whenever it runs. It reads its
weights from torch's cache; missing weights are an error, not a download.
"""

from __future__ import annotations

import contextlib
import io
import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hbr.errors import one_line
from hbr.metrics.base import Metric, MetricError, MetricInfo, NetworkMetric
from hbr.weights import find_weights

if TYPE_CHECKING:
    from torch import Tensor

LICENCE = "PolyForm-Noncommercial-1.0.0"

_LOG = logging.getLogger("hbr.metrics")
_SEED = 123  # pyiqa's own
_logged: list[str] = []

# Where papers deviate from pyiqa's defaults
_PAPERS_Y = {"test_y_channel": True, "color_space": "ycbcr"}
_OPTIONS: dict[str, dict[str, Any]] = {"pyiqa-psnr-y": _PAPERS_Y, "pyiqa-ssim-y": _PAPERS_Y}


class OneByOne:
    """Runs pyiqa on one image at a time from a fixed RNG state.

    Some of its networks look at random crops; so the value of an image depends neither on its
    neighbours nor on earlier calls, and the caller's RNG state is restored.
    """

    def __init__(self, network: Callable[..., Tensor]) -> None:
        self.network = network

    def __call__(self, *pictures: Tensor) -> Tensor:
        """One or two [b, 3, h, w] in [0, 1] → [b]."""
        values = []
        with _own_rng_state():
            for number in range(len(pictures[0])):
                random.seed(_SEED)
                np.random.seed(_SEED)
                torch.manual_seed(_SEED)
                one = (t[number : number + 1].clamp(0, 1) for t in pictures)
                values.append(self.network(*one).reshape(-1)[0])
        return torch.stack(values)


def load_pyiqa(info: MetricInfo, device: str, weights: Path | None) -> Metric:
    """A row of pyiqa, whose name for it is the row's version; see `hbr.metrics.load_metric`.

    `weights` is ignored: pyiqa only uses torch's cache (TORCH_HOME).
    """
    try:
        import pyiqa
    except ImportError:
        raise MetricError(
            f"{info.id} comes from the package pyiqa ({LICENCE}: not for commercial use); install "
            "it with `pip install 'hbr[pyiqa]'`"
        ) from None
    for name in info.weights:
        find_weights(name, info.id)
    if not _logged:
        _logged.append(LICENCE)
        _LOG.warning("%s runs in pyiqa, which is %s: not for commercial use", info.id, LICENCE)
    try:
        with contextlib.redirect_stdout(io.StringIO()), _without_timm_downloads():
            network = pyiqa.create_metric(
                info.version, device=torch.device(device), **_OPTIONS.get(info.id, {})
            )
    except (RuntimeError, OSError, KeyError, AssertionError, ValueError) as error:
        reason = one_line(error, 200)
        raise MetricError(f"{info.id}: pyiqa cannot load it: {reason}") from None
    versioned = replace(info, version=f"{info.version} {pyiqa.__version__}")
    return NetworkMetric(versioned, OneByOne(network), device)


@contextlib.contextmanager
def _without_timm_downloads() -> Iterator[None]:
    """Let timm build its networks without pretrained weights, which the checkpoint holds anyway."""
    import timm

    original = timm.create_model

    def empty(*args: Any, **options: Any) -> Any:
        return original(*args, **{**options, "pretrained": False})

    timm.create_model = empty
    try:
        yield
    finally:
        timm.create_model = original


@contextlib.contextmanager
def _own_rng_state() -> Iterator[None]:
    """Restore the caller's RNG state."""
    plain, arrays = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(plain)
        np.random.set_state(arrays)
