"""Files and folders that are written whole or not at all, and locks between processes."""

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
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# `.NAME.part.lock` must be a file name too, and those have at most 255 bytes.
_LONGEST_NAME = 200


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a part file beside `path` to write to; it replaces `path` when the block succeeds.

    Each writer has a part file of its own: of several that write `path` at once, the last to
    finish wins, whole. What a killed writer leaves is removed by the next one. Missing folders are
    made. If the block raises, `path` is unchanged.

    Raises:
        OSError: no permission, a full disk, or `path` is a folder, a device or a pipe.
    """
    target = Path(os.path.realpath(path))  # through a link, not over it
    if target.exists() and not target.is_file():  # root could replace /dev/null
        number = errno.EISDIR if target.is_dir() else errno.EINVAL
        raise OSError(number, "is not a regular file", str(target))
    with os_error_context(target), _own_part(target) as part:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(target)
    _sync_folder(target.parent)


@contextlib.contextmanager
def _own_part(target: Path) -> Iterator[Path]:
    """`.NAME.part`, or `.NAME.1.part` and so on where others are writing; gone at the end."""
    numbers = (f".{n}" if n else "" for n in itertools.count())
    parts = (_part_of(target, number) for number in numbers)
    with contextlib.ExitStack() as held:
        for part in parts:
            with contextlib.suppress(BlockingIOError):
                held.enter_context(_locked_part(part))
                break
        for other in parts:  # left by several writers that were killed at once
            if not _lock_of(other).exists():
                break
            with contextlib.suppress(BlockingIOError), _locked_part(other):
                pass
        yield part


@contextlib.contextmanager
def _locked_part(part: Path) -> Iterator[None]:
    """Own a part file, which exists neither before nor after; BlockingIOError if another does.

    The part itself cannot be locked: some libraries put another file in its place.
    """
    with file_lock(_lock_of(part), BlockingIOError(), remove=True):
        part.unlink(missing_ok=True)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)


def _part_of(target: Path, number: str = "", kind: str = "part") -> Path:
    name = target.name
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return target.with_name(f".{name}{number}.{kind}")


def _lock_of(part: Path) -> Path:
    return part.with_name(part.name + ".lock")


def remove_parts(folder: Path) -> None:
    """Remove the part files in a folder that nobody writes to now."""
    for part in folder.glob(".*.part*"):
        part.unlink()


@contextlib.contextmanager
def file_lock(
    path: str | Path, busy: Exception | None = None, *, shared: bool = False, remove: bool = False
) -> Iterator[None]:
    """Hold the lock on a file; the system releases it however the process ends.

    Where there are no locks (on Windows and some network folders), everyone gets it.

    Args:
        path: made if it is missing, with its folders.
        busy: raised if another process holds the lock; None waits until it is free.
        shared: others may hold it too, if they share it.
        remove: delete the file at the end.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield
        return
    handle = _locked(path, busy, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    try:
        yield
    finally:
        if remove:
            with contextlib.suppress(OSError):
                path.unlink()
        os.close(handle)


def _locked(path: Path, busy: Exception | None, how: int) -> int:
    """A handle of the locked file."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(handle, how | (fcntl.LOCK_NB if busy else 0))
            except OSError as error:
                if busy and error.errno in (errno.EACCES, errno.EAGAIN):
                    raise busy from None
                if error.errno not in (errno.ENOLCK, errno.ENOTSUP):
                    raise
            # whoever held it may have removed the file since it was opened
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), path.stat()):
                    return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


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
def making_folder(path: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """Give a folder beside `path` to fill; it becomes `path` when the block succeeds.

    What a killed process leaves is removed the next time. If the block raises, nothing is left.

    Args:
        path: the folder.
        replace: put it in the place of a folder that is there, once it is filled.

    Raises:
        OSError: no permission, a full disk, or `path` exists and is not an empty folder.
    """
    target = Path(os.path.realpath(path))
    occupied = target.exists() and (not target.is_dir() or any(target.iterdir()))
    if occupied and not replace:
        raise OSError(errno.EEXIST, "is there already; give a new or an empty folder", str(path))
    part, old = _part_of(target), _part_of(target, kind="old")
    for left in (part, old):
        shutil.rmtree(left, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        with os_error_context(target):
            yield part
        if hasattr(os, "sync"):
            os.sync()
        if occupied:
            target.replace(old)
        part.replace(target)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)
    _sync_folder(target.parent)


@contextlib.contextmanager
def os_error_context(path: str | Path) -> Iterator[None]:
    """Let an error of the system that names no file, as of a full disk, name this one."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


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
