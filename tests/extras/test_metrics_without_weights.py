"""Metrics without weights against piq and pyiqa themselves, on whole photographs of odd sizes."""

import cv2
import numpy as np
import pytest
import torch
from scipy.io import savemat

from hbr.image import read_photo
from hbr.metrics import load_metric
from hbr.metrics.niqe import fit_niqe

SIZES = ((192, 256), (301, 201))


@pytest.fixture(scope="module")
def photos(shared):
    files = sorted((shared / "photos" / "coco-cc" / "images").glob("*.jpg"))
    return [read_photo(file).pixels for file in files[:33]]


@pytest.fixture(scope="module", params=SIZES, ids=str)
def pairs(request, photos):
    """Two [b, 3, h, w] of float64 in [0, 1] on whole levels: damaged, and reference."""
    h, w = request.param
    generator = np.random.default_rng(0)
    found = []
    for photo in photos[:1]:
        reference = cv2.resize(photo, (w, h), interpolation=cv2.INTER_AREA)
        noisy = np.clip(reference + generator.normal(0, 12, reference.shape), 0, 255)
        jpeg = cv2.imdecode(cv2.imencode(".jpg", reference, [cv2.IMWRITE_JPEG_QUALITY, 20])[1], 1)
        blurred = cv2.GaussianBlur(reference, (0, 0), 1.5)
        found += [(bad.round(), reference) for bad in (noisy, jpeg, blurred)]
    both = (np.stack(side).astype(np.float64) / 255 for side in zip(*found, strict=True))
    return tuple(torch.from_numpy(side).permute(0, 3, 1, 2).contiguous() for side in both)


def y_of(image):
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=torch.float64).view(1, 3, 1, 1)
    return 16 + (image * weights).sum(1, keepdim=True)


def difference(name, pairs, expected):
    x, y = pairs
    return (load_metric(name)(x.float(), y.float()) - expected.flatten()).abs().max().item()


def test_piq(pairs):
    import piq

    x, y = pairs
    options = {"reduction": "none"}
    fsim = piq.fsim(x, y, chromatic=False, **options)
    assert difference("fsim", pairs, fsim) < 1e-4
    assert difference("fsimc", pairs, piq.fsim(x, y, **options)) < 1e-4
    assert difference("gmsd", pairs, piq.gmsd(x, y, **options)) < 1e-9
    assert difference("vifp", pairs, piq.vif_p(x, y, **options)) < 1e-9
    if all(side % 16 == 0 for side in x.shape[2:]):
        ms_ssim = piq.multi_scale_ssim(y_of(x), y_of(y), data_range=255.0, **options)
        assert difference("ms-ssim", pairs, ms_ssim) < 1e-9
    psnr = piq.psnr(y_of(x) / 255, y_of(y) / 255, **options)
    # piq adds 1e-8 to the mean square
    assert difference("psnr-y", pairs, psnr) < 1e-3


YCBCR = {"test_y_channel": True, "color_space": "ycbcr"}

# Ours, pyiqa's name and options, and how far apart they are on such photographs at most.
APART = [
    ("psnr-y", "psnr", YCBCR, 1e-3),
    ("psnr-rgb", "psnr", {"test_y_channel": False}, 1e-3),
    ("ssim-y", "ssim", YCBCR, 2e-3),  # it rounds Y to whole levels
    ("ms-ssim", "ms_ssim", YCBCR, 3e-3),  # and has odd sides another way
    ("fsimc", "fsim", {}, 1e-3),
    ("gmsd", "gmsd", {}, 1e-3),
    ("vifp", "vif", {}, 0.2),  # it has the one of wavelets
]


@pytest.mark.parametrize(("name", "theirs", "options", "apart"), APART)
def test_pyiqa(name, theirs, options, apart, pairs):
    import pyiqa

    metric = pyiqa.create_metric(theirs, device="cpu", **options)
    scores = metric(*(t.float() for t in pairs)).double()
    assert difference(name, pairs, scores) < apart


def test_pyiqa_by_itself_reports_another_psnr_of_y(pairs):
    """Its `psnry` takes the Y of YIQ, 0 to 255: the same errors over a range that is wider."""
    import pyiqa

    scores = pyiqa.create_metric("psnry", device="cpu")(*(t.float() for t in pairs)).double()
    x, y = pairs
    shift = load_metric("psnr-y")(x, y) - scores.flatten()
    wider = 20 * np.log10(255 / 219)
    assert shift.numpy() == pytest.approx([wider] * len(x), abs=0.01)


def test_niqe_of_pyiqa_under_one_model(photos, tmp_path):
    from pyiqa.archs.niqe_arch import NIQE

    tensors = [torch.from_numpy(p.astype(np.float32) / 255).permute(2, 0, 1)[None] for p in photos]
    model = fit_niqe(tensors[:30], "30 photos")
    file = tmp_path / "niqe.mat"
    savemat(file, {"mu_prisparam": model.mean[None], "cov_prisparam": model.covariance})
    ours, theirs = load_metric("niqe", weights=file), NIQE(pretrained_model_path=str(file))
    for photo in tensors[30:]:
        pixels = photo[0].permute(1, 2, 0).numpy()
        grain = np.random.default_rng(0).normal(0, 0.02, pixels.shape)
        grainy = np.clip(pixels + grain, 0.0, 1.0)
        flat = grainy.copy()
        flat[: 2 * len(flat) // 3] = 0.5
        for levels in (grainy, pixels, flat):
            image = torch.from_numpy((levels * 255).round() / 255).permute(2, 0, 1)[None]
            assert ours(image).item() == pytest.approx(theirs(image.double()).item(), rel=0.01)
