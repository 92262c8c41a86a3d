"""Somebody else's program as a process: its environment, its time limit, its end.

Its child processes end with it: it runs in its own process group, and what has left the group is
found as its descendants while it still runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from hbr.evaluation.methods.base import MethodError
from hbr.files import write_text
from hbr.processes import StopSignals

# Between asking a program to end and ending it.
_GRACE = 5.0
_POLL_EVERY = 0.1
_LOOK_EVERY = 2.0


@dataclass(frozen=True)
class Ended:
    """How a program ended.

    Attributes:
        code: its exit code; negative is the signal that killed it.
        killed_for: why it was killed here; empty if it was not.
        seconds: how long it ran.
    """

    code: int
    killed_for: str
    seconds: float

    def __str__(self) -> str:
        """In a few words."""
        if self.killed_for:
            return f"the program was killed after {self.seconds:.0f} s, {self.killed_for}"
        if self.code < 0:
            with contextlib.suppress(ValueError):
                return f"the program was killed by {signal.Signals(-self.code).name}"
        return f"the program ended with exit code {self.code}"


@dataclass(frozen=True)
class Limits:
    """When a program, and all that it started, is killed.

    Attributes:
        total: after that many seconds.
        quiet: after that many seconds without a sign of work.
    """

    total: float
    quiet: float


def run_program(
    command: Sequence[str],
    *,
    workdir: Path,
    env: Mapping[str, str],
    log: Path,
    limits: Limits,
    record: Path,
    look: Callable[[], object] = lambda: None,
) -> Ended:
    """Run a program to its end or its limit.

    Args:
        command: its words.
        workdir: the folder that it runs in.
        env: all its environment variables.
        log: stdout and stderr go to the end of this file.
        limits: when it is killed. Signs of work are what it writes to the log, and another value
            of `look`.
        record: a file that says which process it is, for `end_orphan`; removed at the end.
        look: called now and then while it runs; gives what changes while the program works.

    Raises:
        MethodError: it cannot be started.
        KeyboardInterrupt: as it came; the program is ended first.
    """
    began = time.monotonic()
    with log.open("ab") as file:
        starting = StopSignals(raises=False)
        try:
            with starting:
                process = subprocess.Popen(
                    command,
                    cwd=workdir,
                    env=dict(env),
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise MethodError(f"{command[0]} cannot be started: {reason}") from error
        try:
            if starting.received is not None:  # now there is a process to end
                signal.raise_signal(starting.received)
            _write_record(record, process.pid)
            killed_for = _watch(process, limits, lambda: (look(), log.stat().st_size))
        finally:
            seconds = time.monotonic() - began
            _end(process.pid, process.poll)
            code = _exit_code(process)
            record.unlink(missing_ok=True)
    return Ended(code, killed_for, seconds)


def _watch(process: subprocess.Popen[bytes], limits: Limits, look: Callable[[], object]) -> str:
    """Wait until the program ends or reaches a limit; what it is to be killed for, or nothing."""
    began = seen_at = looked_at = time.monotonic()
    seen: object = None
    while process.poll() is None:
        time.sleep(_POLL_EVERY)
        now = time.monotonic()
        if now - looked_at > min(limits.quiet, _LOOK_EVERY):
            looked_at = now
            sees = look()
            if sees != seen:
                seen, seen_at = sees, now
        if now - began > limits.total:
            return "its limit"
        if now - seen_at > limits.quiet:
            return f"of which it wrote nothing for {limits.quiet:.0f} s"
    return ""


def end_orphan(record: Path) -> bool:
    """End the program that a killed run of hbr left behind, if it still runs.

    The process is identified by its PID and start time, so that another one that
    has the number by now is left alone.
    """
    try:
        told = json.loads(record.read_text(encoding="utf-8"))
        process = psutil.Process(told["pid"])
        mine = process.create_time() == told["started"]
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return False
    if mine:
        _end(process.pid, lambda: None if process.is_running() else 0)
    return mine


def find_python(text: str) -> list[str]:
    """The words that start an interpreter.

    Args:
        text: a path or command, the folder of a virtual or conda environment, or "conda:NAME".

    Raises:
        MethodError: there is none.
    """
    if text.startswith("conda:"):
        conda = os.environ.get("CONDA_EXE") or shutil.which("conda")
        if not conda:
            raise MethodError(f"python is {text!r}, but conda is not on the PATH")
        name = text.removeprefix("conda:")
        return [conda, "run", "--no-capture-output", "-n", name, "python"]
    path = Path(text).expanduser()
    if path.is_dir():
        for inside in ("bin/python", "Scripts/python.exe", "python.exe"):
            if (path / inside).is_file():
                return [str((path / inside).absolute())]
        raise MethodError(f"python is {text!r}, a folder without an interpreter (bin/python)")
    found = shutil.which(str(path))
    if found is None:
        raise MethodError(
            f"python is {text!r}, which is not there; give the interpreter of the program's own "
            "environment: its path, the environment's folder, or conda:NAME"
        )
    # not resolved: the link of a virtual environment is what makes it one
    return [str(Path(found).absolute())]


def environment(python: Sequence[str], more: Mapping[str, str]) -> dict[str, str]:
    """This process's environment variables without those that are about its own Python.

    The folder of the interpreter comes first on the PATH, as in an activated environment.
    """
    own = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONSTARTUP")
    env = {name: value for name, value in os.environ.items() if name not in own}
    env["PATH"] = os.pathsep.join([str(Path(python[0]).parent), env.get("PATH", os.defpath)])
    return {**env, "PYTHONUNBUFFERED": "1", **more}


def last_line(log: Path) -> str:
    """The last line of a log that says something, cut to what fits into a message."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines()]
    said = next((line for line in reversed(lines) if line), "")
    return "".join(c for c in said if c.isprintable())[:200]


def _exit_code(process: subprocess.Popen[bytes]) -> int:
    """Its exit code; what not even SIGKILL ends (a driver that hangs) is given up."""
    try:
        return process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        return -9


def _write_record(record: Path, pid: int) -> None:
    with contextlib.suppress(psutil.Error):
        started = psutil.Process(pid).create_time()
        write_text(record, json.dumps({"pid": pid, "started": started}))


def _end(pid: int, poll: Callable[[], int | None]) -> None:
    """End the process `pid`, its group, and its descendants; first asking, then not."""
    strays: list[psutil.Process] = []
    if poll() is None:
        with contextlib.suppress(psutil.Error):
            strays = psutil.Process(pid).children(recursive=True)
        _signal_group(pid, signal.SIGTERM)
        deadline = time.monotonic() + _GRACE
        while poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
    _signal_group(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    for stray in strays:
        with contextlib.suppress(psutil.Error):
            stray.kill()  # psutil knows by the start time if it is still the same


def _signal_group(pid: int, number: int) -> None:
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, number)
    else:
        with contextlib.suppress(psutil.Error):
            psutil.Process(pid).terminate()
