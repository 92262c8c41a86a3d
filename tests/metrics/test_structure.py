"""MS-SSIM, FSIM, GMSD and VIFp against piq; the log-spectrum distance against its definition."""

import numpy as np
import pytest
import torch
from PIL import Image

from hbr.metrics import load_metric
from hbr.metrics.planes import valid

# piq 0.8.0, torch 2.13, on float64 pairs x, y of the fixture `pairs`, divided by 255:
#     weights = torch.tensor([65.481, 128.553, 24.966], dtype=torch.float64).view(1, 3, 1, 1)
#     x_y, y_y = (16 + (t * weights).sum(1, keepdim=True) for t in (x, y))
#     piq.multi_scale_ssim(x_y, y_y, data_range=255.0), piq.fsim(x, y, chromatic=False),
#     piq.fsim(x, y), piq.gmsd(x, y), piq.vif_p(x, y)
NAMES = ("ms-ssim", "fsim", "fsimc", "gmsd", "vifp")
BY_PIQ = {
    "blue-blurred": (0.966665, 0.867528, 0.866175, 0.071905, 0.358049),
    "blue-noisy": (0.970826, 0.918752, 0.904816, 0.045793, 0.449302),
    "blue-contrasty": (0.979798, 0.950493, 0.949589, 0.066746, 0.869217),
    "blue-reddish": (0.999971, 0.999829, 0.995085, 0.000614, 0.996502),
    "tie-blurred": (0.988536, 0.920200, 0.919553, 0.071826, 0.541059),
    "tie-noisy": (0.974066, 0.897837, 0.884522, 0.039686, 0.466221),
    "tie-contrasty": (0.982498, 0.967528, 0.966258, 0.036569, 0.917312),
    "tie-reddish": (0.999888, 0.999499, 0.993629, 0.000878, 0.990761),
}


@pytest.mark.parametrize("name", NAMES)
def test_equals_piq(name, pairs, tensor):
    found = {key: load_metric(name)(tensor(x), tensor(y)).item() for key, (x, y) in pairs.items()}
    expected = {key: values[NAMES.index(name)] for key, values in BY_PIQ.items()}
    assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", [*NAMES, "log-spectrum"])
def test_equal_and_flat_pictures(name, pairs, tensor):
    photo = tensor(pairs["tie-noisy"][1])
    perfect = 0 if name in ("gmsd", "log-spectrum") else 1
    metric = load_metric(name)
    assert metric(photo, photo).item() == pytest.approx(perfect, abs=1e-9)
    black, grey = torch.zeros_like(photo), torch.full_like(photo, 0.5)
    assert metric(black, black).item() == pytest.approx(perfect, abs=1e-9)
    assert abs(metric(black, photo).item() - perfect) > 0.05
    # a flat reference holds no information that could be lost
    difference = abs(metric(photo, grey).item() - perfect)
    assert difference < 1e-9 if name == "vifp" else difference > 0.05


def test_windows_are_valid_where_they_fit_whole():
    plane = np.random.default_rng(0).random((9, 12))
    taps = np.array([1.0, 2, 4, 2, 1])
    expected = [
        [taps @ plane[i : i + 5, j : j + 5] @ taps for j in range(12 - 4)] for i in range(9 - 4)
    ]
    np.testing.assert_allclose(valid(plane, taps), expected, rtol=1e-12)


def test_log_spectrum_sees_sharpness_both_ways(pairs, tensor):
    photo = pairs["tie-noisy"][1]
    metric = load_metric("log-spectrum")
    # scaled by 4 / 5 in every frequency
    soft = np.clip((photo.astype(float) - 128) * 0.8 + 128, 0, 255)
    faded = metric(tensor(soft), tensor(photo)).item()
    assert faded == pytest.approx(20 * np.log10(5 / 4), abs=0.01)
    assert metric(tensor(photo), tensor(soft)).item() == pytest.approx(faded, abs=1e-9)
    for kind in ("blurred", "noisy"):
        assert metric(*map(tensor, pairs[f"tie-{kind}"])).item() > 1


def test_log_spectrum_does_not_see_where(pairs, tensor):
    photo = pairs["blue-noisy"][1]
    assert load_metric("log-spectrum")(tensor(photo[::-1]), tensor(photo)).item() < 1e-9


def test_log_spectrum_grows_with_blur(pairs, tensor):
    photo = pairs["blue-noisy"][1]
    image = Image.fromarray(photo)
    shrunk = [
        np.array(image.resize((n, n), Image.Resampling.BICUBIC).resize((192, 192)))
        for n in (160, 96, 48)
    ]
    scores = [load_metric("log-spectrum")(tensor(x), tensor(photo)).item() for x in shrunk]
    assert scores == sorted(scores)
    assert scores[0] > 0.5
