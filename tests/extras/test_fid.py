"""FID against torch-fidelity, both with the same drawn weights of Inception."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from hbr.metrics import MetricError, load_metric
from hbr.metrics.frechet import frechet_distance


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of FID's Inception as torch draws them, under the published name's format."""
    from torch_fidelity import feature_extractor_inceptionv3 as theirs

    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        network = theirs.FeatureExtractorInceptionV3
        patch.setattr(theirs, "load_state_dict_from_url", lambda *a, **k: {})
        patch.setattr(network, "load_state_dict", lambda *a, **k: None)
        drawn = network("inception-v3-compat", ["2048"])
    state = drawn.state_dict()
    for name, tensor in state.items():  # drawn small, the features would all but vanish
        if name.endswith("conv.weight"):
            tensor *= (2 / tensor[0].numel()) ** 0.5 / tensor.std()
    torch.save(state, path)
    return path


def write_pictures(folder: Path, seed: int) -> Path:
    from PIL import Image

    folder.mkdir()
    draw = np.random.default_rng(seed)
    for i in range(4):
        coarse = draw.uniform(0, 255, (6, 7, 3)).astype(np.uint8)
        Image.fromarray(coarse).resize((70, 60), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder


def test_fid_equals_torch_fidelity(weights: Path, tmp_path: Path) -> None:
    import torch_fidelity

    a, b = write_pictures(tmp_path / "a", 1), write_pictures(tmp_path / "b", 2)
    fid = load_metric("fid", weights=weights)
    found, reference = (fid.over_files(sorted(f.iterdir())) for f in (a, b))  # type: ignore[attr-defined]
    theirs = torch_fidelity.calculate_metrics(
        input1=str(a), input2=str(b), fid=True, cuda=False, verbose=False, cache=False,
        feature_extractor="inception-v3-compat", feature_extractor_weights_path=str(weights),
    )["frechet_inception_distance"]  # fmt: skip
    assert theirs > 0.1
    assert frechet_distance(found, reference) == pytest.approx(theirs, rel=1e-3)


@pytest.mark.slow
def test_fid_clean_equals_pyiqa(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the same drawn weights; pictures above 299 pixels, where the resizing differs.

    Of the 2,048 features every sixteenth: pyiqa's root of a matrix takes the cube of their number.
    """
    from PIL import Image
    from pyiqa.archs import fid_arch, inception

    def load(network: torch.nn.Module, _: str) -> None:
        network.load_state_dict(torch.load(weights, weights_only=True))

    features = fid_arch.get_folder_features
    monkeypatch.setattr(inception, "load_pretrained_network", load)
    monkeypatch.setattr(fid_arch, "get_folder_features", lambda *a, **k: features(*a, **k)[:, ::16])
    folders = []
    for seed in (1, 2):
        folder = tmp_path / str(seed)
        folder.mkdir()
        draw = np.random.default_rng(seed)
        for i in range(3):
            noise = draw.integers(0, 256, (400 + 10 * i, 500, 3), np.uint8)
            Image.fromarray(noise[:, ::-1]).save(folder / f"{i}.png")
        folders.append(folder)
    theirs = fid_arch.FID()(
        str(folders[0]), str(folders[1]), num_workers=0, device=torch.device("cpu"), verbose=False
    )
    found, metrics = {}, {}
    for name in ("fid", "fid-clean"):
        metrics[name] = load_metric(name, weights=weights)
        whole = (metrics[name].over_files(sorted(f.iterdir())) for f in folders)  # type: ignore[attr-defined]
        a, b = (
            dataclasses.replace(s, mean=s.mean[::16], covariance=s.covariance[::16, ::16])
            for s in whole
        )
        assert len(a.mean) == 128
        found[name] = frechet_distance(a, b)
    assert found["fid-clean"] == pytest.approx(theirs, rel=1e-3)
    assert found["fid"] != pytest.approx(theirs, rel=0.05)
    assert metrics["fid-clean"].extractor.id != metrics["fid"].extractor.id  # type: ignore[attr-defined]


def test_other_weights_are_one_line(tmp_path: Path) -> None:
    torch.save({"x": torch.ones(1)}, tmp_path / "w.pth")
    with pytest.raises(MetricError, match="does not hold the weights of FID's Inception"):
        load_metric("fid", weights=tmp_path / "w.pth")
    torch.save({"x": print}, tmp_path / "w.pth")
    with pytest.raises(MetricError, match="cannot be read as weights"):
        load_metric("fid", weights=tmp_path / "w.pth")
