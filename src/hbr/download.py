"""Known files: where they may lie on this machine, and how they get there whole.

Nothing is downloaded unless a command that says so is given.
"""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hbr.config import check
from hbr.errors import ExitCode, HbrError
from hbr.files import file_lock, replacing, sha256, write_text

Progress = Callable[[int, "int | None"], None]
"""Called with the bytes that are here and, where the server says it, the bytes of the whole."""

_BLOCK = 1 << 20


class DownloadError(HbrError, ValueError):
    """A file that could not be fetched, or is not the one that it should be."""

    exit_code = ExitCode.WEIGHTS
    http_status = 503


@dataclass(frozen=True)
class KnownFile:
    """A file that hbr knows of.

    Attributes:
        path: relative to the folder that it belongs in.
        url: where it can be fetched; None where it has no address of its own.
        size: in bytes; None when unknown.
        sha256: in hexadecimal, whole or its first 8 digits or more; None when not pinned.
    """

    path: str
    url: str | None = None
    size: int | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        """Check every field."""
        ok = self.sha256 is None or (
            8 <= len(self.sha256) <= 64 and not set(self.sha256) - set("0123456789abcdef")
        )
        check(ok, "sha256", self.sha256, "8 to 64 small hexadecimal digits, or null")
        check(self.size is None or self.size > 0, "size", self.size, "above 0, or null")


def weights_folder() -> Path:
    """Where fetched weights go: the first folder of HBR_WEIGHTS, else hbr's cache."""
    if named := os.environ.get("HBR_WEIGHTS"):
        return Path(named.split(os.pathsep)[0])
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "hbr" / "weights"


def weights_folders() -> list[Path]:
    """Where weights are looked for, in order: HBR_WEIGHTS, hbr's cache, torch's own cache."""
    named = [Path(p) for p in os.environ.get("HBR_WEIGHTS", "").split(os.pathsep) if p]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    torch_home = Path(os.environ.get("TORCH_HOME") or cache / "torch")
    return [*named, cache / "hbr" / "weights", torch_home / "hub" / "checkpoints"]


def check_file(path: Path, known: KnownFile) -> None:
    """Raise `DownloadError` unless `path` has the size and the SHA-256 that are known of it."""
    size = path.stat().st_size
    if known.size is not None and size != known.size:
        raise DownloadError(f"{path} has {size} bytes; it should have {known.size}")
    if known.sha256 is not None and not (got := sha256(path)).startswith(known.sha256):
        raise DownloadError(f"{path}: its SHA-256 is {got}; it should be {known.sha256}")


def fetch(
    known: KnownFile,
    folder: str | Path,
    *,
    progress: Progress = lambda done, total: None,
    tries: int = 4,
    timeout: float = 60.0,
    pause: float = 1.0,
) -> Path:
    """Bring a known file into `folder`; what is there already, and right, is left alone.

    What has come stays as a part file beside the target, through a broken connection and through
    the end of the process, and the next call goes on from there, if the server still has the same
    file. The file appears under its name only when it is whole, of the known size and SHA-256.

    Args:
        known: what it is, with its address.
        folder: where `known.path` begins; made if missing.
        progress: see `Progress`.
        tries: how often a broken connection is taken up again.
        timeout: in seconds, for each answer of the server.
        pause: in seconds, before the first new try; doubled with each.

    Returns:
        The file's path.

    Raises:
        DownloadError: it has no address, the server refuses it, the connection breaks again and
            again, or what came is not the file; the message says which.
        OSError: no permission, a full disk.
    """
    target = Path(folder) / known.path
    if target.is_file():
        check_file(target, known)
        return target
    if known.url is None:
        raise DownloadError(f"{known.path} has no address that it could be fetched from")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.fetching")
    busy = DownloadError(f"{part.parent}: another process is fetching {part.name}")
    with file_lock(part.with_name(part.name + ".lock"), busy, remove=True):
        for attempt in range(tries):
            try:
                _go_on(known.url, part, progress, timeout)
                break
            except (OSError, http.client.HTTPException) as error:
                if _is_final(error) or attempt + 1 == tries:
                    raise _explain(known.url, error) from None
                time.sleep(pause * 2**attempt)
        try:
            check_file(part, known)
        except DownloadError as error:
            _forget(part)
            raise DownloadError(f"{known.url} gave another file: {error}") from None
        with replacing(target) as whole:
            part.replace(whole)
        _forget(part)
    return target


def _go_on(url: str, part: Path, progress: Progress, timeout: float) -> None:
    """Append to `part` what is missing of `url`; from the start if the server's file is another."""
    note = _note_of(part)
    told = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else {}
    have = part.stat().st_size if part.is_file() and told.get("url") == url else 0
    headers = {"User-Agent": "hbr", "Accept-Encoding": "identity"}
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
