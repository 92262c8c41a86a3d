"""NIQE and BRISQUE: the fits against drawn values, the features against loops, the files."""

import math

import cv2
import numpy as np
import pytest
import torch
from scipy.io import savemat
from scipy.special import gamma

from hbr.image import read_photo
from hbr.metrics import MetricError, load_metric
from hbr.metrics.brisque import brisque_features, read_brisque
from hbr.metrics.natural import fit_aggd, grey_levels, mscn
from hbr.metrics.niqe import fit_niqe, niqe, read_niqe


def drawn(shape, left, right, n, seed=0):
    """Values of an asymmetric generalised Gaussian with these deviations (Mittal 2013, Eq. 7)."""
    generator = np.random.default_rng(seed)
    sizes = generator.gamma(1 / shape, size=n) ** (1 / shape)
    sizes *= math.sqrt(gamma(1 / shape) / gamma(3 / shape))
    negative = generator.random(n) < left / (left + right)
    return np.where(negative, -left * sizes, right * sizes)


@pytest.mark.parametrize(("shape", "left", "right"), [(2, 1, 1), (0.8, 0.5, 1.5), (1.5, 2, 0.7)])
def test_the_fit_finds_what_was_drawn(shape, left, right):
    values = np.stack([drawn(shape, left, right, 400_000, seed) for seed in range(2)])
    for found, expected in zip(fit_aggd(values), (shape, left, right), strict=True):
        assert found == pytest.approx([expected] * 2, rel=0.02)


def test_flat_areas_have_no_fit():
    plane = np.full((30, 30), 255.0)
    values, deviation = mscn(plane)
    assert not values.any()
    assert deviation.max() < 1e-4
    assert np.isnan(fit_aggd(values.reshape(1, -1))[0]).all()


def test_mscn_is_the_papers():
    plane = np.random.default_rng(0).integers(0, 256, (20, 24)).astype(float)
    axis = np.arange(-3, 4)
    window = np.exp(-(axis[:, None] ** 2 + axis**2) / (2 * (7 / 6) ** 2))
    window /= window.sum()
    padded = np.pad(plane, 3, mode="edge")
    values, deviations = mscn(plane)
    for i, j in ((0, 0), (7, 23), (19, 5), (10, 10)):
        patch = padded[i : i + 7, j : j + 7]
        mean = (window * patch).sum()
        deviation = math.sqrt((window * (patch - mean) ** 2).sum())
        assert values[i, j] == pytest.approx((plane[i, j] - mean) / (deviation + 1))
        assert deviations[i, j] == pytest.approx(deviation)


def looped_fit(values):
    """Mittal et al. 2012, Eq. 4 to 9, value by value."""
    left = math.sqrt(np.mean([v * v for v in values if v < 0]))
    right = math.sqrt(np.mean([v * v for v in values if v > 0]))
    ratio = left / right
    wanted = np.mean(np.abs(values)) ** 2 / np.mean(values**2)
    wanted *= (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    best = min(
        (0.2 + 0.001 * k for k in range(9801)),
        key=lambda a: abs(
            math.gamma(2 / a) ** 2 / (math.gamma(1 / a) * math.gamma(3 / a)) - wanted
        ),
    )
    return best, left, right


def test_the_features_of_brisque_are_the_papers(pairs, tensor):
    (plane,) = grey_levels(tensor(pairs["tie-noisy"][1][:60, :70]))
    half = cv2.resize(plane, (35, 30), interpolation=cv2.INTER_CUBIC)
    expected = []
    for scale in (plane, half):
        values, _ = mscn(scale)
        shape, left, right = looped_fit(values.ravel())
        expected += [shape, (left**2 + right**2) / 2]
        h, w = values.shape
        for down, across in ((0, 1), (1, 0), (1, 1), (-1, 1)):
            products = np.zeros((h, w))
            for i in range(h):
                for j in range(w):
                    if 0 <= i + down < h and 0 <= j + across < w:
                        products[i, j] = values[i, j] * values[i + down, j + across]
            shape, left, right = looped_fit(products.ravel())
            mean = (
                (right - left) * gamma(2 / shape) / math.sqrt(gamma(1 / shape) * gamma(3 / shape))
            )
            expected += [shape, mean, left**2, right**2]
    assert brisque_features(plane) == pytest.approx(np.array(expected), rel=1e-9, abs=1e-9)


def write_brisque(folder, *, seed=0, kernel="RBF", kind="EPS_SVR", columns=36):
    """Files of OpenCV's layout, with random numbers: (support, alpha, low, high)."""
    generator = np.random.default_rng(seed)
    support = generator.normal(0, 0.5, (5, columns)).astype(np.float32)
    alpha = generator.normal(0, 60, 5)
    bounds = np.stack([np.full(36, -0.5), generator.random(36) + 1]).astype(np.float32)
    rows = "".join(f"      - [ {', '.join(f'{v:.9e}' for v in row)} ]\n" for row in support)
    (folder / "brisque_model_live.yml").write_text(
        "%YAML:1.0\n---\nopencv_ml_svm:\n   format: 3\n"
        f"   svmType: {kind}\n   kernel:\n      type: {kernel}\n      gamma: 0.05\n"
        f"   C: 1024.\n   p: 0.1\n   var_count: {columns}\n   sv_total: 5\n"
        f"   support_vectors:\n{rows}"
        "   decision_functions:\n      -\n         sv_count: 5\n         rho: -45.5\n"
        f"         alpha: [ {', '.join(f'{a:.17e}' for a in alpha)} ]\n"
    )
    flat = ", ".join(f"{v:.9e}" for v in bounds.ravel())
    (folder / "brisque_range_live.yml").write_text(
        "%YAML:1.0\n---\nrange: !!opencv-matrix\n   rows: 2\n   cols: 36\n   dt: f\n"
        f"   data: [ {flat} ]\n"
    )
    return support, alpha, bounds[0], bounds[1]


def test_brisque_is_the_regression_of_its_files(pairs, tensor, tmp_path):
    support, alpha, low, high = write_brisque(tmp_path)
    image = tensor(pairs["blue-noisy"][0])
    features = brisque_features(grey_levels(image)[0])
    scaled = [-1 + 2 * (f - a) / (b - a) for f, a, b in zip(features, low, high, strict=True)]
    total = 45.5
    for weight, vector in zip(alpha, support, strict=True):
        squared = sum((s - v) ** 2 for s, v in zip(scaled, vector, strict=True))
        total += weight * math.exp(-0.05 * squared)
    assert 0 < total < 100
    for weights in (tmp_path, tmp_path / "brisque_model_live.yml"):
        metric = load_metric("brisque", weights=weights)
        assert metric(image).item() == pytest.approx(total, abs=1e-4)
    assert metric(torch.zeros(1, 3, 64, 64)).isnan().all()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"kernel": "LINEAR"}, "no RBF regression"),
        ({"kind": "C_SVC"}, "no RBF regression"),
        ({"columns": 35}, "support vectors of 36"),
    ],
)
def test_another_model_is_no_brisque(change, told, tmp_path):
    write_brisque(tmp_path, **change)
    with pytest.raises(MetricError, match=told):
        load_metric("brisque", weights=tmp_path)


def test_broken_and_missing_files_of_brisque(tmp_path):
    write_brisque(tmp_path)
    model, ranges = tmp_path / "brisque_model_live.yml", tmp_path / "brisque_range_live.yml"
    for text in ("", "no yaml: [", "%YAML:1.0\n---\nrange: 3\n"):
        ranges.write_text(text)
        with pytest.raises(MetricError, match=r"brisque_range_live\.yml"):
            read_brisque(model, ranges)
    ranges.unlink()
    with pytest.raises(MetricError, match=r"brisque_range_live\.yml: no such BRISQUE file"):
        load_metric("brisque", weights=model)


@pytest.fixture(scope="module")
def sharp(shared):
    """Photographs, [1, 3, h, w]."""
    files = sorted((shared / "photos" / "coco-cc" / "images").glob("*.jpg"))
    assert len(files) > 60
    return [read_photo(file).tensor() for file in files[:60]]


@pytest.fixture(scope="module")
def model(sharp):
    return fit_niqe(sharp[:40], "40 photos of coco-cc")


def test_niqe_prefers_photos_to_blurred_and_noisy_ones(sharp, model, tmp_path):
    model.save(tmp_path / "niqe.npz")
    niqe = load_metric("niqe", weights=tmp_path)
    generator = torch.Generator().manual_seed(0)
    better = {"blurred": 0, "noisy": 0}
    held_out = [photo for photo in sharp[40:] if min(photo.shape[2:]) >= 192]
    for photo in held_out:
        pixels = photo[0].permute(1, 2, 0).numpy()
        blurred = torch.from_numpy(cv2.GaussianBlur(pixels, (0, 0), 2)).permute(2, 0, 1)[None]
        noisy = (photo + 0.1 * torch.randn(photo.shape, generator=generator)).clamp(0, 1)
        score = niqe(photo).item()
        better["blurred"] += niqe(blurred).item() > score
        better["noisy"] += niqe(noisy).item() > score
    assert min(better.values()) >= 0.95 * len(held_out)


def test_the_model_survives_its_file_and_the_published_layouts(model, sharp, tmp_path):
    files = [tmp_path / "own.npz", tmp_path / "theirs.mat", tmp_path / "basicsr.npz"]
    model.save(files[0])
    names = {"mu_prisparam": model.mean[None], "cov_prisparam": model.covariance}
    savemat(files[1], names)
    np.savez(files[2], mu_pris_param=model.mean[None], cov_pris_param=model.covariance)
    photo = sharp[50]
    scores = {load_metric("niqe", weights=file)(photo).item() for file in files}
    assert len(scores) == 1
    assert read_niqe(files[0]).fitted_on == "40 photos of coco-cc"
    assert read_niqe(files[1]).fitted_on.startswith("theirs.mat, SHA-256 ")


def test_what_is_no_model_of_niqe(model, tmp_path):
    bad = tmp_path / "bad.npz"
    for content in (b"", b"PK\x03\x04 cut"):
        bad.write_bytes(content)
        with pytest.raises(MetricError, match=r"neither a \.npz nor a \.mat"):
            read_niqe(bad)
    for told, values in (
        ("it holds a, b", {"a": 1, "b": 2}),
        ("mean of 36", {"mean": model.mean[:18], "covariance": model.covariance}),
        ("not finite", {"mean": model.mean * np.nan, "covariance": model.covariance}),
        ("neither", {"mean": np.array([{}], dtype=object), "covariance": model.covariance}),
    ):
        np.savez(bad, **values)
        with pytest.raises(MetricError, match=told):
            read_niqe(bad)


def test_niqe_of_flat_pictures_is_not_a_number(model, tmp_path):
    model.save(tmp_path / "niqe.npz")
    assert load_metric("niqe", weights=tmp_path)(torch.ones(2, 3, 200, 200)).isnan().all()


def looped_niqe(plane, model):
    """NIQE as pyiqa has it, block by block: flat blocks have the shape 0.2 and no other sign."""
    axis = np.arange(-3, 4)
    window = np.exp(-(axis[:, None] ** 2 + axis**2) / (2 * (7 / 6) ** 2))
    window = (window / window.sum()).astype(np.float32).astype(float)
    assert window.sum() != 1
    rows = []
    scaled = plane
    for size in (96, 48):
        padded = np.pad(scaled, 3, mode="edge")
        around = np.lib.stride_tricks.sliding_window_view(padded, (7, 7))
        mean, square = ((values * window).sum(axis=(2, 3)) for values in (around, around**2))
        values = (scaled - mean) / (np.sqrt(np.abs(square - mean**2)) + 1)
        found = []
        for top in range(0, values.shape[0], size):
            for left in range(0, values.shape[1], size):
                block = values[top : top + size, left : left + size]
                features = []
                for shift in (None, (0, 1), (1, 0), (1, 1), (1, -1)):
                    x = block if shift is None else block * np.roll(block, shift, (0, 1))
                    signs = (x < 0).any() and (x > 0).any()
                    shape = looped_fit(x.ravel())[0] if signs else 0.2
                    down, up = (
                        math.sqrt(np.mean(part**2)) if part.size else math.nan
                        for part in (x[x < 0], x[x > 0])
                    )
                    width = math.sqrt(gamma(1 / shape) / gamma(3 / shape))
                    down, up = down * width, up * width
                    eta = (up - down) * gamma(2 / shape) / gamma(1 / shape)
                    features += [shape]
                    features += [(down + up) / 2] if shift is None else [eta, down, up]
                found.append(features)
        rows.append(np.array(found))
        h, w = scaled.shape
        small = torch.from_numpy(scaled)[None, None]
        scaled = halved(small.numpy()[0, 0], h // 2, w // 2)
    features = np.concatenate(rows, axis=1)
    away = np.nanmean(features, axis=0) - model.mean
    kept = features[~np.isnan(features).any(axis=1)]
    assert 2 <= len(kept) < len(features)
    middle = (np.cov(kept, rowvar=False) + model.covariance) / 2
    return math.sqrt(away @ np.linalg.pinv(middle) @ away)


def halved(plane, h, w):
    """MATLAB's imresize to half: cubic of a = -½ over 8 pixels, mirrored at the borders."""
    offsets = np.arange(-3, 5)
    x = np.abs(offsets - 0.5) / 2
    taps = np.where(x <= 1, 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2)
    taps /= taps.sum()
    padded = np.pad(plane, 4, mode="symmetric")
    rows = sum(t * padded[4 + o : 4 + o + 2 * h : 2] for t, o in zip(taps, offsets, strict=True))
    return sum(t * rows[:, 4 + o : 4 + o + 2 * w : 2] for t, o in zip(taps, offsets, strict=True))


@pytest.mark.parametrize("level", [0, 128, 255])
def test_flat_blocks_count_as_in_the_papers_numbers(level, sharp, model):
    """A flat upper strip made NIQE hardly worse where such blocks were left out."""
    photo = next(p for p in sharp[40:] if min(p.shape[2:]) >= 384)[..., :384, :384].clone()
    before = niqe(photo, model).item()
    photo[..., :200, :] = level / 255
    after = niqe(photo, model).item()
    (plane,) = grey_levels(photo)
    assert after == pytest.approx(looped_niqe(plane, model), rel=1e-6)
    assert after > 2 * before


def test_too_few_photos_for_a_model(sharp):
    with pytest.raises(MetricError, match=r"72 sharp blocks .* these 1 photos have \d+: pro"):
        fit_niqe(sharp[:1], "one")
    with pytest.raises(MetricError, match="at least 96x96"):
        fit_niqe([torch.rand(1, 3, 95, 200)], "small")
