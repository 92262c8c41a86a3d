"""The table of metrics: definition, direction, implementation, licence and weights of each.

Importing it does not load torch; `load_metric` imports the packages that a metric needs.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from hbr.metrics.base import Better, FunctionMetric, Metric, MetricError, MetricInfo
from hbr.pages import markdown_table
from hbr.weights import WeightsError

Y = "Y of BT.601, 16–235"
GREY = "grey of BT.601, 0–255"


def _own(
    id: str, name: str, better: Better, colour: str, source: str, function: str, **fields: Any
) -> MetricInfo:
    """A row without weights, computed by a function of hbr; by default with a reference."""
    return MetricInfo(
        id, name, "1", better, colour=colour, source=source,
        function=f"hbr.metrics.{function}", **{"kind": "full-reference", **fields},
    )  # fmt: skip


_FULL: list[MetricInfo] = [
    _own("psnr-y", "PSNR-Y", "higher", Y, "ITU-R BT.601; 10·log10(255²/MSE)", "fidelity:psnr_y"),
    _own("ssim-y", "SSIM-Y", "higher", Y, "Wang et al. 2004", "fidelity:ssim_y", min_size=11),
    _own(
        "psnr-rgb", "PSNR-RGB", "higher", "RGB", "10·log10(1/MSE) over the three channels",
        "fidelity:psnr_rgb",
    ),
    _own(
        "ssim-rgb", "SSIM-RGB", "higher", "RGB", "Wang et al. 2004", "fidelity:ssim_rgb",
        min_size=11,
    ),
    _own(
        "ms-ssim", "MS-SSIM", "higher", Y, "Wang, Simoncelli, Bovik 2003", "structure:ms_ssim",
        min_size=161,
    ),
    _own("fsim", "FSIM", "higher", GREY, "Zhang et al. 2011", "fsim:fsim", min_size=32),
    _own("fsimc", "FSIMc", "higher", "YIQ, 0–255", "Zhang et al. 2011", "fsim:fsimc", min_size=32),
    _own("gmsd", "GMSD", "lower", GREY, "Xue et al. 2014", "structure:gmsd", min_size=4),
    _own(
        "vifp", "VIFp", "higher", GREY, "Sheikh and Bovik 2006, in the pixel domain",
        "structure:vif_p", min_size=41,
    ),
    _own(
        "log-spectrum", "Log-spectrum distance (dB)", "lower", GREY, "see hbr.metrics.structure",
        "structure:log_spectrum", min_size=32,
    ),
]  # fmt: skip

_NATURAL: list[MetricInfo] = [
    MetricInfo(
        "niqe", "NIQE", "2", "lower", "no-reference", GREY,
        "Mittal, Soundararajan, Bovik 2013", min_size=192,
        licence="Apache-2.0; the authors' model: free with their notice",
        weights=("niqe",),
        factory="hbr.metrics.niqe:load_niqe",
    ),
    MetricInfo(
        "brisque", "BRISQUE", "1", "lower", "no-reference", GREY,
        "Mittal, Moorthy, Bovik 2012", min_size=32,
        weights=("brisque",),
        factory="hbr.metrics.brisque:load_brisque",
    ),
]  # fmt: skip

_PERSON: list[MetricInfo] = [
    _own(
        "person-colour", "Colour error in people (ΔE)", "lower", "CIELAB (D65), CIEDE2000",
        "see hbr.metrics.person", "person:colour_error", kind="person", needs=("masks",),
    ),
    _own(
        "person-sharpness", "Sharpness error in people (octaves)", "lower", GREY,
        "see hbr.metrics.person", "person:person_sharpness", kind="person", needs=("masks",),
    ),
    _own(
        "background-sharpness", "Sharpness error around people (octaves)", "lower", GREY,
        "see hbr.metrics.person", "person:background_sharpness", kind="person", needs=("masks",),
    ),
    _own(
        "person-keypoints", "Key point agreement (OKS)", "higher", "none",
        "Lin et al. 2014, OKS; see hbr.metrics.person", "person:person_keypoints",
        kind="person", needs=("keypoints", "restored keypoints"),
    ),
    MetricInfo(
        "face-identity", "Identity distance of faces", "1", "lower", "person", "RGB",
        "see hbr.metrics.faces", needs=("keypoints",),
        licence="Apache-2.0, as are the weights of SFace",
        weights=("sface",), extra="onnx",
        factory="hbr.metrics.faces:load_identity",
    ),
]  # fmt: skip

_LEARNED: list[MetricInfo] = [
    MetricInfo(
        "lpips-alex", "LPIPS (AlexNet)", "0.1", "lower", "full-reference", "RGB",
        "Zhang et al. 2018", min_size=64,
        licence="Apache-2.0; weights: BSD-3-Clause and BSD-2-Clause",
        weights=("alexnet", "lpips-alex-lin"),
        factory="hbr.metrics.lpips:load_lpips",
    ),
    MetricInfo(
        "lpips-vgg", "LPIPS (VGG-16)", "0.1", "lower", "full-reference", "RGB",
        "Zhang et al. 2018", min_size=64,
        licence="Apache-2.0; weights: BSD-3-Clause and BSD-2-Clause",
        weights=("vgg16", "lpips-vgg-lin"),
        factory="hbr.metrics.lpips:load_lpips",
    ),
    MetricInfo(
        "dists", "DISTS", "1, not resized", "lower", "full-reference", "RGB",
        "Ding et al. 2020", min_size=64,
        licence="Apache-2.0; weights: BSD-3-Clause and MIT",
        weights=("vgg16", "dists-weights"),
        factory="hbr.metrics.dists:load_dists",
    ),
    MetricInfo(
        "clipiqa-vit", "CLIP-IQA (ViT)", "1", "higher", "no-reference", "RGB",
        "Wang, Chan, Loy 2023, as torchmetrics has it",
        licence="Apache-2.0; weights: MIT", weights=("clip-vit-large-patch14",),
        factory="hbr.metrics.clipiqa:load_clipiqa",
    ),
    MetricInfo(
        "fid", "FID", "inception-v3-compat", "lower", "distribution", "RGB",
        "Heusel et al. 2017", implementation="torch-fidelity",
        licence="Apache-2.0", weights=("inception-fid",), extra="fid",
        factory="hbr.metrics.inception:load_fid",
    ),
    MetricInfo(
        "fid-clean", "FID (clean)", "inception-v3-compat, resized as clean-fid", "lower",
        "distribution", "RGB", "Parmar, Zhang, Zhu 2022; papers report it through pyiqa",
        implementation="torch-fidelity",
        licence="Apache-2.0", weights=("inception-fid",), extra="fid",
        factory="hbr.metrics.inception:load_fid",
    ),
]  # fmt: skip


def _pyiqa(
    id: str, name: str, peer: str, better: Better, source: str, *weights: str, **fields: Any
) -> MetricInfo:
    """A row of the package pyiqa, which calls it `peer`; used for the papers' tables."""
    usual = {"kind": "no-reference", "colour": "RGB", "min_size": 32}
    return MetricInfo(
        id, name, peer, better, source=source, weights=weights, **{**usual, **fields},
        implementation="pyiqa", licence="PolyForm-Noncommercial-1.0.0", extra="pyiqa",
        factory="hbr.metrics.peers:load_pyiqa",
    )  # fmt: skip


_PEERS: list[MetricInfo] = [
    _pyiqa("clipiqa", "CLIPIQA", "clipiqa", "higher", "Wang, Chan, Loy 2023", "clip-rn50"),
    _pyiqa("musiq", "MUSIQ", "musiq", "higher", "Ke et al. 2021", "pyiqa-musiq"),
    _pyiqa(
        "maniqa-pipal", "MANIQA (PIPAL)", "maniqa-pipal", "higher", "Yang et al. 2022",
        "pyiqa-maniqa-pipal", min_size=224,
    ),
    _pyiqa("topiq", "TOPIQ", "topiq_nr", "higher", "Chen et al. 2024", "pyiqa-topiq-nr"),
    _pyiqa(
        "topiq-fr", "TOPIQ-FR", "topiq_fr", "higher", "Chen et al. 2024", "pyiqa-topiq-fr",
        kind="full-reference",
    ),
    _pyiqa(
        "liqe", "LIQE", "liqe", "higher", "Zhang et al. 2023", "pyiqa-liqe", "clip-vit-b-32",
        min_size=224,
    ),
    _pyiqa(
        "ilniqe", "IL-NIQE", "ilniqe", "lower", "Zhang, Zhang, Bovik 2015", "pyiqa-ilniqe",
        min_size=168,
    ),
    _pyiqa(
        "pyiqa-niqe", "NIQE", "niqe", "lower", "Mittal, Soundararajan, Bovik 2013", "pyiqa-niqe",
        min_size=192, colour=GREY,
    ),
    _pyiqa(
        "pyiqa-brisque", "BRISQUE", "brisque", "lower", "Mittal, Moorthy, Bovik 2012",
        "pyiqa-brisque", colour=GREY,
    ),
    _pyiqa(
        "pyiqa-psnr-y", "PSNR-Y", "psnr", "higher", "ITU-R BT.601",
        kind="full-reference", colour=Y,
    ),
    _pyiqa(
        "pyiqa-ssim-y", "SSIM-Y", "ssim", "higher", "Wang et al. 2004",
        kind="full-reference", colour=Y,
    ),
    _pyiqa(
        "pyiqa-lpips-alex", "LPIPS (AlexNet)", "lpips", "lower", "Zhang et al. 2018",
        "pyiqa-lpips-alex", "torch-alexnet", kind="full-reference", min_size=64,
    ),
    _pyiqa(
        "pyiqa-lpips-vgg", "LPIPS (VGG-16)", "lpips-vgg", "lower", "Zhang et al. 2018",
        "pyiqa-lpips-vgg", "torch-vgg16", kind="full-reference", min_size=64,
    ),
    _pyiqa(
        "pyiqa-dists", "DISTS", "dists", "lower", "Ding et al. 2020",
        "pyiqa-dists", "torch-vgg16", kind="full-reference", min_size=64,
    ),
]  # fmt: skip

METRICS: dict[str, MetricInfo] = {
    info.id: info for info in [*_FULL, *_LEARNED, *_NATURAL, *_PEERS, *_PERSON]
}

ALIASES: dict[str, str] = {
    "psnr": "psnr-y",
    "ssim": "ssim-y",
    "msssim": "ms-ssim",
    "lpips": "lpips-alex",
    "maniqa": "maniqa-pipal",
    "topiq-nr": "topiq",
    "il-niqe": "ilniqe",
    "vif": "vifp",
    "vif-p": "vifp",
}


PRINTED: dict[str, tuple[str, ...]] = {
    "BRISQUE": ("pyiqa-brisque", "brisque"),
    "CLIPIQA": ("clipiqa",),
    "DISTS": ("dists", "pyiqa-dists"),
    "FID": ("fid-clean", "fid"),
    "IL-NIQE": ("ilniqe",),
    "LIQE": ("liqe",),
    "LPIPS": ("lpips-alex", "pyiqa-lpips-alex"),
    "MANIQA": ("maniqa-pipal",),
    "MUSIQ": ("musiq",),
    "NIQE": ("pyiqa-niqe", "niqe"),
    "PSNR": ("psnr-y", "pyiqa-psnr-y"),
    "PSNR-RGB": ("psnr-rgb",),
    "SSIM": ("ssim-y", "pyiqa-ssim-y"),
    "SSIM-RGB": ("ssim-rgb",),
    "TOPIQ": ("topiq-fr",),
    "TOPIQ-NR": ("topiq",),
}
"""Heading in papers → the rows that it could mean; the first is the edition that papers report.

TOPIQ is the metric with a reference, and PSNR and SSIM are on Y, unless a table says otherwise.
"""

# Other rows whose values are those of the first under the same weights, as tests/extras measures
# (SSIM: within 0.0013).
_SAME = {"pyiqa-dists", "pyiqa-lpips-alex", "pyiqa-psnr-y", "pyiqa-ssim-y"}


def is_printed_edition(id: str) -> bool:
    """Whether papers report this edition of the metric; others are not comparable."""
    return id in _SAME or any(id == ids[0] for ids in PRINTED.values())


def find_metric(name: str) -> MetricInfo:
    """The row of an id or alias; case is ignored, and `_` stands for `-`.

    Raises:
        MetricError: no metric has this name; the message lists similar names.
    """
    key = name.strip().lower().replace("_", "-")
    key = ALIASES.get(key, key)
    if key in METRICS:
        return METRICS[key]
    near = difflib.get_close_matches(key, [*METRICS, *ALIASES], n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}" if near else f"known: {', '.join(METRICS)}"
    raise MetricError(f"no metric is called {name!r}; {hint}")


def load_metric(name: str, *, device: str = "cpu", weights: Path | None = None) -> Metric:
    """The metric of an id or an alias, ready to run.

    Args:
        name: see `find_metric`.
        device: device of a network; metrics without weights always run on the CPU.
        weights: the file of weights, or its folder; ignored by metrics without weights.

    Raises:
        MetricError: it is unknown, or something that it needs is missing; the message says what and
            how to get it.
    """
    info = find_metric(name)
    if info.function is not None:
        function = _resolve(info.function)
        if info.kind != "person":
            return FunctionMetric(info, function)
        from hbr.metrics.person import PersonMetric

        return PersonMetric(info, function)
    assert info.factory is not None  # by MetricInfo's own check
    try:
        return cast(Metric, _resolve(info.factory)(info, device, weights))
    except WeightsError as error:
        raise MetricError(str(error)) from None


def table_as_markdown() -> str:
    """The table for `docs/metrics.md`, one line for each metric."""
    heads = ("id", "heading", "better", "kind", "licence", "needs", "source")
    lines = []
    for info in METRICS.values():
        extra = f"`pip install hbr[{info.extra}]`" if info.extra else ""
        needs = [*info.needs, *(f"weights: {name}" for name in info.weights), extra]
        cells = (f"`{info.id}`", info.heading, f"{info.arrow} {info.better}", info.kind)
        rest = (info.licence, ", ".join(filter(None, needs)) or "nothing", info.source)
        lines.append((*cells, *rest))
    return markdown_table(heads, lines) + "\n"


def _resolve(place: str) -> Callable[..., Any]:
    module, _, name = place.partition(":")
    return cast(Callable[..., Any], getattr(importlib.import_module(module), name))
