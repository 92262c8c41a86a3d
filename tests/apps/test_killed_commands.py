"""What nobody can catch: SIGKILL in mid-run; the same command then ends as if undisturbed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml

pytestmark = pytest.mark.slow

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Write = Callable[..., Path]

N = 24


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 100
    while not condition():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def are_gone(processes: list[psutil.Process]) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        alive = [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        if not alive:
            return True
        time.sleep(0.05)
    return False


def test_evaluate(hbr_command: list[str], call_hbr: Run, photo: Write, tmp_path: Path) -> None:
    for number in range(N):
        photo(tmp_path / "hq" / f"{number:02}.png", number, (350, 300))
        photo(tmp_path / "made" / f"{number:02}.png", number + 1, (350, 300))
    arguments = ["evaluate", "-r", "made", "-g", "hq", "-m", "psnr,ssim,fsim", "--batch", "1"]
    arguments += ["--workers", "2"]
    kept = tmp_path / ".out.json.hbr-kept"
    command = [*hbr_command, *arguments, "--json", "out.json"]
    process = subprocess.Popen(command, cwd=tmp_path)
    wait_for(lambda: kept.exists() and kept.read_bytes().count(b"\n") > 4, process)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert are_gone(children), "workers end with the run"
    assert not (tmp_path / "out.json").exists()
    os.truncate(kept, kept.stat().st_size - 9)  # a line of which only half was written

    again = call_hbr(*arguments, "--json", "out.json", "--resume", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    whole = call_hbr(*arguments, "--json", "whole.json", cwd=tmp_path)
    assert again.stdout == whole.stdout
    told = [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("out", "whole")]
    assert told[0]["rows"] == told[1]["rows"]
    assert len(told[0]["rows"]) == N


def test_methods_run(hbr_command: list[str], call_hbr: Run, photo: Write, tmp_path: Path) -> None:
    """Killed twice."""
    for number in range(N):
        photo(tmp_path / "lq" / f"{number:02}.png", number, (200, 160))
    method = {"kind": "baseline", "baseline": "nlm"}
    (tmp_path / "nlm.yaml").write_text(yaml.safe_dump({"method": method}))
    arguments = ["methods", "run", "nlm.yaml", "-i", "lq", "-o"]
    out = tmp_path / "out"
    for goal in (3, 9):
        process = subprocess.Popen(
            [*hbr_command, *arguments, "out"], cwd=tmp_path, stderr=subprocess.DEVNULL
        )
        wait_for(lambda goal=goal: len(list(out.glob("*.png"))) >= goal, process)  # type: ignore[misc]
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    before = {p.name: p.stat().st_mtime_ns for p in out.glob("*.png")}
    assert 9 <= len(before) < N
    again = call_hbr(*arguments, "out", cwd=tmp_path)
    assert again.returncode == 0
    assert again.stdout.splitlines() == [f"out/{number:02}.png" for number in range(N)]
    kept = [n for n, t in before.items() if (out / n).stat().st_mtime_ns == t]
    assert len(kept) >= len(before) - 1, "only what the kill came between is made twice"

    assert call_hbr(*arguments, "whole", cwd=tmp_path).returncode == 0
    for path in out.glob("*.png"):
        assert path.read_bytes() == (tmp_path / "whole" / path.name).read_bytes()
    assert len(list(out.glob("*.png"))) == N


def test_stopped_by_ctrl_c(hbr_command: list[str], photo: Write, tmp_path: Path) -> None:
    """A program that hangs ends with hbr, in one line."""
    photo(tmp_path / "lq" / "a.png")
    (tmp_path / "hang.py").write_text("import time; print('here', flush=True); time.sleep(600)")
    command = ["{python}", "hang.py", "{input}", "{output}"]
    method = {"kind": "program", "python": sys.executable, "repo": str(tmp_path)}
    program = {"command": command, "factor": 1}
    (tmp_path / "hang.yaml").write_text(yaml.safe_dump({"method": {**method, "program": program}}))
    words = ["methods", "run", "hang.yaml", "-i", "lq", "-o", "out"]
    process = subprocess.Popen(
        [*hbr_command, *words], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    log = tmp_path / "out" / ".work" / "run-001.log"
    wait_for(lambda: log.exists() and "here" in log.read_text(), process)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, b"")
    assert stderr.decode().splitlines()[-1] == "hbr: stopped; run the same command to continue"
    assert are_gone(children)
