"""The entry of a desktop, and what it runs."""

import configparser
import os
import re
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hbr.apps.cli.desktop import entry
from hbr.restoration import Restorer
from hbr.restoration.batch import backends
from hbr.restoration.batch.backends import restorer_for

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Write = Callable[..., Path]


def section(text: str) -> configparser.SectionProxy:
    parsed = configparser.RawConfigParser(delimiters="=", strict=True)
    parsed.optionxform = str  # type: ignore[assignment, method-assign]
    parsed.read_string(text)
    return parsed["Desktop Entry"]


def command_of(text: str) -> list[str]:
    """The key Exec as a desktop reads it: unescaped, split by the quotes of a shell, then `%%`."""
    unescaped = re.sub(r"\\(.)", r"\1", section(text)["Exec"])
    shell = ["sh", "-c", f"printf '%s\\0' {unescaped}"]
    words = subprocess.run(shell, capture_output=True, text=True, check=True, timeout=60).stdout
    return [word.replace("%%", "%") for word in words.split("\0")[:-1]]


@pytest.mark.parametrize("argument", ["plain/x-1", "a b", 'a"b', "a$b`c", "50%", "a\\b", "ä;#"])
def test_arguments_are_quoted(argument: str) -> None:
    assert command_of(entry(["run", argument])) == ["run", argument, "%F"]


def test_the_entry_opens_photos(
    call_hbr: Run, photo: Write, light: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # programs of a desktop that write down what they are asked for
    for name in ("xdg-open", "notify-send", "update-desktop-database"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\necho "{name} $*" >> "{tmp_path}/asked"\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    done = call_hbr("desktop")
    file = tmp_path / "data" / "applications" / "hbr.desktop"
    assert (done.returncode, done.stdout) == (0, f"{file}\n"), done.stderr
    text = file.read_text()
    assert "image/jpeg" in section(text)["MimeType"].split(";")
    *command, files = command_of(text)
    assert files == "%F"

    photos = [photo(tmp_path / "my photos" / f"{n}.png", n) for n in range(2)]
    opened = subprocess.run(
        [*command, "--model", str(light), *map(str, photos)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    restored = tmp_path / "my photos" / "restored"
    assert opened.returncode == 0, opened.stderr
    assert opened.stdout.splitlines() == [f"{restored}/{n}.png" for n in range(2)]
    assert (tmp_path / "asked").read_text().splitlines() == [
        f"update-desktop-database {file.parent}",
        "notify-send --app-name=hbr hbr: photos are restored They are in restored.",
        f"xdg-open {restored}",
    ]
    bad = tmp_path / "my photos" / "bad.png"
    bad.write_bytes(b"nothing")
    again = call_hbr("open", "--model", light, *photos, bad)
    assert (again.returncode, again.stdout) == (3, "")
    assert "bad.png: is not a photograph" in again.stderr
    assert "not all photos could be restored" in (tmp_path / "asked").read_text()

    # of two folders, the one in which something was done is shown
    worse = tmp_path / "worse" / "bad.png"
    worse.parent.mkdir()
    worse.write_bytes(b"nothing")
    (tmp_path / "asked").unlink()
    assert call_hbr("open", "--model", light, worse, *photos).returncode == 3
    assert (tmp_path / "asked").read_text().splitlines()[1:] == [f"xdg-open {restored}"]

    assert call_hbr("desktop", "--remove").returncode == 0
    assert not file.exists()


def test_photos_of_two_folders_share_a_model(
    call_hbr: Run, photo: Write, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []

    def load(*given: Any) -> Restorer:
        loaded.append(given)
        return restorer_for(*given)

    monkeypatch.setenv("PATH", str(tmp_path))  # without the programs of a desktop
    monkeypatch.setattr(backends, "restorer_for", load)
    photos = [photo(tmp_path / f"{n}" / "a.png", n) for n in range(2)]
    done = call_hbr("open", "--model", toy, *photos)
    assert done.returncode == 0, done.stderr
    outputs = [tmp_path / f"{n}" / "restored" / "a.png" for n in range(2)]
    assert done.stdout.splitlines() == [str(output) for output in outputs]
    assert len(loaded) == 1
