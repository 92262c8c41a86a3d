"""PSNR and SSIM against NumPy and scikit-image."""

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from hbr.metrics import load_metric, psnr, ssim
from hbr.metrics.fidelity import ssim_rgb

# scikit-image averages over the same interior when the borders are cut off
WANG = {"gaussian_weights": True, "use_sample_covariance": False, "sigma": 1.5, "truncate": 5 / 1.5}


@pytest.fixture
def pair():
    generator = np.random.default_rng(0)
    reference = generator.random((2, 40, 50, 3))
    return reference, np.clip(reference + generator.normal(0, 0.1, reference.shape), 0, 1)


def as_batch(array):
    return torch.from_numpy(array).permute(0, 3, 1, 2)


def y_of(pixels):
    """Y of BT.601 from 8-bit levels, as MATLAB's rgb2ycbcr before it rounds."""
    return 16 + pixels.astype(np.float64) @ (65.481, 128.553, 24.966) / 255


def test_psnr(pair):
    reference, image = pair
    expected = [peak_signal_noise_ratio(reference[i], image[i], data_range=1) for i in range(2)]
    found = psnr(as_batch(image), as_batch(reference))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_ssim(pair):
    reference, image = pair
    expected = [
        structural_similarity(reference[i], image[i], data_range=1, channel_axis=-1, **WANG)
        for i in range(2)
    ]
    for function in (ssim, ssim_rgb):
        found = function(as_batch(image), as_batch(reference))
        # the table's version takes levels that are rounded to 0.0001
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_y_of_black_and_white_is_16_and_235():
    assert y_of(np.array([[0, 0, 0], [255, 255, 255]])).round(9).tolist() == [16, 235]


def test_psnr_y_and_ssim_y_are_the_papers(pairs, tensor):
    """From the float32 tensors of 8-bit files, to a millionth."""
    for image, reference in pairs.values():
        x, y = y_of(image), y_of(reference)
        given = tensor(image), tensor(reference)
        decibels = 10 * np.log10(255**2 / np.mean((x - y) ** 2))
        assert load_metric("psnr")(*given).item() == pytest.approx(decibels, abs=1e-6)
        similarity = structural_similarity(x, y, data_range=255, **WANG)
        assert load_metric("ssim")(*given).item() == pytest.approx(similarity, abs=1e-6)


def test_psnr_and_ssim_of_rgb(pairs, tensor):
    for image, reference in pairs.values():
        given = tensor(image), tensor(reference)
        expected = peak_signal_noise_ratio(reference, image)
        assert load_metric("psnr-rgb")(*given).item() == pytest.approx(expected, abs=1e-6)
        expected = structural_similarity(reference, image, channel_axis=-1, **WANG)
        assert load_metric("ssim-rgb")(*given).item() == pytest.approx(expected, abs=1e-6)


def test_equal_pictures_have_a_finite_psnr(pairs, tensor):
    photo = tensor(next(iter(pairs.values()))[1])
    for name in ("psnr-y", "psnr-rgb"):
        assert load_metric(name)(photo, photo).tolist() == [120]
