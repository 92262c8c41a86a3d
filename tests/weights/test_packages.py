"""Files inside packages: pip and npm themselves, with an index on this machine."""

import dataclasses
import hashlib
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import toy_packages as toy
from hbr.config import ConfigError
from hbr.weights import DownloadError, KnownFile, Member, PackageFile, fetch

LIBRARY = "toy-lpips"


def files_in(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def sdist(member: Member, convert: str | None = None, pypi: str = f"{LIBRARY}==0.1") -> PackageFile:
    return PackageFile(pypi=pypi, dist="sdist", members=(member,), convert=convert)


def test_of_a_source_distribution_nothing_is_run(index: toy.Index, tmp_path: Path) -> None:
    mark, (data, vgg) = tmp_path / "mark", toy.lpips_checkpoint()
    index.add_sdist(LIBRARY, "0.1", {"toy_lpips/vgg.ckpt": data}, mark)
    index.add_sdist(LIBRARY, "0.2", {"toy_lpips/vgg.ckpt": b"later"}, mark)
    source = sdist(toy.member("toy_lpips/vgg.ckpt", data), "lpips-features")
    path = fetch(KnownFile(path="vgg.safetensors", sources=(source,)), tmp_path / "out")
    assert files_in(tmp_path / "out") == {"vgg.safetensors"}
    assert not mark.exists()
    found = load_file(path)
    assert len(found) == 2 * 13 + 5
    last = vgg["Conv_12"]
    assert np.array_equal(found["features.28.weight"][1, 2], last["kernel"][:, :, 2, 1])
    assert np.array_equal(found["features.28.bias"], last["bias"])
    assert found["lin4.model.1.weight"].shape == (1, 4, 1, 1)


def test_the_mark_of_a_source_distribution_tells_whether_it_was_built(
    index: toy.Index, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    index.add_sdist(LIBRARY, "0.1", {}, mark)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, f"{LIBRARY}==0.1"], capture_output=True, check=False, cwd=tmp_path)
    assert mark.exists()


def test_a_wheel_of_another_machine(index: toy.Index, tmp_path: Path) -> None:
    param, weights, tensors = toy.rrdbnet_files()
    names = ("toy/x4.param", "toy/x4.bin")
    tags = "cp35-none-win32"
    index.add_wheel("toy-sr", "2.0", {names[0]: param, names[1]: weights}, tags)
    source = PackageFile(
        pypi="toy-sr==2.0",
        dist=tags,
        members=(toy.member(names[0], param), toy.member(names[1], weights)),
        convert="rrdbnet",
        metadata={"format": "toy", "config": "{}"},
    )
    known = KnownFile(path="x4.safetensors", sources=(source,))
    path = fetch(known, tmp_path / "out")
    found = load_file(path)
    assert found["conv_first.weight"].dtype == np.float16
    assert np.array_equal(found["body.0.rdb2.conv1.weight"], tensors[6])
    assert np.array_equal(found["conv_last.bias"], np.full(3, 20, np.float32))
    first = path.read_bytes()
    path.unlink()
    pinned = dataclasses.replace(known, sha256=hashlib.sha256(first).hexdigest())
    assert fetch(pinned, tmp_path / "out").read_bytes() == first


@pytest.mark.skipif(shutil.which("npm") is None, reason="there is no npm on the path")
def test_of_an_npm_package_nothing_is_run(index: toy.Index, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    index.add_npm("toy-net", "1.2.3", {"models/net.bin": b"weights"}, mark)
    source = PackageFile(npm="toy-net@1.2.3", members=(toy.member("models/net.bin", b"weights"),))
    path = fetch(KnownFile(path="net.bin", sources=(source,)), tmp_path / "out")
    assert path.read_bytes() == b"weights"
    assert files_in(tmp_path / "out") == {"net.bin"}
    assert not mark.exists()
    other = dataclasses.replace(source, npm="toy-net@1.2.4")
    told = r"toy-net@1.2.4 of npm could not be fetched: .*No matching version"
    with pytest.raises(DownloadError, match=told):
        fetch(KnownFile(path="other.bin", sources=(other,)), tmp_path / "out")


CASES = {
    "no package": r"toy-lpips==0.1 of PyPI could not be fetched: no source .*versions: none\)",
    "another version": r"could not be fetched: no source distribution .*versions: 0.3",
    "no wheel": r"toy-lpips==0.1 of PyPI could not be fetched: Could not find a version",
    "no file": r"toy-lpips==0.1 of PyPI: there is no net/w.bin in it",
    "wrong hash": r"toy-lpips==0.1 of PyPI: net/w.bin is another file: its SHA-256 is",
    "cut archive": r"toy-lpips==0.1 of PyPI: its archive cannot be read",
    "cut ncnn": r"net/w.bin and its .param file are damaged: it ends after \d+ bytes",
    "pickle": r"net/w.bin is refused as a pickle: it names posix.system; only numpy's arrays",
    "no pip": r"toy-lpips==0.1 of PyPI cannot be fetched: this Python has no pip",
    "no npm": r"toy@1.0.0 of npm cannot be fetched: there is no npm on the PATH",
    "no network": r"could not be fetched: the index cannot be reached: .*refused",
}


class Command:
    """A pickle of it runs a command when it is read."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


def broken_source(case: str, index: toy.Index, folder: Path) -> PackageFile:
    """A source that cannot be taken, and whose package writes `folder`/mark if it is run."""
    path, data = "net/w.bin", b"weights"
    if case == "no wheel":
        index.add_wheel(LIBRARY, "0.1", {path: data}, "cp311-none-win32")
        return PackageFile(pypi=f"{LIBRARY}==0.1", members=(toy.member(path, data),))
    if case == "cut ncnn":
        param, whole, _ = toy.rrdbnet_files()
        files = {"net/w.param": param, path: whole[:-100]}
        index.add_wheel("toy-sr", "1", files)
        members = tuple(toy.member(*item) for item in files.items())
        return PackageFile(pypi="toy-sr==1", members=members, convert="rrdbnet")
    if case == "no npm":
        return PackageFile(npm="toy@1.0.0", members=(toy.member(path, data),))
    if case == "pickle":
        data = pickle.dumps(Command(f"touch {folder / 'mark'}"))
    return broken_sdist(case, index, folder, path, data)


def broken_sdist(case: str, index: toy.Index, folder: Path, path: str, data: bytes) -> PackageFile:
    held = "net/else.bin" if case == "no file" else path
    version = "0.3" if case == "another version" else "0.1"
    if case != "no package":
        index.add_sdist(LIBRARY, version, {held: data}, folder / "mark")
    if case == "cut archive":
        archive = index.folder / "toy_lpips-0.1.tar.gz"
        archive.write_bytes(archive.read_bytes()[:100])
    wanted = toy.member(path, data.upper() if case == "wrong hash" else data)
    return sdist(wanted, "lpips-features" if case == "pickle" else None)


def break_machine(case: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if case == "no pip":
        (folder / "without" / "pip").mkdir(parents=True)
        (folder / "without" / "pip" / "__init__.py").touch()
        monkeypatch.setenv("PYTHONPATH", str(folder / "without"))
    if case == "no npm":
        monkeypatch.setenv("PATH", str(folder))
    if case == "no network":
        monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")


@pytest.mark.parametrize("case", CASES)
def test_a_source_that_fails_is_one_line_and_the_next_is_tried(
    case: str, index: toy.Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = broken_source(case, index, tmp_path)
    break_machine(case, tmp_path, monkeypatch)
    (index.folder / "w.bin").write_bytes(b"from the web")
    told: list[str] = []
    known = KnownFile(path="w.bin", sources=(source, f"{index.url}/w.bin"))
    assert fetch(known, tmp_path / "out", report=told.append).read_bytes() == b"from the web"
    assert files_in(tmp_path / "out") == {"w.bin"}
    (line,) = told
    assert re.search(CASES[case], line)
    assert "\n" not in line
    assert line.endswith(f"; next: {index.url}/w.bin")
    assert not (tmp_path / "mark").exists()


def test_the_last_source_that_fails_is_the_error(index: toy.Index, tmp_path: Path) -> None:
    known = KnownFile(
        path="w.bin", url=f"{index.url}/w.bin", sources=(sdist(toy.member("w", b"w")),)
    )
    with pytest.raises(DownloadError, match=CASES["no package"]):
        fetch(known, tmp_path / "out")
    assert files_in(tmp_path / "out") == set()


def test_a_package_comes_after_a_web_address_that_fails(index: toy.Index, tmp_path: Path) -> None:
    index.add_wheel("toy-sr", "1", {"w.bin": b"weights"})
    source = PackageFile(pypi="toy-sr==1", members=(toy.member("w.bin", b"weights"),))
    told: list[str] = []
    known = KnownFile(path="w.bin", url=f"{index.url}/none.bin", sources=(source,))
    assert fetch(known, tmp_path / "out", report=told.append).read_bytes() == b"weights"
    (line,) = told
    assert "answers 404" in line
    assert line.endswith("; next: the package toy-sr==1 of PyPI")


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"pypi": "toy"}, "pypi"),
        ({"pypi": "toy==1 --index-url=x"}, "pypi"),
        ({"npm": "git+ssh://host/toy@1.0.0"}, "npm"),
        ({"npm": "./toy"}, "npm"),
        ({}, "pypi"),
        ({"pypi": "toy==1", "dist": "any"}, "dist"),
        ({"pypi": "toy==1", "members": ()}, "members"),
    ],
)
def test_a_package_is_exact(given: dict[str, object], field: str) -> None:
    values = {"members": (toy.member("a", b"a"),), **given}
    with pytest.raises(ConfigError, match=field):
        PackageFile(**values)  # type: ignore[arg-type]
