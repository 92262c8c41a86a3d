"""Photos shared out among runs, and runs that resume by what files hold, without a network."""

import gc
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hbr.config import ConfigError
from hbr.distributed import Shard
from hbr.image import Photo, write_photo
from hbr.restoration.batch.contents import ByContents, digest_of
from hbr.restoration.batch.jobs import plan_batch
from hbr.restoration.batch.outputs import Files
from hbr.restoration.batch.records import BatchTally, FileRecord
from hbr.restoration.batch.running import run_batch
from hbr.restoration.settings import PeopleChoice, RestoreSettings
from toy_batch import load

N = 12


@pytest.fixture(autouse=True)
def album(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Photos of different contents in the current folder."""
    monkeypatch.chdir(tmp_path)
    photos = [Path(f"in/{'sub/' if n % 3 else ''}{n:02}.png") for n in range(N)]
    for number, path in enumerate(photos):
        write(path, number)
    return photos


def write(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_photo(Photo.from_array(np.full((4, 5, 3), value, np.uint8)), path)


def run(existing: Any, shard: Shard | None = None) -> list[FileRecord]:
    plan = plan_batch(["in"], "out", recursive=True, existing=existing, shard=shard)
    return list(run_batch(plan, load, Files()))


def restored(records: list[FileRecord]) -> list[str]:
    return sorted(record.input for record in records if record.status == "restored")


class TestShards:
    def test_each_photo_is_in_one_shard(self, album: list[Path]) -> None:
        (album[0].parent / "x.cr2").write_bytes(b"raw")
        plans = [plan_batch(["in"], "out", recursive=True, shard=Shard(i, 3)) for i in range(3)]
        assert sorted(job.source for plan in plans for job in plan.jobs) == sorted(album)
        assert all(plan.jobs for plan in plans)
        assert sum(len(plan.bad) for plan in plans) == 1, "what is not read is said once"
        # neither the other photos nor the place of the folder matters
        album[0].unlink()
        Path("in").rename("moved")
        for i, plan in enumerate(plans):
            again = plan_batch(["moved"], "new", recursive=True, shard=Shard(i, 3))
            expected = {j.target.relative_to("out") for j in plan.jobs if j.source != album[0]}
            assert {j.target.relative_to("new") for j in again.jobs} == expected

    def test_outputs_of_other_shards_are_not_refused(self) -> None:
        first = run("refuse", Shard(0, 2))
        assert 0 < len(restored(first)) < N
        with pytest.raises(ConfigError, match=r"exist.*--resume"):
            run("refuse", Shard(0, 2))
        assert len(restored(first)) + len(restored(run("refuse", Shard(1, 2)))) == N

    def test_a_clash_is_found_in_every_shard(self) -> None:
        write(Path("in/00.bmp"), 7)
        for i in range(4):
            with pytest.raises(ConfigError, match=r"00\.bmp and in/00\.png would both"):
                plan_batch(["in"], "out", format="webp", shard=Shard(i, 4))


def test_memory_does_not_grow_with_the_photos_that_are_done() -> None:
    for number in range(100):
        os.link("in/00.png", f"in/link{number}.png")
    tally = BatchTally()
    held = []
    tracemalloc.start()
    try:
        for record in run_batch(plan_batch(["in"], "out"), load, Files()):
            tally.add(record)
            if tally.done in (30, 100):
                gc.collect()
                held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert held[1] - held[0] < 70_000, "1 kB for each photo"


class TestContents:
    BY = ByContents("settings")

    def test_dates_do_not_matter_and_contents_do(self, album: list[Path]) -> None:
        assert len(restored(run(self.BY))) == N
        for path in album:
            os.utime(path)
        assert restored(run(self.BY)) == []
        write(album[1], 100)
        os.utime(album[1], (1, 1))
        Path("out/03.png").write_bytes(b"")
        Path("out/sub/04.png").unlink()
        write(Path("out/sub/05.png"), 1)
        assert restored(run(self.BY)) == [
            "in/03.png",
            "in/sub/01.png",
            *(f"in/sub/0{n}.png" for n in (4, 5)),
        ]
        assert restored(run(self.BY)) == []
        assert len(restored(run(ByContents("other")))) == N

    def test_what_was_done_in_other_shards_counts(self) -> None:
        assert 0 < len(restored(run(self.BY, Shard(1, 3)))) < N
        assert 0 < len(restored(run(self.BY, Shard(0, 2)))) < N
        run(self.BY)
        assert restored(run(self.BY, Shard(0, 4))) == []

    def test_an_output_that_stands_whatever_was_done_to_it(self, album: list[Path]) -> None:
        stands = ByContents(None)
        assert len(restored(run(stands))) == N
        write(Path("out/00.png"), 200)  # retouched
        write(album[3], 100)
        os.utime(album[3], (1, 1))
        assert restored(run(stands)) == ["in/03.png"]

    def test_runs_at_once_share_the_work(self) -> None:
        plans = [plan_batch(["in"], "out", recursive=True, existing=self.BY) for _ in range(2)]
        one, two = (run_batch(plan, load, Files()) for plan in plans)
        records = [record for pair in zip(one, two, strict=True) for record in pair]
        assert [r.status for r in records] == ["restored", "skipped"] * N

    def test_a_plan_changes_nothing(self) -> None:
        plan_batch(["in"], "out", existing=self.BY)
        assert not Path("out").exists()

    def test_the_digest_leaves_out_what_changes_no_byte(self) -> None:
        plain = digest_of("sha", files=Files())
        assert digest_of("sha", files=Files(strict=True, keep_times=True, max_pixels=9)) == plain
        others = [digest_of("sha", files=Files(quality=9)), digest_of("other", files=Files())]
        assert len({plain, *others}) == 3

    def test_the_digest_depends_on_the_files_that_settings_name(self, tmp_path: Path) -> None:
        digests = []
        for text in ("0 0.5 0.5 0.1 0.1", "0 0.2 0.5 0.1 0.1"):
            (tmp_path / "a.txt").write_text(text)
            for source in (tmp_path / "a.txt", tmp_path):
                choice = PeopleChoice(source=str(source))
                settings = RestoreSettings(people="only", choice=choice)
                digests += [digest_of("sha", settings=settings) for _ in range(2)]
            choice = PeopleChoice(background=str(tmp_path / "a.txt"))
            digests.append(digest_of("sha", settings=RestoreSettings(people="auto", choice=choice)))
        assert len(set(digests)) == 6
