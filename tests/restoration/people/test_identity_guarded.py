"""The identity guard around a restoration: told, mended, or said to be unknown."""

import logging

import numpy as np
import pytest
import torch
from torch import nn

from hbr.config import ConfigError
from hbr.image import Photo
from hbr.models import Capabilities
from hbr.people.identity import SAME_FACE, IdentityChange
from hbr.people.types import DetectorError
from hbr.restoration import Restorer
from hbr.restoration.people import guarding
from hbr.restoration.settings import PeopleChoice

SIZE = (120, 320)
FACES = [(20.0, 20.0, 60.0, 70.0), (250.0, 30.0, 290.0, 80.0), (160.0, 90.0, 170.0, 100.0)]


class Pattern(nn.Module):
    """Adds a fine pattern, which a paste does not match to its surroundings."""

    device, dtype = torch.device("cpu"), torch.float32
    capabilities = Capabilities(
        multiple_of=8, min_size=16, native_size=64, dtypes=("float32",), color="none"
    )

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def restore(self, tiles: torch.Tensor, places: object, conditions: object) -> torch.Tensor:
        h, w = tiles.shape[-2:]
        sign = torch.ones(h, w)
        sign[::2, ::2] = sign[1::2, 1::2] = -1
        return tiles + self.by * sign


class Guard:
    """Distances by the pattern in the middle of a face; small faces are unknown."""

    def __init__(self, stubborn: int | None = None) -> None:
        self.stubborn = stubborn

    def __call__(self, before: np.ndarray, after: np.ndarray) -> list[IdentityChange]:
        faces = []
        for i, (x0, y0, x1, y1) in enumerate(FACES):
            x, y, side = int(x0 + x1) // 2, int(y0 + y1) // 2, max(x1 - x0, y1 - y0)
            moved = float(after[y - 4 : y + 4, x - 4 : x + 4].std()) / 100
            moved = 0.9 if i == self.stubborn else moved
            faces.append(IdentityChange(box=FACES[i], distance=moved if side >= 30 else None))
        return faces


@pytest.fixture
def restorer(monkeypatch) -> Restorer:
    """The pattern of its faithful end is a tenth of that of the other."""
    sharp = Restorer(Pattern(0.2), name="toy", fidelity=0.25)
    sharp._again = lambda fidelity: Restorer(
        Pattern(0.02 if fidelity == 1 else 0.2), name="toy", fidelity=fidelity
    )
    monkeypatch.setattr(guarding, "_guard_on", lambda device: Guard())
    return sharp


@pytest.fixture
def photo() -> Photo:
    return Photo.from_array(np.full((*SIZE, 3), 128, np.uint8))


def test_off_compares_nothing(restorer, photo):
    assert restorer(photo).provenance["faces"] is None


def test_warn_tells_and_changes_no_pixel(restorer, photo, caplog):
    plain = restorer(photo)
    with caplog.at_level(logging.WARNING, "hbr"):
        restored = restorer(photo, identity="warn")
    assert np.array_equal(restored.pixels, plain.pixels)
    faces = restored.provenance["faces"]
    assert [face["same"] for face in faces] == [False, False, None]
    assert [face["faithful"] for face in faces] == [False] * 3
    assert faces[0]["box"] == (20.0, 20.0, 40.0, 50.0)
    assert faces[2]["distance"] is None
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert told[0].startswith("the face at 20,20,40,50 may no longer be the same person's")


def test_keep_restores_changed_faces_at_the_faithful_end(restorer, photo, caplog):
    with caplog.at_level(logging.WARNING, "hbr"):
        restored = restorer(photo, identity="keep")
    faces = restored.provenance["faces"]
    assert [face["same"] for face in faces] == [True, True, None]
    assert [face["faithful"] for face in faces] == [True, True, False]
    assert not caplog.records
    plain = restorer(photo).pixels.astype(int)
    pixels = restored.pixels.astype(int)
    for x0, y0, x1, y1 in FACES[:2]:
        x, y = int(x0 + x1) // 2, int(y0 + y1) // 2
        assert np.abs(pixels[y, x] - 128).max() <= 0.02 * 255 + 1
        assert np.abs(plain[y, x] - 128).min() >= 0.2 * 255 - 1
    assert np.array_equal(pixels[:, 150:170], plain[:, 150:170])  # between them, all is as without
    # what decided it is in the settings, so that the same bytes come again without a guard
    assert restored.settings.identity == "off"
    again = restorer(photo, restored.settings)
    assert np.array_equal(again.pixels, restored.pixels)


def test_what_stays_another_face_is_told_after_all(restorer, photo, caplog, monkeypatch):
    monkeypatch.setattr(guarding, "_guard_on", lambda device: Guard(stubborn=1))
    with caplog.at_level(logging.WARNING, "hbr"):
        restored = restorer(photo, identity="keep")
    assert [face["same"] for face in restored.provenance["faces"]] == [True, False, None]
    (record,) = caplog.records
    assert "at the faithful end too" in record.getMessage()


def test_with_people_the_person_is_restored_faithfully(restorer, photo):
    choice = PeopleChoice(boxes=((10, 10, 60, 105), (235, 20, 70, 95)), outlines="none")
    restored = restorer(photo, people="auto", choice=choice, identity="keep")
    assert [person["fidelity"] for person in restored.people] == [1.0, 1.0]
    assert [face["same"] for face in restored.provenance["faces"]] == [True, True, None]
    one = PeopleChoice(boxes=choice.boxes, persons=(1,), outlines="none")
    restored = restorer(photo, people="auto", choice=one, identity="keep")
    # the other one is part of the background, which keeps the fidelity of the model
    assert [face["faithful"] for face in restored.provenance["faces"]] == [True, False, False]


def test_what_it_needs_is_said(photo, tmp_path, monkeypatch):
    monkeypatch.setenv("HBR_WEIGHTS", str(tmp_path))
    guarding._guard_on.cache_clear()
    one_end = Restorer(Pattern(0.1), name="toy")
    with pytest.raises(DetectorError, match="`hbr fetch people` gets both"):
        one_end(photo, identity="warn")
    with pytest.raises(ConfigError, match="toy has no fidelity to raise; it must be warn"):
        one_end(photo, identity="keep")
    with pytest.raises(ConfigError, match=r"identity is 'always'; it must be one of off, warn, k"):
        one_end(photo, identity="always")
    assert 0.3 < SAME_FACE < 0.6
