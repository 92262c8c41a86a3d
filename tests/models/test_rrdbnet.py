"""RRDBNet at toy size; tests/extras holds it against spandrel and ncnn."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import hbr
import toy_models
from hbr.config import ConfigError
from hbr.image import Photo, write_photo
from hbr.models import save_checkpoint
from hbr.models.checkpoint import empty
from hbr.models.rrdbnet import RRDBNet
from hbr.models.rrdbnet_config import RRDBNetConfig
from hbr.restoration.pixels.inputs import seen_pixels
from hbr.restoration.settings import RestoreSettings
from hbr.weights import available, find_model

TOY = toy_models.RRDBNET


def toy(nearest: bool = False) -> RRDBNet:
    """Random weights; or those that repeat each pixel four times each way."""
    torch.manual_seed(0)
    model = RRDBNet(TOY)
    if nearest:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
            for name in ("conv_first", "conv_up1", "conv_up2", "conv_hr", "conv_last"):
                convolution = model.get_submodule(name)
                for channel in range(3):
                    convolution.weight[channel, channel, 1, 1] = 1
    return model.eval().requires_grad_(False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return save_checkpoint(tmp_path / "toy.safetensors", TOY, toy().state_dict())


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_full_size_has_the_published_shapes() -> None:
    model = empty(RRDBNetConfig())
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert sum(np.prod(shape) for shape in shapes.values()) == 16_697_987
    assert len(shapes) == 702
    assert shapes["body.22.rdb3.conv5.weight"] == (64, 192, 3, 3)
    assert shapes["conv_last.weight"] == (3, 64, 3, 3)


def test_at_its_own_factor_the_network_sees_the_photo_itself(file: Path) -> None:
    pixels = noise(17, 23)
    restorer = hbr.Restorer.from_pretrained(file, device="cpu", dtype="float32")
    made = restorer(pixels.astype(np.float32) / 255, scale=4, tile=0, color="none").pixels
    assert made.shape == (68, 92, 3)
    # mirrored to the smallest size that it takes: edges see something else than zeros
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    expected = toy()(x).clamp(0, 1)[0].permute(1, 2, 0).numpy()
    inside = np.s_[: 4 * 17 - 24, : 4 * 23 - 24]  # away from what is mirrored below and right
    assert np.abs(made[inside] / 65535 - expected[inside]).max() < 2e-4


@pytest.mark.parametrize("scale", [1, 2, 0.5, 3])
@pytest.mark.parametrize("size", [(1, 1), (65, 70), (130, 99)])
def test_at_any_scale_the_result_lies_where_the_photo_does(
    scale: float, size: tuple[int, int], tmp_path: Path
) -> None:
    model = toy(nearest=True)
    h, w = size
    y, x = np.mgrid[:h, :w]
    slope = np.stack([y * 255 / h, x * 255 / w, 255 - x * 200 / w], axis=2).astype(np.uint8)
    restorer = hbr.Restorer(model)
    restored = restorer(slope, scale=scale, color="none").pixels.astype(float)
    wanted = (max(1, round(w * scale)), max(1, round(h * scale)))
    expected = np.asarray(Image.fromarray(slope).resize(wanted, Image.Resampling.BICUBIC))
    assert restored.shape == expected.shape
    step = 255 / min(h, w) / scale * 4  # within a square of 4x4 pixels all are the same
    assert np.abs(restored - expected).max() <= step + 2


def test_what_it_sees_is_repeated() -> None:
    photo, plain = Photo.from_array(noise(5, 6)), RestoreSettings()
    grown = photo.pixels.repeat(4, axis=0).repeat(4, axis=1)
    assert np.array_equal(seen_pixels(photo, noise(20, 24), plain, 4)[0], grown)
    seen = seen_pixels(photo, photo.pixels, plain, 4)[0]
    assert seen.shape == (8, 8, 3)
    padded = np.pad(photo.pixels, ((0, 3), (0, 2), (0, 0)), mode="edge")
    small = np.asarray(Image.fromarray(padded).resize((2, 2), Image.Resampling.BICUBIC))
    assert np.array_equal(seen[::4, ::4], small)
    deep = seen_pixels(photo, photo.pixels.astype(np.uint16) * 257, plain, 4)[0]
    assert np.abs(deep / 257 - seen).max() <= 1


def test_tiles_leave_no_seam() -> None:
    restorer = hbr.Restorer(toy())
    photo = noise(40, 40)
    whole = restorer(photo, scale=4, tile=0, color="none").pixels.astype(int)
    tiled = restorer(photo, scale=4, tile=64, color="none")
    assert tiled.provenance["tiles"] > 4
    assert np.abs(tiled.pixels.astype(int) - whole).mean() < 1.5


def test_restoring_from_the_command_line(
    call_hbr: Callable[..., "subprocess.CompletedProcess[str]"], file: Path, tmp_path: Path
) -> None:
    write_photo(Photo.from_array(noise(1, 1)), tmp_path / "dot.png")
    write_photo(Photo.from_array(noise(33, 21)), tmp_path / "a.png")
    for name, scale, size in (("dot", 1, (1, 1)), ("dot", 4, (4, 4)), ("a", 1, (21, 33))):
        out = tmp_path / f"{name}-{scale}.png"
        options = ("--model", file, "--scale", scale, "--color", "none")
        done = call_hbr("restore", "-i", tmp_path / f"{name}.png", "-o", out, *options)
        assert done.returncode == 0, done.stderr
        assert Image.open(out).size == size


def test_weights_that_are_not_here_say_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HBR_WEIGHTS", str(tmp_path))
    assert "realesrgan-x4plus" not in available()
    with pytest.raises(hbr.models.WeightsError, match="`hbr fetch realesrgan-x4plus` gets them"):
        find_model("realesrgan-x4plus")
    place = tmp_path / "realesrgan-x4plus" / "realesrgan-x4plus.safetensors"
    place.parent.mkdir()
    place.write_bytes(b"other")
    with pytest.raises(hbr.models.WeightsError, match="delete it, then `hbr fetch"):
        find_model("realesrgan-x4plus")


@pytest.mark.parametrize("field", ["blocks", "width", "growth", "native_size"])
def test_a_configuration_names_what_is_wrong(field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        RRDBNetConfig(**{field: 0})
