"""`hbr metrics list | fit-niqe`."""

import json
import shutil

import pytest
import torch

from hbr.metrics import METRICS, load_metric
from hbr.metrics.niqe import read_niqe


def test_every_metric_is_listed(call_hbr):
    done = call_hbr("metrics", "list")
    assert done.returncode == 0, done.stderr
    head, *lines = (line.split("\t") for line in done.stdout.splitlines())
    assert head[:3] == ["id", "version", "better"]
    assert [line[0] for line in lines] == list(METRICS)
    rows = json.loads(call_hbr("metrics", "list", "--json").stdout)
    assert {row["id"]: row["better"] for row in rows} == {i.id: i.better for i in METRICS.values()}


@pytest.fixture(scope="module")
def photos(shared, tmp_path_factory):
    """Sharp photos."""
    folder = tmp_path_factory.mktemp("sharp")
    for file in sorted((shared / "photos" / "coco-cc" / "images").glob("*.jpg"))[:24]:
        shutil.copy(file, folder)
    return folder


def test_a_model_of_niqe_is_fitted_and_used(call_hbr, photos, tmp_path):
    out = tmp_path / "niqe.npz"
    done = call_hbr("metrics", "fit-niqe", photos, "-o", out)
    assert (done.returncode, done.stdout.strip()) == (0, str(out)), done.stderr
    assert read_niqe(out).fitted_on == f"24 photos of {photos.name}"
    noise = torch.rand(1, 3, 200, 200, generator=torch.Generator().manual_seed(0))
    assert load_metric("niqe", weights=out)(noise).item() > 10

    kept = out.read_bytes()
    done = call_hbr("metrics", "fit-niqe", photos, "-o", out)
    assert done.returncode == 2
    assert "--overwrite" in done.stderr
    assert out.read_bytes() == kept
    done = call_hbr("metrics", "fit-niqe", photos, "-o", out, "--overwrite")
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == kept


def test_bad_photos_are_left_out_and_counted(call_hbr, photos, tmp_path):
    from PIL import Image

    folder, out = tmp_path / "some bad", tmp_path / "niqe.npz"
    shutil.copytree(photos, folder)
    (folder / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    Image.new("RGB", (300, 50)).save(folder / "small.png")
    done = call_hbr("metrics", "fit-niqe", folder, "-o", out)
    assert done.returncode == 3
    assert "cut.jpg" in done.stderr
    assert "small.png is smaller than a block of 96x96" in done.stderr
    assert "Traceback" not in done.stderr
    assert read_niqe(out).fitted_on == "24 photos of some bad"


def test_what_cannot_be_fitted(call_hbr, photos, tmp_path):
    (tmp_path / "empty").mkdir()
    for arguments, told in (
        ((tmp_path / "empty", "-o", tmp_path / "a.npz"), "these 0 photos have 0"),
        ((tmp_path / "gone", "-o", tmp_path / "a.npz"), "does not exist"),
        ((photos, "-o", tmp_path / "a.mat"), "the model is an .npz file"),
    ):
        done = call_hbr("metrics", "fit-niqe", *arguments)
        assert done.returncode == 2
        assert told in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty"]
