"""What goes where, and what a batch does about it, without a network."""

import errno
import io
import math
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hbr.config import ConfigError
from hbr.files import file_lock
from hbr.image import Photo, PhotoError, read_photo, write_photo
from hbr.image.reading import named_bytes
from hbr.processes import StopSignals
from hbr.restoration.batch import work
from hbr.restoration.batch.jobs import BatchPlan, Existing, Job, Streams, plan_batch
from hbr.restoration.batch.outputs import Files
from hbr.restoration.batch.records import FileRecord
from hbr.restoration.batch.running import look_at, run_batch
from toy_batch import Done, invert, load

PIXELS = np.arange(6 * 5 * 3, dtype=np.uint8).reshape(6, 5, 3)


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tests' folder is the current one, so that names are short."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(params=[math.inf, -1.0], ids=["encoded at once", "encoded beside the next"])
def encoding(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether photos after the first are encoded while the next is restored."""
    monkeypatch.setattr(work, "_SLOW", request.param)


def make(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        if Path(name).suffix in (".jpg", ".png", ".webp"):
            write_photo(Photo.from_array(PIXELS), name)
        else:
            Path(name).write_bytes(b"\xff\xd8\xff")


def pairs(plan: BatchPlan) -> dict[str, str]:
    return {str(job.source): str(job.target) for job in plan.jobs}


def errors(plan: BatchPlan) -> list[str]:
    return [bad.error for bad in plan.bad]


class TestWhere:
    def test_one_file_and_a_photos_name_is_a_file(self) -> None:
        make("a.jpg")
        assert pairs(plan_batch(["a.jpg"], "new/b.PNG")) == {"a.jpg": "new/b.PNG"}

    @pytest.mark.parametrize(
        ("out", "target"), [("new", "new/a.jpg"), ("b.png/", "b.png/a.jpg"), ("v1.2", "v1.2/a.jpg")]
    )
    def test_else_a_folder(self, out: str, target: str) -> None:
        make("a.jpg")
        assert pairs(plan_batch(["a.jpg"], out)) == {"a.jpg": target}

    def test_a_folder_that_is_called_like_a_photo(self) -> None:
        make("a.jpg", "b.png/x.txt")
        assert pairs(plan_batch(["a.jpg"], "b.png")) == {"a.jpg": "b.png/a.jpg"}

    def test_several_inputs_and_globs_go_into_a_folder(self) -> None:
        make("a.jpg", "c/d.jpg")
        assert pairs(plan_batch(["a.jpg", "c"], "b.png")) == {
            "a.jpg": "b.png/a.jpg",
            "c/d.jpg": "b.png/d.jpg",
        }
        assert pairs(plan_batch(["?.jpg"], "b.png")) == {"a.jpg": "b.png/a.jpg"}

    def test_sub_folders_only_when_asked_for(self) -> None:
        make("in/a.jpg", "in/sub/deep/b.png", "in/.thumbs/c.jpg", "in/.d.jpg", "in/notes.txt")
        assert pairs(plan_batch(["in"], "out")) == {"in/a.jpg": "out/a.jpg"}
        assert pairs(plan_batch(["in"], "out", recursive=True)) == {
            "in/a.jpg": "out/a.jpg",
            "in/sub/deep/b.png": "out/sub/deep/b.png",
        }

    def test_globs_keep_what_is_below_their_fixed_part(self) -> None:
        make("in/2019/a.jpg", "in/2020/a.jpg", "in/2020/sub/b.jpg", "in/2020/c.txt")
        assert pairs(plan_batch(["in/*/*"], "out")) == {
            "in/2019/a.jpg": "out/2019/a.jpg",
            "in/2020/a.jpg": "out/2020/a.jpg",
        }
        assert pairs(plan_batch(["in/20*"], "out", recursive=True)) == {
            "in/2019/a.jpg": "out/2019/a.jpg",
            "in/2020/a.jpg": "out/2020/a.jpg",
            "in/2020/sub/b.jpg": "out/2020/sub/b.jpg",
        }

    def test_a_file_that_is_named_like_a_glob(self) -> None:
        make("a[1].jpg", "a1.jpg")
        assert pairs(plan_batch(["a[1].jpg"], "out")) == {"a[1].jpg": "out/a[1].jpg"}

    def test_the_output_is_no_input(self) -> None:
        make("in/a.jpg", "in/out/a.jpg", "in/sub/out/a.jpg")
        expected = {"in/a.jpg": "in/out/a.jpg", "in/sub/out/a.jpg": "in/out/sub/out/a.jpg"}
        asked = {"recursive": True, "existing": "overwrite"}
        assert pairs(plan_batch(["in"], "in/out", **asked)) == expected  # type: ignore[arg-type]
        found = pairs(plan_batch(["in/**/*.jpg"], "in/out", existing="overwrite"))
        assert found == expected

    def test_links_to_folders_are_not_followed(self) -> None:
        make("in/a.jpg", "other/b.jpg")
        Path("in/loop").symlink_to("../in")
        Path("in/other").symlink_to("../other")
        assert pairs(plan_batch(["in"], "out", recursive=True)) == {"in/a.jpg": "out/a.jpg"}
        # but for one that is asked for
        assert pairs(plan_batch(["in/other"], "out")) == {"in/other/b.jpg": "out/b.jpg"}

    def test_a_file_named_twice_is_done_once(self) -> None:
        make("in/a.jpg")
        plan = plan_batch(["in/a.jpg", "in", "in/../in/*.jpg"], "out")
        assert [str(job.target) for job in plan.jobs] == ["out/a.jpg"]

    def test_suffixes(self) -> None:
        make("a.JPG", "b.mpo", "scan.1", "scan.2")
        Path("scan.2").write_text("no photo")
        given = ["a.JPG", "b.mpo", "scan.1", "scan.2"]
        assert list(pairs(plan_batch(given, "out")).values()) == [
            "out/a.JPG",
            "out/b.jpg",
            "out/scan.1.jpg",
            "out/scan.2.png",
        ]
        assert list(pairs(plan_batch(given, "out", format="tiff")).values()) == [
            "out/a.tif",
            "out/b.tif",
            "out/scan.1.tif",
            "out/scan.2.tif",
        ]

    def test_pictures_that_are_not_read_are_not_passed_over(self) -> None:
        make("in/a.heic", "in/b.jpg")
        assert set(pairs(plan_batch(["in"], "out"))) == {"in/a.heic", "in/b.jpg"}

    def test_bad_inputs_stand_beside_the_good_ones(self) -> None:
        make("a.jpg", "in/sub/b.jpg")
        Path("empty").mkdir()
        plan = plan_batch(["gone.jpg", "empty", "in", "a.jpg", "*.tif"], "out")
        assert pairs(plan) == {"a.jpg": "out/a.jpg"}
        assert errors(plan) == [
            "gone.jpg: does not exist; check the name",
            "empty: holds no photographs; check the name",
            "in: holds no photographs; --recursive looks into its folders",
            "*.tif: matches no photographs; check the name",
        ]
        assert plan.total == 5


class TestClashes:
    def test_two_inputs_with_one_output(self) -> None:
        make("a.jpg", "a.png", "x/a.jpg")
        with pytest.raises(ConfigError, match=r"^a\.jpg and a\.png would both .* out/a\.webp; "):
            plan_batch(["a.jpg", "a.png"], "out", format="webp")
        with pytest.raises(ConfigError, match=r"^a\.jpg and x/a\.jpg would both "):
            plan_batch(["a.jpg", "x"], "out", existing="overwrite")

    def test_two_outputs_that_are_one_file(self) -> None:
        make("a.jpg", "b.jpg", "out/a.jpg")
        Path("out/b.jpg").symlink_to("a.jpg")
        with pytest.raises(ConfigError, match=r"^a\.jpg and b\.jpg would both "):
            plan_batch(["a.jpg", "b.jpg"], "out", existing="overwrite")

    def test_over_itself_only_when_asked_for(self) -> None:
        make("in/a.jpg")
        Path("link").symlink_to("in")
        for existing in ("refuse", "resume"):
            with pytest.raises(ConfigError, match=r"^in/a\.jpg would be written over itself"):
                plan_batch(["in"], "link", existing=existing)  # type: ignore[arg-type]
        plan = plan_batch(["in"], "in", existing="overwrite")
        assert plan.jobs == (
            Job(source=Path("in/a.jpg"), target=Path("in/a.jpg"), may_replace=True),
        )

    def test_never_over_another_input(self) -> None:
        make("a.png", "out/a.jpg")
        with pytest.raises(ConfigError, match=r"^a\.png would be .* out/a\.jpg, which is an input"):
            plan_batch(["a.png", "out/a.jpg"], "out", format="jpg", existing="overwrite")

    def test_outputs_that_exist(self) -> None:
        make("in/a.jpg", "in/b.jpg", "in/c.jpg", "out/b.jpg")
        with pytest.raises(ConfigError, match=r"^out/b\.jpg exists; --resume .* --overwrite "):
            plan_batch(["in"], "out")
        make("out/c.jpg")
        with pytest.raises(ConfigError, match=r"^out/b\.jpg and 1 more outputs exist; "):
            plan_batch(["in"], "out")
        plan = plan_batch(["in"], "out", existing="overwrite")
        assert [job.may_replace for job in plan.jobs] == [False, True, True]

    def test_a_place_that_is_no_folder(self) -> None:
        make("a.jpg", "file")
        with pytest.raises(
            PhotoError, match=r"^file/out: cannot be written to, .*file is not a folder"
        ):
            plan_batch(["a.jpg"], "file/out")


class TestLongNames:
    def test_they_are_found_before_the_work(self) -> None:
        long = "x" * 251
        make(f"in/{long}.jpg", "in/a.jpg")
        plan = plan_batch(["in"], "out", format="webp")
        assert set(pairs(plan)) == {"in/a.jpg"}
        assert errors(plan) == [
            f"in/{long}.jpg: its output would have a name of 256 bytes, 255 are allowed; shorten it"
        ]
        assert set(pairs(plan_batch(["in"], "out"))) == {"in/a.jpg", f"in/{long}.jpg"}

    def test_paths_too(self) -> None:
        deep = "/".join(["d" * 200] * 19)
        make(f"in/{deep}/a.jpg", "in/b.jpg")
        plan = plan_batch(["in"], "o" * 250, recursive=True)
        assert set(pairs(plan)) == {"in/b.jpg"}
        assert "its output would have a path of " in errors(plan)[0]


def test_resume_does_again_what_is_old_or_empty() -> None:
    make("in/a.jpg", "in/b.jpg", "in/c.jpg", "in/d.jpg", "in/e.jpg", "out/a.jpg", "out/b.jpg")
    Path("out/c.jpg").write_bytes(b"")
    Path("out/d.jpg").mkdir()
    newer = Path("out/b.jpg").stat().st_mtime_ns + 1
    os.utime("in/b.jpg", ns=(newer, newer))
    plan = plan_batch(["in"], "out", existing="resume")
    assert [str(job.source) for job in plan.finished] == ["in/a.jpg"]
    assert {job.source.name: job.may_replace for job in plan.jobs} == {
        "b.jpg": True,
        "c.jpg": True,
        "d.jpg": True,
        "e.jpg": False,
    }
    statuses = {r.input: r.status for r in run_batch(plan, load, Files())}
    assert statuses == {
        "in/a.jpg": "skipped",
        "in/b.jpg": "restored",
        "in/c.jpg": "restored",
        "in/d.jpg": "failed",
        "in/e.jpg": "restored",
    }


@pytest.mark.usefixtures("encoding")
class TestTimes:
    """An output is never older than its input, whatever clock that was dated by."""

    HOURS = 8 * 3600 * 10**9

    def test_a_clock_in_the_future_makes_no_work_again(self) -> None:
        make("in/a.png", "in/b.png")
        ahead = time.time_ns() + self.HOURS
        os.utime("in/b.png", ns=(ahead, ahead))
        plan = plan_batch(["in"], "out", existing="resume")
        assert len(list(run_batch(plan, load, Files()))) == 2
        assert Path("out/b.png").stat().st_mtime_ns == ahead
        assert Path("out/a.png").stat().st_mtime_ns < ahead
        assert not plan_batch(["in"], "out", existing="resume").jobs
        # by the same clock, the input was changed since
        os.utime("in/b.png", ns=(ahead + 1, ahead + 1))
        (job,) = plan_batch(["in"], "out", existing="resume").jobs
        assert job.source == Path("in/b.png")

    def test_an_input_that_changed_while_it_was_restored_is_newer(self) -> None:
        make("in/a.png")
        ahead = time.time_ns() + self.HOURS

        def restore(photo: Photo) -> Done:
            os.utime("in/a.png", ns=(ahead, ahead))
            return invert(photo)

        plan = plan_batch(["in"], "out")
        assert [r.status for r in run_batch(plan, lambda: restore, Files())] == ["restored"]
        assert len(plan_batch(["in"], "out", existing="resume").jobs) == 1

    @pytest.mark.parametrize("step", [2 * 10**9, 10**9])
    def test_file_systems_of_coarse_times(self, step: int) -> None:
        make("in/a.png", "out/a.png")
        given = 1_700_000_002_900_000_000
        os.utime("in/a.png", ns=(given, given))
        os.utime("out/a.png", ns=(given // step * step,) * 2)  # as they would keep it
        assert not plan_batch(["in"], "out", existing="resume").jobs
        os.utime("out/a.png", ns=(given // step * step - step,) * 2)
        assert plan_batch(["in"], "out", existing="resume").jobs

    def test_times_are_kept_if_asked_for(self) -> None:
        make("in/a.png")
        then = 1_234_567_890_123_456_789
        os.utime("in/a.png", ns=(then, then))
        list(run_batch(plan_batch(["in"], "kept"), load, Files(keep_times=True)))
        assert Path("kept/a.png").stat().st_mtime_ns == then
        assert not plan_batch(["in"], "kept", existing="resume").jobs
        list(run_batch(plan_batch(["in"], "now"), load, Files()))
        assert Path("now/a.png").stat().st_mtime_ns > then
        plan = plan_batch(["in"], "in", existing="overwrite")
        list(run_batch(plan, load, Files(keep_times=True)))
        assert Path("in/a.png").stat().st_mtime_ns == then


@pytest.mark.usefixtures("encoding")
class TestShared:
    """Runs with --resume that work on the same outputs."""

    def test_what_another_run_has_finished_is_skipped(self) -> None:
        make("in/a.png", "in/b.png")
        one = run_batch(plan_batch(["in"], "out", existing="resume"), load, Files())
        two = run_batch(plan_batch(["in"], "out", existing="resume"), load, Files())
        statuses = [(r.input, r.status) for r in (next(one), next(two), *one, *two)]
        assert statuses == [
            ("in/a.png", "restored"),
            ("in/a.png", "skipped"),
            ("in/b.png", "restored"),
            ("in/b.png", "skipped"),
        ]

    @pytest.mark.parametrize("fails", [False, True])
    def test_what_another_run_is_at_is_left_to_it_unless_it_fails(self, fails: bool) -> None:
        make("in/a.png", "in/b.png")
        met: list[FileRecord] = []
        plan = plan_batch(["in"], "out", existing="resume")
        other = run_batch(plan, load, Files())

        def restore(photo: Photo) -> Done:
            if photo.path == Path("in/a.png"):
                met.append(next(other))  # the other run does the second photo meanwhile
                if fails:
                    raise RuntimeError("no more")
            return invert(photo)

        records = list(run_batch(plan, lambda: restore, Files()))
        met += other
        first = {r.input: r.status for r in records}
        second = {r.input: r.status for r in met}
        assert first == {"in/a.png": "failed" if fails else "restored", "in/b.png": "skipped"}
        assert second == {"in/a.png": "restored" if fails else "skipped", "in/b.png": "restored"}
        assert sorted(os.listdir("out")) == ["a.png", "b.png"]  # noqa: PTH208

    def test_runs_that_do_not_resume_still_refuse(self) -> None:
        make("in/a.png")
        plan = plan_batch(["in"], "out")
        list(run_batch(plan_batch(["in"], "out", existing="resume"), load, Files()))
        (record,) = run_batch(plan, load, Files())
        assert record.error is not None
        assert "was created since the start" in record.error


def test_what_killed_runs_left_is_removed_whatever_they_were_at() -> None:
    make("in/a.png", "out/a.png", "out/.b.png.part", "out/.b.png.part.lock", "out/.kept.part")
    make("out/.c.png.claim.part.lock", "elsewhere/.d.png.part", "elsewhere/.d.png.part.lock")
    with file_lock("out/.e.png.part.lock"):  # a living one
        make("out/.e.png.part")
        list(run_batch(plan_batch(["in"], "out", existing="overwrite"), load, Files()))
        assert sorted(os.listdir("out")) == [  # noqa: PTH208
            *(".e.png.part", ".e.png.part.lock", ".kept.part", "a.png")
        ]
    assert len(os.listdir("elsewhere")) == 2  # noqa: PTH208
    # also if there is nothing else to do
    make("out/.f.png.part", "out/.f.png.part.lock")
    plan = plan_batch(["in"], "out", existing="resume")
    assert [r.status for r in run_batch(plan, load, Files())] == ["skipped"]
    assert sorted(os.listdir("out")) == [".kept.part", "a.png"]  # noqa: PTH208


@pytest.mark.usefixtures("encoding")
class TestErrorsThatRecur:
    """They end the batch with one record; those of one file do not."""

    def test_a_full_disk(self, monkeypatch: pytest.MonkeyPatch) -> None:
        make("in/a.png", "in/b.png", "in/c.png")
        batch = run_batch(plan_batch(["in"], "out"), load, Files())
        assert next(batch).status == "restored"

        def full(handle: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        usage = shutil.disk_usage(".")
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
        (record,) = batch
        assert (record.input, record.ends_batch) == ("in/b.png", True)
        assert record.error is not None
        assert "the disk is full" in record.error
        assert os.listdir("out") == ["a.png"]  # noqa: PTH208

    def test_a_disk_without_room_for_one_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        make("in/a.png", "in/b.png", "in/c.png")
        sync = os.fsync

        def full_for_b(handle: int) -> None:
            if Path("out/.b.png.part").exists():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            sync(handle)

        monkeypatch.setattr(os, "fsync", full_for_b)
        records = list(run_batch(plan_batch(["in"], "out"), load, Files()))
        assert [r.status for r in records] == ["restored", "failed", "restored"]

    @pytest.mark.parametrize("existing", ["refuse", "resume"])
    def test_the_folder_of_the_outputs_has_gone(self, existing: Existing) -> None:
        make("in/a.png", "in/b.png", "in/c.png", "drive/x.txt")
        batch = run_batch(plan_batch(["in"], "drive/out", existing=existing), load, Files())
        assert next(batch).status == "restored"
        Path("drive").rename("elsewhere")
        (record,) = batch
        assert record.ends_batch
        assert record.error == "drive/out: was removed, renamed or unmounted since the start"
        assert not Path("drive").exists()  # it is not made anew

    def test_also_before_the_first_output(self) -> None:
        make("in/a.png", "in/b.png", "drive/x.txt")

        def restore(photo: Photo) -> Done:
            Path("drive").rename("elsewhere")
            return invert(photo)

        (record,) = run_batch(plan_batch(["in"], "drive/out"), lambda: restore, Files())
        assert record.ends_batch
        assert not Path("drive").exists()

    def test_the_inputs_have_gone(self) -> None:
        make("card/a.png", "card/b.png", "card/c.png")
        batch = run_batch(plan_batch(["card"], "out"), load, Files())
        assert next(batch).status == "restored"
        Path("card").rename("elsewhere")
        (record,) = batch
        assert (record.ends_batch, record.error) == (
            True,
            "card/b.png: does not exist; check the name",
        )

    def test_one_input_has_gone(self) -> None:
        make("in/a.png", "in/b.png", "in/c.png")
        batch = run_batch(plan_batch(["in"], "out"), load, Files())
        assert next(batch).status == "restored"
        Path("in/b.png").unlink()
        assert [(r.status, r.ends_batch) for r in batch] == [("failed", False), ("restored", False)]

    def test_a_device_that_has_failed(self) -> None:
        make("a.png", "b.png")

        def restore(photo: Photo) -> Done:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

        (record,) = run_batch(plan_batch(["a.png", "b.png"], "out"), lambda: restore, Files())
        assert record.ends_batch


class TestStreams:
    def test_from_one_to_the_other(self) -> None:
        make("a.png")
        given = named_bytes(Path("a.png").read_bytes(), "stdin")
        made = io.BytesIO()
        plan = plan_batch(["-"], "-", streams=Streams(given, made))
        (record,) = run_batch(plan, load, Files())
        assert (record.status, record.input, record.output) == ("restored", "-", "-")
        made.seek(0)
        photo = read_photo(made)
        assert (photo.format, photo.pixels.tolist()) == ("png", (255 - PIXELS).tolist())

    def test_the_format_is_asked_for_or_that_of_the_input(self) -> None:
        make("a.JPG", "b.mpo", "c")
        for name, format, suffix in [
            ("a.JPG", "keep", ".JPG"),
            ("b.mpo", "keep", ".jpg"),
            ("c", "keep", ".jpg"),
            ("a.JPG", "tiff", ".tif"),
        ]:
            (job,) = plan_batch(
                [name], "-", format=format, streams=Streams(stdout=io.BytesIO())
            ).jobs
            assert job.target.suffix == suffix

    def test_a_file_of_that_name_is_given_by_its_path(self) -> None:
        make("a.png")
        Path("a.png").rename("-")
        assert pairs(plan_batch(["./-"], "out")) == {"-": "out/-.png"}


@pytest.mark.usefixtures("encoding")
class TestBatch:
    def test_each_input_has_its_record(self) -> None:
        make("in/a.png", "in/b.png", "in/c.png")
        Path("in/b.png").write_bytes(b"")
        started: list[Job] = []
        plan = plan_batch(["in", "gone"], "out")
        records = list(run_batch(plan, load, Files(), starting=started.append))
        assert started == list(plan.jobs)
        assert [(r.input, r.status, r.output) for r in records] == [
            ("gone", "failed", None),
            ("in/a.png", "restored", "out/a.png"),
            ("in/b.png", "failed", "out/b.png"),
            ("in/c.png", "restored", "out/c.png"),
        ]
        assert records[2].error == "in/b.png: is empty; get an undamaged copy"
        assert np.array_equal(read_photo("out/a.png").pixels, 255 - PIXELS)
        told = records[1].as_json()
        assert (told["width"], told["height"]) == (5, 6)
        assert told["timings"]["model"] == 0.5
        assert told["provenance"] == {"seed": 0}
        assert records[0].as_json() == {
            "input": "gone",
            "status": "failed",
            "error": "gone: does not exist; check the name",
        }

    def test_looking_does_nothing(self) -> None:
        make("a.png")
        (record,) = look_at(plan_batch(["a.png"], "out"))
        assert record == FileRecord(input="a.png", status="planned", output="out/a.png")
        assert not Path("out").exists()

    def test_strict_ends_with_the_first_failure(self) -> None:
        make("a.png", "b.png", "c.png")
        Path("b.png").write_bytes(b"")
        plan = plan_batch(["a.png", "b.png", "c.png"], "out")
        records = list(run_batch(plan, load, Files(), strict=True))
        assert [r.status for r in records] == ["restored", "failed"]
        plan = plan_batch(["c.png", "gone"], "out")
        assert [r.input for r in run_batch(plan, load, Files(), strict=True)] == ["gone"]

    @pytest.mark.parametrize(
        ("error", "line", "out_of_memory"),
        [
            (MemoryError("try --tile 32"), "a.png: try --tile 32", True),
            (MemoryError(), "a.png: out of memory; use smaller tiles (--tile)", True),
            (
                RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
                "a.png: out of memory; use smaller tiles (--tile) or --device cpu",
                True,
            ),
            (FloatingPointError("not\nfinite"), "a.png: not finite", False),
            (OSError(errno.EIO, "Input/output error"), "a.png: Input/output error", False),
            (
                KeyError("w"),
                "a.png: unexpected error: KeyError: 'w' (set HBR_DEBUG=1 for the traceback)",
                False,
            ),
        ],
    )
    def test_whatever_goes_wrong_costs_one_file(
        self, error: Exception, line: str, out_of_memory: bool
    ) -> None:
        make("a.png", "b.png")

        def restore(photo: Photo) -> Done:
            if photo.path == Path("a.png"):
                raise error
            return invert(photo)

        plan = plan_batch(["a.png", "b.png"], "out")
        bad, good = run_batch(plan, lambda: restore, Files())
        assert (bad.error, bad.out_of_memory) == (line, out_of_memory)
        assert good.status == "restored"
        assert os.listdir("out") == ["b.png"]  # noqa: PTH208

    def test_no_output_is_written_that_came_to_exist_since(self) -> None:
        make("a.png")
        plan = plan_batch(["a.png"], "out")
        make("out/a.png")
        (record,) = run_batch(plan, load, Files())
        assert record.error is not None
        assert record.error.startswith("out/a.png: was created since the start")
        assert np.array_equal(read_photo("out/a.png").pixels, PIXELS)

    def test_two_names_that_turn_out_to_be_one_file(self) -> None:
        # as where upper and lower case are the same
        make("a.png", "b.png", "out/a.png", "out/b.png")
        plan = plan_batch(["a.png", "b.png"], "out", existing="overwrite")
        batch = run_batch(plan, load, Files())
        assert next(batch).status == "restored"
        Path("out/b.png").unlink()
        Path("out/b.png").hardlink_to("out/a.png")
        record = next(batch)
        assert record.error == "out/b.png: was just written from another input; rename one"


@pytest.mark.usefixtures("encoding")
class TestStopping:
    @pytest.fixture
    def stop(self) -> Iterator[StopSignals]:
        before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        with StopSignals() as stop:
            yield stop
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_ends_the_batch_and_leaves_nothing_half(
        self, stop: StopSignals, number: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make("a.png", "b.png", "c.png")
        batch = run_batch(plan_batch(["*.png"], "out"), load, Files(), stop=stop)
        assert next(batch).status == "restored"
        sync = os.fsync

        def interrupted(handle: int) -> None:
            sync(handle)
            names = {path.name for path in Path("out").iterdir()}
            assert names == {"a.png", ".b.png.part", ".b.png.part.lock"}
            signal.raise_signal(number)

        monkeypatch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(batch)
        assert [p.name for p in Path("out").iterdir()] == ["a.png"]

    def test_an_interruption_that_a_library_swallows_still_ends_it(self, stop: StopSignals) -> None:
        make("a.png", "b.png", "c.png")

        def restore(photo: Photo) -> Done:
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                if photo.path == Path("b.png"):
                    raise ImportError("half of it is missing") from None
            return invert(photo)

        plan = plan_batch(["a.png", "b.png", "c.png"], "out")
        batch = run_batch(plan, lambda: restore, Files(), stop=stop)
        assert next(batch).status == "restored"
        with pytest.raises(KeyboardInterrupt):
            next(batch)
        assert [p.name for p in Path("out").iterdir()] == ["a.png"]
        # an error that an interruption was turned into is one too
        stop.received = None
        batch = run_batch(BatchPlan(jobs=plan.jobs[1:]), lambda: restore, Files(), stop=stop)
        with pytest.raises(KeyboardInterrupt):
            next(batch)

    def test_a_second_one_does_not_cut_the_cleaning_up_short(self, stop: StopSignals) -> None:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert stop.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            stop.check()
