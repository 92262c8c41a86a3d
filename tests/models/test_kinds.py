"""A second kind of model, from its file to a restored picture, with no module of hbr changed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hbr.config import from_dict, to_dict
from hbr.models import Capabilities, Conditions, WeightsError, load_model, save_checkpoint
from hbr.models.files import read_header, read_metadata
from hbr.models.inspection import describe
from hbr.models.kinds import KINDS, ModelKind, build_model, model_config
from hbr.restoration import Restorer
from hbr.training.config import TrainConfig


@dataclass(frozen=True)
class DarkeningConfig:
    factor: float = 0.5
    name: str = "darkening"
    kind: Literal["darkening"] = "darkening"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(multiple_of=4, min_size=8, native_size=64, dtypes=("float32",))


class Darkening(nn.Module):
    """Multiplies by its one weight; what the restorer hands it is kept."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, config: DarkeningConfig) -> None:
        super().__init__()
        self.capabilities = config.capabilities
        self.factor = nn.Parameter(torch.tensor([config.factor]))
        self.calls = []

    def restore(self, tiles, places, conditions):
        self.calls.append((tiles, places, conditions))
        return tiles * self.factor


@pytest.fixture
def darkening(monkeypatch: pytest.MonkeyPatch) -> DarkeningConfig:
    monkeypatch.setitem(KINDS, "darkening", ModelKind(DarkeningConfig, Darkening))
    return DarkeningConfig()


def test_a_second_kind_goes_from_its_file_to_a_picture(darkening, tmp_path: Path) -> None:
    model = build_model(darkening)
    path = save_checkpoint(tmp_path / "dark.safetensors", darkening, model.state_dict())
    assert read_metadata(path)[0]["format"] == "hbr darkening restorer"
    assert read_header(path).config == darkening
    assert describe(path).capabilities["native_size"] == 64
    assert describe(path).config["kind"] == "darkening"
    restorer = Restorer.from_pretrained(path, device="cpu")
    assert restorer.dtype == "float32"
    pixels = np.full((150, 90, 3), 200, np.uint8)
    restored = restorer(pixels, color="none", tile=64, batch=3)
    assert (restored.pixels == 100).all()
    assert restored.provenance["model"] == "dark"
    places = [place for _, at, _ in restorer.model.calls for place in at]
    assert len(places) == restored.provenance["tiles"] > 4
    assert {(place.height, place.width) for place in places} == {(150, 90)}
    assert len({(place.top, place.left) for place in places}) == len(places)
    with pytest.raises(ValueError, match="dark takes no prompt"):
        restorer(pixels, prompt="a portrait")


def test_an_unknown_kind_is_one_clear_line(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "x.safetensors", DarkeningConfig(), {"w": torch.ones(1)})
    with pytest.raises(WeightsError, match="kind is 'darkening'; it must be one of one-step"):
        load_model(path)


def test_the_first_kind_is_named_or_not(toy, toy_file) -> None:
    values = to_dict(toy.config)
    assert "kind" not in values
    assert model_config(values) == model_config({"kind": "one-step", **values}) == toy.config
    assert read_metadata(toy_file)[0]["format"] == "hbr one-step restorer"


def test_a_training_names_the_kinds_that_its_objective_trains(darkening, tmp_path: Path) -> None:
    values = {"model": {"kind": "darkening"}, "out": "out"}
    photos = {"photos": str(tmp_path)}
    values["phases"] = [{"steps": 1, "crop": 64, "batch": 1}]
    values |= {"data": {"sources": [photos]}, "validation": {**photos, "count": 1}}
    with pytest.raises(ValueError, match=r"model.kind is 'darkening'; it must be one-step, which"):
        from_dict(TrainConfig, values)


def test_a_file_of_another_kind_is_no_base_for_parts_of_it(darkening, toy, tmp_path) -> None:
    from hbr.models.importing import import_weights

    weights = build_model(darkening).state_dict()
    path = save_checkpoint(tmp_path / "dark.safetensors", darkening, weights)
    save_file(toy.unet.state_dict(), tmp_path / "unet.safetensors")
    with pytest.raises(WeightsError, match="is a model of kind darkening; a one-step model is"):
        import_weights(
            tmp_path / "unet.safetensors", "unet", tmp_path / "out.safetensors", base=path
        )


class Exported:
    """A backend: the network as a graph for tiles of 64×64, without the module."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, model: nn.Module) -> None:
        self.capabilities = model.capabilities
        example = torch.rand(1, 3, 64, 64).contiguous(memory_format=torch.channels_last)
        self.graph = torch.export.export(model, (example,)).module()

    def restore(self, tiles, places, conditions):
        return torch.cat([self.graph(tile[None]) for tile in tiles])


def test_a_backend_stands_where_the_module_stands(toy) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8)
    eager = Restorer(toy)(pixels, tile=64)
    exported = Restorer(Exported(toy))(pixels, tile=64)
    assert exported.provenance == eager.provenance
    assert np.abs(exported.pixels.astype(int) - eager.pixels.astype(int)).max() <= 1


def test_conditions_are_split_with_the_batch() -> None:
    conditions = Conditions(
        maps={"pose": torch.rand(4, 2, 8, 8)}, tokens={"prompt": torch.arange(4.0).view(4, 1, 1)}
    )
    part = conditions.part(slice(1, 3)).to("cpu")
    assert torch.equal(part.maps["pose"], conditions.maps["pose"][1:3])
    assert part.tokens["prompt"].flatten().tolist() == [1, 2]
    assert Conditions().part(slice(0, 1)) == Conditions()
