"""Workers that die, metrics over folders, metrics of people: what a command line cannot bring."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from torch import Tensor

from hbr.config import ConfigError
from hbr.evaluation import folders, measuring
from hbr.evaluation.evaluate import evaluate, measure_all
from hbr.evaluation.pairing import PicturePair
from hbr.evaluation.settings import EvaluateConfig
from hbr.files import sha256
from hbr.image import read_photo
from hbr.metrics import Metric, MetricError, MetricInfo, find_metric, load_metric
from hbr.metrics.frechet import FrechetDistance, Statistics, frechet_distance
from hbr.metrics.niqe import NiqeModel

PHOTO = Path(__file__).parents[1] / "data" / "purple.jpg"


@pytest.fixture
def pairs(tmp_path: Path) -> list[PicturePair]:
    """Six cut-outs of a photograph, and each blurred."""
    found = []
    with Image.open(PHOTO) as image:
        for number in range(6):
            hq, restored = tmp_path / f"hq{number}.png", tmp_path / f"restored{number}.png"
            part = image.crop((0, 2 * number, 48, 2 * number + 40))
            part.save(hq)
            part.resize((24, 20)).resize((48, 40)).save(restored)
            found.append(PicturePair(f"p{number}", restored, hq))
    return found


class Deadly(type(Path())):  # type: ignore[misc]
    """A path at which a worker process ends when it gets it."""

    def __reduce__(self) -> tuple[Callable[[int], None], tuple[int]]:
        return os._exit, (9,)


def test_a_pair_that_ends_its_worker_costs_only_itself(pairs: list[PicturePair]) -> None:
    deadly = Deadly(pairs[2].restored)
    pairs[2] = PicturePair("p2", deadly, pairs[2].reference)
    found = measure_all(pairs, EvaluateConfig(metrics=("psnr-y",), workers=2))
    rows = [row for measured, _ in found for row in measured]
    assert [row.pair.stem for row in rows] == [f"p{number}" for number in range(6)]
    assert [bool(row.values) for row in rows] == [True, True, False, True, True, True]
    assert "the process that measured it died" in (rows[2].error or "")


def test_a_worker_that_is_killed_loses_nothing(
    hbr_command: list[str], tmp_path: Path, pairs: list[PicturePair]
) -> None:
    hq = tmp_path / "many"
    hq.mkdir()
    with Image.open(PHOTO) as image:
        for number in range(12):
            image.resize((300, 200 + number)).save(hq / f"{number:02}.png")
    out = tmp_path / "out.json"
    arguments = ["evaluate", "-r", hq, "-g", hq, "-m", "fsim,vif", "--workers", "1", "--json", out]
    command = [*hbr_command, *map(str, arguments), "--batch", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    kept = tmp_path / ".out.json.hbr-kept"
    while process.poll() is None and not (kept.exists() and kept.stat().st_size):
        time.sleep(0.02)
    # a worker is the child of the server that forks it
    below = psutil.Process(process.pid).children(recursive=True)
    (worker,) = (p for p in below if not p.children() and p.ppid() != process.pid)
    worker.send_signal(signal.SIGKILL)
    _, stderr = process.communicate(timeout=120)
    assert (process.returncode, stderr) == (0, "")
    rows = json.loads(out.read_text())["rows"]
    assert [row["status"] for row in rows] == ["measured"] * 12


class Colours:
    """Features that need no weights: means and spread of the colours."""

    id = "colours"

    def __call__(self, images: Tensor) -> Tensor:
        flat = images.flatten(2)
        return torch.cat([flat.mean(2), flat.std(2)], dim=1)


def gaussian(files: Sequence[Path]) -> Statistics:
    """What NumPy makes of the features of some pictures."""
    features = Colours()(torch.cat([read_photo(file).tensor() for file in files])).double().numpy()
    covariance = np.cov(features, rowvar=False)
    return Statistics(
        mean=features.mean(0), covariance=covariance, count=len(files), extractor="colours"
    )


def test_one_number_for_two_folders(
    pairs: list[PicturePair], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # the weights of FID's own network are not on this machine
    def load(name: str, **_: object) -> FrechetDistance:
        return FrechetDistance(find_metric(name), Colours())

    monkeypatch.setattr(folders, "load_metric", load)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pairs[5].restored.write_bytes(b"none")
    config = EvaluateConfig(metrics=("psnr", "fid"), workers=0)
    seen: list[tuple[int, int]] = []
    result = evaluate(
        pairs,
        config,
        statistics=tmp_path / "statistics",
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-11:] == [*((n, 6) for n in range(1, 7)), *((n, 5) for n in range(1, 6))]
    found = result.summaries["fid"]
    references = []
    for pair in pairs:
        assert pair.reference is not None
        references.append(pair.reference)
    expected = frechet_distance(gaussian([p.restored for p in pairs[:5]]), gaussian(references))
    assert found.mean == pytest.approx(expected, rel=1e-6)
    assert (found.n, found.failed, found.low) == (5, 1, None)
    said = "fid of 5 and 6 pictures: with fewer than 6 the value is biased upwards"
    assert sum(line.startswith(said) for line in result.warnings) == 1
    assert len(list((tmp_path / "statistics").iterdir())) == 1
    assert len(list((tmp_path / "cache/hbr/statistics").iterdir())) == 1


def test_a_metric_over_folders_that_cannot_be_loaded(
    pairs: list[PicturePair], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str, **_: object) -> FrechetDistance:
        raise MetricError("fid needs the weights x; get them")

    monkeypatch.setattr(folders, "load_metric", load)
    found = evaluate(pairs, EvaluateConfig(metrics=("psnr", "fid"), workers=0))
    assert found.summaries["fid"].error == "fid needs the weights x; get them"
    assert found.summaries["psnr-y"].n == 6
    with pytest.raises(MetricError, match="needs the weights x"):
        evaluate(pairs, EvaluateConfig(metrics=("fid",), workers=0))
    alone = [PicturePair(pair.stem, pair.restored) for pair in pairs]
    with pytest.raises(ConfigError, match="fid compares with references"):
        evaluate(alone, EvaluateConfig(metrics=("fid",), workers=0))


def test_a_device_that_is_not_there_costs_only_what_needs_it(
    pairs: list[PicturePair], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str, *, device: str, weights: Path | None) -> Metric:
        if name == "lpips-alex":  # its weights are not on this machine
            torch.zeros(1).to(device)
        return load_metric(name, weights=weights)

    monkeypatch.setattr(measuring, "load_metric", load)
    config = EvaluateConfig(metrics=("psnr", "lpips"), workers=0, device="cuda:77")
    found = evaluate(pairs, config)
    assert found.summaries["psnr-y"].n == 6
    assert (found.summaries["lpips-alex"].error or "").startswith("lpips-alex: ")
    assert found.unavailable.keys() == {"lpips-alex"}


def test_values_do_not_go_with_other_weights(pairs: list[PicturePair], tmp_path: Path) -> None:
    kept, files = tmp_path / "kept", [tmp_path / "a.npz", tmp_path / "b.npz"]
    for pair in pairs:
        with Image.open(pair.restored) as image:
            image.resize((200, 192)).save(pair.restored)
    for number, file in enumerate(files, 1):
        NiqeModel(np.full(36, float(number)), np.eye(36), "a test").save(file)
    alone = [PicturePair(pair.stem, pair.restored) for pair in pairs]
    first, second = (
        evaluate(alone, EvaluateConfig(metrics=("niqe",), weights=file, workers=0), kept=kept)
        for file in files
    )
    assert first.rows[0].values != second.rows[0].values
    assert [row.known for row in second.rows] == [frozenset()] * 6
    versions = [found.metrics["niqe"].version for found in (first, second)]
    assert versions == [f"2, {sha256(file)[:8]}" for file in files]


def annotations(path: Path, pairs: list[PicturePair], people: list[int]) -> Path:
    """A COCO file in which these pictures have somebody in their left half."""
    square = [4.0, 4.0, 20.0, 4.0, 20.0, 36.0, 4.0, 36.0]
    names = [pair.reference.name for pair in pairs if pair.reference]
    content = {
        "categories": [{"id": 1, "name": "person"}],
        "images": [
            {"id": i, "file_name": name, "width": 48, "height": 40} for i, name in enumerate(names)
        ],
        "annotations": [
            {
                "image_id": i,
                "category_id": 1,
                "bbox": [4, 4, 16, 32],
                "segmentation": [square],
                "iscrowd": 0,
            }
            for i in people
        ],
    }
    path.write_text(json.dumps(content))
    return path


def test_people_are_found_by_name(pairs: list[PicturePair], tmp_path: Path) -> None:
    # only inside the person is the colour of the first picture wrong
    with Image.open(pairs[0].reference or "") as image:
        pixels = np.array(image)
        pixels[6:34, 6:18, 0] //= 2
        Image.fromarray(pixels).save(pairs[0].restored)
    file = annotations(tmp_path / "people.json", pairs[:5], [0, 1, 2, 3])
    config = EvaluateConfig(metrics=("person-colour", "psnr"), people=file, workers=0)
    found = evaluate(pairs, config)
    first = found.rows[0].values["person-colour"]
    assert first > 5
    # of the fifth nobody is known, which is no failure; the sixth is not in the file
    summary = found.summaries["person-colour"]
    assert (summary.n, summary.failed) == (4, 1)
    assert found.rows[4].notes == ["person-colour: no person to measure"]
    assert "has no picture called hq5.png" in found.rows[5].errors["person-colour"]
    with pytest.raises(ConfigError, match="give them by --people"):
        evaluate(pairs, EvaluateConfig(metrics=("person-colour",)))
    with pytest.raises(ConfigError, match="give --pose FILE"):
        evaluate(pairs, EvaluateConfig(metrics=("person-keypoints",), people=file))
    (tmp_path / "none.json").write_text("[")
    broken = EvaluateConfig(metrics=("person-colour",), people=tmp_path / "none.json", workers=0)
    with pytest.raises(MetricError, match=r"none\.json is not a COCO file"):
        evaluate(pairs, broken)


def test_values_do_not_go_with_other_people(pairs: list[PicturePair], tmp_path: Path) -> None:
    kept, file = tmp_path / "kept", tmp_path / "people.json"
    config = EvaluateConfig(metrics=("person-colour",), people=file, workers=0)
    annotations(file, pairs, [0])
    evaluate(pairs, config, kept=kept)
    annotations(file, pairs, [1])
    found = evaluate(pairs, config, kept=kept)
    assert [bool(row.values) for row in found.rows] == [False, True] + [False] * 4


def test_a_batch_that_fails_is_taken_apart(pairs: list[PicturePair]) -> None:
    # one picture of six is equal to its reference in all but size, and is measured by itself
    with Image.open(pairs[3].reference or "") as image:
        image.resize((8, 8)).save(pairs[3].restored)
        image.resize((8, 8)).save(pairs[3].reference or "")
    found = evaluate(pairs, EvaluateConfig(metrics=("ssim",), workers=0, batch=6))
    assert [name for row in found.rows for name in row.errors] == ["ssim-y"]
    assert found.summaries["ssim-y"].n == 5
    expected = load_metric("ssim-y")(
        read_photo(pairs[0].restored).tensor(), read_photo(pairs[0].reference or "").tensor()
    )
    assert found.rows[0].values["ssim-y"] == pytest.approx(expected.item(), abs=1e-12)


def test_infos_are_those_of_the_table() -> None:
    config = EvaluateConfig(metrics=("SSIM", "psnr_y"))
    assert config.ids == ("ssim-y", "psnr-y")
    assert all(isinstance(info, MetricInfo) for info in config.infos.values())


def measured(pair: PicturePair, **how: object) -> tuple[dict[str, float], list[str]]:
    config = EvaluateConfig(metrics=("psnr-rgb",), workers=0, **how)  # type: ignore[arg-type]
    ((rows, _),) = measure_all([pair], config)
    (row,) = rows
    assert row.error is None, row.error
    return row.values, row.notes


def test_pictures_are_compared_in_8_bits_on_white(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 48, 3), np.uint8)
    noisy = np.clip(pixels.astype(int) + rng.integers(-20, 21, pixels.shape), 0, 255)
    pair = PicturePair("a", tmp_path / "restored.png", tmp_path / "hq.png")
    assert pair.reference is not None
    Image.fromarray(pixels).save(pair.reference)
    # 16 bits that are the same in 8
    deep = pixels[..., ::-1].astype(np.int64) * 257 + 100 * (pixels[..., ::-1] < 255)
    cv2.imwrite(str(pair.restored), deep.astype(np.uint16))
    same = measured(PicturePair("b", pair.reference, pair.reference))
    assert measured(pair) == same
    # the colours under transparent pixels are not shown, and none are made up
    alpha = np.full((40, 48), 255, np.uint8)
    alpha[:20, :24] = 0
    seen = noisy.astype(np.uint8)
    seen[:20, :24] = 255
    Image.fromarray(np.dstack([noisy.astype(np.uint8), alpha])).save(pair.restored)
    values, notes = measured(pair)
    error = np.mean((seen.astype(float) - pixels) ** 2)
    assert values["psnr-rgb"] == pytest.approx(10 * np.log10(255**2 / error), abs=1e-4)
    assert notes == ["the restored has transparent pixels; compared on white"]
    # an alpha channel that hides nothing is nothing to speak of
    Image.fromarray(np.dstack([pixels, np.full((40, 48), 255, np.uint8)])).save(pair.restored)
    assert measured(pair) == same


def test_a_border_is_cut_off(pairs: list[PicturePair], tmp_path: Path) -> None:
    (pair, *_) = pairs
    whole, _ = measured(pair)
    assert pair.reference is not None
    inner = PicturePair("inner", tmp_path / "r.png", tmp_path / "g.png")
    for source, target in ((pair.restored, inner.restored), (pair.reference, inner.reference)):
        assert target is not None
        with Image.open(source) as image:
            image.crop((4, 4, 44, 36)).save(target)
    cut, _ = measured(pair, crop_border=4)
    assert cut == measured(inner)[0]
    assert cut != whole
    found = evaluate([pair], EvaluateConfig(metrics=("psnr-rgb",), workers=0, crop_border=4))
    assert found.metrics["psnr-rgb"].heading == "PSNR-RGB (hbr 1, RGB, crop 4)"
    config = EvaluateConfig(metrics=("psnr-rgb",), workers=0, crop_border=20)
    (row,) = evaluate([pair], config).rows
    assert "nothing is left of 48x40 pixels without a border of 20" in (row.error or "")


def test_people_keep_their_places_without_the_border(tmp_path: Path) -> None:
    """A masked person in a photo, whole and cut by hand, has the same colour error."""
    pixels = np.zeros((60, 80, 3), np.uint8)
    pixels[20:50, 30:60] = 200
    red = pixels.copy()
    red[20:50, 30:60, 1:] = 100
    files = {}
    for border in (0, 6):
        for name, array in (("r", red), ("g", pixels)):
            part = array[border : 60 - border, border : 80 - border]
            Image.fromarray(part).save(tmp_path / f"{name}{border}.png")
        x, y = 30 - border, 20 - border
        outline = [x, y, x + 30, y, x + 30, y + 30, x, y + 30]
        size = {"width": 80 - 2 * border, "height": 60 - 2 * border}
        entry = {"image_id": 1, "category_id": 1, "bbox": [x, y, 30, 30]}
        data = {
            "categories": [{"id": 1, "name": "person"}],
            "images": [{"id": 1, "file_name": f"g{border}.png", **size}],
            "annotations": [entry | {"segmentation": [outline]}],
        }
        people = tmp_path / f"{border}.json"
        people.write_text(json.dumps(data))
        pair = PicturePair(f"g{border}", tmp_path / f"r{border}.png", tmp_path / f"g{border}.png")
        files[border] = (pair, people)

    def colour(border: int, cut: int) -> float:
        pair, people = files[border]
        config = EvaluateConfig(
            metrics=("person-colour",), workers=0, people=people, crop_border=cut
        )
        ((rows, _),) = measure_all([pair], config)
        return rows[0].values["person-colour"]

    assert colour(6, 0) > 5
    assert colour(0, 6) == pytest.approx(colour(6, 0), rel=1e-6)


def test_one_name_that_falls_on_two_photos_is_a_clash(
    pairs: list[PicturePair], tmp_path: Path
) -> None:
    file = annotations(tmp_path / "people.json", pairs, [0, 1, 2])
    # two references of one name in different folders, as one of which the name is written
    moved = []
    for folder, pair in zip(("", "sub", "x", "y"), [*pairs[:2], *pairs[2:4]], strict=True):
        assert pair.reference is not None
        name = "hq0.png" if folder in ("", "sub") else "hq2.png"
        reference = tmp_path / "hq" / folder / name
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_bytes(pair.reference.read_bytes())
        stem = f"{folder}/{reference.stem}".lstrip("/")
        moved.append(PicturePair(stem, pair.restored, reference))
    config = EvaluateConfig(metrics=("person-colour",), people=file, workers=0)
    found = evaluate(moved, config)
    errors = [row.errors.get("person-colour") for row in found.rows]
    assert errors[0] is None, "it is named exactly"
    assert "hq0.png may be hq0.png and sub/hq0.png; name the folder, too" in str(errors[1])
    assert "hq2.png may be x/hq2.png and y/hq2.png; name the folder, too" in str(errors[2])
    assert errors[2] == errors[3]
    alone = evaluate(moved[3:], config)
    assert not alone.rows[0].errors, "by itself, it is the one that is meant"
