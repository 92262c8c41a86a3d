"""SIGKILL at random moments of `hbr restore`, and ten thousand photos in little memory."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Write = Callable[..., Path]

PATIENCE = 120


def start(command: list[str], folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def finished(out: Path) -> dict[str, tuple[int, int]]:
    """The outputs that are there: name → number and time of the file."""
    found = [path for path in out.rglob("*.png") if not path.name.startswith(".")]
    return {str(p.relative_to(out)): (p.stat().st_ino, p.stat().st_mtime_ns) for p in found}


@pytest.mark.parametrize(
    ("kills", "by"),
    [
        (1, "content"),
        pytest.param(20, "time", marks=pytest.mark.slow),
        pytest.param(20, "content", marks=pytest.mark.slow),
    ],
)
def test_kills_lose_nothing_and_repeat_what_was_in_flight(
    hbr_command: list[str],
    call_hbr: Run,
    photo: Write,
    light: Path,
    tmp_path: Path,
    kills: int,
    by: str,
) -> None:
    n = 24 if kills == 1 else 60
    for number in range(n):
        photo(tmp_path / "in" / str(number % 4) / str(number % 3) / f"{number:02}.png", number)
    asked = ["restore", "in", "--recursive", "--model", str(light), "-o"]
    whole = call_hbr(*asked, "whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    asked += ["out", "--resume-by", by]
    command = [*hbr_command, *asked]
    rng = random.Random(kills)
    done: dict[str, tuple[int, int]] = {}
    for _ in range(kills):
        process = start(command, tmp_path)
        try:
            assert process.stdout is not None
            if rng.random() < 0.8 and len(done) < n:  # in the midst of the work, else at its start
                process.stdout.readline()
            time.sleep(rng.uniform(0, 0.1 if len(done) < n else 1))
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=PATIENCE)
        now = finished(tmp_path / "out")
        # all that was there is there, as it was: only what was in flight is made again
        again = [name for name, file in done.items() if now.get(name) != file]
        assert len(again) <= 1, again
        for name in now.keys() - done.keys():
            made = (tmp_path / "out" / name).read_bytes()
            assert made == (tmp_path / "whole" / name).read_bytes(), "half written"
        done = now
    last = call_hbr(*asked, cwd=tmp_path)
    assert (last.returncode, last.stderr) == (0, f"hbr: {n} done\n")
    assert n - len(done) <= len(last.stdout.splitlines()) <= n - len(done) + 1
    for path in (tmp_path / "whole").rglob("*.png"):
        made = tmp_path / "out" / path.relative_to(tmp_path / "whole")
        assert made.read_bytes() == path.read_bytes()
    left = {path.name for path in (tmp_path / "out").rglob(".*")}
    assert left == ({".hbr-restore.jsonl"} if by == "content" else set())


@pytest.mark.slow
def test_memory_is_flat_over_ten_thousand_photos(
    hbr_command: list[str], photo: Write, light: Path, tmp_path: Path
) -> None:
    """What the process holds, in MB, does not grow with the photos that are done."""
    n, first = 10_000, 1000
    original = photo(tmp_path / "original.png", size=(24, 16))
    for number in range(n):
        path = tmp_path / "in" / f"{number % 10}" / f"{number // 10 % 10}" / f"{number:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(original, path)
    command = [*hbr_command, "restore", "in", "--recursive", "--model", str(light), "-o", "out"]
    process = start(command, tmp_path)
    count, sizes = 0, {}
    try:
        assert process.stdout is not None
        for count, _ in enumerate(process.stdout, 1):
            if count in (first, n - 10):
                sizes[count] = psutil.Process(process.pid).memory_info().rss / 1e6
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait(PATIENCE)
    assert count == n
    assert len(finished(tmp_path / "out")) == n
    assert sizes[n - 10] - sizes[first] < 10, sizes
