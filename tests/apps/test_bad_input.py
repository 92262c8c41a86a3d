"""Bad input to `hbr restore`: one clear line, the right exit code, no half file, the rest done."""

import errno
import functools
import os
import pickle
import resource
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

import hbr

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Write = Callable[..., Path]


def one_line(done: "subprocess.CompletedProcess[str]", code: int) -> str:
    """The only line of stderr, of a command that ended with `code` and gave nothing."""
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr.strip()


def files(folder: Path) -> list[str]:
    """Every file below a folder, hidden and temporary ones too."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def bomb(path: Path, edge: int = 20000) -> None:
    """A PNG of a few kilobytes that unpacks to `edge` × `edge` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    header = struct.pack(">IIBBBBB", edge, edge, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((edge // 8 + 1) * edge))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def test_a_batch_of_bad_files_and_two_good_ones(
    call_hbr: Run, photo: Write, toy: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    whole = photo(folder / "z good.jpg").read_bytes()
    photo(folder / "one.png", size=(1, 1))
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "text.jpg").write_text("Dear diary,")
    (folder / "zero.jpg").write_bytes(b"")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    bomb(folder / "bomb.png")
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "moving.webp", save_all=True, append_images=frames[1:])
    tifffile.imwrite(folder / "nan.tif", np.full((8, 8, 3), np.nan, np.float32), photometric="rgb")
    (tmp_path / "empty").mkdir()

    inputs = [x for name in ("gone.jpg", "empty", "in", "*.none") for x in ("-i", name)]
    done = call_hbr("restore", *inputs, "-o", "out", "--model", toy, cwd=tmp_path)
    assert done.returncode == 3
    assert done.stdout.splitlines() == ["out/one.png", "out/z good.jpg"]
    assert files(tmp_path / "out") == ["one.png", "z good.jpg"]
    assert Image.open(tmp_path / "out" / "one.png").size == (1, 1)
    expected = {
        "gone.jpg": "does not exist",
        "empty": "holds no photographs",
        "*.none": "matches no photographs",
        "in/bomb.png": "--max-pixels",
        "in/cut.jpg": "cut short",
        "in/dangling.jpg": "does not exist",
        "in/loop.jpg": "cannot be opened",
        "in/moving.gif": "is a GIF file",
        "in/moving.webp": "is an animation",
        "in/nan.tif": "not numbers",
        "in/text.jpg": "is not a photograph",
        "in/zero.jpg": "is empty",
    }
    *errors, last = done.stderr.splitlines()
    assert last == "hbr: 2 done, 12 failed"
    told = dict(line.removeprefix("hbr: ").split(": ", 1) for line in errors)
    assert len(errors) == len(expected)
    assert told.keys() == expected.keys()
    for name, words in expected.items():
        assert words in told[name], told[name]


@pytest.mark.parametrize("command", ["restore", "degrade"])
def test_a_full_disk_ends_a_batch_with_one_line(
    call_hbr: Run, photo: Write, toy: Path, tmp_path: Path, command: str, monkeypatch: Any
) -> None:
    for number in range(4):
        photo(tmp_path / "in" / f"{number}.png", number)
    asked = ["restore", "--model", toy] if command == "restore" else ["degrade", "--workers", "1"]
    sync = os.fsync

    def full(handle: int) -> None:
        if (tmp_path / "out" / "0.png").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    done = call_hbr(*asked, "-i", "in", "-o", "out", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "out/0.png\n")
    assert done.stderr == (
        "hbr: out/1.png: cannot be written, the disk is full; free some space or choose another "
        "folder; stopped, 1 of 4 done; run the same command with --resume to continue\n"
    )
    assert [name for name in files(tmp_path / "out") if not name.endswith(".jsonl")] == ["0.png"]
    monkeypatch.setattr(os, "fsync", sync)
    done = call_hbr(*asked, "-i", "in", "-o", "out", "--resume", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "hbr: 4 done\n")


def test_strict_stops_at_the_first(call_hbr: Run, photo: Write, toy: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_text("no photo")
    photo(tmp_path / "good.jpg")
    done = call_hbr(
        *("restore", "-i", "bad.jpg", "-i", "good.jpg", "-o", "out", "--strict", "--model", toy),
        cwd=tmp_path,
    )
    assert "bad.jpg: is not a photograph" in one_line(done, 1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["gone.jpg"], "gone.jpg: does not exist"),
        (["empty"], "empty: holds no photographs"),
        (["full"], "--recursive"),
        (["in.jpg/x.jpg"], "in.jpg/x.jpg: does not exist"),
    ],
)
def test_nothing_to_do_is_1(
    call_hbr: Run, photo: Write, tmp_path: Path, given: list[str], words: str
) -> None:
    (tmp_path / "empty").mkdir()
    photo(tmp_path / "in.jpg")
    photo(tmp_path / "full" / "sub" / "a.jpg")
    line = one_line(call_hbr("restore", "-i", *given, "-o", "out", cwd=tmp_path), 1)
    assert words in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["-i", "a.jpg"], ["--output"]),
        (["-o", "out"], ["--input"]),
        (["-i", "", "-o", "out"], ["empty"]),
        (["-i", "a.jpg", "-o", "out", "--scale", "nan"], ["--scale", "0.25 to 8"]),
        (["-i", "a.jpg", "-o", "out", "--size", "0"], ["--size", "whole number"]),
        (["-i", "a.jpg", "-o", "out", "--size", "9", "--scale", "2"], ["--size", "scale"]),
        (["-i", "a.jpg", "-o", "out", "--threads", "0"], ["--threads"]),
        (["-i", "a.jpg", "-o", "out", "--page", "0"], ["--page"]),
        (["a.jpg", "a.png", "-o", "-"], ["- stands for one photo", "2", "folder"]),
        (["-", "a.jpg", "-o", "out"], ["- stands for one photo", "stdin"]),
        (["-i", "a.jpg", "-o", "out", "--tile", "big"], ["--tile", "'big'", "auto"]),
        (["-i", "a.jpg", "-o", "out", "--tile", "-1"], ["--tile", "'-1'"]),
        (["-i", "a.jpg", "-o", "out", "--color", "sepia"], ["--color", "wavelet"]),
        (["-i", "a.jpg", "-o", "out", "--dtype", "int4"], ["--dtype", "bfloat16"]),
        (["-i", "a.jpg", "-o", "out", "--seed", "-1"], ["--seed"]),
        (["-i", "a.jpg", "-o", "out", "--quality", "0"], ["--quality"]),
        (["-i", "a.jpg", "-o", "out", "--png-compression", "10"], ["--png-compression"]),
        (["-i", "a.jpg", "-o", "out", "--max-pixels", "0"], ["--max-pixels"]),
        (["-i", "a.jpg", "-o", "out", "--format", "gif"], ["'gif'", "keep", "png"]),
        (["-i", "a.jpg", "-o", "new.gif"], ["new.gif", ".png"]),
        (["-i", "a.jpg", "-o", "new.png", "--format", "jpg"], ["new.png", "--format"]),
        (["-i", "a.jpg", "-o", "out", "--overwrite", "--resume"], ["--overwrite", "--resume"]),
        (["-i", "a.jpg", "-i", "a.png", "-o", "out", "--format", "png"], ["a.jpg", "a.png"]),
        (["-i", "x", "-i", "y", "-o", "out"], ["x/same.jpg", "y/same.jpg", "out/same.jpg"]),
        (["-i", "a.jpg", "-o", "."], ["a.jpg", "over itself", "--overwrite"]),
        (["-i", "a.jpg", "-o", "a.jpg", "--resume"], ["a.jpg", "over itself"]),
        (["-i", "a.jpg", "-o", "old"], ["old/a.jpg exists", "--resume", "--overwrite"]),
    ],
)
def test_wrong_usage_is_2_before_any_work(
    call_hbr: Run, photo: Write, tmp_path: Path, arguments: list[str], named: list[str]
) -> None:
    for name in ("a.jpg", "a.png", "x/same.jpg", "y/same.jpg", "old/a.jpg"):
        photo(tmp_path / name)
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    line = one_line(call_hbr("restore", *arguments, cwd=tmp_path), 2)
    assert all(word in line for word in named), line
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before


def test_settings_that_the_model_cannot_take_are_2(
    call_hbr: Run, photo: Write, toy: Path, tmp_path: Path
) -> None:
    photo(tmp_path / "a.jpg")
    asked = ("restore", "-i", "a.jpg", "-o", "out", "--model", toy)
    line = one_line(call_hbr(*asked, "--tile", "8", cwd=tmp_path), 2)
    assert "--tile" in line
    assert "at least 32" in line
    line = one_line(call_hbr(*asked, "--device", "cuda:99", cwd=tmp_path), 2)
    assert "--device" in line
    assert "cuda:99" in line
    assert files(tmp_path) == ["a.jpg"]


class TestWeights:
    @pytest.fixture(params=["unknown name", "missing file", "pickle", "cut short", "other file"])
    def weights(self, request: pytest.FixtureRequest, toy: Path, tmp_path: Path) -> tuple[str, str]:
        """What is given as the model, and what is said of it."""
        if request.param == "unknown name":
            return "micro", "no model is called 'micro'"
        if request.param == "missing file":
            return "models/gone.safetensors", "there is no such model file"
        if request.param == "pickle":
            (tmp_path / "model.pkl").write_bytes(pickle.dumps({"weight": [1, 2, 3]}))
            return "model.pkl", "hbr models import"
        path = tmp_path / "model.safetensors"
        if request.param == "other file":
            path.write_bytes(b"{}" * 99)
            return "model.safetensors", "model.safetensors is JSON, not weights"
        path.write_bytes(toy.read_bytes()[:-100])
        return "model.safetensors", "model.safetensors is damaged"

    def test_wrong_weights_are_4(
        self, call_hbr: Run, photo: Write, tmp_path: Path, weights: tuple[str, str]
    ) -> None:
        given, words = weights
        photo(tmp_path / "a.jpg")
        done = call_hbr("restore", "-i", "a.jpg", "-o", "out", "--model", given, cwd=tmp_path)
        assert words in one_line(done, 4)
        assert not (tmp_path / "out").exists()

    def test_a_wrong_hash_is_4(self, run_hbr: Run, photo: Write, toy: Path, tmp_path: Path) -> None:
        source = Path(hbr.__file__).parent
        package = tmp_path / "installed" / "hbr"
        shutil.copytree(
            source, package, ignore=shutil.ignore_patterns("*.safetensors", "__pycache__")
        )
        shutil.copy(toy, package / "weights" / "nano.safetensors")
        (package / "weights" / "catalogue.yaml").write_text(
            "- name: nano\n  kind: restorer\n  summary: toy\n  source: here\n  licence: none\n"
            "  embedded: true\n  files:\n"
            f'    - {{path: weights/nano.safetensors, size: null, sha256: "{"0" * 64}"}}\n'
        )
        photo(tmp_path / "a.jpg")
        done = run_hbr(
            *("restore", "-i", "a.jpg", "-o", "out"),
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"},
        )
        line = one_line(done, 4)
        assert "SHA-256" in line
        assert "0" * 64 in line
        assert not (tmp_path / "out").exists()


class TestPlaces:
    def test_an_output_below_a_file(self, call_hbr: Run, photo: Write, tmp_path: Path) -> None:
        photo(tmp_path / "a.jpg")
        photo(tmp_path / "file.jpg")
        done = call_hbr("restore", "-i", "a.jpg", "-o", "file.jpg/out", cwd=tmp_path)
        assert "file.jpg/out: cannot be written to" in one_line(done, 1)

    def test_a_folder_that_may_not_be_written(
        self, run_hbr: Run, photo: Write, tmp_path: Path, bound_by_permissions: dict[str, Any]
    ) -> None:
        photo(tmp_path / "a.jpg")
        (tmp_path / "locked").mkdir(mode=0o555)
        done = run_hbr(
            "restore", "-i", "a.jpg", "-o", "locked/new", cwd=tmp_path, **bound_by_permissions
        )
        line = one_line(done, 1)
        assert "locked/new: cannot be written to" in line
        assert "read-only" in line

    def test_a_folder_that_may_not_be_read(
        self, run_hbr: Run, photo: Write, tmp_path: Path, bound_by_permissions: dict[str, Any]
    ) -> None:
        photo(tmp_path / "locked" / "a.jpg")
        (tmp_path / "locked").chmod(0)
        done = run_hbr(
            *("restore", "-i", "locked", "-i", "locked/a.jpg", "-o", "out", "--dry-run"),
            cwd=tmp_path,
            **bound_by_permissions,
        )
        (tmp_path / "locked").chmod(0o755)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.splitlines() == [
            "hbr: locked: cannot be read (permission denied); change its permissions",
            "hbr: locked/a.jpg: may not be read; change its permissions",
            "hbr: dry run: 0 to restore, 2 failed",
        ]

    @pytest.fixture
    def small_disk(
        self, call_hbr: Run, run_hbr: Run, tmp_path: Path
    ) -> Iterator[tuple[Path, Run, str]]:
        """A folder of 64 KiB, what runs `hbr` on it, and what is said when it is full."""
        folder = tmp_path / "disk"
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
        if shutil.which("mount") and subprocess.run(mount, capture_output=True).returncode == 0:
            try:
                yield folder, call_hbr, "the disk is full"
            finally:
                subprocess.run(["umount", str(folder)], check=True)
            return

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))

        limited = functools.partial(run_hbr, preexec_fn=limit)
        yield folder, limited, "larger than this file system allows"

    def test_a_full_disk_costs_what_does_not_fit(
        self, photo: Write, toy: Path, tmp_path: Path, small_disk: tuple[Path, Run, str]
    ) -> None:
        disk, run, words = small_disk
        photo(tmp_path / "in" / "1 small.png")
        photo(tmp_path / "in" / "2 large.png", size=(190, 190))
        photo(tmp_path / "in" / "3 small.png")
        done = run(
            *("restore", "-i", "in", "-o", disk / "out", "--model", toy),
            *("--png-compression", "0"),
            cwd=tmp_path,
        )
        assert done.returncode == 3
        assert files(disk) == ["out/1 small.png", "out/3 small.png"]
        first, last = done.stderr.splitlines()
        assert "2 large.png: cannot be written" in first
        assert words in first
        assert last == "hbr: 2 done, 1 failed"
