"""Atomic writing of files and folders, and locks between processes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from hbr.errors import OutputError, display_name

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

STDIO = "-"
"""Stands for stdin as an input, and for stdout as an output."""

# `.NAME.part.lock` must be a valid file name of at most 255 bytes.
_LONGEST_NAME = 200


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a part file next to `path` to write to; it replaces `path` if the block succeeds.

    Each writer has its own part file: of several concurrent writers, the last to finish wins. Part
    files of a killed writer are removed by the next one. A file that is replaced keeps its mode,
    its extended attributes and, if the system allows it, its owner. Missing folders are created. If
    the block raises, `path` is unchanged.

    Raises:
        OSError: no permission, a full disk, or `path` is a folder, a device or a pipe.
    """
    target = Path(os.path.realpath(path))  # replace the target of a link, not the link
    if target.exists() and not target.is_file():  # root could replace /dev/null
        number = errno.EISDIR if target.is_dir() else errno.EINVAL
        raise OSError(number, "is not a regular file", str(target))
    with os_error_context(target), _own_part(target) as part:
        yield part
        _copy_attributes(target, part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(target)
    _sync_folder(target.parent)


def _copy_attributes(target: Path, part: Path) -> None:
    """Give a part file the owner, mode and extended attributes of the file that it replaces."""
    try:
        there = target.stat()
    except FileNotFoundError:
        return
    if hasattr(os, "chown"):
        for owner in (there.st_uid, -1):  # only root may give a file to another user
            with contextlib.suppress(OSError):
                os.chown(part, owner, there.st_gid)
                break
    shutil.copystat(target, part)
    os.utime(part)


@contextlib.contextmanager
def _own_part(target: Path) -> Iterator[Path]:
    """Own `.NAME.part`, or `.NAME.1.part` etc. if others are writing; removed at the end."""
    numbers = (f".{n}" if n else "" for n in itertools.count())
    parts = (_part_of(target, number) for number in numbers)
    with contextlib.ExitStack() as held:
        for part in parts:
            with contextlib.suppress(BlockingIOError):
                held.enter_context(_locked_part(part))
                break
        for other in parts:  # left by killed writers
            if not _lock_of(other).exists():
                break
            with contextlib.suppress(BlockingIOError), _locked_part(other):
                pass
        yield part


@contextlib.contextmanager
def _locked_part(part: Path) -> Iterator[None]:
    """Own a part file, which is removed before and after; BlockingIOError if another process does.

    The part file itself cannot be locked, since some libraries replace it.
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
    """Remove the part files and locks that killed processes have left in a folder."""
    for lock in folder.glob(".*.part.lock"):
        with contextlib.suppress(OSError), _locked_part(lock.with_suffix("")):
            pass


@contextlib.contextmanager
def claim(path: str | Path, *, wait: bool) -> Iterator[None]:
    """Hold the claim to make a file, which one process at a time can hold.

    A claim does not keep anyone from writing the file; it lets processes share work.

    Args:
        path: the file; missing folders are created.
        wait: for another process that holds the claim.

    Raises:
        BlockingIOError: another process holds the claim, and this one is not to wait.
    """
    lock = _lock_of(_part_of(Path(os.path.realpath(path)), ".claim"))
    with file_lock(lock, None if wait else BlockingIOError(), remove=True):
        yield


@contextlib.contextmanager
def file_lock(
    path: str | Path, busy: Exception | None = None, *, shared: bool = False, remove: bool = False
) -> Iterator[None]:
    """Hold a lock on a file; the system releases it even if the process is killed.

    On systems without locks (Windows and some network file systems) this does nothing.

    Args:
        path: the file; created with its folders if missing.
        busy: exception to raise if another process holds the lock; None waits.
        shared: whether to take a shared lock.
        remove: whether to delete the file at the end.
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
    """Return a handle of the locked file."""
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
            # the previous holder may have removed the file since it was opened
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), path.stat()):
                    return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` atomically; see `replacing`."""
    # What replaces a file is private until it gets the mode of that file.
    mode = 0o600 if Path(path).exists() else 0o666
    with replacing(path) as part:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0), mode)
        with os.fdopen(handle, "wb") as file:
            file.write(data)


def write_text(path: str | Path, text: str) -> None:
    r"""Write `text` as UTF-8, atomically; see `replacing`.

    Bytes of file names that are not UTF-8 are written as `\udcxx`, which JSON decodes to the same
    name.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


@contextlib.contextmanager
def making_folder(path: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a folder next to `path` to fill; it is renamed to `path` if the block succeeds.

    Leftovers of a killed process are removed the next time. If the block raises, nothing is left.

    `replace` allows an existing folder, which is replaced at the end.

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


class FolderWatch:
    """Notices that a folder for outputs has gone, before it is made anew somewhere else.

    An unmounted drive leaves an empty folder, or none: what is written there then lands on another
    drive.
    """

    def __init__(self, folder: str | Path) -> None:
        """Remember the folder, or what exists of the path that leads to it."""
        self._folder = Path(folder)
        self._seen = self._look()

    def _look(self) -> tuple[Path, int]:
        there = existing_above(self._folder)
        return there, there.stat().st_dev

    def check(self) -> None:
        """Check that the folder is where it was.

        Raises:
            OutputError: it was removed, or is on another drive than before.
        """
        there, device = self._seen
        try:
            is_there = there.stat().st_dev == device
        except OSError:
            is_there = False
        if not is_there:
            name = display_name(self._folder)
            raise OutputError(f"{name}: was removed, renamed or unmounted since the start")
        self._seen = self._look()


def existing_above(folder: str | Path) -> Path:
    """The folder itself, or what exists of the path that leads to it, with links resolved."""
    there = Path(os.path.realpath(folder))
    while not os.path.lexists(there):
        there = there.parent
    return there


@contextlib.contextmanager
def os_error_context(path: str | Path) -> Iterator[None]:
    """Add a file name to an `OSError` without one, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    """Make a rename durable, on systems where folders can be synced."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
