"""What speed is compared with computes the same: the plain path of `benchmarks/`."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

import toy_models
from hbr.config import from_dict
from hbr.models import RestorerConfig

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def inference(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import inference

    yield inference
    for name in ("inference", "inference_page", "full_size", "machine", "plain_path"):
        sys.modules.pop(name, None)


REFINED, SEEING = (
    from_dict(
        RestorerConfig,
        {**toy_models.TRAINED, "refiner": {"width": 8, "blocks": 1, "sees_input": sees}},
    )
    for sees in (False, True)
)


@pytest.mark.parametrize("config", [toy_models.CONFIG, REFINED, SEEING])
def test_the_plain_path_is_the_model_of_its_weights(inference, config) -> None:
    torch.manual_seed(0)
    plain = inference.PlainRestorer(inference.numbers_of(config), rank=2)
    assert any(".lora_A." in name for name, _ in plain.named_parameters())
    model = toy_models.build(config)
    model.load_state_dict(inference.state_of(plain))
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(model(image), plain(image), atol=2e-4, rtol=1e-4)


def test_without_adapters_it_takes_the_weights_of_a_model(inference) -> None:
    model = toy_models.build(dataclasses.replace(REFINED))
    plain = inference.PlainRestorer(inference.numbers_of(REFINED), rank=0)
    inference.load_plain(plain, model)
    image = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(model(image), plain(image), atol=2e-4, rtol=1e-4)
        tiles = plain.tiles(image, edge=64, overlap=32)
    assert tiles.shape == image.shape
    assert torch.equal(tiles[..., :32], plain(image[..., :64].contiguous())[..., :32])


@pytest.mark.slow
def test_a_page_is_written_of_what_was_measured(inference, tmp_path, monkeypatch) -> None:
    changes = {"ROUNDS": 1, "PEAK_ROUNDS": 2, "PEAK_EDGE": 512, "small": lambda: toy_models.CONFIG}
    for name, value in changes.items():
        monkeypatch.setattr(inference, name, value)
    measured = {
        "benchmark": "inference",
        "model": "small",
        **inference.machine(),
        "compared": inference.compare("small"),
        "sizes": [{"size": 256, "seconds": 0.5, "peak_gib": 1.0}],
        "batches": [{"batch": 1, "images_per_second": 2.0}],
        "threads": [{"threads": 1, "seconds": 0.5}],
        "thousand_images": {"hours": 0.1},
    }
    whole = measured["compared"]["parts"]["whole"]
    assert whole["gflop"] < whole["plain_gflop"]
    assert whole["speedup"] == pytest.approx(whole["plain_seconds"] / whole["seconds"], rel=0.01)
    assert measured["compared"]["psnr_to_plain_of_its_spread"] > 25
    (tmp_path / "inference-small.json").write_text(inference.json.dumps(measured))
    page = inference.write_page(tmp_path).read_text()
    assert "<h2>small</h2>" in page
    assert page.count("<svg") == 4
