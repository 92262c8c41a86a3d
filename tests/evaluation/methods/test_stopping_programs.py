"""A signal that comes while a program is being started ends the program too."""

import os
import signal
import subprocess
import sys

import pytest

from hbr.evaluation.methods import processes
from hbr.processes import StopSignals


def test_a_signal_during_the_start_leaves_no_program(tmp_path, monkeypatch):
    started = []
    popen = subprocess.Popen

    def interrupted(*args, **options):
        started.append(popen(*args, **options))
        os.kill(os.getpid(), signal.SIGTERM)
        return started[0]

    monkeypatch.setattr(processes.subprocess, "Popen", interrupted)
    with StopSignals() as stop, pytest.raises(KeyboardInterrupt):
        processes.run_program(
            [sys.executable, "-c", "import time; time.sleep(600)"],
            workdir=tmp_path,
            env=dict(os.environ),
            log=tmp_path / "log",
            limits=processes.Limits(600.0, 600.0),
            record=tmp_path / "record",
        )
    assert stop.received == signal.SIGTERM
    assert started[0].poll() is not None
    assert not (tmp_path / "record").exists()
