"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Name a file beside `path` to write to; it becomes `path` when the block ends well.

    The part file is nobody else's: of several that write `path` at once, the last to end wins,
    whole. What a kill leaves is removed by the next writing. Missing folders are made. If the
    block raises, `path` is as it was.

    Raises:
        OSError: no permission, a full disk, or `path` is a folder, a device or a pipe.
    """
    target = Path(os.path.realpath(path))  # through a link, not over it
    if target.exists() and not target.is_file():  # who may would put a file in place of /dev/null
        raise OSError(errno.EINVAL, "is no file that could be replaced", str(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    with _own_part(target) as part:
        try:
            yield part
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise
    _sync_folder(target.parent)


@contextlib.contextmanager
def _own_part(target: Path) -> Iterator[Path]:
    """`.NAME.part`, or `.NAME.1.part` and so on where others are writing.

    Whoever holds the lock on `.NAME.part.lock` writes; the system lets go of it when a process
    ends, however it ends. The part itself has no lock: some libraries put another file in its
    place.
    """
    if fcntl is None:  # no such locks on Windows
        yield target.with_name(f".{target.name}.part")
        return
    numbers = (f".{n}" if n else "" for n in itertools.count())
    parts = (target.with_name(f".{target.name}{number}.part") for number in numbers)
    part, handle = next((p, h) for p in parts if (h := _claim(p)) is not None)
    try:
        for other in parts:  # of several writers that were killed
            if not _lock_of(other).exists():
                break
            if (left := _claim(other)) is not None:
                _release(other, left)
        yield part
    finally:
        _release(part, handle)


def _claim(part: Path) -> int | None:
    """A handle that holds the lock of a part file, which is not there; None if another has it."""
    while True:
        handle = os.open(_lock_of(part), os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _lock(handle):
                os.close(handle)
                return None
            with contextlib.suppress(FileNotFoundError):
                # whoever had it may have removed it since it was opened
                if os.path.samestat(os.fstat(handle), _lock_of(part).stat()):
                    part.unlink(missing_ok=True)
                    return handle
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(handle)
            raise
        os.close(handle)


def _release(part: Path, handle: int) -> None:
    with contextlib.suppress(OSError):
        part.unlink(missing_ok=True)
        _lock_of(part).unlink()
    os.close(handle)


def _lock_of(part: Path) -> Path:
    return part.with_name(part.name + ".lock")


def _lock(handle: int) -> bool:
    """Lock an open file; False if another has."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP):  # some network folders have none
            raise
    return True


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` whole or not at all; see `replacing`."""
    with replacing(path) as part:
        part.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    r"""Write `text` as UTF-8, whole or not at all; see `replacing`.

    Bytes of a file name that are not UTF-8 become `\udcxx`, which JSON reads as the same name.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


@contextlib.contextmanager
def making_folder(path: str | Path) -> Iterator[Path]:
    """Name a folder beside `path` to fill; it becomes `path` when the block ends well.

    What a kill leaves is removed by the next making of the same folder. If the block raises,
    nothing is left.

    Raises:
        OSError: no permission, a full disk, or `path` is there already and is no empty folder.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OSError(errno.EEXIST, "is there already; give a new or an empty folder", str(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir()
        yield part
        part.replace(target)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    _sync_folder(target.parent)


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    """Make the rename last through a power cut, where the system lets folders be synced."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
