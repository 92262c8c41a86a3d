"""Which edition of a data set's LQ files a folder contains, by file hashes."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hbr.config import ConfigError
from hbr.errors import display_name
from hbr.files import sha256, write_text

_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


@dataclass(frozen=True)
class Edition:
    """What the LQ files of a data set are.

    Attributes:
        name: of the edition that all of them match; None if there is none.
        comparable: it is the published one.
        status: one line that says so, or why not.
        checksum: SHA-256 over all names and hashes.
    """

    name: str | None
    comparable: bool
    status: str
    checksum: str


def hash_files(
    pictures: Mapping[str, Path], folder: Path, *, unreadable: str | None = None
) -> dict[str, str]:
    """Path below the folder, with `/` → SHA-256 of the file.

    `unreadable` replaces the hash of a file that cannot be read.

    Raises:
        OSError: a file cannot be read and there is no replacement.
    """
    found = {}
    for path in pictures.values():
        name = str(path.relative_to(folder)).replace(os.sep, "/")
        try:
            found[name] = sha256(path)
        except OSError:
            if unreadable is None:
                raise
            found[name] = unreadable
    return found


def write_checksums(hashes: Mapping[str, str], file: Path) -> None:
    """Write hashes as `sha256sum` does, sorted by name."""
    write_text(file, _listed(hashes))


def _listed(hashes: Mapping[str, str]) -> str:
    return "".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes))


def read_checksums(file: Path) -> dict[str, str]:
    """Name → hash, of a file that `sha256sum` or `hbr benchmark pin` wrote.

    Raises:
        ConfigError: it cannot be read, or is none.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not text"
        raise ConfigError(f"{display_name(file)}: {reason}") from None
    found = {}
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise ConfigError(
                f"{display_name(file)}: line {number} is not a checksum; `hbr benchmark pin` "
                "writes such files"
            )
        found[match[2].removeprefix("./")] = match[1]
    if not found:
        raise ConfigError(f"{display_name(file)}: holds no checksums")
    return found


def identify(
    hashes: Mapping[str, str], editions: Mapping[str, Mapping[str, str]], published: str
) -> Edition:
    """Identify the edition of the files.

    `hashes` are those of the files by name, `editions` the same by the name of each edition;
    `published` is the edition that the paper's numbers belong to.
    """
    checksum = hashlib.sha256(_listed(hashes).encode("utf-8", "surrogateescape")).hexdigest()
    matches = [name for name, pinned in editions.items() if dict(pinned) == dict(hashes)]
    if published in matches:
        status = f"all {len(hashes)} LQ files are those of the edition {published!r}"
        return Edition(published, True, status, checksum)
    if matches:
        of = f"the LQ files are those of the edition {matches[0]!r}"
        known = f", not of {published!r}, which the paper's numbers belong to" if published else ""
        return Edition(matches[0], False, of + known, checksum)
    if published in editions:
        status = _mismatch(hashes, editions[published], published)
    else:
        status = "the edition of the LQ files is unknown; no checksums were given"
    return Edition(None, False, status, checksum)


def _mismatch(hashes: Mapping[str, str], pinned: Mapping[str, str], name: str) -> str:
    """How the files differ from an edition, naming the first of each kind."""
    other = sorted(n for n in hashes.keys() & pinned.keys() if hashes[n] != pinned[n])
    missing, extra = sorted(pinned.keys() - hashes.keys()), sorted(hashes.keys() - pinned.keys())
    kinds = (("differ", other), ("are missing", missing), ("are not in it", extra))
    told = [
        f"{len(names)} {what} (first {display_name(names[0])})" for what, names in kinds if names
    ]
    return f"the LQ files are not the edition {name!r}, which has {len(pinned)}: {', '.join(told)}"
