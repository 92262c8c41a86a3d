"""Metrics by pyiqa: its real networks with drawn weights, found where it looks for them."""

import dataclasses
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import toy_weights
from hbr.metrics import METRICS, MetricError, load_metric, peers
from hbr.weights import entries

PYIQA = [info.id for info in METRICS.values() if info.implementation == "pyiqa"]


@pytest.fixture(autouse=True)
def nothing_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a download was tried")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Torch's cache, where pyiqa looks, empty; drawn weights have other hashes."""
    folder = Path(os.environ["TORCH_HOME"]) / "hub"
    # read once on import
    monkeypatch.setattr("pyiqa.utils.download_util.DEFAULT_CACHE_DIR", str(folder / "pyiqa"))
    for name, known in entries().items():
        files = tuple(dataclasses.replace(f, sha256=None) for f in known.files)
        monkeypatch.setitem(entries(), name, dataclasses.replace(known, files=files))
    return folder


def place(hub: Path, name: str, state: object) -> None:
    path = hub / entries()[name].files[0].path
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)


def drawn(arch: str, kind: str, **options: object) -> dict[str, Tensor]:
    """The state dict of one of pyiqa's networks as torch draws it."""
    import importlib

    torch.manual_seed(0)
    with peers._without_timm_downloads():
        network = getattr(importlib.import_module(f"pyiqa.archs.{arch}"), kind)(
            pretrained=False, **options
        )
    return dict(network.state_dict())


@pytest.mark.parametrize("name", PYIQA)
def test_pyiqa_knows_each_row_and_its_direction(name: str) -> None:
    from pyiqa.default_model_configs import DEFAULT_CONFIGS

    info = METRICS[name]
    theirs = DEFAULT_CONFIGS[info.version]
    assert theirs.get("lower_better", False) == (info.better == "lower")
    assert theirs["metric_mode"] == ("FR" if info.needs_reference else "NR")
    assert info.extra == "pyiqa"
    assert "Noncommercial" in info.licence


@pytest.mark.parametrize("name", [n for n in PYIQA if METRICS[n].weights])
def test_missing_weights_are_named_with_what_gets_them(name: str, hub: Path) -> None:
    wanted = METRICS[name].weights[0]
    with pytest.raises(MetricError, match=f"{name} needs the weights {wanted}, .*hbr fetch"):
        load_metric(name)


def test_where_pyiqa_looks_is_where_weights_are_put(hub: Path) -> None:
    import pyiqa.archs.arch_util as theirs

    known = entries()["pyiqa-musiq"]
    assert known.folder == hub
    assert theirs.get_url_from_name("musiq_koniq_ckpt-e95806b9.pth") == known.files[0].url


@pytest.mark.parametrize(
    ("name", "arch", "kind", "options", "wrapped"),
    [
        ("musiq", "musiq_arch", "MUSIQ", {}, False),
        pytest.param(
            *("maniqa-pipal", "maniqa_arch", "MANIQA", {"train_dataset": "pipal"}, False),
            marks=pytest.mark.slow,
        ),
        (
            "topiq",
            "topiq_arch",
            "CFANet",
            {"model_name": "cfanet_nr_koniq_res50", "use_ref": False},
            True,
        ),
    ],
)
def test_networks_run_with_weights_from_the_cache(
    name: str,
    arch: str,
    kind: str,
    options: dict[str, object],
    wrapped: bool,
    hub: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    state = drawn(arch, kind, **options)
    place(hub, METRICS[name].weights[0], {"params": state} if wrapped else state)
    metric = load_metric(name)
    assert capfd.readouterr().out == ""  # stdout is for results
    count = 2
    if name == "maniqa-pipal":  # takes long; of the 20 crops of a picture one is enough here
        metric.network.network.net.test_sample = count = 1  # type: ignore[attr-defined]
    pictures = torch.rand(count, 3, 224, 240, generator=torch.Generator().manual_seed(0))

    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())
    values = metric(pictures)
    after = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])
    assert values.shape == (count,)
    assert values.dtype == torch.float64
    assert values.isfinite().all()
    if count > 1:  # neither neighbours nor order matter
        torch.testing.assert_close(metric(pictures[1:]), values[1:], rtol=0, atol=0)


def test_its_licence_is_said_once(
    hub: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "_logged", [])
    for _ in range(2):
        metric = load_metric("pyiqa-psnr-y")
    assert caplog.text.count("PolyForm-Noncommercial-1.0.0: not for commercial use") == 1
    import pyiqa

    assert metric.info.version == f"psnr {pyiqa.__version__}"


@pytest.mark.parametrize(("name", "apart"), [("psnr-y", 1e-3), ("ssim-y", 2e-3)])
def test_y_is_that_of_the_papers(name: str, apart: float, shared: Path) -> None:
    from hbr.image import read_photo

    photo = sorted((shared / "photos").rglob("*.jpg"))[0]
    reference = read_photo(photo).tensor()[..., :256, :256]
    image = (reference * 200).round() / 255
    ours, theirs = (load_metric(n)(image, reference) for n in (name, f"pyiqa-{name}"))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=apart)


def test_damaged_weights_are_one_line(hub: Path) -> None:
    place(hub, "pyiqa-musiq", {"x": torch.ones(1)})
    with pytest.raises(MetricError, match="musiq: pyiqa cannot load it"):
        load_metric("musiq")
    place(hub, "pyiqa-lpips-alex", toy_weights.linear("alex"))
    with pytest.raises(MetricError, match=r"torch-alexnet, .*get checkpoints/alexnet-owt"):
        load_metric("pyiqa-lpips-alex")
