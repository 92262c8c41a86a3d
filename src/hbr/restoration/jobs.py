"""Planning a batch: files, folders and globs → jobs, with all conflicts found before any work."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from hbr.config import ConfigError
from hbr.errors import display_name
from hbr.image import READ_SUFFIXES, WRITE_SUFFIXES, PhotoError, output_suffix
from hbr.image.paths import UNREADABLE_SUFFIXES, is_picture_name, match_files, walk_files
from hbr.image.reading import sniff

Existing = Literal["refuse", "overwrite", "resume"]


@dataclass(frozen=True)
class Job:
    """One photo to restore.

    Attributes:
        source: the file to read.
        target: the file to write.
        may_replace: the target may exist.
    """

    source: Path
    target: Path
    may_replace: bool = False


@dataclass(frozen=True)
class BadInput:
    """An input without a photo.

    Attributes:
        source: as given, or the folder that could not be read.
        error: "SOURCE: what is wrong; what to do".
    """

    source: str
    error: str


@dataclass(frozen=True)
class BatchPlan:
    """Everything that a batch will do.

    Attributes:
        jobs: to be done, in order.
        finished: done by an earlier run.
        bad: inputs without a photo.
    """

    jobs: tuple[Job, ...]
    finished: tuple[Job, ...] = ()
    bad: tuple[BadInput, ...] = ()

    @property
    def total(self) -> int:
        """Total number of inputs."""
        return len(self.jobs) + len(self.finished) + len(self.bad)


def plan_batch(
    inputs: Sequence[str],
    out: str,
    *,
    format: str = "keep",
    recursive: bool = False,
    existing: Existing = "refuse",
) -> BatchPlan:
    """Decide what is read and written, without changing anything.

    A folder stands for the photos in it, sorted by name, and in its sub-folders if `recursive`.
    Hidden files and folders, links to folders (which may form loops), and `out` itself if it is
    inside an input are skipped. A glob, unless a file has that name, stands for the photos that
    match, keeping their sub-folders. A file that is named twice is restored once.

    An existing output counts as finished if it is not empty and not older than its input. Outputs
    are written atomically, so an existing one is complete. The settings that it was made with are
    unknown, and not compared.

    Args:
        inputs: files, folders and globs.
        out: a file if the only input is a file and `out` has the suffix of a photo; else a folder.
        format: of the outputs: `keep`, or a format of `hbr.image.write_photo`.
        recursive: include the photos in sub-folders.
        existing: what to do if an output exists: `refuse` all work, `overwrite` it, or `resume`,
            which keeps finished outputs and makes the others again.

    Raises:
        ConfigError: two inputs have the same output, an input would be overwritten, or an output
            exists; nothing has been written.
        hbr.image.PhotoError: `out` cannot be written to.
    """
    suffix = _forced_suffix(format)
    if not inputs or "" in (*inputs, out):
        raise ConfigError("an input or output is empty; give each a name")
    is_file = len(inputs) == 1 and _is_output_file(inputs[0], out, suffix)
    found = list(expand_inputs(inputs, out, recursive))
    jobs = [
        Job(item[0], Path(out) if is_file else Path(out) / _named(*item, suffix))
        for item in found
        if not isinstance(item, BadInput)
    ]
    jobs = _without_clashes(jobs, may_overwrite_itself=existing == "overwrite")
    check_writable(Path(out).parent if is_file else Path(out))
    there = {job for job in jobs if os.path.lexists(job.target)}
    if existing == "refuse":
        _refuse(there, jobs)
    finished = {job for job in there if existing == "resume" and _is_finished(job)}
    return BatchPlan(
        tuple(replace(job, may_replace=job in there) for job in jobs if job not in finished),
        tuple(job for job in jobs if job in finished),
        tuple(item for item in found if isinstance(item, BadInput)),
    )


def _forced_suffix(format: str) -> str | None:
    """The suffix of all outputs, or None if each keeps its own."""
    if format == "keep":
        return None
    name = format.lower().removeprefix(".")
    if f".{name}" not in WRITE_SUFFIXES:
        known = ", ".join(sorted({output_suffix(s[1:])[1:] for s in WRITE_SUFFIXES}))
        raise ConfigError(f"format is {format!r}; it must be one of keep, {known}")
    return output_suffix(name)


def _is_output_file(given: str, out: str, suffix: str | None) -> bool:
    """Whether the only input is a file, and `out` is to be one."""
    ending = Path(out).suffix.lower()
    if _is_folder(Path(given)) or (not os.path.lexists(given) and glob.has_magic(given)):
        return False
    if _is_folder(Path(out)) or out.endswith(("/", os.sep)):
        return False
    if ending in UNREADABLE_SUFFIXES or ending in READ_SUFFIXES - WRITE_SUFFIXES:
        known = ", ".join(sorted(WRITE_SUFFIXES))
        raise ConfigError(f"{out}: {ending} files are not written; choose one of {known}")
    if ending in WRITE_SUFFIXES and suffix and output_suffix(ending[1:]) != suffix:
        raise ConfigError(f"{out} does not end in {suffix}, the --format asked for; drop one")
    return ending in WRITE_SUFFIXES


Found = tuple[Path, Path]
"""A photo, and where it lies below the input that it was found in."""


def expand_inputs(inputs: Iterable[str], out: str, recursive: bool) -> Iterator[Found | BadInput]:
    """The photos that files, folders and globs stand for, as `plan_batch` says; none is opened."""
    for given in inputs:
        path = Path(given)
        if _is_folder(path):
            yield from _photos_below(path, path, Path(out), recursive)
        elif (why := _why_missing(path)) is None:
            yield path, Path(path.name)
        elif glob.has_magic(given):
            yield from _photos_like(given, Path(out), recursive)
        else:
            yield _bad(given, why)


def _why_missing(path: Path) -> str | None:
    """What keeps a file from being found; None if it is there, or reading it will tell more."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return "does not exist; check the name"
    except PermissionError:
        return "may not be read; change its permissions"
    except (OSError, ValueError):
        return None
    return None


def _photos_below(
    folder: Path, base: Path, out: Path, recursive: bool
) -> Iterator[Found | BadInput]:
    """The photos in a folder, each with its place below `base`."""
    is_output = _output_below(base, out)
    broken: list[OSError] = []
    passed_over = False

    def enter(inner: Path) -> bool:
        nonlocal passed_over
        passed_over |= not recursive
        return recursive and not is_output(inner)

    names = list(walk_files(folder, is_picture_name, enter=enter, on_error=broken.append))
    for name in sorted(names, key=_files_first):
        yield folder / name, (folder / name).relative_to(base)
    for error in broken:
        reason = (error.strerror or str(error)).lower()
        name = error.filename or str(folder)
        yield _bad(name, f"cannot be read ({reason}); change its permissions")
    if not names and not broken:
        hint = "--recursive looks into its folders" if passed_over else "check the name"
        yield _bad(str(folder), f"holds no photographs; {hint}")


def _photos_like(pattern: str, out: Path, recursive: bool) -> Iterator[Found | BadInput]:
    """The photos that match a glob, each with its place below the glob's fixed part."""
    parts = Path(pattern).parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    base = Path(*parts[:fixed])
    is_output = _output_below(base, out)
    found = False
    for path in match_files(pattern):
        if any(is_output(above) for above in (path, *path.parents)):
            continue
        if _is_folder(path):
            if recursive and not path.is_symlink():
                found = True
                yield from _photos_below(path, base, out, recursive)
        elif is_picture_name(path):
            found = True
            yield path, path.relative_to(base)
    if not found:
        yield _bad(pattern, "matches no photographs; check the name")


def _files_first(name: str) -> list[tuple[bool, str]]:
    """Sorts the files in a folder by name, before those in its sub-folders."""
    *folders, file = name.split("/")
    return [*((True, folder) for folder in folders), (False, file)]


def _output_below(base: Path, out: Path) -> Callable[[Path], bool]:
    """A test whether a folder is the output, which is never an input even if it is inside one."""
    real = os.path.realpath(out)
    inside = Path(os.path.realpath(base)) in Path(real).parents
    return lambda folder: inside and os.path.realpath(folder) == real


def _named(source: Path, place: Path, suffix: str | None) -> Path:
    """The relative path of an output: the input's, with the suffix of its format."""
    own = place.suffix.lower()
    if suffix is None:
        if own in WRITE_SUFFIXES:
            return place
        suffix = output_suffix(_format_by_content(source))
    # A suffix that is not a photo's is part of the stem: scan.1 and scan.2 are two photos.
    stem = place.stem if own in READ_SUFFIXES else place.name
    return place.with_name(stem + suffix)


def _format_by_content(source: Path) -> str | None:
    try:
        if not source.is_file():  # a pipe would wait here
            return None
        with source.open("rb") as file:
            return sniff(file.read(64))
    except OSError:
        return None


def _without_clashes(jobs: Sequence[Job], *, may_overwrite_itself: bool) -> list[Job]:
    """The jobs without duplicates; refused if one would overwrite another's output or an input."""
    by_target: dict[str, Job] = {}
    sources = {_key(job.source) for job in jobs}
    for job in jobs:
        key = _key(job.target)
        other = by_target.setdefault(key, job)
        first, second, target = (display_name(p) for p in (other.source, job.source, job.target))
        if _key(other.source) != _key(job.source):
            raise ConfigError(
                f"{first} and {second} would both be written to {target}; "
                "write them to different folders, or choose another --format"
            )
        if key == _key(job.source) and not may_overwrite_itself:
            raise ConfigError(
                f"{second} would be written over itself; choose another output, or --overwrite"
            )
        if key in sources and key != _key(job.source):
            raise ConfigError(
                f"{second} would be written over {target}, which is an input too; "
                "choose another output"
            )
    return list(by_target.values())


def _key(path: Path) -> str:
    return os.path.normcase(os.path.realpath(path))


def check_writable(folder: Path) -> None:
    """Check before hours of work that outputs can be written; creates nothing."""
    there = Path(os.path.realpath(folder))
    while not os.path.lexists(there):
        there = there.parent
    name = display_name(folder)
    if not _is_folder(there):
        raise PhotoError(
            f"{name}: cannot be written to, {display_name(there)} is not a folder; "
            "choose another output"
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise PhotoError(
            f"{name}: cannot be written to, {display_name(there)} is read-only; "
            "choose another output"
        )


def _refuse(there: Collection[Job], jobs: Sequence[Job]) -> None:
    if not there:
        return
    first = next(job.target for job in jobs if job in there)
    verb = f"and {len(there) - 1} more outputs exist" if len(there) > 1 else "exists"
    raise ConfigError(
        f"{display_name(first)} {verb}; --resume keeps what is finished, --overwrite makes it again"
    )


def _is_finished(job: Job) -> bool:
    try:
        made, given = job.target.stat(), job.source.stat()
    except OSError:
        return False
    whole = stat.S_ISREG(made.st_mode) and made.st_size > 0
    return whole and made.st_mtime_ns >= given.st_mtime_ns


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name too long, a folder that may not be looked into
        return False


def _bad(source: str, why: str) -> BadInput:
    return BadInput(source, f"{display_name(source)}: {why}")
