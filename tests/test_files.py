"""Files are there whole or not at all, whoever else writes them and whoever is killed."""

import contextlib
import errno
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import pytest

from hbr.errors import OutputError
from hbr.files import (
    FolderWatch,
    claim,
    file_lock,
    making_folder,
    remove_parts,
    replacing,
    write_bytes,
    write_text,
)

SPAWN = multiprocessing.get_context("spawn")


def write_slowly(path: Path, letter: bytes, begun, go_on) -> None:
    with replacing(path) as part, part.open("wb") as file:
        file.write(letter * 1000)
        file.flush()
        begun.set()
        go_on.wait(30)
        file.write(letter * 1000)


def writer(path: Path, letter: bytes):
    """A process that has written half of a file."""
    begun, go_on = SPAWN.Event(), SPAWN.Event()
    process = SPAWN.Process(target=write_slowly, args=(path, letter, begun, go_on))
    process.start()
    assert begun.wait(30)
    return process, go_on


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_two_that_write_one_file_do_not_meet(tmp_path: Path) -> None:
    target = tmp_path / "file"
    one, first = writer(target, b"a")
    two, second = writer(target, b"b")
    assert not target.exists()
    first.set()
    one.join(30)
    assert target.read_bytes() == b"a" * 2000
    second.set()
    two.join(30)
    assert target.read_bytes() == b"b" * 2000
    assert names(tmp_path) == ["file"]


def test_what_kills_leave_is_gone_after_the_next_writing(tmp_path: Path) -> None:
    target = tmp_path / "file"
    write_text(target, "before")
    for process, _ in [writer(target, letter) for letter in (b"a", b"b", b"c")]:
        os.kill(process.pid, signal.SIGKILL)
        process.join(30)
    assert len(names(tmp_path)) == 7
    assert target.read_text() == "before"
    write_text(target, "x")  # shorter than what was left
    assert target.read_text() == "x"
    assert names(tmp_path) == ["file"]


def test_one_who_writes_beside_a_living_one_leaves_its_part_alone(tmp_path: Path) -> None:
    target = tmp_path / "file"
    process, go_on = writer(target, b"a")
    for n in range(3):
        write_bytes(target, bytes([n]))
    assert target.read_bytes() == b"\2"
    go_on.set()
    process.join(30)
    assert target.read_bytes() == b"a" * 2000
    assert names(tmp_path) == ["file"]


def test_threads_do_not_meet_either(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    contents = {bytes([n]) * 5000 for n in range(16)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda data: write_bytes(tmp_path / "file", data), sorted(contents) * 20))
    assert (tmp_path / "file").read_bytes() in contents
    assert names(tmp_path) == ["file"]


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file"
    write_text(target, "before")
    with pytest.raises(UnicodeEncodeError), replacing(target) as part:
        part.write_text("after", encoding="ascii") and part.write_text("ä", encoding="ascii")
    assert target.read_text() == "before"
    assert names(target.parent) == ["file"]


def test_a_block_may_put_another_file_in_place_of_the_part(tmp_path: Path) -> None:
    (tmp_path / "made").write_text("whole")
    with replacing(tmp_path / "file") as part:
        (tmp_path / "made").replace(part)
        write_text(tmp_path / "file", "of another")  # finds the place taken all the same
    assert (tmp_path / "file").read_text() == "whole"
    assert names(tmp_path) == ["file"]


def test_a_block_that_writes_nothing_changes_nothing(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "before")
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "file"):
        pass
    assert (tmp_path / "file").read_text() == "before"
    assert names(tmp_path) == ["file"]


def test_links_are_written_through_and_modes_are_usual(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "file")
    write_text(tmp_path / "link", "x")
    assert (tmp_path / "link").is_symlink()
    (tmp_path / "plain").write_text("")
    modes = {(tmp_path / name).stat().st_mode for name in ("real/file", "plain")}
    assert len(modes) == 1


def test_a_file_that_is_replaced_keeps_its_mode_owner_and_attributes(tmp_path: Path) -> None:
    target = tmp_path / "file"
    for mode in (0o600, 0o444, 0o664):
        target.unlink(missing_ok=True)
        target.write_text("before")
        target.chmod(mode)
        os.utime(target, (0, 0))
        if os.geteuid() == 0:
            os.chown(target, 12, 34)
        with contextlib.suppress(OSError):  # not every file system has them
            os.setxattr(target, "user.note", b"kept")
        before = target.stat()
        noted = os.listxattr(target)
        with replacing(target) as part:
            part.write_text("after")
        write_text(target, "at last")
        after = target.stat()
        assert (after.st_mode, after.st_uid, after.st_gid) == (
            before.st_mode,
            before.st_uid,
            before.st_gid,
        )
        assert os.listxattr(target) == noted
        assert after.st_mtime > 1e9


def test_what_replaces_a_private_file_is_private_from_the_first_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "file"
    target.touch(0o600)
    modes: list[int] = []
    copy = shutil.copystat

    def watched(source: Path, part: Path) -> None:
        modes.append(part.stat().st_mode & 0o777)
        copy(source, part)

    monkeypatch.setattr(shutil, "copystat", watched)
    write_bytes(target, b"x")
    assert modes == [0o600]


def test_a_claim_is_of_one_process_and_ends_with_it(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file"
    with claim(target, wait=False):
        with pytest.raises(BlockingIOError), claim(target, wait=False):
            pass
        with claim(tmp_path / "new" / "other", wait=False):
            pass
        write_text(target, "x")  # a claim does not keep anyone from writing
    with claim(target, wait=True):
        assert target.read_text() == "x"
    assert names(target.parent) == ["file"]


def test_what_killed_writers_left_is_removed_and_what_others_write_is_not(tmp_path: Path) -> None:
    dead, _ = writer(tmp_path / "dead", b"a")
    alive, go_on = writer(tmp_path / "alive", b"b")
    os.kill(dead.pid, signal.SIGKILL)
    dead.join(30)
    remove_parts(tmp_path)
    assert names(tmp_path) == [".alive.part", ".alive.part.lock"]
    go_on.set()
    alive.join(30)
    assert names(tmp_path) == ["alive"]


def test_a_folder_that_goes_away_is_noticed(tmp_path: Path) -> None:
    drive = tmp_path / "drive"
    drive.mkdir()
    watch = FolderWatch(drive / "a" / "b")
    watch.check()
    (drive / "a" / "b").mkdir(parents=True)
    watch.check()
    (drive / "a").rename(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match=r"drive/a/b: was removed, renamed or unmounted"):
        watch.check()


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(OSError, match="is not a regular file"):
            write_text(tmp_path / name, "x")
    assert (tmp_path / "pipe").is_fifo()
    assert names(tmp_path) == ["folder", "pipe"]


def test_names_may_be_as_long_as_the_system_allows(tmp_path: Path) -> None:
    target = tmp_path / ("ä" * 125 + ".json")  # 255 bytes
    process, _ = writer(target, b"a")
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    write_text(target, "x")
    assert names(tmp_path) == [target.name]


def test_an_error_without_a_name_gets_one(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught, replacing(tmp_path / "file"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.filename == str(tmp_path / "file")


@pytest.mark.parametrize("replace", [False, True])
def test_a_folder_is_there_whole_or_not_at_all(tmp_path: Path, replace: bool) -> None:
    target = tmp_path / "folder"
    for content in ("one", "two") if replace else ("one",):
        with making_folder(target, replace=replace) as part:
            (part / "file").write_text(content)
            assert (target / "file").exists() == (content == "two")
        assert (target / "file").read_text() == content
    with pytest.raises(OSError) as caught, making_folder(target, replace=replace) as part:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.errno == (errno.ENOSPC if replace else errno.EEXIST)
    assert (target / "file").read_text() == content
    assert names(tmp_path) == ["folder"]


def hold(path: Path, shared: bool, begun, go_on) -> None:
    with file_lock(path, shared=shared):
        begun.set()
        go_on.wait(30)


def test_locks_are_shared_or_not_and_end_with_their_process(tmp_path: Path) -> None:
    lock = tmp_path / "new" / "lock"
    begun, go_on = SPAWN.Event(), SPAWN.Event()
    process = SPAWN.Process(target=hold, args=(lock, True, begun, go_on))
    process.start()
    assert begun.wait(30)
    with file_lock(lock, ValueError("busy"), shared=True):
        pass
    with pytest.raises(ValueError, match="busy"), file_lock(lock, ValueError("busy")):
        pass
    os.kill(process.pid, signal.SIGKILL)
    with file_lock(lock, remove=True):  # waits for the end
        assert lock.exists()
    process.join(30)
    assert not lock.exists()
