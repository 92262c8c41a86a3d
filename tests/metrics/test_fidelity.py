"""PSNR and SSIM against scikit-image."""

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from hbr.metrics import psnr, ssim


@pytest.fixture
def pair():
    generator = np.random.default_rng(0)
    reference = generator.random((2, 40, 50, 3))
    return reference, np.clip(reference + generator.normal(0, 0.1, reference.shape), 0, 1)


def tensor(array):
    return torch.from_numpy(array).permute(0, 3, 1, 2)


def test_psnr(pair):
    reference, image = pair
    expected = [peak_signal_noise_ratio(reference[i], image[i], data_range=1) for i in range(2)]
    np.testing.assert_allclose(psnr(tensor(image), tensor(reference)).numpy(), expected, atol=1e-6)


def test_ssim(pair):
    """scikit-image averages over the same interior when the borders are cut off."""
    reference, image = pair
    expected = [
        structural_similarity(
            reference[i],
            image[i],
            data_range=1,
            channel_axis=-1,
            gaussian_weights=True,
            use_sample_covariance=False,
            sigma=1.5,
            truncate=5 / 1.5,
        )
        for i in range(2)
    ]
    np.testing.assert_allclose(ssim(tensor(image), tensor(reference)).numpy(), expected, atol=1e-6)
