"""How photos are given to `hbr restore`, and what it says: names, patterns, streams, dry runs."""

import io
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Write = Callable[..., Path]


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_photos_are_named_with_and_without_an_option(
    call_hbr: Run, photo: Write, toy: Path, tmp_path: Path
) -> None:
    for name in ("a.png", "b.png", "c.png", "Album [2020]/d.png"):
        photo(tmp_path / name)
    # as a shell expands -i *.png
    asked = ("restore", "-i", "a.png", "b.png", "c.png", "-o", "out/", "--model", toy)
    done = call_hbr(*asked, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "hbr: 3 done\n")
    assert done.stdout.splitlines() == ["out/a.png", "out/b.png", "out/c.png"]
    done = call_hbr("restore", "Album [2020]/*.png", "-o", "new", "--model", toy, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "new/d.png\n")


def test_a_pattern_that_a_shell_expanded_is_told_of(
    call_hbr: Run, photo: Write, tmp_path: Path
) -> None:
    for name in ("a.png", "b.png", "-c.png"):
        photo(tmp_path / name)
    done = call_hbr("evaluate", "-r", "a.png", "b.png", cwd=tmp_path)
    assert done.returncode == 2
    assert "put a pattern in quotes" in done.stderr
    done = call_hbr("restore", "-c.png", "a.png", "-o", "out", cwd=tmp_path)
    assert done.returncode == 2
    assert "a file whose name begins with - as ./-name" in done.stderr
    done = call_hbr("restore", "--colour", "a.png", "-o", "out", cwd=tmp_path)
    assert "./-name" not in done.stderr


def test_a_photo_through_pipes(
    hbr_command: list[str], call_hbr: Run, photo: Write, light: Path, tmp_path: Path
) -> None:
    source = photo(tmp_path / "a.jpg")
    # the recipe names the photo, which a stream does not
    options = ["--model", str(light), "--recipe", "off"]
    assert call_hbr("restore", source, "-o", tmp_path / "b.jpg", *options).returncode == 0
    command = [*hbr_command, "restore", "-", "-o", "-", *options]
    done = subprocess.run(
        [*command, "--log-format", "json"], input=source.read_bytes(), capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert Image.open(io.BytesIO(done.stdout)).format == "JPEG"
    # the same, but for the metadata of a file that was read under another name
    assert done.stdout == (tmp_path / "b.jpg").read_bytes()
    record = json.loads(done.stderr)
    assert (record["input"], record["output"], record["status"]) == ("-", "-", "restored")


def give(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_stdin_into_a_file_or_a_folder(
    call_hbr: Run, photo: Write, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = photo(tmp_path / "a.webp").read_bytes()
    for out, made in (("b.png", "b.png"), ("out/", "out/stdin.webp")):
        give(monkeypatch, data)
        done = call_hbr("restore", "-", "-o", out, "--model", toy, cwd=tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{made}\n", "")
        assert Image.open(tmp_path / made).size == (48, 40)
    give(monkeypatch, data)
    done = call_hbr("restore", "-", "-o", "b.png", "--model", toy, cwd=tmp_path)
    assert (done.returncode, "b.png exists" in done.stderr) == (2, True)
    give(monkeypatch, b"")
    done = call_hbr("restore", "-i", "-", "-o", "c.png", "--model", toy, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "hbr: stdin: is empty; get an undamaged copy\n"


def test_a_dry_run_estimates_the_time_and_does_nothing(
    call_hbr: Run, photo: Write, toy: Path, tmp_path: Path
) -> None:
    photo(tmp_path / "in" / "a.png", size=(190, 190))
    photo(tmp_path / "in" / "b.jpg")
    (tmp_path / "in" / "c.jpg").write_text("no photo")
    photo(tmp_path / "out" / "b.jpg")
    before = files(tmp_path)
    asked = ("restore", "in", "-o", "out", "--model", toy, "--dry-run", "--resume")
    done = call_hbr(*asked, cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.splitlines() == ["in/a.png -> out/a.png", "in/c.jpg -> out/c.jpg"]
    assert re.fullmatch(
        r"hbr: dry run: 2 to restore, 1 restored before, about \d+ s for 9 tiles, "
        r"1 not estimated\n",
        done.stderr,
    )
    assert files(tmp_path) == before
    done = call_hbr("restore", "in/b.jpg", "-o", "new", "--model", toy, "--dry-run", cwd=tmp_path)
    assert re.fullmatch(r"hbr: dry run: 1 to restore, about \d+ s for 1 tile\n", done.stderr)


def test_quiet_says_what_is_wrong_and_nothing_else(
    call_hbr: Run, photo: Write, toy: Path, tmp_path: Path
) -> None:
    photo(tmp_path / "in" / "a.png")
    photo(tmp_path / "in" / "b.png")
    done = call_hbr("restore", "in", "-o", "out", "--model", toy, "--quiet", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert files(tmp_path / "out") == ["a.png", "b.png"]
    (tmp_path / "in" / "c.png").write_bytes(b"")
    done = call_hbr("restore", "in", "-o", "new", "--model", toy, "-q", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "hbr: in/c.png: is empty; get an undamaged copy\n"


def test_size_times_and_threads(call_hbr: Run, photo: Write, toy: Path, tmp_path: Path) -> None:
    import torch

    os.utime(photo(tmp_path / "a.png"), ns=(10**18, 10**18))
    done = call_hbr(
        *("restore", "a.png", "-o", "b.png", "--size", "96", "--keep-times"),
        *("--threads", "1", "--model", toy),
        cwd=tmp_path,
    )
    assert torch.get_num_threads() == 1
    assert (done.returncode, done.stderr) == (0, "")
    assert Image.open(tmp_path / "b.png").size == (96, 80)
    assert (tmp_path / "b.png").stat().st_mtime_ns == 10**18


def test_a_page_of_a_tiff(call_hbr: Run, toy: Path, tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "scan.tif") as writer:
        for level in (40, 200):
            writer.write(np.full((20, 30, 3), level, np.uint8), photometric="rgb")
    asked = ("restore", "scan.tif", "-o", "out.png", "--model", toy)
    done = call_hbr(*asked, cwd=tmp_path)
    assert done.returncode == 1
    assert "holds several pages; choose one with --page" in done.stderr
    done = call_hbr(*asked, "--page", "2", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert abs(int(np.asarray(Image.open(tmp_path / "out.png")).mean()) - 200) < 3
    done = call_hbr(*asked, "--page", "3", "--overwrite", cwd=tmp_path)
    assert "scan.tif: holds 2 pages, 1 to 2; there is no --page 3" in done.stderr
