"""FID's mathematics and its walk over files, with small features in place of Inception's."""

from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from hbr.metrics import MetricError, find_metric, load_metric
from hbr.metrics.frechet import (
    FrechetDistance,
    Moments,
    Statistics,
    few_pictures,
    frechet_distance,
)


class Colours:
    """Mean and spread of each channel: six features."""

    id = "colours"

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, images: Tensor) -> Tensor:
        self.calls += 1
        return torch.cat([images.mean(dim=(2, 3)), images.std(dim=(2, 3))], dim=1)


def gaussian(features: np.ndarray) -> Statistics:
    moments = Moments()
    for part in np.array_split(features, 5):
        moments.update(part)
    return moments.statistics("test")


def published(a: np.ndarray, b: np.ndarray) -> float:
    """The formula as pytorch-fid evaluates it, by scipy's root of the product.

    That root is lost where the product is singular; its trace is that of its eigenvalues' roots.
    """
    product = np.cov(a.T) @ np.cov(b.T)
    if len(a) > a.shape[1]:
        common = np.trace(np.real(scipy.linalg.sqrtm(product)))
    else:
        common = np.sqrt(np.real(np.linalg.eigvals(product)).clip(min=0)).sum()
    apart = a.mean(axis=0) - b.mean(axis=0)
    return float(apart @ apart + np.trace(np.cov(a.T) + np.cov(b.T)) - 2 * common)


def test_one_pass_gives_mean_and_covariance() -> None:
    features = np.random.default_rng(0).normal(1e4, 1, (103, 7))  # far from 0: where sums cancel
    found = gaussian(features)
    assert found.count == 103
    np.testing.assert_allclose(found.mean, features.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(features.T), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("count", [200, 12])  # more pictures than features, and fewer
def test_the_distance_is_the_published_one(count: int) -> None:
    draw = np.random.default_rng(1)
    mix = draw.normal(size=(20, 20))
    a, b = draw.normal(size=(count, 20)) @ mix, draw.normal(0.3, 1.5, (count, 20)) @ mix
    distance = frechet_distance(gaussian(a), gaussian(b))
    assert distance == pytest.approx(published(a, b), rel=1e-9 if count == 200 else 1e-5)
    assert frechet_distance(gaussian(b), gaussian(a)) == pytest.approx(distance, rel=1e-7)
    assert frechet_distance(gaussian(a), gaussian(a)) == pytest.approx(0, abs=1e-6 * distance)


def test_two_known_gaussians() -> None:
    a = Statistics(mean=np.zeros(2), covariance=np.diag([1.0, 4.0]), count=9, extractor="x")
    b = Statistics(
        mean=np.array([3.0, 0.0]), covariance=np.diag([9.0, 4.0]), count=9, extractor="x"
    )
    assert frechet_distance(a, b) == pytest.approx(3**2 + (3 - 1) ** 2)


def test_statistics_of_another_extractor_do_not_compare() -> None:
    a = Statistics(mean=np.zeros(2), covariance=np.eye(2), count=9, extractor="x")
    b = Statistics(mean=np.zeros(2), covariance=np.eye(2), count=9, extractor="y")
    with pytest.raises(MetricError, match="only if one extractor made them; got 'x' and 'y'"):
        frechet_distance(a, b)


def write_pictures(folder: Path, count: int, gain: float = 1.0) -> list[Path]:
    from PIL import Image

    folder.mkdir()
    draw = np.random.default_rng(2)
    for i in range(count):
        size = (20 + i % 3, 24, 3)
        levels = draw.normal(128, 20 + i, size) * gain
        Image.fromarray(levels.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")
    return sorted(folder.iterdir())


def test_over_files_one_pass_then_from_the_cache(tmp_path: Path) -> None:
    files = write_pictures(tmp_path / "a", 30)
    fid = FrechetDistance(find_metric("fid"), Colours())
    cache = tmp_path / "cache"
    found = fid.over_files(files, cache=cache)
    calls = fid.extractor.calls  # type: ignore[attr-defined]
    again = fid.over_files(files[::-1], cache=cache)
    assert fid.extractor.calls == calls  # type: ignore[attr-defined]
    assert found.count == again.count == 30
    np.testing.assert_array_equal(found.covariance, again.covariance)

    from hbr.image import read_photo

    single = torch.cat([Colours()(read_photo(file).tensor()) for file in files])
    np.testing.assert_allclose(single.double().mean(dim=0), found.mean, rtol=1e-6)
    assert frechet_distance(again, found) == pytest.approx(0, abs=1e-6)
    darker = fid.over_files(write_pictures(tmp_path / "b", 30, gain=0.5), cache=cache)
    assert frechet_distance(found, darker) > 0.01
    assert len(list(cache.iterdir())) == 2

    files[0].write_bytes(files[1].read_bytes())  # the folder has changed: nothing stale is taken
    assert fid.over_files(files, cache=cache).content != found.content
    assert len(list(cache.iterdir())) == 3


def test_a_bad_file_is_counted_and_not_kept_in_the_cache(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = write_pictures(tmp_path / "a", 4)
    files[2].write_bytes(b"no picture")
    files.append(tmp_path / "a" / "gone.png")
    fid = FrechetDistance(find_metric("fid"), Colours())
    found = fid.over_files(files, cache=tmp_path / "c")
    assert found.count == 3
    told = [record.getMessage() for record in caplog.records]
    assert [name in line for name, line in zip(("2.png", "gone.png"), told, strict=True)] == [1, 1]
    assert not (tmp_path / "c").exists()
    fid.over_files(files)
    assert "left out of fid" in caplog.text
    with pytest.raises(MetricError, match="two pictures or more in each set; got 1"):
        fid.over_files(files[1:3])


def test_what_is_kept_costs_no_number(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = write_pictures(tmp_path / "a", 3)
    fid = FrechetDistance(find_metric("fid"), Colours())
    found = fid.over_files(files, cache=tmp_path / "cache")
    (kept,) = (tmp_path / "cache").iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[:100])
    again = fid.over_files(files, cache=tmp_path / "cache")  # made anew, and kept
    np.testing.assert_array_equal(again.mean, found.mean)
    assert Statistics.load(kept).content == found.content
    (tmp_path / "full").touch()
    assert fid.over_files(files, cache=tmp_path / "full").count == 3
    assert "the statistics are not kept" in caplog.text


def test_few_pictures_are_warned_of(tmp_path: Path) -> None:
    fid = FrechetDistance(find_metric("fid"), Colours())
    found = fid.over_files(write_pictures(tmp_path / "a", 3))
    assert "of 3 and 3 pictures: with fewer than 6 the value is biased" in str(
        few_pictures(found, found)
    )


@pytest.mark.parametrize("case", ["missing", "torn", "other", "shapes"])
def test_wrong_statistics_are_an_error(case: str, tmp_path: Path) -> None:
    path = tmp_path / "reference.npz"
    good = Statistics(mean=np.zeros(2), covariance=np.eye(2), count=9, extractor="x", content="c")
    good.save(path)
    assert Statistics.load(path).extractor == "x"
    if case == "missing":
        path.unlink()
    elif case == "torn":
        path.write_bytes(path.read_bytes()[:200])
    elif case == "other":
        np.savez(path, mu=np.zeros(2), sigma=np.eye(2))
    else:
        Statistics(mean=np.zeros(2), covariance=np.eye(3), count=9, extractor="x").save(path)
    with pytest.raises(MetricError, match=f"{path} does not hold image statistics"):
        Statistics.load(path)


def test_fid_says_what_is_missing() -> None:
    with pytest.raises(MetricError, match="`hbr fetch inception-fid` gets them"):
        load_metric("fid")
