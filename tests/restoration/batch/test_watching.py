"""When a file in a watched folder counts as complete, and what becomes of it, without a network."""

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hbr.config import ConfigError
from hbr.errors import OutputError
from hbr.image import Photo, write_photo
from hbr.restoration.batch.outputs import Files
from hbr.restoration.batch.records import FileRecord
from hbr.restoration.batch.watching import Arrivals, Watched, watch
from toy_batch import invert

PIXELS = np.arange(6 * 5 * 3, dtype=np.uint8).reshape(6, 5, 3)


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    return tmp_path


def make(name: str) -> Path:
    path = Path("in", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_photo(Photo.from_array(PIXELS), path)
    return path


def looks(recursive: bool = False, out: str = "out") -> Callable[[float], list[str]]:
    """Look into the folder at some time; the names of what is complete."""
    watched = Watched(folder=Path("in"), out=Path(out), settle=2, recursive=recursive)
    arrivals = Arrivals(watched)
    return lambda now: [place.as_posix() for _, place in arrivals.look(now).photos]


class TestComplete:
    def test_what_does_not_change_any_more(self) -> None:
        look = looks()
        path = make("a.png")
        data = path.read_bytes()
        path.write_bytes(b"")
        assert (look(0), look(5)) == ([], []), "it is empty"
        path.write_bytes(data[:9])
        assert (look(6), look(7.9)) == ([], [])
        path.write_bytes(data[:99])
        assert (look(8), look(9.9)) == ([], [])
        assert (look(10), look(12), look(99)) == (["a.png"], [], [])

    def test_the_same_size_at_another_time_is_a_change(self) -> None:
        look = looks()
        path = make("a.png")
        look(0)
        os.utime(path, (1, 1))
        assert (look(2), look(4)) == ([], ["a.png"])

    def test_a_date_says_nothing(self) -> None:
        look = looks()
        os.utime(make("old.png"), (1, 1))
        os.utime(make("future.png"), (2**33, 2**33))
        assert (look(0), look(2)) == ([], ["future.png", "old.png"])

    def test_renamed_into_place(self) -> None:
        look = looks()
        path = make("b.png")
        path.rename("in/b.png.part")
        Path("in/.c.png").write_bytes(b"x")
        assert (look(0), look(3)) == ([], [])
        Path("in/b.png.part").rename("in/b.png")
        assert (look(4), look(6)) == ([], ["b.png"])

    def test_what_changes_later_comes_again(self) -> None:
        look = looks()
        path = make("a.png")
        look(0)
        assert look(2) == ["a.png"]
        path.write_bytes(path.read_bytes() + b"more")
        assert (look(3), look(5)) == ([], ["a.png"])
        path.unlink()
        look(6)
        make("a.png")
        assert (look(7), look(9)) == ([], ["a.png"])

    def test_sub_folders_but_not_the_output(self) -> None:
        for name in ("a.png", "sub/b.png", "out/c.png", "@eaDir/d.png", "sub/.e/f.png"):
            make(name)
        look = looks(recursive=True, out="in/out")
        look(0)
        assert look(2) == ["a.png", "sub/b.png"]
        look = looks(out="in/out")
        look(0)
        assert look(2) == ["a.png"]


def watching(*events: Callable[[], object], **changes: Any) -> Iterator[FileRecord]:
    """Watch, with one event between each two looks, until they are over."""
    waits = iter(events)

    class OverError(Exception):
        pass

    def sleep(_: float) -> None:
        event = next(waits, None)
        if event is None:
            raise OverError
        event()

    watched = Watched(folder=Path("in"), out=Path("out"), settle=0, **changes)
    records = watch(watched, invert, Files(), sleep=sleep)
    while True:
        try:
            yield next(records)
        except OverError:
            return


def statuses(records: Iterator[FileRecord]) -> list[tuple[str, str]]:
    return [(Path(record.input).name, record.status) for record in records]


class TestWatch:
    def test_what_is_there_and_what_arrives(self) -> None:
        make("a.png")
        events = lambda: make("sub/b.png"), lambda: Path("in/notes.txt").touch(), lambda: None
        assert statuses(watching(*events, recursive=True)) == [
            ("a.png", "restored"),
            ("b.png", "restored"),
        ]
        assert Path("out/sub/b.png").exists()

    def test_a_restart_does_what_arrived_meanwhile_and_no_more(self) -> None:
        make("a.png")
        assert statuses(watching()) == [("a.png", "restored")]
        os.utime("in/a.png")  # newer than its output
        os.utime(make("b.png"), (1, 1))  # older than any
        write_photo(Photo.from_array(PIXELS), "out/a.png")  # retouched
        assert sorted(statuses(watching())) == [("a.png", "skipped"), ("b.png", "restored")]

    def test_a_number_that_a_scanner_uses_again(self) -> None:
        make("scan1.png")
        list(watching())
        # another photo of this name, with an old date, as it was copied
        write_photo(Photo.from_array(PIXELS[::-1].copy()), "in/scan1.png")
        os.utime("in/scan1.png", (1, 1))
        assert statuses(watching()) == [("scan1.png", "restored")]

    def test_a_bad_file_is_tried_again_when_it_changes(self) -> None:
        path = make("a.png")
        data = path.read_bytes()
        path.write_bytes(data[:50])
        events = lambda: None, lambda: path.write_bytes(data), lambda: None
        assert statuses(watching(*events)) == [("a.png", "failed"), ("a.png", "restored")]

    def test_pictures_that_are_not_read_are_said_once(self) -> None:
        Path("in/a.cr2").write_bytes(b"raw")
        assert statuses(watching(*[lambda: None] * 3)) == [("a.cr2", "failed")]

    def test_two_photos_with_one_output(self) -> None:
        make("a.png")
        events = lambda: make("a.bmp"), lambda: None, lambda: make("b.png"), lambda: None
        records = list(watching(*events, format="webp"))
        assert statuses(iter(records)) == [
            ("a.png", "restored"),
            ("a.bmp", "failed"),
            ("b.png", "restored"),
        ]
        assert "in/a.bmp: would be written to out/a.webp, as in/a.png; " in str(records[1].error)
        # at a restart they are found together; the output stays that of one of them
        again = statuses(watching(format="webp"))
        assert sorted(again, key=lambda item: item[1])[0][1] == "failed"

    @pytest.mark.parametrize("gone", ["in", "out"])
    def test_a_folder_that_is_gone_ends_it(self, gone: str) -> None:
        make("a.png")
        records = watching(lambda: Path(gone).rename("elsewhere"), lambda: None)
        assert next(records).status == "restored"
        with pytest.raises(OutputError, match=f"^{gone}: was removed, renamed or unmounted"):
            next(records)
        assert not Path(gone).exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"folder": Path("none")}, "none is not a folder"),
        ({"out": Path("in/../in")}, "the outputs would arrive in the folder watched"),
        ({"out": Path(), "recursive": True}, "the outputs would arrive in the folder watched"),
        ({"settle": -1}, "settle"),
        ({"poll": 0}, "poll"),
        ({"format": "gif"}, "format"),
    ],
)
def test_wrong_settings(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Watched(**{"folder": Path("in"), "out": Path("out"), **wrong})


def test_memory_does_not_grow_with_time() -> None:
    look = looks()
    arrivals = look.__closure__[0].cell_contents  # type: ignore[index]
    for number in itertools.islice(itertools.count(), 50):
        path = make(f"{number}.png")
        look(3 * number)
        path.unlink()
    look(1000)
    assert not arrivals._seen
    assert not arrivals._given
