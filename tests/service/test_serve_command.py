"""`hbr serve` and `hbr ui` as real processes."""

import os
import signal
import subprocess
from pathlib import Path

import httpx
import pytest
from service_photo import PHOTO


@pytest.mark.parametrize("command", ["serve", pytest.param("ui", marks=pytest.mark.slow)])
def test_it_serves_until_it_is_stopped_and_leaves_nothing(hbr_command, tmp_path, command):
    options = ["--port", "0"] + (["--no-browser"] if command == "ui" else [])
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [*hbr_command, command, *options], stdout=subprocess.PIPE, text=True, env=env
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:")
        answer = httpx.post(f"{address}v1/restore", files={"photo": PHOTO.open("rb")}, timeout=60)
        assert answer.status_code == 200
        assert "Restore photos" in httpx.get(address).text
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (0, 130)
    assert [path for path in Path(tmp_path).iterdir() if path.name.startswith("hbr-")] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], "set a token"),
        (["--model", "no-such-model"], "no-such-model"),
        (["--model", "nano", "--model", "nano"], "two models are called nano"),
        (["--host", "999.0.0.1", "--token", "x"], "cannot listen on 999.0.0.1"),
    ],
)
def test_what_cannot_be_served_is_one_line(call_hbr, options, message):
    done = call_hbr("serve", "--port", "0", *options)
    assert done.returncode != 0
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
