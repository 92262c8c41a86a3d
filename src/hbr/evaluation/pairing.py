"""Which restored picture belongs to which reference: by their stems, never by their order."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from hbr.config import check
from hbr.errors import HbrError, display_name
from hbr.image.paths import is_picture_name
from hbr.image.search import walk_photos

Policy = Literal["error", "skip"]


class PairingError(HbrError, ValueError):
    """Files that cannot be paired; the message names some and says what to do."""

    http_status = 422


@dataclass(frozen=True)
class StemRules:
    """What is taken off the end of a file's name before it is compared.

    Each rule is applied once, in order: `_out` takes that text off, `re:_x\\d+` what this regular
    expression matches at the end. A rule that would leave nothing is passed over.

    Attributes:
        strip: the rules.
    """

    strip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for rule in self.strip:
            check(rule not in ("", "re:"), "strip", rule, "an ending, or re: and an expression")
            try:
                self._pattern(rule)
            except re.error as error:
                check(False, "strip", rule, f"a regular expression after re: ({error})")

    @staticmethod
    def _pattern(rule: str) -> re.Pattern[str]:
        body = rule[3:] if rule.startswith("re:") else re.escape(rule)
        return re.compile(f"(?:{body})\\Z")

    @cached_property
    def _patterns(self) -> list[re.Pattern[str]]:
        return [self._pattern(rule) for rule in self.strip]

    def stem(self, name: str) -> str:
        """The stem of a picture's path below its folder, `/` between folders."""
        # the same letters may be written in two ways, by the system that made the files
        name = unicodedata.normalize("NFC", name.replace(os.sep, "/"))
        above, _, last = name.rpartition("/")
        last = Path(last).stem
        for pattern in self._patterns:
            last = pattern.sub("", last, count=1) or last
        return f"{above}/{last}" if above else last


@dataclass(frozen=True)
class PicturePair:
    """A restored picture, and its reference if there are references.

    Attributes:
        stem: the name of the pair.
        restored, reference: files.
    """

    stem: str
    restored: Path
    reference: Path | None = None


@dataclass(frozen=True)
class Pairing:
    """Pairs in the order of their stems, and what was left out by request.

    Attributes:
        pairs: to be measured.
        missing: references without a restored picture.
        extra: restored pictures without a reference.
    """

    pairs: tuple[PicturePair, ...]
    missing: tuple[Path, ...] = ()
    extra: tuple[Path, ...] = ()


def find_pictures(
    folder: Path, rules: StemRules | None = None, *, recursive: bool = False
) -> dict[str, Path]:
    """The pictures in a folder by their stems, sorted; hidden ones and other files do not count.

    Pictures that are passed over, as camera raw, are warned of.

    Args:
        folder: where they are.
        rules: what is taken off the names; nothing, by default.
        recursive: take those in sub-folders too; their stems have `/` in them.

    Raises:
        PairingError: no such folder, no pictures in it, or two of one stem.
    """
    rules = rules or StemRules()
    name = display_name(folder)
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise PairingError(f"{name}: {what}; name a folder of pictures")
    found: dict[str, Path] = {}
    try:
        names = list(walk_photos(folder, is_picture_name, recursive=recursive))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise PairingError(
            f"{display_name(error.filename or folder)}: cannot be read ({reason})"
        ) from None
    for path in sorted(folder / name for name in names):
        stem = rules.stem(str(path.relative_to(folder)))
        if stem in found:
            raise PairingError(
                f"{display_name(found[stem])} and {display_name(path.name)} have the same stem "
                f"{stem!r}; keep one of them, or change the --strip rules"
            )
        found[stem] = path
    if not found:
        hint = "" if recursive else "; --recursive looks into its folders"
        raise PairingError(f"{name}: holds no pictures{hint}")
    return dict(sorted(found.items()))


def pair(
    restored: Mapping[str, Path],
    reference: Mapping[str, Path] | None = None,
    *,
    missing: Policy = "error",
    extra: Policy = "error",
) -> Pairing:
    """Pair every restored picture with the reference of the same stem.

    Args:
        restored: stem → file, as of `find_pictures`.
        reference: the same of the references; None where metrics need none.
        missing: a reference without a restored picture is an error, or is skipped and reported.
        extra: the same of a restored picture without reference.

    Raises:
        PairingError: a picture is missing or extra where that is an error, or no pair is left.
    """
    if reference is None:
        return Pairing(tuple(PicturePair(stem, path) for stem, path in sorted(restored.items())))
    lacking = tuple(reference[stem] for stem in sorted(reference.keys() - restored.keys()))
    beyond = tuple(restored[stem] for stem in sorted(restored.keys() - reference.keys()))
    common = sorted(restored.keys() & reference.keys())
    if not common:
        raise PairingError(
            f"no stem of the restored pictures is one of the references' ("
            f"{_first(beyond)} against {_first(lacking)}); "
            "--strip takes endings such as _out off the names"
        )
    if lacking and missing == "error":
        raise PairingError(
            f"{_count(lacking, 'reference')} without a restored picture, first {_first(lacking)}; "
            "restore them, or --missing skip leaves them out"
        )
    if beyond and extra == "error":
        raise PairingError(
            f"{_count(beyond, 'restored picture')} without a reference, first {_first(beyond)}; "
            "--extra skip leaves them out"
        )
    pairs = tuple(PicturePair(stem, restored[stem], reference[stem]) for stem in common)
    return Pairing(pairs, lacking, beyond)


def _first(paths: tuple[Path, ...]) -> str:
    return display_name(paths[0])


def _count(paths: tuple[Path, ...], noun: str) -> str:
    return f"{len(paths)} {noun}{'s' if len(paths) > 1 else ''}"
