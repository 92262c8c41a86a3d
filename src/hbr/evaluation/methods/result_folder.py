"""What is done already in a folder of results, so that a run that was killed resumes."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from hbr.config import to_dict
from hbr.errors import display_name, reason
from hbr.evaluation.methods.base import MethodError, MethodOutcome
from hbr.evaluation.methods.resizing import Pixels, write_pixels
from hbr.files import file_lock
from hbr.ledger import Ledger, read_rows, write_rows
from hbr.version import __version__

LEDGER = "ledger.jsonl"
WORK = ".work"

# Locations and time limits do not affect the results.
_IMMATERIAL = (
    *("file", "folder", "python", "repo", "env"),
    *("start_seconds", "image_seconds", "quiet_seconds", "attempts", "at_once"),
)

_Told = tuple[dict[str, Any], dict[str, dict[str, Any]], list[dict[str, Any]]]


class ResultFolder:
    """The results in a folder, and the inputs that they were made of.

    `ledger.jsonl` has the method in its first line, then a line for each kind of environment that
    results were made in, and a line for each result, written after the result itself: stem, key
    (the input's SHA-256), seconds. The result of a line that a kill has torn is
    made again.
    """

    def __init__(
        self, out: Path, method: Mapping[str, Any], inputs: Mapping[str, Path], *, resume: bool
    ) -> None:
        """Open the folder, or make it; `with` gives it back to others.

        `inputs` are photos by stem; `resume` keeps the results that are there.

        Raises:
            MethodError: the results of another method are there, files that no ledger knows
                would be overwritten, a stem leaves the folder, or another run is at work in it.
        """
        self.out, self.resume = out, resume
        busy = MethodError(f"another run is at work in {display_name(out)}")
        with contextlib.ExitStack() as held:
            held.enter_context(file_lock(out / WORK / "lock", busy))
            self._open(method, inputs)
            self._ledger = held.enter_context(Ledger(self._file))
            self._held = held.pop_all()

    def __enter__(self) -> ResultFolder:
        return self

    def __exit__(self, *_: object) -> None:
        """Let others work in the folder."""
        self._held.close()

    def _open(self, method: Mapping[str, Any], inputs: Mapping[str, Path]) -> None:
        out, resume = self.out, self.resume
        self._file = out / LEDGER
        self._done: dict[str, dict[str, Any]] = {}
        self._keys: dict[str, str] = {}
        self._made_with: list[dict[str, Any]] = []
        _check_stems(inputs)
        found = self._read()
        if found is None:
            strange = [s for s in inputs if self.target(s).exists()]
            if strange:
                raise MethodError(
                    f"{display_name(self.target(strange[0]))} exists, but no {LEDGER} records how "
                    "it came about; give another folder, or read it as a folder of results"
                )
        elif resume and found[1] and found[0] != dict(method):
            what = ", ".join(_differences(found[0], method))
            raise MethodError(
                f"{display_name(out)} holds the results of another method (other: {what}); "
                "give another folder, or delete this one to compute them again"
            )
        elif resume and found[1]:
            self._done, self._made_with = found[1:]
        else:
            for stem in inputs:
                self.target(stem).unlink(missing_ok=True)
        self._method = dict(method)
        made_with = ({"made_with": told} for told in self._made_with)
        write_rows(self._file, [{"method": self._method}, *made_with, *self._done.values()])

    def target(self, stem: str) -> Path:
        """Where the result of this stem is, or is to be."""
        return self.out / f"{stem}.png"

    @property
    def method_digest(self) -> str:
        """A hash that identifies this method."""
        return hashlib.sha256(json.dumps(self._method, sort_keys=True).encode()).hexdigest()

    def to_do(
        self, inputs: Mapping[str, Path], key: Callable[[str, Path], str]
    ) -> tuple[dict[str, Path], dict[str, str]]:
        """The inputs without a result, and those that cannot be read, each with a line.

        A result that was made of another input is removed, so that nothing counts it.
        """
        todo, failed = {}, {}
        for stem, path in inputs.items():
            try:
                self._keys[stem] = key(stem, path)
            except OSError as error:
                failed[stem] = f"{display_name(path)}: {error.strerror or error}"
                continue
            except ValueError as error:
                failed[stem] = reason(error)
                continue
            done = self._done.get(stem)
            if done and done["key"] == self._keys[stem] and self.target(stem).is_file():
                continue
            self._done.pop(stem, None)
            self.target(stem).unlink(missing_ok=True)
            todo[stem] = path
        return todo, failed

    def has(self, stem: str) -> bool:
        """Whether the result of this stem is there, with its line."""
        return stem in self._done

    def key(self, stem: str) -> str:
        """What the result of this stem is made of, as `to_do` found it."""
        return self._keys[stem]

    def add(self, stem: str, pixels: Pixels, seconds: float) -> None:
        """Write a result, then its line.

        Raises:
            hbr.image.PhotoError: it cannot be written.
        """
        write_pixels(pixels, self.target(stem))
        line = {"stem": stem, "key": self._keys[stem], "seconds": round(seconds, 4)}
        self._ledger.append(line)
        self._done[stem] = line

    def note(self, made_with: Mapping[str, Any]) -> None:
        """Say in what environment the results that follow are made: versions, device, commit."""
        told: dict[str, Any] = json.loads(json.dumps({"hbr": __version__, **made_with}))
        if told not in self._made_with:
            self._ledger.append({"made_with": told})
            self._made_with.append(told)

    def outcome(self, inputs: Mapping[str, Path], failed: Mapping[str, str]) -> MethodOutcome:
        """What there is now."""
        restored = {stem: self.target(stem) for stem in inputs if stem not in failed}
        seconds = sum(self._done[stem]["seconds"] for stem in restored)
        provenance = {**self._method, "made_with": self._made_with}
        return MethodOutcome(restored, dict(failed), seconds, provenance)

    def _read(self) -> _Told | None:
        """The method, the results and their environments; None without a ledger."""
        if not self._file.exists():
            return None
        rows = list(read_rows(self._file))
        if not rows or not isinstance(rows[0].get("method"), dict):
            raise MethodError(f"{display_name(self._file)} is damaged; give another folder")
        made_with = [row["made_with"] for row in rows if "made_with" in row]
        return rows[0]["method"], {r["stem"]: r for r in rows if "stem" in r}, made_with


def identity(config: Any, **more: Any) -> dict[str, Any]:
    """What identifies a method: its configuration, and what it was loaded from."""
    kept = {k: v for k, v in to_dict(config).items() if k not in _IMMATERIAL}
    plain: dict[str, Any] = json.loads(json.dumps({**kept, **more}))
    return plain


def _check_stems(inputs: Mapping[str, Path]) -> None:
    for stem in inputs:
        parts = PurePosixPath(stem).parts
        ok = bool(parts) and not stem.startswith("/") and ".." not in parts and parts[0] != WORK
        if not ok or "\\" in stem or "\0" in stem:
            raise MethodError(f"the stem {stem!r} does not name a file in the folder of results")


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return names or ["kind"]
