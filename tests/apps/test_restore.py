"""`hbr restore` on photos that are as they should be, run as a user runs it."""

import json
import os
import pty
import re
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image, ImageFilter

from hbr.apps.cli.planned import exit_code_of
from hbr.apps.cli.restore import DEFAULT_MAX_PIXELS
from hbr.apps.cli.restoring import ColorOption, DtypeOption
from hbr.errors import ExitCode
from hbr.restoration.batch.records import BatchTally, FileRecord

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Write = Callable[..., Path]

DATA = Path(__file__).parents[1] / "data"

ODD_NAMES = ("-dash.png", "with space.png", "größe 写真.png", "sub/inner.jpg", "sub/[1].webp")


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory, photo: Write) -> Path:
    """Fifty photos, with folders, odd names, and links that form loops."""
    folder = tmp_path_factory.mktemp("album")
    for i in range(50 - len(ODD_NAMES)):
        photo(folder / f"{i:02}.jpg", i)
    for i, name in enumerate(ODD_NAMES):
        photo(folder / name, i)
    (folder / "sub" / "loop").symlink_to(folder)
    (folder / "self").symlink_to("self")
    (folder / "notes.txt").write_text("no photo")
    photo(folder / ".hidden.jpg")
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden and temporary ones too."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def stop_after(command: list[str], lines: int, number: int) -> tuple[int, list[str], str]:
    """Run a command, and send it a signal when it has told of so many files."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        told = [process.stdout.readline().strip() for _ in range(lines)]
        process.send_signal(number)
        rest, stderr = process.communicate(timeout=60)
        return process.returncode, told + rest.split("\n")[:-1], stderr


@pytest.mark.slow
def test_fifty_files_the_same_bytes_however_they_came_about(
    call_hbr: Run, hbr_command: list[str], album: Path, light: Path, tmp_path: Path
) -> None:
    asked = ["restore", "-i", str(album), "--recursive", "--model", str(light), "--seed", "7", "-o"]

    done = call_hbr(*asked, tmp_path / "a")
    assert (done.returncode, done.stderr) == (0, "hbr: 50 done\n")
    first = tree(tmp_path / "a")
    assert {f"{i:02}.jpg" for i in range(45)} | set(ODD_NAMES) == set(first)
    assert sorted(done.stdout.splitlines()) == sorted(str(tmp_path / "a" / n) for n in first)

    told = call_hbr(*asked, tmp_path / "b", "--log-format", "json")
    assert told.returncode == 0
    assert tree(tmp_path / "b") == first
    records = [json.loads(line) for line in told.stdout.splitlines()]
    assert [r["status"] for r in records] == ["restored"] * 50
    one = next(r for r in records if r["input"] == str(album / "-dash.png"))
    assert one["output"] == str(tmp_path / "b" / "-dash.png")
    assert (one["width"], one["height"]) == (48, 40)
    assert one["provenance"]["seed"] == 7
    assert one["provenance"]["model"] == str(light)
    assert {"read", "model", "write", "total"} <= set(one["timings"])
    assert [json.loads(line) for line in told.stderr.splitlines()] == [
        {"level": "info", "message": "50 done"}
    ]

    command = [*hbr_command, *asked, str(tmp_path / "c"), "--resume"]
    ready: set[str] = set()
    for number in (signal.SIGINT, signal.SIGTERM):
        code, _, stderr = stop_after(command, 3, number)
        now = tree(tmp_path / "c")
        assert code == 130
        # at most one more file was put in its place than was told of
        assert len(now) < 50
        assert stderr.startswith("hbr: stopped, ")
        assert stderr.endswith(" of 50 done; run the same command with --resume to continue\n")
        assert stderr.count("\n") == 1
        assert len(now) >= len(ready) + 3
        assert all(first[name] == data for name, data in now.items())
        ready = set(now)
    done = call_hbr(*asked, tmp_path / "c", "--resume")
    assert (done.returncode, done.stderr) == (0, "hbr: 50 done\n")
    # what was finished is not made again
    assert len(done.stdout.splitlines()) == 50 - len(ready)
    assert tree(tmp_path / "c") == first


def test_one_file_to_one_file(call_hbr: Run, photo: Write, toy: Path, tmp_path: Path) -> None:
    photo(tmp_path / "-in.png", size=(150, 90))
    done = call_hbr(
        *("restore", "-i", "-in.png", "-o", "new folder/aus größe.tif"),
        *("--model", toy, "--tile", "64", "--color", "none", "--dtype", "float32"),
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "new folder/aus größe.tif\n"
    before = np.asarray(Image.open(tmp_path / "-in.png")).astype(int)
    after = np.asarray(Image.open(tmp_path / "new folder" / "aus größe.tif")).astype(int)
    # Norms over whole tiles leave the identity with a rounding error.
    assert np.abs(before - after).max() <= 2


def test_a_bar_on_a_terminal_and_data_in_the_pipe(
    hbr_command: list[str], photo: Write, light: Path, tmp_path: Path
) -> None:
    photo(tmp_path / "in" / "a.png")
    photo(tmp_path / "in" / "b.png")
    (tmp_path / "in" / "c.png").write_bytes(b"")
    ours, theirs = pty.openpty()
    shown: list[bytes] = []

    def listen() -> None:
        try:
            while data := os.read(ours, 65536):
                shown.append(data)
        except OSError:  # Linux says so when the last writer has left
            pass

    reader = threading.Thread(target=listen)
    reader.start()
    done = subprocess.run(
        [*hbr_command, "restore", "-i", "in", "-o", "out", "--model", str(light)],
        stdout=subprocess.PIPE,
        stderr=theirs,
        cwd=tmp_path,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "80"},
        check=False,
    )
    os.close(theirs)
    reader.join()
    os.close(ours)
    terminal = b"".join(shown).decode()
    assert done.returncode == 3
    assert done.stdout == b"out/a.png\nout/b.png\n"
    assert re.search(r"c\.png\s+\S*━", terminal)  # the bar names the file
    assert "3/3" in terminal
    assert "hbr: in/c.png: is empty; get an undamaged copy" in terminal
    assert "Traceback" not in terminal


def test_dry_run_shows_and_does_nothing(call_hbr: Run, photo: Write, tmp_path: Path) -> None:
    photo(tmp_path / "in" / "a.png")
    photo(tmp_path / "in" / "sub" / "b.webp")
    done = call_hbr(
        *("restore", "-i", "in", "-i", "gone.jpg", "-o", "out", "--recursive", "--format", "jpg"),
        *("--dry-run", "--model", "no such model"),
        cwd=tmp_path,
    )
    assert done.returncode == 3
    assert done.stdout.splitlines() == [
        "in/a.png -> out/a.jpg",
        "in/sub/b.webp -> out/sub/b.jpg",
    ]
    gone, estimate, last = done.stderr.splitlines()
    assert gone == "hbr: gone.jpg: does not exist; check the name"
    assert estimate.startswith("hbr: the time cannot be estimated: no model is called 'no such")
    assert last == "hbr: dry run: 2 to restore, 1 failed"
    assert not (tmp_path / "out").exists()


def test_finished_work_needs_no_model(call_hbr: Run, photo: Write, tmp_path: Path) -> None:
    photo(tmp_path / "in" / "a.png")
    photo(tmp_path / "out" / "a.png")
    done = call_hbr(
        "restore", "-i", "in", "-o", "out", "--resume", "--model", "no such", cwd=tmp_path
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_choices_are_those_of_the_rooms_below() -> None:
    from hbr import image
    from hbr.devices import DTYPES
    from hbr.models.protocol import COLOR_FIXES
    from hbr.restoration.settings import SCALES

    assert get_args(get_args(ColorOption)[0]) == ("auto", *COLOR_FIXES)
    assert get_args(get_args(DtypeOption)[0]) == ("auto", *DTYPES, "int8")
    assert SCALES == (0.25, 8)
    assert DEFAULT_MAX_PIXELS == image.DEFAULT_MAX_PIXELS


@pytest.mark.parametrize(
    ("records", "code"),
    [
        (["restored", "skipped", "planned"], ExitCode.OK),
        (["restored", "failed"], ExitCode.SOME),
        (["failed"], ExitCode.NOTHING),
        (["failed", "short of memory"], ExitCode.MEMORY),
        (["restored", "short of memory"], ExitCode.SOME),
    ],
)
def test_exit_codes(records: list[str], code: ExitCode) -> None:
    tally = BatchTally()
    for status in records:
        tally.add(
            FileRecord(input="a", status="failed", out_of_memory=True)
            if status == "short of memory"
            else FileRecord(input="a", status=status)  # type: ignore[arg-type]
        )
    assert exit_code_of(tally) is code


def test_the_gate_says_what_it_thinks_of_a_photo(call_hbr: Run, toy: Path, tmp_path: Path) -> None:
    part = Image.open(DATA / "purple.jpg").crop((0, 0, 128, 128))
    part.filter(ImageFilter.GaussianBlur(8)).save(tmp_path / "soft.png")
    asked = ("restore", "-i", tmp_path / "soft.png", "-o", tmp_path / "out", "--model", toy)
    done = call_hbr(*asked, "--gate", "auto", "--log-format", "json")
    assert done.returncode == 0
    provenance = json.loads(done.stdout)["provenance"]
    assert provenance["gate"] == "beyond the model"
    assert provenance["gate_score"] > 0.9
    (told,) = [json.loads(line) for line in done.stderr.splitlines()]
    assert told["level"] == "warning"
    assert "soft.png: beyond the model, restored all the same: edges " in told["message"]
    done = call_hbr(*asked, "--overwrite", "--log-format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["provenance"]["gate"] is None
