"""Planning a batch: files, folders and globs → jobs, with all conflicts found before any work."""

from __future__ import annotations

import glob
import hashlib
import os
import stat
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Literal

from hbr.config import ConfigError
from hbr.distributed import Shard
from hbr.errors import display_name
from hbr.files import STDIO, existing_above
from hbr.image import READ_SUFFIXES, WRITE_SUFFIXES, PhotoError, output_suffix
from hbr.image.paths import UNREADABLE
from hbr.image.reading import picture_format, sniff
from hbr.restoration.batch.contents import ByContents, ContentRecord
from hbr.restoration.batch.finding import (
    BadInput,
    Found,
    InputPhoto,
    PhotoList,
    find_inputs,
    is_folder,
)

Existing = Literal["refuse", "overwrite", "resume"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One photo to restore.

    Attributes:
        source: the file to read; the name of a stream.
        target: the file to write; the name of a stream, with the suffix of its format.
        may_replace: the target may exist.
        stdin: the seekable stream that is read in place of a file.
        stdout: the stream that is written in place of a file.
    """

    source: Path
    target: Path
    may_replace: bool = False
    stdin: IO[bytes] | None = None
    stdout: IO[bytes] | None = None

    @property
    def input(self) -> str:
        """The source as it is given on a command line."""
        return str(self.source) if self.stdin is None else STDIO

    @property
    def output(self) -> str:
        """The target as it is given on a command line."""
        return str(self.target) if self.stdout is None else STDIO


@dataclass(frozen=True)
class Streams:
    """Streams in place of files.

    Attributes:
        stdin: a seekable stream that the only input stands for.
        stdout: a stream that the output stands for; there may be one photo then.
    """

    stdin: IO[bytes] | None = None
    stdout: IO[bytes] | None = None


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """Everything that a batch will do.

    Attributes:
        jobs: to be done, in order.
        finished: done by an earlier run.
        folder: of the outputs; None if the only one is a stream.
        shared: other runs may work on the same outputs (`--resume`), and what they have finished is
            finished.
        bad: inputs without a photo, pictures in folders that are not read, and photos whose output
            cannot have its name.
        thumbnails: folders of thumbnails that were skipped.
        record: of the contents of inputs, if they tell what is finished, and not times.
    """

    jobs: tuple[Job, ...]
    folder: Path | None = None
    shared: bool = False
    finished: tuple[Job, ...] = ()
    bad: tuple[BadInput, ...] = ()
    thumbnails: tuple[Path, ...] = ()
    record: ContentRecord | None = None

    def is_finished(self, job: Job) -> bool:
        """Whether another run has finished a job."""
        return _is_done(job, self.record)

    @property
    def total(self) -> int:
        """Total number of inputs."""
        return len(self.jobs) + len(self.finished) + len(self.bad)


def plan_batch(
    inputs: Sequence[str | PhotoList],
    out: str,
    *,
    format: str = "keep",
    recursive: bool = False,
    existing: Existing | ByContents = "refuse",
    shard: Shard | None = None,
    streams: Streams | None = None,
) -> BatchPlan:
    """Decide what is read and written, without changing anything.

    `find_inputs` says what the inputs stand for. Outputs keep the sub-folders of their inputs.
    A file that is named twice is restored once.

    An existing output counts as finished if it is not empty and not older than its input
    (`is_finished`), or by the record. Outputs are written atomically, so an existing one is
    complete. Without a record, the settings that it was made with are unknown, and not compared.

    Args:
        inputs: files, folders, globs and manifests.
        out: a file if the only input is a file and `out` has the suffix of a photo; else a folder.
        format: of the outputs: `keep`, or a format of `hbr.image.write_photo`.
        recursive: include the photos in sub-folders.
        existing: what to do if an output exists: `refuse` all work, `overwrite` it, or `resume`,
            which keeps finished outputs and makes the others again, by times or by contents.
        shard: which part of the photos to plan, by a hash of the names of their outputs; None is
            all of them.
        streams: in place of files.

    Raises:
        ConfigError: two inputs have the same output, an input would be overwritten, or an output
            exists; nothing has been written.
        hbr.image.PhotoError: `out` cannot be written to.
    """
    stdin, stdout = (streams.stdin, streams.stdout) if streams else (None, None)
    suffix = forced_suffix(format)
    if not inputs or "" in (*inputs, out):
        raise ConfigError("an input or output is empty; give each a name")
    found = Found([_place_of(stdin)]) if stdin else find_inputs(inputs, out, recursive=recursive)
    if stdout is not None:
        return _plan_stream(found, stdin, stdout, suffix)
    (only, *others) = inputs
    if not others and _is_output_file(None if stdin else only, out, suffix):
        folder = Path(out).parent
        jobs = [Job(source=source, target=Path(out)) for source, _ in found.photos]
    else:
        folder = Path(out)
        jobs = jobs_into(folder, found, suffix)
    jobs = [replace(job, stdin=stdin) for job in jobs]
    if isinstance(existing, ByContents):
        record = ContentRecord(folder, existing, shard.suffix if shard else "")
        return plan_jobs(jobs, found, folder, existing=record, shard=shard)
    return plan_jobs(jobs, found, folder, existing=existing, shard=shard)


def jobs_into(folder: Path, found: Found, suffix: str | None) -> list[Job]:
    """The jobs of photos whose outputs go into a folder, in their sub-folders.

    The outputs have `suffix`; with None, each keeps its own.
    """
    return [
        Job(source=source, target=folder / _named(source, place, suffix))
        for source, place in found.photos
    ]


def plan_jobs(
    jobs: Sequence[Job],
    found: Found,
    folder: Path,
    *,
    existing: Existing | ContentRecord,
    shard: Shard | None = None,
) -> BatchPlan:
    """Decide which jobs of those that were found are done, as `plan_batch`.

    The outputs of `jobs` are below `folder`; a record as `existing` resumes by it.
    """
    jobs = _without_clashes(jobs, may_overwrite_itself=existing == "overwrite")
    check_writable(folder)
    jobs = _without_long_names(jobs, folder, found)
    if shard is not None:
        jobs = [job for job in jobs if _in_shard(job.target.relative_to(folder), shard)]
        found.bad = [bad for bad in found.bad if not bad.place or _in_shard(bad.place, shard)]
    there = {job for job in jobs if os.path.lexists(job.target)}
    if existing == "refuse":
        _refuse(there, jobs)
    record = None if isinstance(existing, str) else existing
    resumes = record is not None or existing == "resume"
    finished = {job for job in there if resumes and _is_done(job, record)}
    return BatchPlan(
        jobs=tuple(replace(job, may_replace=job in there) for job in jobs if job not in finished),
        folder=folder,
        shared=resumes,
        finished=tuple(job for job in jobs if job in finished),
        bad=tuple(found.bad),
        thumbnails=tuple(found.thumbnails),
        record=record,
    )


def _in_shard(place: Path, shard: Shard) -> bool:
    return hashlib.sha256(os.fsencode(place.as_posix())).hexdigest() in shard


def _is_done(job: Job, record: ContentRecord | None) -> bool:
    return record.is_finished(job.source, job.target) if record else is_finished(job)


def _place_of(stdin: IO[bytes]) -> InputPhoto:
    """The photo of a stream, under a name with the suffix of its format."""
    kind = sniff(stdin.read(64))
    stdin.seek(0)
    return Path("stdin"), Path("stdin" + output_suffix(kind))


def _plan_stream(
    found: Found, stdin: IO[bytes] | None, stdout: IO[bytes], suffix: str | None
) -> BatchPlan:
    """The plan of one photo that is written to a stream."""
    if len(found.photos) > 1:
        raise ConfigError(
            f"- stands for one photo on stdout, and there are {len(found.photos)}; name a folder"
        )
    jobs = []
    for source, place in found.photos:
        name = Path("stdout").with_suffix(_named(source, place, suffix).suffix)
        jobs.append(Job(source=source, target=name, stdin=stdin, stdout=stdout))
    return BatchPlan(jobs=tuple(jobs), bad=tuple(found.bad), thumbnails=tuple(found.thumbnails))


def forced_suffix(format: str) -> str | None:
    """The suffix of all outputs, or None if each keeps its own.

    Raises:
        ConfigError: it is neither `keep` nor a format of `hbr.image.write_photo`.
    """
    if format == "keep":
        return None
    name = format.lower().removeprefix(".")
    if f".{name}" not in WRITE_SUFFIXES:
        known = ", ".join(sorted({output_suffix(s[1:])[1:] for s in WRITE_SUFFIXES}))
        raise ConfigError(f"format is {format!r}; it must be one of keep, {known}")
    return output_suffix(name)


def _is_output_file(given: str | PhotoList | None, out: str, suffix: str | None) -> bool:
    """Whether the only input is a file, or a stream if None, and `out` is to be a file."""
    ending = Path(out).suffix.lower()
    if isinstance(given, PhotoList):
        return False
    if given is not None and (
        is_folder(Path(given)) or (not os.path.lexists(given) and glob.has_magic(given))
    ):
        return False
    if is_folder(Path(out)) or out.endswith(("/", os.sep)):
        return False
    if ending in UNREADABLE or ending in READ_SUFFIXES - WRITE_SUFFIXES:
        known = ", ".join(sorted(WRITE_SUFFIXES))
        raise ConfigError(f"{out}: {ending} files are not written; choose one of {known}")
    if ending in WRITE_SUFFIXES and suffix and output_suffix(ending[1:]) != suffix:
        raise ConfigError(f"{out} does not end in {suffix}, the --format asked for; drop one")
    return ending in WRITE_SUFFIXES


def _named(source: Path, place: Path, suffix: str | None) -> Path:
    """The relative path of an output: the input's, with the suffix of its format."""
    own = place.suffix.lower()
    if suffix is None:
        if own in WRITE_SUFFIXES:
            return place
        suffix = output_suffix(picture_format(source))
    # A suffix that is not a photo's is part of the stem: scan.1 and scan.2 are two photos.
    stem = place.stem if own in READ_SUFFIXES else place.name
    return place.with_name(stem + suffix)


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


def _without_long_names(jobs: Sequence[Job], folder: Path, found: Found) -> list[Job]:
    """The jobs whose outputs can have their names; `found.bad` gets the others."""
    longest_name, longest_path = 255, 4096
    if hasattr(os, "pathconf"):
        there = existing_above(folder)
        longest_name = os.pathconf(there, "PC_NAME_MAX")
        longest_path = os.pathconf(there, "PC_PATH_MAX")
    longest_path -= 32  # the file is written under a longer name first
    kept = []
    for job in jobs:
        name = max(len(os.fsencode(part)) for part in job.target.parts)
        path = len(os.fsencode(job.target.absolute()))
        if name <= longest_name and path <= longest_path:
            kept.append(job)
            continue
        too_long = f"a name of {name} bytes, {longest_name}"
        if name <= longest_name:
            too_long = f"a path of {path} bytes, {longest_path}"
        found.fail(str(job.source), f"its output would have {too_long} are allowed; shorten it")
    return kept


def check_writable(folder: Path) -> None:
    """Check before hours of work that outputs can be written; creates nothing."""
    there = existing_above(folder)
    name = display_name(folder)
    if not is_folder(there):
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


def is_finished(job: Job) -> bool:
    """Whether the output is there, not empty, and not older than its input (`date_output`)."""
    try:
        made, given = job.target.stat(), job.source.stat()
    except OSError:
        return False
    if not stat.S_ISREG(made.st_mode) or not made.st_size:
        return False
    # What keeps times in steps (FAT of 2 s, others of 1 s) has cut the time of the output.
    step = next((s for s in (2 * 10**9, 10**9) if made.st_mtime_ns % s == 0), 1)
    return made.st_mtime_ns >= given.st_mtime_ns // step * step


def date_output(job: Job, given: os.stat_result, *, keep: bool) -> None:
    """Set the time of an output that has just been written.

    It is never older than its input, whatever clock that was dated by, so that `is_finished` holds
    until the input changes.

    `given` is of the input, from before it was read; `keep` gives the output its times.
    """
    if keep:
        os.utime(job.target, ns=(given.st_atime_ns, given.st_mtime_ns))
        return
    made = job.target.stat()
    if made.st_mtime_ns < given.st_mtime_ns:
        os.utime(job.target, ns=(made.st_atime_ns, given.st_mtime_ns))
