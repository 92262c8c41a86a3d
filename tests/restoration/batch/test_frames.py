"""Frames of a video get their colours by one map, which no single frame decides."""

import logging
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import toy_models
from hbr.image import Photo, read_photo, write_photo
from hbr.restoration import Restorer
from hbr.restoration.batch.frames import N_MEASURED, measure, with_steady_colors
from hbr.restoration.batch.outputs import Files
from hbr.restoration.settings import ColorMap, RestoreSettings

N = 13
SIZE = 32
BACKGROUND = 100


class Squares(nn.Module):
    """A model that changes colours: darker, the more so the darker they are."""

    capabilities = toy_models.SIZES
    device, dtype = torch.device("cpu"), torch.float32

    def restore(self, lq: Tensor, places: object, conditions: object) -> Tensor:
        return lq.square()


def frame(number: int) -> NDArray[np.uint8]:
    """Two greys, with a bright square that comes in from the left."""
    pixels = np.full((SIZE, SIZE, 3), BACKGROUND, np.uint8)
    pixels[24:] = BACKGROUND // 2
    pixels[8:24, : 2 * number] = 240
    return pixels


@pytest.fixture
def video(tmp_path: Path) -> Path:
    for number in range(N):
        write_photo(Photo.from_array(frame(number)), tmp_path / "video" / f"{number:02}.png")
    return tmp_path / "video"


def backgrounds(video: Path, steady: bool) -> list[float]:
    """The restored background in each frame, in the corner that nothing comes to."""
    settings = RestoreSettings(color="adain")
    restorer = partial(Restorer(Squares(), name="squares"), settings=settings)
    restore = with_steady_colors(restorer, settings, Files()) if steady else restorer
    photos = (read_photo(path) for path in sorted(video.iterdir()))
    return [float(restore(photo).pixels[0, -1].mean()) for photo in photos]


def test_the_background_does_not_flicker(video: Path) -> None:
    alone, steady = backgrounds(video, steady=False), backgrounds(video, steady=True)
    assert np.ptp(alone) > 5, "statistics of single frames follow what comes into the picture"
    assert np.ptp(steady) == 0
    assert abs(steady[0] - BACKGROUND) < 15, "colours are about those of the inputs"


def test_each_folder_has_its_map_whatever_is_restored_of_it(video: Path) -> None:
    settings = RestoreSettings()
    restore = partial(Restorer(Squares(), name="squares"), settings=settings)
    other = video.parent / "other"
    write_photo(Photo.from_array(frame(0) // 2), other / "a.png")
    paths = sorted(video.iterdir())
    used = []
    for given in (paths, paths[7:9], [other / "a.png"]):
        steady = with_steady_colors(restore, settings, Files())
        maps = {steady(read_photo(path)).settings.color_map for path in given}
        assert len(maps) == 1
        used.append(maps.pop())
    assert used[0] == used[1] != used[2]
    assert used[0] == measure(video, restore, settings, Files())


def test_frames_that_cannot_be_read_do_not_count(
    video: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = RestoreSettings()
    restore = partial(Restorer(Squares(), name="squares"), settings=settings)
    paths = sorted(video.iterdir())
    (video / "notes.txt").touch()
    paths[N // 2].write_bytes(b"nothing")  # the middle one is measured
    with caplog.at_level(logging.WARNING, logger="hbr"):
        assert isinstance(measure(video, restore, settings, Files()), ColorMap)
    assert len(caplog.records) == 1
    assert f"{N // 2:02}.png: does not count for the colours: " in caplog.text
    for path in paths:
        path.write_bytes(b"nothing")
    assert measure(video, restore, settings, Files()) is None
    assert N_MEASURED % 2 == 1


def test_the_map_is_the_same_for_every_depth_and_size(video: Path) -> None:
    settings = RestoreSettings(scale=0.5)
    restore = partial(Restorer(Squares(), name="squares"), settings=settings)
    half = measure(video, restore, settings, Files())
    for path in sorted(video.iterdir()):
        pixels = read_photo(path).pixels.astype(np.uint16) * 257
        write_photo(Photo.from_array(pixels), path)
    deep = measure(video, restore, settings, Files())
    assert half is not None
    assert deep is not None
    np.testing.assert_allclose(deep.gain, half.gain, atol=0.02)
    np.testing.assert_allclose(deep.offset, half.offset, atol=0.01)
