"""No seam stands out: gradients across tile borders are like gradients elsewhere.

What a photo shows differs from place to place, so that the raw ratio of the two says more about
the photo than about seams. It is divided by the same ratio of the same photo restored whole.
"""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import hbr
import toy_models
from hbr.image import read_photo
from hbr.restoration import Restorer
from hbr.restoration.passes.inference import run_tiles
from hbr.restoration.passes.tiling import Axis, TilePlan, plan_tiles

SIZES = toy_models.SIZES

NANO = Path(hbr.__file__).parent / "weights" / "nano.safetensors"


def near_borders(axis: Axis) -> np.ndarray:
    """Which differences of neighbours along an axis lie where two tiles blend, [size − 1]."""
    near = np.zeros(axis.size - 1, bool)
    for before, start in pairwise(axis.starts):
        middle = (before + axis.tile + start) // 2
        near[middle - axis.overlap // 4 : middle + axis.overlap // 4] = True
    return near


def border_ratio(pixels: np.ndarray, plan: TilePlan) -> tuple[float, float]:
    """Sum of |gradient| at borders and elsewhere, each over its count: their ratio, both axes."""
    sums, counts = np.zeros(2), np.zeros(2)
    for axis, along in ((plan.rows, 0), (plan.columns, 1)):
        gradient = np.abs(np.diff(pixels.astype(np.float64), axis=along)).sum(axis=2)
        gradient = np.moveaxis(gradient, along, 0)
        near = near_borders(axis)
        for i, where in enumerate((near, ~near)):
            sums[i] += gradient[where].sum()
            counts[i] += gradient[where].size
    return float((sums / counts)[0] / (sums / counts)[1])


def seam(model: Callable[[torch.Tensor], torch.Tensor], pixels: np.ndarray, tile: int) -> float:
    """How much stronger gradients are at borders for being tiled; 1 is no seam."""
    needs = model.capabilities
    whole, tiled = (plan_tiles(*pixels.shape[:2], needs, t) for t in (0, tile))
    assert len(tiled) >= 6
    with torch.inference_mode():
        untiled = run_tiles(model, pixels, whole)
        blended = run_tiles(model, pixels, tiled)
    return border_ratio(blended, tiled) / border_ratio(untiled, tiled)


def test_no_seam_for_a_network_that_sees_further_than_the_overlap(network, photo_pixels):
    assert seam(network(depth=40), photo_pixels, 160) == pytest.approx(1, abs=0.02)


def test_the_measure_sees_tiles_that_differ_a_little(photo_pixels):
    plan = plan_tiles(*photo_pixels.shape[:2], SIZES, 128)
    starts = plan.rows.starts
    middles = [(a + plan.rows.tile + b) / 2 for a, b in pairwise(starts)]
    tile_of_row = np.searchsorted(middles, np.arange(photo_pixels.shape[0]), side="right")
    uneven = photo_pixels.astype(int) + 8 * (tile_of_row % 2)[:, None, None]
    assert border_ratio(uneven, plan) / border_ratio(photo_pixels, plan) > 1.02


@pytest.mark.slow
@pytest.mark.skipif(not NANO.is_file(), reason="weights/nano.safetensors is not there")
def test_no_seam_for_nano(val_photos):
    model = Restorer.from_pretrained("nano", device="cpu", dtype="float32").model
    ratios = []
    for path in val_photos[:3]:
        pixels = read_photo(path).pixels[:480, :512]
        ratios.append(seam(model, pixels, 256))
    assert np.mean(ratios) == pytest.approx(1, abs=0.02), ratios
