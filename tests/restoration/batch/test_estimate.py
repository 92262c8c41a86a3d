"""How long a batch will take, from the speed of one tile."""

from pathlib import Path

import numpy as np
import pytest

from hbr.image import Photo, write_photo
from hbr.restoration import Restorer, RestoreSettings
from hbr.restoration.batch import estimate
from hbr.restoration.batch.jobs import Job
from hbr.restoration.passes.tiling import plan_tiles


def job(path: Path, height: int, width: int) -> Job:
    write_photo(Photo.from_array(np.zeros((height, width, 3), np.uint8)), path)
    return Job(source=path, target=path.with_suffix(".out.png"))


def test_it_is_the_tiles_of_all_photos_at_the_speed_of_one(
    identity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restorer = Restorer(identity(), name="same")
    jobs = [job(tmp_path / "a.png", 700, 500), job(tmp_path / "b.jpg", 40, 30)]
    (tmp_path / "c.png").write_text("no photo")
    jobs.append(Job(source=tmp_path / "c.png", target=tmp_path / "d.png"))
    measured = []

    def seconds(restorer, settings, plan):
        measured.append(plan)
        return 4.0

    monkeypatch.setattr(estimate, "_seconds_per_tile", seconds)
    settings = RestoreSettings(size=1000, tile=64)
    found = estimate.estimate(jobs, restorer, settings)
    (plan,) = measured
    assert (plan.rows.tile, plan.columns.tile) == (64, 64)
    sizes = [(1000, 714)]  # the second would be enlarged too much
    plans = [plan_tiles(*size, restorer.capabilities, 64) for size in sizes]
    assert found.tiles == sum(map(len, plans))
    assert found.seconds == pytest.approx(4.0 * found.tiles)
    assert found.unknown == 2
    assert str(found).endswith(f" for {found.tiles} tiles, 2 not estimated")


def test_a_tile_is_measured(identity, tmp_path: Path) -> None:
    model = identity()
    found = estimate.estimate(
        [job(tmp_path / "a.png", 50, 40)], Restorer(model), RestoreSettings(gate="auto", scale=2)
    )
    assert found.seconds > 0
    assert (found.tiles, found.unknown, len(model.calls)) == (1, 0, 2)
    assert estimate.estimate([], Restorer(model), RestoreSettings()).seconds == 0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (80, "80 s"), (300, "5 min"), (3600 * 2.5, "2 h 30 min"), (3600 * 50, "50 h")],
)
def test_in_words(seconds: float, words: str) -> None:
    assert str(estimate.TimeEstimate(seconds, 3, 0)) == f"about {words} for 3 tiles"
