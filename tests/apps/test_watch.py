"""`hbr watch` as a process: a scanner writes, it is killed, it is stopped."""

import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Write = Callable[..., Path]

PATIENCE = 120


class Watch:
    """A running `hbr watch`."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.strip())

    def line(self) -> str:
        return self._lines.get(timeout=PATIENCE)

    def stop(self, number: int) -> tuple[int, str]:
        self.process.send_signal(number)
        assert self.process.stderr is not None
        code = self.process.wait(PATIENCE)
        return code, self.process.stderr.read()


@pytest.fixture
def watching(
    hbr_command: list[str], light: Path, tmp_path: Path
) -> Callable[..., "contextmanager[Watch]"]:
    @contextmanager
    def start(*options: str) -> Iterator[Watch]:
        command = [*hbr_command, "watch", "scans", "-o", "out", "--model", str(light), *options]
        process = subprocess.Popen(
            [*command, "--settle", "0.5", "--poll", "0.1"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield Watch(process)
        finally:
            process.kill()
            process.wait(PATIENCE)

    (tmp_path / "scans").mkdir()
    return start


def test_scans_are_restored_as_they_arrive(
    watching: Callable[..., "contextmanager[Watch]"], photo: Write, tmp_path: Path
) -> None:
    scans, out = tmp_path / "scans", tmp_path / "out"
    photo(scans / "0.png")
    data = photo(tmp_path / "1.png", 1).read_bytes()
    with watching() as watch:
        assert watch.line() == "scans/0.png -> out/0.png"
        with (scans / "1.png").open("wb") as file:  # as a scanner writes, a strip at a time
            for begin in range(0, len(data), 1 + len(data) // 8):
                file.write(data[begin : begin + 1 + len(data) // 8])
                file.flush()
                time.sleep(0.2)
        assert watch.line() == "scans/1.png -> out/1.png"
        photo(scans / "2.png.part.png", 2).rename(scans / "2.png")
        assert watch.line() == "scans/2.png -> out/2.png"
        code, stderr = watch.stop(signal.SIGINT)
    assert code == 130
    assert stderr.splitlines() == [
        "hbr: watching scans; Ctrl-C ends it",
        "hbr: stopped, 3 restored, 0 failed",
    ]
    assert sorted(p.name for p in out.glob("[!.]*")) == ["0.png", "1.png", "2.png"]


@pytest.mark.slow
def test_it_survives_a_kill(
    watching: Callable[..., "contextmanager[Watch]"], photo: Write, tmp_path: Path
) -> None:
    scans, out = tmp_path / "scans", tmp_path / "out"
    for number in range(6):
        photo(scans / f"{number}.png", number)
    with watching() as watch:
        done = {watch.line() for _ in range(2)}
        watch.process.kill()
        watch.process.wait(PATIENCE)
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("*.png")}
    assert {f"scans/{name} -> out/{name}" for name in times} >= done
    photo(scans / "6.png", 6)
    os.utime(scans / "6.png", (1, 1))
    with watching("--quiet") as watch:
        deadline = time.monotonic() + PATIENCE
        while len(list(out.glob("*.png"))) < 7:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        code, stderr = watch.stop(signal.SIGTERM)
    assert code == 130
    assert stderr.splitlines()[-1:] == [line for line in stderr.splitlines() if "stopped" in line]
    again = [name for name, at in times.items() if (out / name).stat().st_mtime_ns != at]
    assert len(again) <= 1, "at most what was in flight is repeated"
    assert sorted(p.name for p in out.glob(".*")) == [".hbr-restore.jsonl"]


def test_wrong_usage(call_hbr: Run, toy: Path, tmp_path: Path) -> None:
    done = call_hbr("watch", tmp_path / "none", "-o", tmp_path / "out", "--model", toy)
    assert (done.returncode, done.stdout) == (2, "")
    assert "is not a folder; name one to watch" in done.stderr
    (tmp_path / "in").mkdir()
    done = call_hbr("watch", tmp_path / "in", "-o", tmp_path / "in", "--model", toy)
    assert done.returncode == 2
    done = call_hbr("watch", tmp_path / "in", "-o", tmp_path / "out", "--model", "no-such-model")
    assert done.returncode == 4
    assert not (tmp_path / "out").exists()
