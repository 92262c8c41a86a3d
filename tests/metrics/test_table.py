"""The table of metrics: names, checks, and the page that it is printed on."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hbr.metrics import METRICS, MetricError, find_metric, load_metric
from hbr.metrics.base import FunctionMetric
from hbr.metrics.fidelity import psnr_y
from hbr.metrics.table import ALIASES, table_as_markdown

ROOT = Path(__file__).parents[2]
PLAIN = [info for info in METRICS.values() if info.function and info.kind != "person"]


def test_the_table_loads_no_torch():
    code = "import sys, hbr.metrics; hbr.metrics.find_metric('psnr'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_what_the_table_says_is_whole():
    for name, info in METRICS.items():
        assert info.id == name == name.lower()
        assert info.version
        assert info.source
        assert info.licence
        assert bool(info.weights) <= bool(info.factory)
        module, _, attribute = (info.function or info.factory or "").partition(":")
        done = __import__(module, fromlist=[attribute])
        assert callable(getattr(done, attribute)), name
    assert len({info.heading for info in METRICS.values()}) == len(METRICS)


def test_names_and_aliases():
    assert find_metric("psnr").id == "psnr-y"
    assert find_metric(" SSIM_Y ").id == "ssim-y"
    assert find_metric("PSNR").heading == "PSNR-Y (hbr 1, Y of BT.601, 16–235, no crop)"
    assert set(ALIASES.values()) <= set(METRICS)
    assert not set(ALIASES) & set(METRICS)


def test_an_unknown_name_lists_near_ones():
    with pytest.raises(MetricError, match=r"no metric is called 'gsmd'; did you mean gmsd"):
        find_metric("gsmd")
    with pytest.raises(MetricError, match="known: psnr-y, ssim-y"):
        load_metric("xyzzy")


@pytest.mark.parametrize("info", PLAIN, ids=lambda info: info.id)
def test_the_smallest_size_is_that_of_the_table(info):
    generator = torch.Generator().manual_seed(0)
    side = info.min_size
    image, reference = torch.rand(2, 2, 3, side, side + 3, generator=generator)
    metric = load_metric(info.id)
    scores = metric(image, reference)
    assert scores.shape == (2,)
    assert scores.dtype == torch.float64
    assert scores.isfinite().all()
    singles = [metric(image[i : i + 1], reference[i : i + 1]) for i in range(2)]
    assert torch.equal(scores, torch.cat(singles))
    if side > 1:
        with pytest.raises(MetricError, match=f"{info.id} needs {side} pixels on each side"):
            metric(image[..., :-4], reference[..., :-4])


@pytest.mark.parametrize("info", PLAIN, ids=lambda info: info.id)
def test_what_does_not_fit_is_said(info):
    metric = load_metric(info.id)
    image = torch.rand(1, 3, 200, 210)
    with pytest.raises(MetricError, match=r"takes RGB pictures \[b, 3, h, w\]; got \[1, 1, 200"):
        metric(image[:, :1], image[:, :1])
    with pytest.raises(MetricError, match="compares with a reference, and none was given"):
        metric(image)
    with pytest.raises(MetricError, match="one size; got 210x200 and 200x200"):
        metric(image, image[..., :200])


def test_a_crop_is_cut_from_each_side():
    image, reference = torch.rand(2, 1, 3, 40, 50)
    info = dataclasses.replace(find_metric("psnr"), crop=4)
    assert info.heading.endswith("crop 4)")
    inner = load_metric("psnr")(image[..., 4:36, 4:46], reference[..., 4:36, 4:46])
    assert FunctionMetric(info, psnr_y)(image, reference) == inner
    with pytest.raises(MetricError, match="needs 9 pixels on each side; got 8x8"):
        FunctionMetric(info, psnr_y)(image[..., :8, :8], reference[..., :8, :8])


@pytest.mark.parametrize("name", ["niqe", "brisque", "face-identity"])
def test_missing_weights_are_named_with_how_to_get_them(name, tmp_path):
    (weights,) = find_metric(name).weights
    for given in (None, tmp_path):
        with pytest.raises(MetricError, match=f"hbr fetch {weights}"):
            load_metric(name, weights=given)
    with pytest.raises(MetricError, match=rf"gone\.file: there is no such file for {name}"):
        load_metric(name, weights=tmp_path / "gone.file")


def test_the_page_of_metrics_agrees_with_the_table():
    """`hbr metrics list --markdown` prints what belongs there."""
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert table_as_markdown() in page
